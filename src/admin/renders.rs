//! The text of `/metrics`, made beside the thread that serves the admin API.
//!
//! With ten thousand services it takes a second. One text is made at a time, however many ask: whoever comes meanwhile gets
//! the same.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;
use tokio::sync::{Mutex, oneshot};

use super::Metrics;

/// Makes the text when somebody asks.
pub(super) struct Renders {
    render: Metrics,
    /// How many have asked. Relaxed: it is read under the lock of `last`, which orders it.
    asked: AtomicU64,
    /// Held while a text is made.
    last: Arc<Mutex<Last>>,
}

/// The last text, for those who asked before it was done.
#[derive(Default)]
struct Last {
    asked: u64,
    text: Option<Bytes>,
}

impl Renders {
    pub(super) fn of(render: Metrics) -> Arc<Self> {
        Arc::new(Self { render, asked: AtomicU64::new(0), last: Arc::default() })
    }

    /// A text that was done after this was called. Cancel-safe: one that was begun is finished, for the others.
    ///
    /// # Errors
    /// When there is no thread to make it on.
    pub(super) async fn text(self: &Arc<Self>) -> io::Result<Bytes> {
        let turn = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if turn <= last.asked
            && let Some(text) = last.text.take()
        {
            // The last of them takes it: it is megabytes.
            last.text = (turn < last.asked).then(|| text.clone());
            return Ok(text);
        }
        let (renders, (done, made)) = (Arc::clone(self), oneshot::channel());
        // None of the runtime's: without a thread it keeps the work, and with it the lock, until it has one again.
        thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            let text = Bytes::from((renders.render)());
            let asked = renders.asked.load(Ordering::Relaxed);
            *last = Last { asked, text: (asked > turn).then(|| text.clone()) };
            drop(last);
            // Who asked may be gone.
            let _ = done.send(text);
        })?;
        made.await.map_err(io::Error::other)
    }
}
