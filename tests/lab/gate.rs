//! A gate that a test opens: what an origin holds back until then is in flight for as long as the test likes.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex};

use super::origin::{Origin, Then};

/// Closed at first, then open for good. Cheap to clone.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Until it is open; gives up when whoever waits for it has long lost patience.
    pub fn wait(&self) {
        let closed = self.0.0.lock().unwrap();
        drop(self.0.1.wait_timeout_while(closed, super::PATIENCE * 4, |open| !*open).unwrap());
    }
}

/// What `/held` answers, all in all.
pub const HELD: &str = "first half, second half";

impl Origin {
    /// `/held` sends half of its answer and the rest once `gate` is open; `/late` says nothing before; the rest is
    /// answered at once.
    pub fn held(name: &str, gate: &Gate) -> Self {
        let (version, gate) = (name.to_owned(), gate.clone());
        Self::behaving(name, move |seen, stream| {
            if seen.path() == "/late" {
                gate.wait();
            }
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nx-version: {version}\r\ncontent-length: {}\r\n\r\n",
                HELD.len()
            )?;
            let (first, second) = HELD.split_at(HELD.len() / 2);
            stream.write_all(first.as_bytes())?;
            if seen.path() == "/held" {
                gate.wait();
            }
            stream.write_all(second.as_bytes())?;
            Ok(Then::Keep)
        })
    }

    /// Waits until it got `count` requests.
    pub fn wait_served(&self, count: u64) {
        super::wait_until("requests arrive", || self.served() >= count);
    }
}
