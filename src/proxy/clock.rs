//! A worker's coarse clock and its alarms: one sweep every tick instead of a timer a request.
//!
//! Time-outs of connections and requests need no precision below a tick. Setting an alarm is one store; nothing is
//! allocated and no timer wheel is touched on the request path (a tokio timer a request cost 6 % more instructions).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

/// How long a tick is; alarms ring up to one tick late.
pub const TICK: Duration = Duration::from_millis(100);

/// Not set.
const NEVER: u64 = u64::MAX;

/// One worker's ticks and alarms.
#[derive(Debug, Default)]
pub struct Clock {
    now: Cell<u64>,
    bells: RefCell<Slab<Rc<Bell>>>,
}

#[derive(Debug)]
struct Bell {
    due: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

/// One deadline that is set and cleared many times; made once a connection.
#[derive(Debug)]
pub struct Alarm {
    clock: Rc<Clock>,
    key: usize,
    bell: Rc<Bell>,
}

impl Clock {
    /// Ticks since the worker started.
    pub fn ticks(&self) -> u64 {
        self.now.get()
    }

    /// How many ticks `duration` is, rounded up.
    pub fn ticks_in(duration: Duration) -> u64 {
        // In 64 bits: those of the whole duration would be divided by a function.
        const EVERY_SECOND: u32 = 1_000_000_000 / TICK.subsec_nanos();
        let rest = duration.subsec_nanos().div_ceil(TICK.subsec_nanos());
        duration.as_secs().saturating_mul(EVERY_SECOND.into()).saturating_add(rest.into()).min(NEVER / 2)
    }

    /// A new alarm, not set.
    pub fn alarm(self: &Rc<Self>) -> Alarm {
        let bell = Rc::new(Bell { due: Cell::new(NEVER), waker: RefCell::new(None) });
        let key = self.bells.borrow_mut().insert(Rc::clone(&bell));
        Alarm { clock: Rc::clone(self), key, bell }
    }

    /// Moves time to `elapsed` since the start and rings what is due.
    pub fn advance(&self, elapsed: Duration) {
        let now = u64::try_from(elapsed.as_millis() / TICK.as_millis()).unwrap_or(NEVER - 1);
        self.now.set(now);
        self.wake(|bell| bell.due.get() <= now);
    }

    /// Wakes everyone who waits for an alarm, due or not: something they should look at has changed.
    pub fn wake_all(&self) {
        self.wake(|_| true);
    }

    fn wake(&self, which: impl Fn(&Bell) -> bool) {
        // Collected first: a woken task may make or drop alarms.
        let bells = self.bells.borrow();
        let wakers: Vec<_> =
            bells.iter().filter(|(_, bell)| which(bell)).filter_map(|(_, bell)| bell.waker.take()).collect();
        drop(bells);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Runs the clock for as long as the worker runs, and does `each` with every tick.
    ///
    /// Ticks are counted, not read off the time: while a worker is kept from running, nothing of what has arrived
    /// meanwhile is read, and must not be found to be late before it was looked at.
    pub async fn run(&self, mut each: impl FnMut()) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut elapsed = Duration::ZERO;
        loop {
            ticks.tick().await;
            elapsed += TICK;
            self.advance(elapsed);
            each();
        }
    }
}

impl Alarm {
    /// Rings `after` from now.
    pub fn set(&self, after: Duration) {
        // One more: the present tick is already partly over.
        let due = self.clock.ticks().saturating_add(Clock::ticks_in(after)).saturating_add(1);
        self.bell.due.set(due);
    }

    /// Rings at `tick` at the latest.
    pub fn ring_by(&self, tick: u64) {
        self.bell.due.set(self.bell.due.get().min(tick));
    }

    /// Rings `after` from now, unless it rings earlier anyhow.
    pub fn shorten(&self, after: Duration) {
        let due = self.bell.due.get();
        self.set(after);
        self.bell.due.set(due.min(self.bell.due.get()));
    }

    /// Sets it unless it is set already; true when it was not.
    pub fn set_once(&self, after: Duration) -> bool {
        let is_free = self.bell.due.get() == NEVER;
        if is_free {
            self.set(after);
        }
        is_free
    }

    /// Does not ring.
    pub fn clear(&self) {
        self.bell.due.set(NEVER);
    }

    /// Wakes whoever waits for it, due or not: something it should look at has changed.
    pub fn wake(&self) {
        let waker = self.bell.waker.take();
        waker.into_iter().for_each(Waker::wake);
    }

    /// Ready when it has rung; it stays so until it is set or cleared. Else the task is woken when it does.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.bell.due.get() <= self.clock.ticks() {
            return Poll::Ready(());
        }
        let mut waker = self.bell.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.clock.bells.borrow_mut().remove(self.key);
    }
}

/// How long so many ticks are; thirteen years at most.
#[must_use]
pub fn span(ticks: u64) -> Duration {
    TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX))
}

/// The clock that requests are measured with; the data plane's only other reading of time.
#[expect(clippy::disallowed_methods, reason = "the data plane's edge: durations of requests, and the ticks")]
pub fn now() -> Instant {
    Instant::now()
}

/// The time of day, for the access log; 0 before 1970.
#[expect(clippy::disallowed_methods, reason = "the data plane's edge: when a request came")]
pub fn micros_since_1970() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|since| u64::try_from(since.as_micros()).ok()).unwrap_or(0)
}

/// The time of now as `Date` has it (RFC 9110 §5.6.7).
#[expect(clippy::disallowed_methods, reason = "the data plane's edge: the date that answers carry")]
pub fn http_date() -> [u8; 29] {
    let text = httpdate::HttpDate::from(std::time::SystemTime::now()).to_string();
    let mut date = [b' '; 29];
    // 29 bytes until the year 10000.
    date.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    date
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_so_many_ticks_rounded_up() {
        let ticks = |millis| Clock::ticks_in(Duration::from_millis(millis));
        assert_eq!([0, 1, 100, 101, 999, 1_000, 60_050].map(ticks), [0, 1, 1, 2, 10, 10, 601]);
        assert_eq!(Clock::ticks_in(Duration::MAX), NEVER / 2);
    }

    #[test]
    fn an_alarm_rings_when_due_and_not_before() {
        let clock = Rc::new(Clock::default());
        let alarm = clock.alarm();
        let rings = || alarm.poll(&Context::from_waker(Waker::noop())).is_ready();
        assert!(!rings(), "not set");
        alarm.set(Duration::from_secs(1));
        clock.advance(Duration::from_millis(1_000));
        assert!(!rings(), "the tick it was set in does not count");
        clock.advance(Duration::from_millis(1_100));
        assert!(rings());
        alarm.clear();
        assert!(!rings());
    }

    #[test]
    fn time_in_which_the_worker_could_not_run_does_not_count() {
        let clock = Clock::default();
        let stall = async {
            tokio::task::yield_now().await;
            std::thread::sleep(TICK * 5);
            tokio::task::yield_now().await;
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            tokio::select! {
                () = clock.run(|| {}) => {}
                () = stall => {}
            }
        });
        assert!(clock.ticks() <= 2, "{} ticks", clock.ticks());
    }

    #[test]
    fn a_dropped_alarm_leaves_nothing_behind() {
        let clock = Rc::new(Clock::default());
        drop(clock.alarm());
        assert!(clock.bells.borrow().is_empty());
    }
}
