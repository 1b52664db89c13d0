//! Users: a steady load of which it is known how much of it failed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Client;

/// Four clients with requests at a pace, until it is dropped.
pub struct Users {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Users {
    /// Each of them with a request every `each`, on one connection for as long as the proxy keeps it.
    pub fn of(address: SocketAddr, each: Duration) -> Self {
        let (stop, failed): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let threads = (0..4).map(|_| {
            let (stopped, failures) = (Arc::clone(&stop), Arc::clone(&failed));
            thread::spawn(move || {
                let (mut connection, start): (Option<Client>, _) = (None, Instant::now());
                for turn in 0_u32.. {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let mut client = connection.take().unwrap_or_else(|| Client::connect(address));
                    let answer = client.get("/");
                    if answer.status >= 500 {
                        failures.fetch_add(1, Ordering::SeqCst);
                    }
                    connection = (answer.header("connection") != Some("close")).then_some(client);
                    // The rate is the test: a pace, not a wait for something.
                    thread::sleep((start + each * turn).saturating_duration_since(Instant::now()));
                }
            })
        });
        let threads = threads.collect();
        Self { stop, failed, threads }
    }

    /// How many requests were answered with 5xx.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}
