//! `completions`: what a shell needs to complete our commands.

use clap::CommandFactory;

use super::args::{self, Cli};
use super::session::{Exit, Session};

/// `switchback completions SHELL`.
pub(super) fn run(session: &mut Session<'_>, args: &args::Completions) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "switchback", &mut script);
    session.say(String::from_utf8(script)?.trim_end());
    Ok(Exit::Done)
}
