//! The operator: commands as they would have been typed, done by the same code, with the time of each line.

use clap::Parser;
use tokio::time::Instant;

use crate::cli::args::Cli;
use crate::cli::client::Client;
use crate::cli::session::{Exit, Format, Session};
use crate::cli::{Style, perform};

/// A command that was typed, and what came.
pub(super) struct Typed {
    /// When enter was pressed.
    pub(super) asked: Instant,
    /// When the first line came: a change tells itself as soon as it is acknowledged, before it waits for drains.
    pub(super) acknowledged: Instant,
    /// All that it said.
    pub(super) lines: Vec<String>,
    /// How it ended.
    pub(super) exit: Exit,
}

/// Does `switchback WORDS…` on the socket of `client`.
///
/// # Errors
/// When the command fails, as an operator would read it.
pub(super) async fn type_in(client: &Client, words: &[&str], style: Style) -> anyhow::Result<Typed> {
    let cli = Cli::try_parse_from(std::iter::once("switchback").chain(words.iter().copied()))?;
    let asked = Instant::now();
    let mut heard: Vec<(Instant, String)> = Vec::new();
    let mut out = |line: &str| {
        heard.push((Instant::now(), line.to_owned()));
        true
    };
    // Never the socket of the environment: that may be a proxy with real users.
    let mut session =
        Session { client: client.clone(), format: Format::Text, style, out: &mut out, is_heard: true };
    let exit = perform(&mut session, cli.verb).await?;
    let acknowledged = heard.first().map_or_else(Instant::now, |(at, _)| *at);
    Ok(Typed { asked, acknowledged, lines: heard.into_iter().map(|(_, line)| line).collect(), exit })
}

/// The command line, quoted as a shell wants it.
pub(super) fn shown(words: &[&str]) -> String {
    let quoted = words.iter().map(|word| match word.contains([' ', '\'']) {
        true => format!("'{}'", word.replace('\'', "'\\''")),
        false => (*word).to_owned(),
    });
    std::iter::once("switchback".to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
}
