//! A worker: one thread with a runtime, accept sockets, upstream pools and counters of its own.

mod orders;
mod start;
mod stats;

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::spawn_local;

pub use orders::{Farewell, Order, Queue};
pub use start::{Seat, start};
pub use stats::WorkerStats;

use super::clock::{self, Clock};
use super::commons::Commons;
use super::fields::Lexicon;
use super::journal::Journal;
use super::listener;
use super::live::{Lane, Live, View};
use super::pipe::Pipes;
use super::posts::{self, Busyness, Passed};
use super::settings::Settings;
use super::tls::Handshakes;
use super::upstream::flights::Flights;
use super::upstream::warmups::WarmUp;
use super::upstream::{Local, Locals, Upstream};
use super::usher;
use super::warmer;
use crate::metrics::{Handshake, Reason, bump};
use crate::table::{OwnAnswer, ServiceName};

/// One thread's part of the data plane. Everything in it belongs to that thread but the snapshot and the counters.
#[derive(Debug)]
pub struct Worker {
    /// 0, 1, 2, …
    pub id: usize,
    /// What is published.
    pub view: View,
    /// Ticks and alarms.
    pub clock: Rc<Clock>,
    /// What it shares with the others besides.
    pub commons: Arc<Commons>,
    scratch: RefCell<BytesMut>,
    /// The same for heads.
    heads: RefCell<BytesMut>,
    /// Where large bodies go through.
    pub pipes: Rc<Pipes>,
    /// An empty buffer for the next request's head.
    head: RefCell<Vec<u8>>,
    /// Fields of messages before, for HTTP/2.
    pub lexicon: Lexicon,
    settings: RefCell<Rc<Settings>>,
    locals: Locals,
    coin: RefCell<SmallRng>,
    /// This worker's part of the access log.
    pub journal: Rc<Journal>,
    /// The tick that `date` was written at, and it.
    date: Cell<(u64, [u8; 29])>,
    stats: Arc<WorkerStats>,
    /// True from the moment the worker winds down.
    pub(super) is_stopping: Cell<bool>,
    /// True when nothing new is begun any more: another process has taken over, and its table is the one that counts.
    pub(super) is_shut: Cell<bool>,
    /// Over how long connections without a request end then.
    spread: Cell<Duration>,
    pub(super) connections: Cell<usize>,
    /// Open streams of HTTP/2 connections.
    pub(super) streams: Cell<u64>,
    pub(super) vacancy: Notify,
    /// TLS handshakes that are under way.
    pub(super) handshakes: Handshakes,
}

/// How much is read at once, at most; 16 KiB reads cost 36 % more at bodies of 64 KiB.
const READ: usize = 64 * 1024;
/// How much is read at once where a request's head is expected. For as long as the request waits, its head keeps all of the
/// buffer that it came in.
pub const HEAD: usize = 16 * 1024;

/// How long a request's head may take to its end when a successor has taken over, beyond the time for goodbyes.
const LAST_HEAD: Duration = Duration::from_secs(1);

/// Largest buffer that is kept for the next request's head.
const MOST_KEPT: usize = 64 * 1024;

impl Worker {
    /// Worker `id`, serving what `live` publishes.
    #[must_use]
    pub fn new(id: usize, live: Arc<Live>, settings: Settings, stats: Arc<WorkerStats>) -> Self {
        let journal = Rc::new(Journal::default());
        journal.follow(settings.log.clone());
        let clock = Rc::<Clock>::default();
        let locals = Locals::new(id, Rc::clone(&clock));
        locals.stand_in(settings.zone.as_ref());
        Self {
            id,
            journal,
            view: View::of(live),
            locals,
            clock,
            commons: Arc::default(),
            scratch: RefCell::default(),
            heads: RefCell::default(),
            pipes: Rc::default(),
            head: RefCell::default(),
            lexicon: Lexicon::default(),
            settings: RefCell::new(Rc::new(settings)),
            coin: RefCell::new(rand::make_rng()),
            date: Cell::new((0, clock::http_date())),
            stats,
            is_stopping: Cell::new(false),
            is_shut: Cell::new(false),
            spread: Cell::default(),
            connections: Cell::new(0),
            streams: Cell::new(0),
            vacancy: Notify::new(),
            handshakes: Handshakes::default(),
        }
    }

