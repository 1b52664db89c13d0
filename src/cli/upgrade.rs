//! `upgrade`: another program takes the place of the running one.

use std::path::absolute;

use http::Method;

use super::args;
use super::client::{Call, Error};
use super::session::{Exit, Session};
use super::style::{Style, Tone};
use crate::admin::api;

/// `switchback upgrade [--binary PATH]`.
pub(super) async fn run(session: &mut Session<'_>, args: &args::Upgrade) -> anyhow::Result<Exit> {
    let binary = args.binary.as_ref().map(absolute).transpose()?;
    let timeout = format!("{}ms", args.timeout.as_millis());
    let body = api::Upgrade { binary: binary.map(|path| path.display().to_string()), timeout: Some(timeout) };
    let call = Call::new(Method::POST, &["v1", "upgrade"]).json(&body).waits(args.timeout);
    let done: api::Upgraded = session.client.send(call).await.map_err(not_told)?;
    session.tell(&done, told)?;
    Ok(Exit::Done)
}

/// The process that is asked may end once the other one serves.
fn not_told(why: Error) -> anyhow::Error {
    let what = if why.leaves_open() {
        "nobody says whether the upgrade is made (`switchback status` shows which process serves)"
    } else {
        "the upgrade is not made"
    };
    anyhow::Error::new(why).context(what)
}

fn told(done: &api::Upgraded, style: Style) -> String {
    let api::Upgraded { pid, generation, version, epoch, seconds, predecessor } = done;
    let first = format!(
        "switchback {version} serves as process {pid} after {seconds:.1} s (generation {generation}, epoch {epoch})"
    );
    let rest = format!("process {predecessor} finishes what it has in flight, and ends by itself");
    format!("{}\n{rest}", style.paint(Tone::Good, &first))
}
