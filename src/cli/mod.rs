//! CLI: the commands of an operator. `run` starts the proxy; all others talk to its admin socket.
//!
//! A verb is a function from a [`Session`] and its arguments to an [`Exit`]: the binary gives it the terminal,
//! [`execute`] a string, so that the demo and tests run what an operator would have typed.

pub mod args;
mod change;
mod check;
pub mod client;
mod completions;
mod demo;
mod deploy;
mod drain;
mod explain;
mod flip;
mod history;
mod hook;
mod man;
mod pools;
mod ramp;
mod render;
mod retire;
mod rollout;
mod rules;
mod scrape;
mod serve;
mod session;
mod status;
mod style;
mod supervise;
#[cfg(test)]
mod tests;
mod top;
mod upgrade;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use args::{Cli, Reach, Verb};
use client::{Client, Error};
pub use session::{Exit, Format, Session};
pub use style::Style;

use crate::admin::api::Problem;
use crate::config::Host;

/// The program: reads the command line, does it, and ends with the exit status.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(program) = serve::activation::program_to_become(std::env::args_os()) {
        let Err(error) = serve::activation::become_program(&program);
        return tell_error(&error, Format::Text, &mut print, &mut complain).into();
    }
    let cli = match Cli::try_parse().and_then(Cli::checked) {
        Ok(cli) => cli,
        Err(said) => return tell_usage(&said).into(),
    };
    let format = match &cli.verb {
        Verb::Run(_) | Verb::Demo(_) => Format::Text,
        _ if cli.json => Format::Json,
        _ => Format::Text,
    };
    let done = match cli.verb {
        Verb::Run(args) => serve::run(args).map(|()| Exit::Done),
        Verb::Demo(args) => demo::run(args).map(|()| Exit::Done),
        verb => on_terminal(verb, &cli.reach, format),
    };
    done.unwrap_or_else(|error| tell_error(&error, format, &mut print, &mut complain)).into()
}

/// Does what the words after `switchback` say, on this socket; gives the exit status and all that it would have printed.
///
/// `run` and `demo` are not for this.
pub async fn execute<W: Into<OsString> + Clone>(
    socket: &Path,
    words: impl IntoIterator<Item = W>,
    style: Style,
) -> (Exit, String) {
    let words = std::iter::once("switchback".into()).chain(words.into_iter().map(Into::into));
    let cli = match Cli::try_parse_from::<_, OsString>(words).and_then(Cli::checked) {
        Ok(cli) => cli,
        Err(error) => return (Exit::Usage, error.to_string()),
    };
    let format = if cli.json { Format::Json } else { Format::Text };
    let mut text = String::new();
    let mut out = |line: &str| {
        text.push_str(line);
        text.push('\n');
        true
    };
    let done = match cli.reach.client(socket) {
        Ok(client) => {
            let mut session = Session { client, format, style, out: &mut out, is_heard: true };
            perform(&mut session, cli.verb).await
        }
        Err(error) => Err(error),
    };
    let exit = done.unwrap_or_else(|error| {
        let mut complaint = String::new();
        let exit = tell_error(&error, format, &mut out, &mut |line| complaint.push_str(&format!("{line}\n")));
        if !complaint.is_empty() {
            out(complaint.trim_end());
        }
        exit
    });
    (exit, text)
}

