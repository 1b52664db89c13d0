//! What an idle client connection costs in resident memory.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::{
    args::Args,
    client::{self, Client},
    origin::Origin,
    peer::{self, Peer, Running, Servers},
    process::Scratch,
    report::{Spread, ratio_to, table},
};

/// Connections of each kind.
const CONNECTIONS: u32 = 10_000;
/// Each figure is measured on so many fresh processes.
const REPEATS: u16 = 3;
/// Requests before the first reading, so that what is allocated once is not charged to a connection.
const WARM_UP: u32 = 200;

#[derive(Serialize)]
pub(crate) struct IdleTable {
    connections: u32,
    rows: Vec<IdleRow>,
}

#[derive(Serialize)]
struct IdleRow {
    peer: String,
    version: String,
    /// Bytes of each connection on which nothing was ever sent.
    silent: Option<Spread>,
    /// Bytes of each connection after one request was answered on it.
    served: Option<Spread>,
    problem: Option<String>,
}

/// The two kinds of idle connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Silent,
    Served,
}

pub(crate) fn measure(args: &Args, scratch: &Scratch, origin: &Origin) -> Result<IdleTable> {
    // The relay is no floor here: it holds a second connection for each.
    let peers = args.peers().into_iter().filter(|peer| peer.name() != peer::RELAY);
    let rows = peers.map(|peer| IdleRow::measure(peer.as_ref(), args, scratch, origin)).collect();
    Ok(IdleTable { connections: CONNECTIONS, rows })
}

impl IdleRow {
    fn measure(peer: &dyn Peer, args: &Args, scratch: &Scratch, origin: &Origin) -> Self {
        let spread = |kind| -> Result<Option<Spread>> {
            let repeats = (0..args.rounds.min(REPEATS)).map(|_| {
                let running =
                    peer::start(peer, &Servers::plain(origin), args.cpus.proxy, scratch, Vec::new())?;
                growth(&running, kind)
            });
            Ok(Spread::of(repeats.collect::<Result<Vec<f64>>>()?.into_iter()))
        };
        let (silent, served) = (spread(Kind::Silent), spread(Kind::Served));
        let problem = silent.as_ref().err().or(served.as_ref().err()).map(|error| format!("{error:#}"));
        Self {
            peer: peer.name().to_owned(),
            version: peer::version(peer).unwrap_or_default(),
            silent: silent.ok().flatten(),
            served: served.ok().flatten(),
            problem,
        }
    }
}

/// Growth of resident memory for each open connection, in bytes.
fn growth(running: &Running, kind: Kind) -> Result<f64> {
    for _ in 0..WARM_UP {
        client::get(running.listen, "/1k")?;
    }
    settle();
    let (files, before) = (running.process.open_files(), running.process.resident());
    let mut connections = Vec::new();
    for number in 0..CONNECTIONS {
        let mut client = Client::connect(running.listen).with_context(|| format!("connection {number}"))?;
        if kind == Kind::Served {
            client.send("/1k")?;
            client.receive()?;
        }
        connections.push(client);
    }
    settle();
    let after = running.process.resident();
    let accepted = running.process.open_files().saturating_sub(files);
    let quiet = connections.iter().filter(|client| client.is_quiet().unwrap_or(false)).count();
    ensure!(quiet == connections.len(), "only {quiet} of {CONNECTIONS} connections stayed open");
    ensure!(accepted + 10 >= connections.len(), "only {accepted} of {CONNECTIONS} connections were accepted");
    Ok(after.saturating_sub(before) as f64 / f64::from(CONNECTIONS))
}

/// Leaves the proxy the time to accept what is waiting and to free what it no longer needs.
fn settle() {
    thread::sleep(Duration::from_secs(1));
}

impl IdleTable {
    pub(crate) fn text(&self) -> String {
        let head = format!(
            "## idle-memory: resident bytes for each of {} idle client connections\n\n",
            self.connections
        );
        let reference = self.rows.first();
        let ratio = ratio_to(reference.map(|row| row.peer.as_str()));
        let columns = ["peer", "never sent a request", &ratio, "one request answered", &ratio, "note"];
        let rows = self.rows.iter().map(|row| {
            let mut cells = vec![format!("{} {}", row.peer, row.version)];
            cells.extend(pair(row.silent, reference.and_then(|first| first.silent)));
            cells.extend(pair(row.served, reference.and_then(|first| first.served)));
            cells.push(row.problem.clone().unwrap_or_default());
            cells
        });
        head + &table(&columns, rows)
    }
}

fn pair(figure: Option<Spread>, reference: Option<Spread>) -> [String; 2] {
    let Some(figure) = figure else { return ["-", "-"].map(str::to_owned) };
    let ratio = reference.map_or("-".to_owned(), |first| format!("{:.2}", figure.median / first.median));
    [format!("{figure:.0}"), ratio]
}
