//! One worker's part of a version: its endpoints, their idle connections, and whose turn it is.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::stream::Stream;
use super::{Shard, Upstream};
use crate::metrics::Reason;
use crate::proxy::clock::Clock;
use crate::table::EndpointAddr;

/// What one worker has of one version's tenure. Nothing in it is shared with another worker but the shard.
#[derive(Debug)]
pub struct Local {
    upstream: Arc<Upstream>,
    worker: usize,
    pool: RefCell<Pool>,
    next: Cell<usize>,
    /// The tick of the last request, for the sweep.
    used: Cell<u64>,
}

#[derive(Debug)]
struct Pool {
    /// The table's list that `endpoints` was made from: while it is the same, nothing has to be compared.
    list: Arc<[EndpointAddr]>,
    endpoints: Vec<Rc<Endpoint>>,
}

/// One endpoint with this worker's idle connections to it.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: EndpointAddr,
    idle: RefCell<Vec<Idle>>,
    /// True when the endpoint is no longer in the pool: its connections are closed instead of kept.
    retired: Cell<bool>,
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    since: u64,
}

impl Local {
    /// Worker `worker`'s part of `upstream`.
    #[must_use]
    pub fn new(upstream: Arc<Upstream>, worker: usize) -> Self {
        let pool = Pool { list: Arc::new([]), endpoints: Vec::new() };
        Self { upstream, worker, pool: RefCell::new(pool), next: Cell::new(0), used: Cell::new(0) }
    }

    /// This worker's counters of the version.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        self.upstream.shard(self.worker)
    }

    /// The version's tenure.
    #[must_use]
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// The next endpoint of `list` in turn, any but `not` if there is another; `None` when the list is empty.
    pub fn pick(
        &self,
        list: &Arc<[EndpointAddr]>,
        not: Option<&Rc<Endpoint>>,
        clock: &Clock,
    ) -> Option<Rc<Endpoint>> {
        self.used.set(clock.ticks());
        let mut pool = self.pool.borrow_mut();
        // Never on a second pick: `list` may be older by then than what another request has brought in.
        if not.is_none() && !Arc::ptr_eq(&pool.list, list) {
            pool.follow(list);
        }
        let count = pool.endpoints.len().max(1);
        let mut turn = self.next.get() % count;
        if not.is_some_and(|not| pool.endpoints.get(turn).is_some_and(|next| next.address == not.address)) {
            turn = (turn + 1) % count;
        }
        self.next.set(turn + 1);
        pool.endpoints.get(turn).cloned()
    }

    /// Closes connections idle since before `oldest`; true when the whole part has not been used since then.
    pub fn sweep(&self, oldest: u64) -> bool {
        for endpoint in &self.pool.borrow().endpoints {
            endpoint.idle.borrow_mut().retain(|idle| idle.since >= oldest && idle.stream.is_quiet());
        }
        self.used.get() < oldest
    }
}

impl Pool {
    /// Takes over the new list; endpoints that stay keep their connections, those that left lose them.
    fn follow(&mut self, list: &Arc<[EndpointAddr]>) {
        let mut before = std::mem::take(&mut self.endpoints);
        for address in list.iter() {
            let kept = before.iter().position(|endpoint| endpoint.address == *address);
            self.endpoints.push(match kept {
                Some(index) => before.swap_remove(index),
                None => Rc::new(Endpoint::new(address.clone())),
            });
        }
        before.iter().for_each(|endpoint| endpoint.retire());
        self.list = Arc::clone(list);
    }
}

impl Endpoint {
    fn new(address: EndpointAddr) -> Self {
        Self { address, idle: RefCell::default(), retired: Cell::new(false) }
    }

    fn retire(&self) {
        self.retired.set(true);
        self.idle.borrow_mut().clear();
    }

    /// A kept connection if there is a good one and it may be used, else a new one in time; true when it was kept.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open(&self, may_reuse: bool, limit: Duration) -> Result<(Stream, bool), Reason> {
        if let Some(stream) = self.reuse().filter(|_| may_reuse) {
            return Ok((stream, true));
        }
        match tokio::time::timeout(limit, Stream::connect(&self.address)).await {
            Ok(Ok(stream)) => Ok((stream, false)),
            Ok(Err(_)) => Err(Reason::ConnectFailed),
            Err(_) => Err(Reason::ConnectTimeout),
        }
    }

    /// The idle connection used last, if one is still good: on it the endpoint is least likely to close just now.
    fn reuse(&self) -> Option<Stream> {
        let mut idle = self.idle.borrow_mut();
        std::iter::from_fn(|| idle.pop()).map(|idle| idle.stream).find(Stream::is_quiet)
    }

    /// Keeps a connection whose last exchange ended cleanly, up to `most` of them.
    pub fn keep(&self, stream: Stream, most: usize, clock: &Clock) {
        let mut idle = self.idle.borrow_mut();
        if !self.retired.get() && idle.len() < most {
            idle.push(Idle { stream, since: clock.ticks() });
        }
    }
}
