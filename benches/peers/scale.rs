//! How the cost of a request grows: with connections, routes, services, endpoints, workers, and changes a second; and what a
//! connection takes of memory. switchback alone: curves, no comparison.

mod backend;
mod curve;
mod flips;
mod memory;
mod picture;
mod site;

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{args::Args, load, process::Scratch, report::Spread, scenario};
use backend::Backend;
use curve::{Curve, Point};
use flips::Flips;
use site::{Plan, Site};

/// What grows.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scale {
    /// Client connections, all of them with a request in flight.
    Connections,
    /// Routes of one service, each of them asked for.
    Routes,
    /// Services of one route, each of them asked for.
    Services,
    /// Endpoints of the version that has the traffic.
    Endpoints,
    /// Workers.
    Workers,
    /// Flips a second.
    Flips,
    /// Not a cost of requests: resident memory for each connection.
    Memory,
}

/// How long each round with flips lasts at least.
const FLIPS_SECONDS: u16 = 10;

/// Measures what was asked for, prints each table as soon as it is there, and draws the picture.
pub(crate) fn measure(args: &Args, scratch: &Scratch) -> Result<()> {
    let backend = Backend::start(args.cpus.origin)?;
    let (mut curves, mut memory) = (Vec::new(), None);
    for scale in &args.scale {
        if *scale == Scale::Memory {
            let table = memory::measure(args, scratch, &backend)?;
            println!("{}", table.text());
            memory = Some(table);
        } else {
            let curve = curve(*scale, args, scratch, &backend);
            println!("{}", curve.text());
            curves.push(curve);
        }
    }
    if let Some(file) = &args.picture {
        let svg = picture::svg(&curves, memory.as_ref());
        fs::write(file, svg).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn curve(scale: Scale, args: &Args, scratch: &Scratch, backend: &Backend) -> Curve {
    let plans = plans(scale, args, backend).into_iter();
    let points = plans.map(|(at, plan)| (at, point(args, scratch, &plan))).collect();
    let (name, about) = match scale {
        Scale::Connections => {
            ("connections", "client connections, each with a request in flight all the time")
        }
        Scale::Routes => ("routes", "routes of one service, by host; each is asked for in turn"),
        Scale::Services => {
            ("services", "services with a route, two versions and a split; each is asked for in turn")
        }
        Scale::Endpoints => ("endpoints", "endpoints of the one version"),
        Scale::Workers => ("workers", "workers"),
        Scale::Flips => (
            "flips",
            "flips a second of the service that has the load, each on disk and fenced before the next of its line",
        ),
        Scale::Memory => ("memory", ""),
    };
    Curve { name, about, points }
}

/// Each point of a curve: where it is, and what is run there.
fn plans(scale: Scale, args: &Args, backend: &Backend) -> Vec<(u64, Plan)> {
    let usual = Plan {
        services: backend.services(1, 1, 1),
        hosts: 1,
        connections: 64,
        workers: 1,
        cpus: args.cpus.proxy.to_string(),
        flips: 0,
        is_long: scale == Scale::Flips,
    };
    let at = |points: &[u64], plan: &dyn Fn(usize) -> Plan| {
        points.iter().map(|at| (*at, plan(usize::try_from(*at).unwrap_or(usize::MAX)))).collect()
    };
    match scale {
        Scale::Connections => at(&[1, 10, 100, 1_000, 10_000], &|n| Plan {
            connections: u16::try_from(n).unwrap_or(u16::MAX),
            ..usual.clone()
        }),
        Scale::Routes => at(&[1, 10, 100, 1_000, 10_000, 100_000], &|n| Plan {
            services: backend.services(1, n, 1),
            hosts: n,
            ..usual.clone()
        }),
        Scale::Services => at(&[1, 10, 100, 1_000, 10_000], &|n| Plan {
            services: backend.services(n, 1, 1),
            hosts: n,
            ..usual.clone()
        }),
        Scale::Endpoints => {
            at(&[1, 10, 100, 1_000], &|n| Plan { services: backend.services(1, 1, n), ..usual.clone() })
        }
        Scale::Workers => {
            at(&[1, 2, 4, 8], &|n| Plan { workers: n, cpus: free_cpus(args, n), ..usual.clone() })
        }
        Scale::Flips => at(&[0, 1, 10, 100, 1_000], &|n| Plan {
            flips: u32::try_from(n).unwrap_or(u32::MAX),
            ..usual.clone()
        }),
        Scale::Memory => Vec::new(),
    }
}

/// Up to `most` CPUs for the proxy, none of which is the load's or the origin's; its own, where there are no others.
fn free_cpus(args: &Args, most: usize) -> String {
    let all = thread::available_parallelism().map_or(1, usize::from);
    let cpus = args.cpus;
    let others = (0..all).filter(|cpu| ![cpus.proxy, cpus.load, cpus.origin].contains(cpu));
    let free: Vec<_> =
        std::iter::once(cpus.proxy).chain(others).take(most).map(|cpu| cpu.to_string()).collect();
    free.join(",")
}

/// Some rounds on a fresh process.
fn point(args: &Args, scratch: &Scratch, plan: &Plan) -> Result<Point> {
    let site = Site::start(plan, args, scratch)?;
    let load = scenario::Load { connections: plan.connections, hosts: plan.hosts, ..scenario::GET_1K };
    let seconds = if plan.is_long { args.seconds.max(FLIPS_SECONDS) } else { args.seconds };
    // Fills the pool of upstream connections.
    load::run(&load, site.listen, 2, args.cpus.load, scratch)?;
    let mut rounds = Vec::new();
    for _ in 0..args.rounds {
        let epoch = site.epoch()?;
        let (workers, all) = site.cpu_time();
        let flips = Flips::start(&site.socket, plan.flips, Duration::from_secs(seconds.into()));
        let answered = load::run(&load, site.listen, seconds, args.cpus.load, scratch)?;
        let refused = flips.end()?;
        let (workers_after, all_after) = site.cpu_time();
        anyhow::ensure!(answered.requests > 0, "nothing was answered ({})", answered.errors);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / answered.requests as f64;
        rounds.push(Round {
            cpu_us: each(workers_after - workers),
            all_us: each(all_after - all),
            rps: answered.requests as f64 / answered.seconds,
            p50_ms: answered.p50_us / 1e3,
            p99_ms: answered.p99_us / 1e3,
            failed: answered.errors.count() + refused,
            changes: (site.epoch()? - epoch) as f64 / f64::from(seconds),
        });
    }
    let middle =
        |figure: fn(&Round) -> f64| Spread::of(rounds.iter().map(figure)).context("there has to be a round");
    Ok(Point {
        cpu_us: middle(|round| round.cpu_us)?,
        all_us: middle(|round| round.all_us)?,
        rps: middle(|round| round.rps)?,
        p50_ms: middle(|round| round.p50_ms)?,
        p99_ms: middle(|round| round.p99_ms)?,
        failed: rounds.iter().map(|round| round.failed).sum(),
        changes: middle(|round| round.changes)?,
    })
}

struct Round {
    /// Of the workers' threads, for each request; and of all threads.
    cpu_us: f64,
    all_us: f64,
    rps: f64,
    p50_ms: f64,
    p99_ms: f64,
    failed: u64,
    /// Changes of the table a second.
    changes: f64,
}