    /// One that shares `commons` with other workers.
    #[must_use]
    pub fn sharing(self, commons: Arc<Commons>) -> Self {
        Self { commons, ..self }
    }

    /// The settings of now.
    #[must_use]
    pub fn settings(&self) -> Rc<Settings> {
        Rc::clone(&self.settings.borrow())
    }

    /// True when these are the settings of now.
    #[must_use]
    pub fn has_set(&self, settings: &Rc<Settings>) -> bool {
        Rc::ptr_eq(&self.settings.borrow(), settings)
    }

    /// Takes over new settings; connections that are open follow with their next request.
    pub fn follow(&self, settings: Settings) {
        // At once, for requests that have begun too: a log that is turned on shows what goes on.
        self.journal.follow(settings.log.clone());
        self.locals.stand_in(settings.zone.as_ref());
        *self.settings.borrow_mut() = Rc::new(settings);
        self.vacancy.notify_waiters();
    }

    /// An unkeyed request's coin: 32 bits of a xoshiro256++ seeded from the system's entropy (G4).
    #[must_use]
    pub fn coin(&self) -> u32 {
        self.coin.borrow_mut().next_u32()
    }

    /// 64 random bits from where the coins come from; no secret.
    #[must_use]
    pub fn lot(&self) -> u64 {
        self.coin.borrow_mut().next_u64()
    }

    /// 128 random bits from where the coins come from; no secret.
    #[must_use]
    pub fn dice(&self) -> u128 {
        let mut coin = self.coin.borrow_mut();
        (u128::from(coin.next_u64()) << 64) | u128::from(coin.next_u64())
    }

    /// The time for a `Date` field (RFC 9110 §6.6.1), at most a second old.
    #[must_use]
    pub fn date(&self) -> [u8; 29] {
        let (written, date) = self.date.get();
        if self.clock.ticks() < written + Clock::ticks_in(Duration::from_secs(1)) {
            return date;
        }
        let date = clock::http_date();
        self.date.set((self.clock.ticks(), date));
        date
    }

    /// How long a connection without a request may stay, once the worker winds down: by lot, so that clients come to
    /// others at a steady rate, and never at once, so that none is closed whose next request is on its way.
    #[must_use]
    pub fn farewell(&self) -> Option<Duration> {
        self.is_stopping.get().then(|| orders::farewell(self.spread.get(), self.coin()))
    }

    /// Where at most so many bytes are read into, empty and with room; what was read is to be split off.
    pub fn read_buffer(&self, most: usize) -> RefMut<'_, BytesMut> {
        let (buffer, size) = if most <= HEAD { (&self.heads, HEAD) } else { (&self.scratch, READ) };
        let mut buffer = buffer.borrow_mut();
        if buffer.capacity() < size / 4 {
            buffer.reserve(size);
        }
        buffer
    }

    /// A buffer to write a request's head into.
    #[must_use]
    pub fn take_buffer(&self) -> Vec<u8> {
        self.head.take()
    }

    /// Keeps a buffer for the next request, unless it has grown large.
    pub fn give_back(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= MOST_KEPT {
            buffer.clear();
            self.head.replace(buffer);
        }
    }

    /// This worker's part of a version.
    #[must_use]
    pub fn local(&self, lane: &Lane) -> Rc<Local> {
        self.locals.of(&lane.upstream, lane.slot)
    }

    /// This worker's part of a version, if it has had a request for it.
    pub(super) fn known(&self, upstream: &Arc<Upstream>) -> Option<Rc<Local>> {
        self.locals.known(upstream)
    }

    /// This worker's parts of all versions.
    pub(super) fn locals(&self) -> Vec<Rc<Local>> {
        self.locals.all()
    }

    /// What it has in flight, on all versions.
    pub(super) fn flights(&self) -> &Flights {
        self.locals.flights()
    }

    /// Takes over what the newest table says of a version's endpoints, if it has the version.
    pub(super) fn refresh(&self, local: &Local) {
        if let Some(lane) = self.view.newest().lane(local.upstream()) {
            local.refresh(&lane.target);
        }
    }

    /// Counts an answer that no version was asked for, of the service that refused it, if one was asked.
    pub fn refused(&self, service: Option<&ServiceName>, reason: Reason) {
        match service {
            None => bump(&self.stats.refused[reason as usize], 1),
            Some(service) => self.stats.refused_by(service, reason),
        }
    }

    /// Counts a TLS handshake.
    pub fn handshaken(&self, ended: Handshake) {
        bump(&self.stats.handshakes[ended as usize], 1);
    }

    /// Counts a request that was sent on to https.
    pub fn redirected(&self) {
        bump(&self.stats.redirected, 1);
    }

    /// Counts an answer that a route gave by itself.
    pub fn answered(&self, own: &OwnAnswer) {
        match own {
            OwnAnswer::Redirect { .. } => bump(&self.stats.redirects, 1),
            OwnAnswer::Fixed { .. } => bump(&self.stats.fixed, 1),
        }
    }

    /// Counts a health check that was answered for a service that is held.
    pub fn checked(&self) {
        bump(&self.stats.checked, 1);
    }

    /// Counts an answer to a request that could go through no more proxies.
    pub fn ended(&self) {
        bump(&self.stats.ended, 1);
    }

    /// Closes upstream connections that were idle too long, every second, for as long as the worker runs.
    pub async fn sweep(&self) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let keep = Clock::ticks_in(self.settings.borrow().pool_idle);
            let oldest = self.clock.ticks().saturating_sub(keep);
            self.locals.sweep(oldest);
        }
    }

    /// A client connection will come that this worker has accepted itself.
    pub(super) fn expect(&self) {
        // Not a plain store: others add theirs.
        self.stats.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A client connection came, that somebody has counted as expected.
    pub(super) fn opened(&self) {
        self.connections.set(self.connections.get() + 1);
        bump(&self.stats.accepted, 1);
    }

    /// A client connection went.
    pub(super) fn closed(&self) {
        self.connections.set(self.connections.get() - 1);
        self.stats.connections.fetch_sub(1, Ordering::Relaxed);
        self.commons.leave();
        self.vacancy.notify_waiters();
    }

    /// Tells what it has to do.
    fn report(&self, busy: u64) {
        self.stats.streams.store(self.streams.get(), Ordering::Relaxed);
        self.stats.busy.store(busy, Ordering::Relaxed);
    }
}

