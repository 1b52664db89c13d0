//! Runs `switchback` beside the proxies that a user can install here and a blind byte relay, and prints what a request
//! costs each of them.
//!
//! Same origin, same load, one worker each on one CPU, rounds interleaved in random order. How to run it and how to
//! read the tables: `benches/README.md`.
#![allow(missing_docs, reason = "a program, not a library: the README is its manual")]
#![allow(clippy::print_stdout, reason = "the tables are the output")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod args;
mod report;
mod rounds;
mod scenario;

mod peer;
mod process;

mod h2load;
mod load;
mod machine;

mod idle;
mod instructions;

mod certificate;
mod client;
mod echo;
mod grpc;
mod handshakes;
mod origin;
mod relay;
mod scale;
mod tally;

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use args::{Args, Part};
use origin::Origin;
use report::Report;
use scenario::Kind;

fn main() -> Result<()> {
    let args = Args::parse();
    allow_many_connections()?;
    match args.part {
        Some(Part::Origin { listen, grpc, ref delayed }) => return origin::serve(listen, grpc, delayed),
        Some(Part::Relay { listen, to }) => return relay::serve(listen, to),
        Some(Part::Handshakes { to, ref path, connections, seconds }) => {
            return handshakes::load(to, path, connections, seconds);
        }
        Some(Part::Echo { to, bytes, connections, seconds }) => {
            return echo::load(to, bytes, connections, seconds);
        }
        None => {}
    }
    if !args.bench {
        // `cargo test --all-targets` starts bench targets too, without `--bench`: a test run is no time to measure.
        println!("nothing measured: run `cargo bench --bench peers`");
        return Ok(());
    }
    if args.install {
        return install(&args);
    }
    measure(&args)
}

/// Runs `benches/install` for the peers asked for.
fn install(args: &Args) -> Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/install");
    let status = Command::new(script).args(args.to_install()).status()?;
    ensure!(status.success(), "not everything was installed: {status}");
    Ok(())
}

/// Runs every scenario asked for and prints each table as soon as it is there.
fn measure(args: &Args) -> Result<()> {
    for program in ["taskset", "setpriv"] {
        if process::find_program(program).is_none() {
            bail!("`{program}` is not installed: apt install util-linux");
        }
    }
    let scratch = process::Scratch::new()?;
    if !args.scale.is_empty() {
        println!("{}", Report::new(args).preamble());
        return scale::measure(args, &scratch);
    }
    let origin = Origin::start(&scratch, args.cpus.origin).context("the origin did not start")?;
    let mut report = Report::new(args);
    println!("{}", report.preamble());
    if args.instructions {
        let table = instructions::measure(args, &scratch, &origin)?;
        println!("{}", table.text());
        let verdict = args.most.map_or(Ok(()), |most| table.gate(most));
        report.instructions = Some(table);
        report.save()?;
        return verdict;
    }
    for scenario in args.scenarios() {
        match scenario.kind {
            Kind::Load(load) => {
                let table = rounds::measure(args, &scratch, &origin, scenario, load)?;
                println!("{}", table.text());
                report.load.push(table);
            }
            Kind::IdleMemory => {
                let table = idle::measure(args, &scratch, &origin)?;
                println!("{}", table.text());
                report.idle = Some(table);
            }
        }
    }
    report.save()
}

/// Raises the soft limit of open files to the hard one; everything started from here inherits it.
fn allow_many_connections() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("cannot raise the limit of open files")
}

/// How long a peer may take from its start to its first answer; 10,000 services are parsed in this time, under
/// valgrind too.
const START_TIMEOUT: Duration = Duration::from_secs(90);
