//! The story: canary, half, flip, a bad version, revert, and once more without anybody who looks. Each act is a sentence, what an operator would have typed with
//! what it said, and a picture of what became of it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::judge::{Change, Verdict};
use super::log::Sample;
use super::origin::Quality;
use super::picture::grouped;
use super::show::Show;
use super::traffic::{CLIENTS, Traffic};
use crate::cli::session::Exit;
use crate::cli::style::Tone;

/// The version whose errors are its own.
pub(super) const FAULTY: &str = "v3";

/// To read a headline, while the traffic goes on.
const READING: Duration = Duration::from_millis(1200);
/// To watch what a command did.
const WATCHING: Duration = Duration::from_millis(3200);
/// What the clients saw is kept for so long once it has been judged.
const MEMORY: Duration = Duration::from_secs(60);

/// Tells the whole story on standard output.
///
/// # Errors
/// When a command fails, the proxy dies, or a check of the history does not hold.
pub(super) async fn tell(show: &mut Show, keep: bool) -> Result<()> {
    show.open(&["blue"]).await?;
    introduce(show)?;
    steady(show).await?;
    canary(show).await?;
    half(show).await?;
    let flip = flip(show, keep).await?;
    bad_version(show).await?;
    let revert = revert(show).await?;
    supervised(show).await?;
    let verdict = show.verdict();
    conclude(show, &verdict, &flip, &revert)?;
    ensure!(verdict.holds(), "the switch did not keep its promises: see above");
    if !keep {
        show.say("\nNext: `switchback demo --keep`, to play with it; README.md, for a tutorial.")?;
    }
    Ok(())
}

fn introduce(show: &mut Show) -> Result<()> {
    show.say_in(Tone::Strong, "switchback demo: a shop is deployed while its customers are in it")?;
    let origins = show.stage.origins().iter();
    let versions: Vec<_> =
        origins.map(|origin| format!("  {:<8}http://{}", origin.name, origin.address)).collect();
    let config = show.stage.config();
    show.say(&versions.join("\n"))?;
    show.say(&format!("  proxy   switchback run --config {}", config.display()))?;
    show.say(&format!(
        "  clients {CLIENTS} kept-alive connections through the proxy, {} requests/s",
        Traffic::RATE
    ))
}

async fn steady(show: &mut Show) -> Result<()> {
    show.headline("1/7 · steady: blue carries everything", "Blue is in production. Green waits beside it.")?;
    show.watch(WATCHING).await
}

async fn canary(show: &mut Show) -> Result<()> {
    show.headline(
        "2/7 · canary: 5 % for green",
        "Each request tosses its own coin. What green does wrong, it does to 1 in 20.",
    )?;
    show.animate(READING).await?;
    show.split(&["weights", "shop", "green=5", "--reason", "canary"], &["blue", "green"]).await?;
    show.watch(WATCHING).await
}

async fn half(show: &mut Show) -> Result<()> {
    show.headline("3/7 · half and half", "Green behaves: it may have more.")?;
    show.animate(READING).await?;
    show.split(&["weights", "shop", "green=50"], &["blue", "green"]).await?;
    show.watch(WATCHING).await
}

async fn flip(show: &mut Show, keep: bool) -> Result<Change> {
    show.headline(
        "4/7 · flip: green takes over",
        "When its first line is there, the change is on disk and in force on every\n\
         worker: nothing starts on blue any more. The last line says what may be stopped.",
    )?;
    show.animate(READING).await?;
    let flip = show.split(&["flip", "shop", "--to", "green", "--reason", "v2 is out"], &["green"]).await?;
    if !keep {
        show.stage.stop("blue");
        show.say_in(Tone::Faint, "(and so the demo kills blue's server, here and now)")?;
    }
    show.watch(WATCHING).await?;
    Ok(flip)
}