/// Begins nothing new from `after` on, when the connections that had no request are closed, or from when it must not.
async fn shut(worker: Rc<Worker>, after: Duration) {
    tokio::select! {
        () = tokio::time::sleep(after) => {}
        () = worker.commons.closing() => {}
    }
    worker.is_shut.set(true);
    worker.clock.wake_all();
    worker.commons.shut_one();
}

async fn obey(
    worker: Rc<Worker>,
    mut inbox: mpsc::Receiver<Order>,
    passed: mpsc::Receiver<Passed>,
    warm_ups: mpsc::Receiver<WarmUp>,
) {
    let ticking = Rc::clone(&worker);
    let mut busyness = Busyness::new();
    spawn_local(async move { ticking.clock.run(|| ticking.report(busyness.look())).await });
    let journal = Rc::clone(&worker.journal);
    spawn_local(async move { journal.keep_flushing().await });
    let sweeper = Rc::clone(&worker);
    spawn_local(async move { sweeper.sweep().await });
    let inquiries = worker.view.live().roll.join();
    spawn_local(usher::answer(Rc::clone(&worker), inquiries));
    spawn_local(warmer::warm(Rc::clone(&worker), warm_ups));
    let leaving = worker.view.live().departures.subscribe();
    spawn_local(usher::see_out(Rc::clone(&worker), leaving));
    let (close, closed) = oneshot::channel::<()>();
    let seated = Rc::clone(&worker);
    let adopt = move |passed| listener::adopt(&seated, passed);
    let receiving = spawn_local(posts::receive(passed, async { drop(closed.await) }, adopt));
    let farewell = orders::follow(&worker, &mut inbox).await;
    drop(close);
    // Who was on the way here is counted when this has ended.
    let _ = receiving.await;
    worker.spread.set(farewell.spread);
    worker.is_stopping.set(true);
    worker.clock.wake_all();
    if farewell.queue == Queue::Successors {
        spawn_local(shut(Rc::clone(&worker), farewell.spread + LAST_HEAD));
    }
    loop {
        let vacancy = worker.vacancy.notified();
        if worker.connections.get() == 0 {
            if farewell.queue == Queue::Successors && !worker.is_shut.replace(true) {
                worker.commons.shut_one();
            }
            return worker.journal.flush();
        }
        tokio::select! {
            () = vacancy => {}
            Some(order) = inbox.recv() => orders::answer_late(order),
        }
    }
}
