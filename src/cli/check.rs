//! `check`: can this file be used?

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::args;
use super::session::{Exit, Session};
use crate::config;

/// Where a configuration file is looked for, in this order.
const PLACES: [&str; 2] = ["switchback.toml", "/etc/switchback/switchback.toml"];

/// `switchback check [FILE]`.
pub(super) fn run(session: &mut Session<'_>, args: &args::Check) -> anyhow::Result<Exit> {
    let report = config::check(&config_file(args.file.as_deref())?);
    let document = serde_json::json!({"ok": report.ok, "text": report.text});
    session.tell(&document, |_, _| report.text.clone())?;
    Ok(if report.ok { Exit::Done } else { Exit::Failed })
}

/// The file that was named, or the first that is there.
///
/// # Errors
/// When none was named and none is there.
pub fn config_file(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let found = || PLACES.iter().map(PathBuf::from).find(|place| place.exists());
    named.map(Path::to_owned).or_else(found).with_context(|| {
        format!(
            "there is no configuration file: name one with --config, or write ./{} or {}",
            PLACES[0], PLACES[1]
        )
    })
}
