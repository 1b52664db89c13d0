//! The access log as one worker keeps it: a line a request, gathered into batches, handed to one writing thread.
//!
//! Nothing here waits: a batch for which the writer's queue has no room is dropped and counted. A request's line is
//! begun with its head and written out when the last one who tells about it is gone: that is with the answer's last byte,
//! or when the client has left.

mod json;
mod record;
pub mod writer;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::proxy::head::Parts;
use http::{HeaderName, HeaderValue};
use tokio::sync::Notify;

pub use record::Record;
pub use writer::{Pipe, Target, Writer};

use super::connection::Client;
use super::identity::Marks;
use crate::metrics::Reason;
use crate::table::BasisPoints;
use crate::table::fnv::Fnv;

/// From how many bytes on a batch is handed over at once.
const BATCH: usize = 32 * 1024;
/// How long a line waits for others.
const GATHER: Duration = Duration::from_millis(50);
/// Most line buffers that are kept for further requests.
const MOST_SPARE: usize = 64;
/// Largest line buffer that is kept.
const LARGEST_SPARE: usize = 4 * 1024;

/// What the operator may set about the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where lines go.
    pub pipe: Pipe,
    /// How many of the requests are written.
    pub sample: BasisPoints,
    /// Requests that failed are written whatever `sample` says.
    pub errors: bool,
    /// Paths with their queries.
    pub query: bool,
    /// Request headers that are written too.
    pub headers: Vec<HeaderName>,
}

/// One worker's part of the access log.
#[derive(Debug, Default)]
pub struct Journal {
    options: RefCell<Option<Rc<Options>>>,
    /// Whole lines, and how many.
    batch: RefCell<Vec<u8>>,
    lines: Cell<u64>,
    /// Empty buffers for lines.
    spare: RefCell<Vec<Vec<u8>>>,
    /// There is something to hand over.
    due: Notify,
}

impl Journal {
    /// Takes over new options; what was gathered goes where it was to go.
    pub fn follow(&self, options: Option<Options>) {
        self.flush();
        self.options.replace(options.map(Rc::new));
    }

    /// The line of the request `head`, if it is to be written, or may have to be.
    pub fn begin(
        self: &Rc<Self>,
        client: &Client,
        head: &Parts,
        marks: Option<&Marks>,
    ) -> Option<Rc<Record>> {
        // The one look that requests cost when the log is off.
        let options = self.options.borrow().as_ref().map(Rc::clone)?;
        let id = marks.and_then(|marks| marks.id.as_ref());
        let is_sampled = options.is_sampled(id, || client.worker.coin());
        (is_sampled || options.errors)
            .then(|| Rc::new(Record::of_request(Rc::clone(self), options, client, head, marks, is_sampled)))
    }

    /// Writes about what never became a request.
    pub fn refused(self: &Rc<Self>, client: &Client, reason: Reason) {
        let Some(options) = self.options.borrow().as_ref().map(Rc::clone) else { return };
        let is_sampled = options.is_sampled(None, || client.worker.coin());
        if is_sampled || options.errors {
            Record::of_nothing(Rc::clone(self), options, client, is_sampled).refused(reason);
        }
    }

    /// Hands lines over soon after they were written, for as long as the worker runs.
    pub async fn keep_flushing(&self) {
        loop {
            self.due.notified().await;
            tokio::time::sleep(GATHER).await;
            self.flush();
        }
    }

    /// Hands over what was gathered.
    pub fn flush(&self) {
        let lines = self.lines.take();
        if lines > 0 {
            let batch = self.batch.take();
            if let Some(options) = &*self.options.borrow() {
                options.pipe.send(batch, lines);
            }
        }
    }

    /// An empty buffer for a line.
    fn buffer(&self) -> Vec<u8> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// A whole line, which goes where `options` said when its request began.
    fn add(&self, options: &Rc<Options>, mut line: Vec<u8>) {
        let is_current = self.options.borrow().as_ref().is_some_and(|current| Rc::ptr_eq(current, options));
        if !is_current {
            return options.pipe.send(line, 1);
        }
        let mut batch = self.batch.borrow_mut();
        batch.extend_from_slice(&line);
        let is_full = batch.len() >= BATCH;
        drop(batch);
        let before = self.lines.replace(self.lines.get() + 1);
        if is_full {
            self.flush();
        } else if before == 0 {
            self.due.notify_one();
        }
        line.clear();
        self.keep(line);
    }

    /// Keeps a buffer for a further line, unless it has grown large.
    fn keep(&self, buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < MOST_SPARE && buffer.capacity() <= LARGEST_SPARE {
            spare.push(buffer);
        }
    }
}

impl Options {
    /// True for the requests of the sample. By the request's id, where it has one: then all who see the request decide
    /// alike.
    fn is_sampled(&self, id: Option<&HeaderValue>, coin: impl FnOnce() -> u32) -> bool {
        if self.sample == BasisPoints::ALL {
            return true;
        }
        let bound = (u64::from(self.sample.points()) << 32) / u64::from(BasisPoints::ALL.points());
        u64::from(id.map_or_else(coin, |id| coin_of(id.as_bytes()))) < bound
    }
}

/// 32 bits that follow from the id: FNV-1a, whose bits are then mixed (the finaliser of `SplitMix64`).
fn coin_of(id: &[u8]) -> u32 {
    let hash = Fnv::of(id);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    u32::try_from(hash >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_true_to_its_share_and_the_same_for_the_same_id() {
        let writer = Writer::start(Target::Stdout, Default::default()).unwrap();
        let options = |points| Options {
            pipe: writer.pipe(),
            sample: BasisPoints::new(points).unwrap(),
            errors: false,
            query: true,
            headers: vec![],
        };
        let sampled = |points: u64| {
            let options = options(points);
            let ids = (0..20_000u32).map(|number| HeaderValue::from_str(&format!("req-{number}")).unwrap());
            ids.filter(|id| options.is_sampled(Some(id), || unreachable!())).count()
        };
        assert_eq!((sampled(0), sampled(10_000)), (0, 20_000));
        // Ten standard deviations of a fair coin; the ids are fixed, so it does not flicker.
        assert!(sampled(2_500).abs_diff(5_000) < 620, "{}", sampled(2_500));
        assert!(options(1).is_sampled(None, || 0) && !options(1).is_sampled(None, || u32::MAX));
    }
}