async fn bad_version(show: &mut Show) -> Result<()> {
    show.headline(
        "5/7 · v3 is deployed, and it is bad",
        "Three of ten of its answers are errors. It gets 5 % of the requests at first.",
    )?;
    show.animate(READING).await?;
    let address = show.stage.deploy(FAULTY, Quality::Faulty)?.to_string();
    show.command(&["versions", "add", "shop", FAULTY, "--endpoint", &address]).await?;
    show.split(&["weights", "shop", "v3=5", "--reason", "canary"], &["green", FAULTY]).await?;
    // On a busy machine the first error may be a while in coming.
    for _ in 0..10 {
        if show.log.samples().iter().any(Sample::is_error) {
            break;
        }
        show.animate(READING).await?;
    }
    show.watch(WATCHING).await
}

async fn revert(show: &mut Show) -> Result<Change> {
    show.headline("6/7 · revert: as if it had never been", "One command puts back the split of before.")?;
    let revert = show.split(&["revert", "shop", "--reason", "v3 answers 500"], &["green"]).await?;
    show.watch(WATCHING).await?;
    Ok(revert)
}

async fn supervised(show: &mut Show) -> Result<()> {
    show.headline(
        "7/7 · all of it to v3, and nobody looks",
        "Supervision compares v3 with green. On suspicion a coin decides who still gets v3, and\n\
         when that has proven it worse, green has everything again. Exit status 4 says so.",
    )?;
    show.animate(READING).await?;
    let words = ["flip", "shop", "--to", FAULTY, "--supervise", "1m", "--reason", "in a hurry"];
    let typed = show.expect(&words, Exit::Reverted).await?;
    // In between both had traffic.
    show.changed(&typed, &["green", FAULTY]);
    show.watch(WATCHING).await?;
    show.command(&["status", "shop"]).await?;
    Ok(())
}

fn conclude(show: &mut Show, verdict: &Verdict, flip: &Change, revert: &Change) -> Result<()> {
    show.headline("What the clients saw, whatever the proxy says", "")?;
    for (holds, line) in findings(verdict, flip, revert) {
        let (tone, mark) = if holds { (Tone::Good, "✓") } else { (Tone::Bad, "✗") };
        show.say_in(tone, &format!("  {mark} {line}"))?;
    }
    for why in verdict.failed.iter().take(5) {
        show.say_in(Tone::Bad, &format!("      {why}"))?;
    }
    Ok(())
}

/// Each a line, and whether it is as it should be.
fn findings(verdict: &Verdict, flip: &Change, revert: &Change) -> [(bool, String); 5] {
    let Verdict { sent, failed, own_errors, after, strays, slowest } = verdict;
    let [sent, errors, after, old] = [*sent, *own_errors, *after, *strays].map(grouped);
    let (flip, revert, slowest) = (ms(flip.took()), ms(revert.took()), ms(*slowest));
    [
        (failed.is_empty(), format!("{sent} requests, {} failed", grouped(failed.len()))),
        (true, format!("{errors} errors were answers of v3 itself, the bad version")),
        (
            *strays == 0,
            format!("{after} began after an acknowledgement; {old} of them got a version it had left"),
        ),
        (true, format!("the flip was acknowledged in {flip}, on disk and in force")),
        (true, format!("the revert in {revert}; the slowest request of all took {slowest}")),
    ]
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// Goes on with the traffic for people to play with, until `stop`.
///
/// # Errors
/// When the proxy dies.
pub(super) async fn play_on(show: &mut Show, stop: impl Future<Output = ()>) -> Result<()> {
    let proxy = show.stage.ready().await?;
    let program = std::env::current_exe()?;
    show.headline(
        "Yours, until ctrl-c",
        "The proxy keeps running, and so does its traffic. In another terminal:",
    )?;
    show.say(&format!(
        "  export SWITCHBACK_SOCKET={}\n  alias switchback={}\n  switchback status --watch\n  \
         switchback flip shop --to blue\n  switchback revert shop\n  curl http://{proxy}/\n",
        show.stage.socket().display(),
        program.display(),
    ))?;
    show.resume(proxy)?;
    let endless = async {
        loop {
            show.animate(MEMORY).await?;
            show.log.forget(MEMORY);
        }
    };
    tokio::select! {
        ended = endless => ended,
        () = stop => Ok(()),
    }
}
