//! User-space instructions per request, counted by callgrind: a figure that a noisy machine does not move.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::{
    args::Args,
    client::Client,
    origin::Origin,
    peer::{self, Peer, Servers},
    process::{Argv, Scratch, find_program},
    report::{ratio_to, table},
};

/// The two lengths of a run. What both do (start, connect, stop) is not in their difference.
const SHORT: u32 = 1_000;
const LONG: u32 = 4_000;
/// Requests go out on all of these, then all answers are read: the proxy finds many ready at once, as under load.
const CONNECTIONS: u32 = 50;
/// Callgrind writes its count when the proxy ends.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Serialize)]
pub(crate) struct InstructionTable {
    rows: Vec<InstructionRow>,
}

#[derive(Serialize)]
struct InstructionRow {
    peer: String,
    version: String,
    per_request: Option<f64>,
    problem: Option<String>,
}

pub(crate) fn measure(args: &Args, scratch: &Scratch, origin: &Origin) -> Result<InstructionTable> {
    let rows = args.peers().into_iter().map(|peer| {
        let counted = per_request(peer.as_ref(), args, scratch, origin);
        InstructionRow {
            peer: peer.name().to_owned(),
            version: peer::version(peer.as_ref()).unwrap_or_default(),
            problem: counted.as_ref().err().map(|error| format!("{error:#}")),
            per_request: counted.ok(),
        }
    });
    Ok(InstructionTable { rows: rows.collect() })
}

fn per_request(peer: &dyn Peer, args: &Args, scratch: &Scratch, origin: &Origin) -> Result<f64> {
    let short = count(peer, SHORT, args, scratch, origin)?;
    let long = count(peer, LONG, args, scratch, origin)?;
    Ok((long as f64 - short as f64) / f64::from(LONG - SHORT))
}

/// Instructions of a whole run with this many requests.
fn count(peer: &dyn Peer, requests: u32, args: &Args, scratch: &Scratch, origin: &Origin) -> Result<u64> {
    let Some(valgrind) = find_program("valgrind") else {
        bail!("valgrind is not installed: apt install valgrind")
    };
    let dir = scratch.subdirectory("callgrind-")?;
    let mut wrapper: Argv = vec![valgrind.into(), "--tool=callgrind".into(), "--quiet".into()];
    wrapper.push(format!("--callgrind-out-file={}/%p.out", dir.display()).into());
    let mut running = peer::start(peer, &Servers::plain(origin), args.cpus.proxy, scratch, wrapper)?;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::connect(running.listen)?);
    }
    for _ in 0..requests / CONNECTIONS {
        for client in &mut clients {
            client.send("/1k")?;
        }
        for client in &mut clients {
            client.receive()?;
        }
    }
    drop(clients);
    running.process.stop(STOP_TIMEOUT);
    total(&dir)
}

/// Adds up what each process of the proxy wrote.
fn total(dir: &Path) -> Result<u64> {
    let mut total = 0;
    for file in fs::read_dir(dir)? {
        let text = fs::read_to_string(file?.path())?;
        let count = text.lines().find_map(|line| line.strip_prefix("totals: "));
        total += count.context("callgrind wrote no total")?.trim().parse::<u64>()?;
    }
    ensure!(total > 0, "callgrind wrote nothing: the proxy did not end within {} s", STOP_TIMEOUT.as_secs());
    Ok(total)
}

impl InstructionTable {
    /// # Errors
    /// When switchback executes more than `most` for a request, was not asked for, or could not be counted.
    pub(crate) fn gate(&self, most: u32) -> Result<()> {
        let row = self
            .rows
            .iter()
            .find(|row| row.peer == peer::SWITCHBACK)
            .context("switchback was not counted")?;
        let problem = || row.problem.clone().unwrap_or_default();
        let counted = row.per_request.with_context(problem)?;
        ensure!(
            counted <= f64::from(most),
            "switchback executes {counted:.0} instructions for a request, and may execute {most}"
        );
        Ok(())
    }

    pub(crate) fn text(&self) -> String {
        let reference = self.rows.first().and_then(|row| row.per_request);
        let head =
            "## instructions: user-space instructions per request, GET, answers of 1 KiB\n\n".to_owned();
        let rows = self.rows.iter().map(|row| {
            let ratio =
                row.per_request.zip(reference).map(|(count, reference)| format!("{:.2}", count / reference));
            vec![
                format!("{} {}", row.peer, row.version),
                row.per_request.map_or("-".to_owned(), |count| format!("{count:.0}")),
                ratio.unwrap_or("-".to_owned()),
                row.problem.clone().unwrap_or_default(),
            ]
        });
        let ratio = ratio_to(self.rows.first().map(|row| row.peer.as_str()));
        head + &table(&["peer", "instructions/request", &ratio, "note"], rows)
    }
}
