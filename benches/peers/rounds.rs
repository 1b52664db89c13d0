//! Rounds of load on several targets, interleaved so that a noisy minute hits all of them alike.

use std::io::{self, IsTerminal};

use anyhow::{Result, anyhow, ensure};
use rand::{rngs::SmallRng, seq::SliceRandom};
use serde::Serialize;

use crate::{
    args::Args,
    load::{self, Errors},
    machine::{MOST_OTHERS, MOST_STEAL, Watch},
    origin::Origin,
    peer::{self, Peer, Running, Servers},
    process::Scratch,
    report::{LoadTable, Row},
    scenario::{Load, Scenario, Targets},
};

/// What one target did in one round.
#[derive(Serialize)]
pub(crate) struct Round {
    /// CPU time of the proxy for one request, in microseconds.
    pub(crate) cpu_us: f64,
    pub(crate) rps: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    /// Resident memory of the proxy at the end of the round, in MiB.
    pub(crate) rss_mib: f64,
    /// Shares of the proxy's CPU: its own, other processes', the hypervisor's.
    pub(crate) busy: f64,
    pub(crate) others: f64,
    pub(crate) steal: f64,
    pub(crate) requests: u64,
    pub(crate) errors: Errors,
    pub(crate) verdict: Verdict,
}

#[derive(Serialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Clean,
    /// The rest of the machine took too much of the proxy's CPU.
    Noisy,
    /// Some request was not answered as it should have been.
    Failed,
}

/// One peer in one scenario.
struct Target {
    name: String,
    version: String,
    rounds: Vec<Round>,
    /// The process, or why there is none.
    state: Result<Running>,
}

/// Starts the targets of a scenario and gives each its rounds.
pub(crate) fn measure(
    args: &Args,
    scratch: &Scratch,
    origin: &Origin,
    scenario: &Scenario,
    load: &Load,
) -> Result<LoadTable> {
    let peers = match load.targets {
        Targets::Peers => args.peers(),
        Targets::Proxies => args.peers().into_iter().filter(|peer| peer.name() != peer::RELAY).collect(),
        Targets::SwitchbackSizes => peer::switchback_sizes(),
        Targets::Balancers => {
            let peers = args.peers().into_iter().filter(|peer| peer.name() != peer::RELAY);
            peers.chain([peer::switchback_by_ewma()]).collect()
        }
    };
    let mut targets: Vec<Target> =
        peers.iter().map(|peer| Target::start(peer.as_ref(), args, scratch, origin, load)).collect();
    for target in &mut targets {
        target.warm_up(load, args, scratch);
    }
    let wanted = usize::from(args.rounds);
    let mut order: Vec<usize> = (0..targets.len()).collect();
    let mut random = rand::make_rng::<SmallRng>();
    // As many passes again are given to those whose rounds were spoilt by noise.
    for pass in 0..wanted * 2 {
        order.shuffle(&mut random);
        for &index in &order {
            let target = &mut targets[index];
            if pass < wanted || target.lacks_clean(wanted) {
                progress(&format!("{}: pass {}, {}", scenario.name, pass + 1, target.name));
                target.round(load, args, scratch);
            }
        }
    }
    progress("");
    let rows = targets.into_iter().map(|target| target.into_row(wanted)).collect();
    Ok(LoadTable { scenario: scenario.name, about: scenario.about, rows })
}

/// Replaces the last line of a terminal.
fn progress(text: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}

impl Target {
    fn start(peer: &dyn Peer, args: &Args, scratch: &Scratch, origin: &Origin, load: &Load) -> Self {
        let state = match peer.lacks(load) {
            Some(what) => Err(anyhow!("no {what}")),
            None => peer::start(peer, &Servers::of(origin, load), args.cpus.proxy, scratch, Vec::new()),
        };
        let version = peer::version(peer).unwrap_or_default();
        Self { name: peer.name().to_owned(), version, rounds: Vec::new(), state }
    }

    /// Fills the pool of upstream connections; what comes back is not looked at.
    fn warm_up(&mut self, load: &Load, args: &Args, scratch: &Scratch) {
        if let Ok(running) = &self.state {
            let _ = load::run(load, running.address(load), 1, args.cpus.load, scratch);
        }
    }

    fn round(&mut self, load: &Load, args: &Args, scratch: &Scratch) {
        let Ok(running) = &self.state else { return };
        match Round::run(running, load, args, scratch) {
            Ok(round) => self.rounds.push(round),
            Err(error) => self.state = Err(error.context("gave up on it")),
        }
    }

    fn lacks_clean(&self, wanted: usize) -> bool {
        self.rounds.iter().filter(|round| round.verdict == Verdict::Clean).count() < wanted
    }

    fn into_row(self, wanted: usize) -> Row {
        let problem = self.state.err().map(|error| format!("{error:#}"));
        Row::new(self.name, self.version, self.rounds, problem, wanted)
    }
}

impl Round {
    fn run(running: &Running, load: &Load, args: &Args, scratch: &Scratch) -> Result<Self> {
        let watch = Watch::start(args.cpus.proxy, &running.process)?;
        let answered = load::run(load, running.address(load), args.seconds, args.cpus.load, scratch)?;
        let usage = watch.stop(&running.process)?;
        let resident = running.process.resident();
        ensure!(answered.requests > 0, "nothing was answered in {} s ({})", args.seconds, answered.errors);
        let requests = answered.requests as f64;
        let verdict = if answered.errors.count() > 0 {
            Verdict::Failed
        } else if usage.others < MOST_OTHERS && usage.steal < MOST_STEAL {
            Verdict::Clean
        } else {
            Verdict::Noisy
        };
        Ok(Self {
            cpu_us: usage.proxy.as_secs_f64() * 1e6 / requests,
            rps: requests / answered.seconds,
            p50_ms: answered.p50_us / 1e3,
            p99_ms: answered.p99_us / 1e3,
            p999_ms: answered.p999_us / 1e3,
            rss_mib: resident as f64 / f64::from(1 << 20),
            busy: usage.busy,
            others: usage.others,
            steal: usage.steal,
            requests: answered.requests,
            errors: answered.errors,
            verdict,
        })
    }
}