fn on_terminal(verb: Verb, reach: &Reach, format: Format) -> anyhow::Result<Exit> {
    let client = match (&verb, &reach.socket) {
        // They call nobody.
        (Verb::Check(_) | Verb::Completions(_) | Verb::Man(_), _) => Client::new(PathBuf::new()),
        (_, Some(place)) => reach.client(place)?,
        (_, None) => Client::new(Host::of_process().admin_socket().context(
            "where is the admin socket? XDG_RUNTIME_DIR is not set: use --socket or SWITCHBACK_SOCKET",
        )?),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut written = Ok(());
    let mut out = |text: &str| {
        if written.is_ok() {
            written = try_write(text);
        }
        written.is_ok()
    };
    let style = Style::of_stdout();
    let mut session = Session { client, format, style, out: &mut out, is_heard: true };
    let exit = runtime.block_on(perform(&mut session, verb))?;
    whole(written).context(UNWRITTEN)?;
    Ok(exit)
}

async fn perform(session: &mut Session<'_>, verb: Verb) -> anyhow::Result<Exit> {
    match verb {
        Verb::Check(args) => check::run(session, &args),
        Verb::Status(args) => status::run(session, &args).await,
        Verb::Flip(args) => flip::flip(session, &args).await,
        Verb::Hold(args) => flip::hold(session, &args).await,
        Verb::Release(args) => flip::release(session, &args).await,
        Verb::Revert(args) => flip::revert(session, &args).await,
        Verb::Weights(args) => flip::weights(session, &args).await,
        Verb::Rules(args) => rules::run(session, &args).await,
        Verb::Ramp(args) => ramp::ramp(session, &args).await,
        Verb::Promote(args) => ramp::promote(session, &args).await,
        Verb::Abort(args) => ramp::abort(session, &args).await,
        Verb::Retire(args) => retire::run(session, &args).await,
        Verb::Freeze(args) => ramp::steer(session, &args, "freeze").await,
        Verb::Resume(args) => ramp::steer(session, &args, "resume").await,
        Verb::Versions(args) => pools::versions(session, &args).await,
        Verb::Endpoints(args) => pools::endpoints(session, &args).await,
        Verb::Rollout(args) => rollout::run(session, &args).await,
        Verb::Deploy(args) => deploy::run(session, &args).await,
        Verb::Drain(args) => drain::run(session, &args).await,
        Verb::History(args) => history::run(session, &args).await,
        Verb::Undo(args) => flip::undo(session, &args).await,
        Verb::Top(args) => top::run(session, &args).await,
        Verb::Explain(args) => explain::run(session, &args).await,
        Verb::Completions(args) => completions::run(session, &args),
        Verb::Man(args) => man::run(session, &args),
        Verb::Upgrade(args) => upgrade::run(session, &args).await,
        Verb::Run(_) | Verb::Demo(_) => {
            anyhow::bail!("run and demo need a terminal of their own")
        }
    }
}

/// Tells what went wrong and what to do: for machines a problem document on `out`, for people, or where that cannot be written, on `err`.
fn tell_error(
    error: &anyhow::Error,
    format: Format,
    out: &mut dyn FnMut(&str) -> bool,
    err: &mut dyn FnMut(&str),
) -> Exit {
    let cause = error.downcast_ref::<Error>();
    let (status, token) = match cause {
        Some(Error::Refused(problem)) => (problem.status, problem.token()),
        Some(Error::Nobody { .. }) => (503, "no_proxy"),
        Some(Error::Unreachable { .. }) => (503, "unreachable"),
        Some(Error::Insecure { .. }) => (400, "insecure"),
        Some(Error::Forbidden { .. }) => (403, "not_open"),
        Some(Error::Broken { .. }) => (502, "broken"),
        Some(Error::Lost { .. }) => (502, "lost"),
        Some(Error::Silent { .. }) => (504, "timed_out"),
        None => (400, "failed"),
    };
    let said = match cause {
        Some(Error::Refused(problem)) => Some(&**problem),
        _ => None,
    };
    let document = || said.cloned().unwrap_or_else(|| *Problem::new(status, token, format!("{error:#}")));
    let is_told =
        format == Format::Json && out(&serde_json::to_string_pretty(&document()).unwrap_or_default());
    if !is_told {
        complain_of(error, said, err);
    }
    match token {
        "reverted" => Exit::Reverted,
        "timed_out" | "hold_timed_out" => Exit::TimedOut,
        _ => Exit::Failed,
    }
}

/// What a server says is made fit for a terminal line by line.
fn complain_of(error: &anyhow::Error, problem: Option<&Problem>, err: &mut dyn FnMut(&str)) {
    format!("{error:#}").lines().for_each(|text| err(&style::line(text, usize::MAX)));
    for left in problem.and_then(|problem| problem.left.as_ref()).into_iter().flatten() {
        if let Some(age) = left.oldest_seconds {
            let (kind, version) = (style::line(&left.kind, 32), style::line(&left.version, 64));
            err(&format!("{kind} on {version}: the oldest is in flight for {age} s"));
        }
    }
    if let Some(hint) = problem.and_then(|problem| problem.hint.as_deref()) {
        err(&format!("hint: {}", style::line(hint, usize::MAX)));
    }
}

/// What clap has to say: help, the version, or what it did not understand.
fn tell_usage(said: &clap::Error) -> Exit {
    match whole(said.print().and_then(|()| io::stdout().flush())) {
        _ if said.use_stderr() => Exit::Usage,
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(&format!("{UNWRITTEN}: {error}"));
            Exit::Failed
        }
    }
}

const UNWRITTEN: &str = "cannot write the answer";

/// What cannot be written was not told: whoever goes by the exit status is not to believe it.
fn write_out(text: &str) -> io::Result<()> {
    whole(try_write(text))
}

fn try_write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush())
}

/// A reader that went away (`| head`) is no error.
fn whole(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// For what ends with a failure anyhow; false when it cannot be written.
fn print(text: &str) -> bool {
    write_out(text).is_ok()
}

fn complain(text: &str) {
    writeln!(io::stderr().lock(), "{text}").ok();
}
