//! `check`: can this file be used?

use super::session::{Exit, Session};
use super::{args, serve};
use crate::config;

/// `switchback check [FILE]`.
pub(super) fn run(session: &mut Session<'_>, args: &args::Check) -> anyhow::Result<Exit> {
    let report = config::check(&serve::configuration(args.file.clone())?);
    let document = serde_json::json!({"ok": report.ok, "text": report.text});
    session.tell(&document, |_, _| report.text.clone())?;
    Ok(if report.ok { Exit::Done } else { Exit::Failed })
}
