//! What a load of our own counts, and the summary that it prints: that of `wrk`'s script.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::task::LocalSet;

/// What was counted.
#[derive(Default)]
pub(crate) struct Tally {
    latencies: Vec<Duration>,
    bytes: u64,
    connect: u64,
    read: u64,
    status: u64,
}

/// Runs so many clients side by side on this thread, each until the instant that it is given, and prints what they counted.
pub(crate) fn measure<Client: Future<Output = ()> + 'static>(
    connections: u16,
    seconds: u16,
    client: impl Fn(Instant, Rc<RefCell<Tally>>) -> Client,
) -> Result<()> {
    let tally = Rc::new(RefCell::new(Tally::default()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let start = Instant::now();
    let end = start + Duration::from_secs(u64::from(seconds));
    runtime.block_on(LocalSet::new().run_until(async {
        let clients = (0..connections).map(|_| tokio::task::spawn_local(client(end, Rc::clone(&tally))));
        for client in clients.collect::<Vec<_>>() {
            client.await?;
        }
        anyhow::Ok(())
    }))?;
    println!("summary: {}", tally.borrow_mut().summary(start.elapsed()));
    Ok(())
}

impl Tally {
    /// Counts an answer of so many bytes, right or wrong.
    pub(crate) fn answered(&mut self, after: Duration, bytes: usize, is_right: bool) {
        self.latencies.push(after);
        self.bytes += bytes as u64;
        self.status += u64::from(!is_right);
    }

    /// Counts a request that was not answered.
    pub(crate) fn failed(&mut self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => self.connect += 1,
            _ => self.read += 1,
        }
    }

    fn summary(&mut self, elapsed: Duration) -> String {
        self.latencies.sort_unstable();
        let percentile = |thousandths: usize| {
            let at = self.latencies.len() * thousandths / 1000;
            self.latencies.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
        };
        format!(
            r#"{{"seconds": {:.6}, "requests": {}, "bytes": {}, "p50_us": {:.1}, "p99_us": {:.1}, "p999_us": {:.1}, "errors": {{"connect": {}, "read": {}, "write": 0, "timeout": 0, "status": {}}}}}"#,
            elapsed.as_secs_f64(),
            self.latencies.len(),
            self.bytes,
            percentile(500),
            percentile(990),
            percentile(999),
            self.connect,
            self.read,
            self.status
        )
    }
}
