//! `demo`: a real switch to watch, from canary to flip to a bad version's revert.
//!
//! Two versions of a shop, the proxy as a process of its own, and clients that never let go of their connections. What
//! an operator would have typed runs as the operator's commands do, through the admin socket; what came of it is judged
//! from the clients' side, by a history that the proxy has no part in.

mod story;

mod judge;
mod log;
mod operator;
mod origin;
mod picture;
mod screen;
mod show;
mod stage;
mod traffic;

use anyhow::{Context, anyhow};
use tokio::runtime::LocalOptions;
use tokio::signal::unix::{SignalKind, signal};

use super::args;
use show::Show;

/// The versions that may answer.
const VERSIONS: [&str; 3] = ["blue", "green", "v3"];

/// `switchback demo`: ends well only when every check of the history holds. Nothing is left behind, also on ctrl-c.
///
/// # Errors
/// When it cannot start, when a check does not hold, when it is interrupted.
pub(super) fn run(args: args::Demo) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let mut stop = std::pin::pin!(told_to_stop()?);
        let mut show = Show::set_up().context("the demo cannot start")?;
        let told = tokio::select! {
            told = story::tell(&mut show, args.keep) => told,
            () = &mut stop => Err(anyhow!("interrupted; nothing is left behind")),
        };
        let told = match told {
            Ok(()) if args.keep => story::play_on(&mut show, stop).await,
            told => told,
        };
        let ended = show.end().await;
        told.and(ended)
    })
}

/// Ends with ctrl-c, SIGTERM, or the terminal's end.
fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
            _ = hang_up.recv() => (),
        }
    })
}
