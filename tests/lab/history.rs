//! What happened: every request and every change with their instants, and a checker that finds what must not be.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Client;

/// A request as its client saw it.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which connection; one connection's requests are in order.
    pub client: usize,
    pub service: &'static str,
    /// Before its first byte was sent.
    pub start: Instant,
    /// After its last byte was read.
    pub end: Instant,
    pub version: Box<str>,
    pub epoch: u64,
}

/// A change as the controller saw it.
#[derive(Debug, Clone)]
pub struct Change {
    /// Before the call was sent.
    pub call: Instant,
    /// After the answer was read.
    pub ack: Instant,
    pub epoch: u64,
    /// By service: who may serve it from this epoch on. Services that are not named stay as they were.
    pub serves: Vec<(&'static str, Vec<String>)>,
}

/// Everything that happened, changes in the order of their acknowledgement.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub requests: Vec<Request>,
    pub changes: Vec<Change>,
}

impl History {
    /// Everything that must not be; empty when all is well.
    ///
    /// The epoch that was in force first is that of the first change, whose instants lie before all requests.
    pub fn violations(&self) -> Vec<String> {
        let mut found = self.changes_out_of_order();
        let mut last: HashMap<usize, u64> = HashMap::new();
        for request in &self.requests {
            let mut wrong = |what: String| found.push(format!("{what}: {request:?}"));
            // Acknowledged before it started: nothing older may serve it (G1).
            let acked = self.changes.partition_point(|change| change.ack < request.start);
            let floor = self.changes[..acked].last().map_or(0, |change| change.epoch);
            if request.epoch < floor {
                wrong(format!("epoch {floor} was acknowledged before it started"));
            }
            let called = self.changes.partition_point(|change| change.call <= request.end);
            if request.epoch > self.changes[..called].last().map_or(0, |change| change.epoch) {
                wrong("its epoch was not asked for yet when it ended".to_owned());
            }
            let serves = self.serving(request.service, request.epoch);
            if !serves.is_some_and(|serves| serves.iter().any(|version| **version == *request.version)) {
                wrong(format!("at its epoch only {serves:?} served"));
            }
            let before = last.insert(request.client, request.epoch).unwrap_or(0);
            if request.epoch < before {
                wrong(format!("the request before it on this connection was at epoch {before}"));
            }
        }
        found
    }

    fn changes_out_of_order(&self) -> Vec<String> {
        let is_out_of_order = |pair: &&[Change]| pair[0].epoch >= pair[1].epoch || pair[0].ack > pair[1].call;
        self.changes
            .windows(2)
            .filter(is_out_of_order)
            .map(|pair| format!("out of order: {pair:?}"))
            .collect()
    }

    /// Who may serve `service` at `epoch`.
    fn serving(&self, service: &str, epoch: u64) -> Option<&Vec<String>> {
        let known = self.changes.partition_point(|change| change.epoch <= epoch);
        let mut newest_first = self.changes[..known].iter().rev();
        newest_first.find_map(|change| {
            change.serves.iter().find(|(name, _)| *name == service).map(|(_, serves)| serves)
        })
    }

    /// How many requests each version served.
    pub fn by_version(&self) -> BTreeMap<&str, usize> {
        self.requests.iter().fold(BTreeMap::new(), |mut counts, request| {
            *counts.entry(&*request.version).or_default() += 1;
            counts
        })
    }

    /// From call to acknowledgement, ascending.
    pub fn ack_times(&self) -> Vec<Duration> {
        let mut times: Vec<_> = self.changes.iter().map(|change| change.ack - change.call).collect();
        times.sort();
        times
    }
}

/// Clients that send one request after the other on kept-alive connections, until told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    made: Arc<[AtomicU64]>,
    clients: Vec<JoinHandle<Traffic>>,
}

/// What the clients saw.
#[derive(Default)]
pub struct Traffic {
    pub requests: Vec<Request>,
    /// Requests without a whole 200, and connections that were closed.
    pub failures: Vec<String>,
}

impl Load {
    /// So many clients, each taking turns among `targets`: services and a path of theirs.
    pub fn start(
        address: SocketAddr,
        clients: usize,
        targets: &'static [(&'static str, &'static str)],
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let made: Arc<[AtomicU64]> = (0..clients).map(|_| AtomicU64::new(0)).collect();
        let start = |id| {
            let (stop, made) = (Arc::clone(&stop), Arc::clone(&made));
            thread::spawn(move || drive(id, address, targets, &stop, &made[id]))
        };
        let clients = (0..clients).map(start).collect();
        let load = Self { stop, made, clients };
        load.wait_for_more(1);
        load
    }

    /// Waits until every client that still runs has made `more` further requests.
    pub fn wait_for_more(&self, more: u64) {
        let goals: Vec<_> = self.made.iter().map(|made| made.load(Ordering::SeqCst) + more).collect();
        let since = Instant::now();
        let is_behind = |(id, goal): (usize, &u64)| {
            !self.clients[id].is_finished() && self.made[id].load(Ordering::SeqCst) < *goal
        };
        while goals.iter().enumerate().any(is_behind) {
            assert!(since.elapsed() < super::PATIENCE, "the clients do not get on");
            thread::sleep(Duration::from_micros(200));
        }
    }

    pub fn stop(self) -> Traffic {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Traffic::default();
        for client in self.clients {
            let Traffic { requests, failures } = client.join().expect("a client");
            all.requests.extend(requests);
            all.failures.extend(failures);
        }
        all
    }
}

fn drive(
    id: usize,
    address: SocketAddr,
    targets: &[(&'static str, &'static str)],
    stop: &AtomicBool,
    made: &AtomicU64,
) -> Traffic {
    let mut traffic = Traffic::default();
    let mut client = Client::connect(address);
    for (service, path) in targets.iter().cycle() {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let start = Instant::now();
        let answer = match client.try_get(path) {
            Ok(answer) => answer,
            Err(error) => {
                traffic.failures.push(format!("client {id}, request {}: {error}", traffic.requests.len()));
                break;
            }
        };
        let end = Instant::now();
        if answer.status != 200 || !answer.is_whole || answer.header("connection") == Some("close") {
            traffic.failures.push(format!("client {id}, request {}: {answer:?}", traffic.requests.len()));
        }
        let epoch = answer.header("switchback-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        let version = answer.version().into();
        traffic.requests.push(Request { client: id, service, start, end, version, epoch });
        made.fetch_add(1, Ordering::SeqCst);
    }
    traffic
}
