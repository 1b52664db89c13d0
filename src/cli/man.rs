//! `man`: the manual, a page for each command, made of what the commands' help says.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;

use super::args::{self, Cli};
use super::session::{Exit, Session};

/// What the pages belong to.
const SOURCE: &str = concat!("switchback ", env!("CARGO_PKG_VERSION"));

/// `switchback man`.
pub(super) fn run(session: &mut Session<'_>, args: &args::Manual) -> anyhow::Result<Exit> {
    let Some(folder) = &args.dir else {
        let mut page = Vec::new();
        Man::new(manual()).source(SOURCE).render(&mut page)?;
        session.say(String::from_utf8(page)?.trim_end());
        return Ok(Exit::Done);
    };
    let pages = write(folder).with_context(|| format!("cannot write the manual to {}", folder.display()))?;
    session.say(format!("{pages} pages in {}", folder.display()));
    Ok(Exit::Done)
}

/// The commands as the pages have them: `help` is none, and none of them has a page for it.
fn manual() -> clap::Command {
    let mut manual = Cli::command().disable_help_subcommand(true);
    manual.build();
    manual
}

/// Writes a page for each command into this folder, which is made where there is none; how many they are.
fn write(folder: &Path) -> anyhow::Result<usize> {
    fs::create_dir_all(folder)?;
    let mut commands = vec![manual()];
    let mut pages = 0;
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
        // A command has no version of its own.
        Man::new(command).source(SOURCE).generate_to(folder)?;
        pages += 1;
    }
    Ok(pages)
}
