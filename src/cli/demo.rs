//! `demo`: a real switch to watch.

use super::args;

/// `switchback demo`.
///
/// # Errors
/// When it cannot start.
pub(super) fn run(_args: args::Demo) -> anyhow::Result<()> {
    anyhow::bail!("`demo` is not wired yet")
}
