//! Which worker serves a connection that has come: the one whose socket the kernel chose, unless another has clearly less
//! to do. The kernel shares out by a hash of the addresses, which is uneven where few connections come, and knows nothing
//! of those that last.
//!
//! A connection is passed on once, as it was accepted and before a byte of it is read, never for a request. What a
//! worker has to do: its connections, each stream of theirs (HTTP/2) as much as one more, and how busy its
//! thread was in about the last second. The loads of all workers are read for each connection that comes: two cache lines a worker.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::clock;
use super::entrance::Entrance;
use super::listener::Fresh;
use super::peer::Door;
use super::worker::WorkerStats;
use crate::metrics::bump;

/// Most connections on their way to a worker; one more is served where it came.
const ON_THEIR_WAY: usize = 256;
/// Who is busier than the calmest by so many per mille of a thread's time gets no connections while others can take them.
const HOTTER: u64 = 250;
/// A difference in load of this part of the mean is none: where connections are many, and most of them short, hardly one
/// is worth the way. Below so many each there is no margin.
const MARGIN: u64 = 8;
/// How much of the last tick is in what is told of how busy a worker is: about a second's mean.
const LATEST: u64 = 8;

/// Every worker's post.
#[derive(Debug, Default)]
pub struct Posts(Box<[Post]>);

/// Where a worker can be reached, and what it has to do.
#[derive(Debug)]
struct Post {
    stats: Arc<WorkerStats>,
    inbox: mpsc::Sender<Passed>,
}

/// A connection that one worker has accepted for another, with what its listener said of its clients then.
#[derive(Debug)]
pub struct Passed {
    pub(super) connection: Fresh,
    pub(super) door: Arc<Door>,
    pub(super) entrance: Arc<Entrance>,
}

/// What a worker has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Load {
    /// False when it takes nothing more: it winds down, or does not come to what is on its way already.
    takes: bool,
    connections: u64,
    streams: u64,
    /// Per mille of its thread's time.
    busy: u64,
}

impl Load {
    fn of(Post { stats, inbox }: &Post) -> Self {
        // Relaxed: nothing else is told by them, and a little late is early enough.
        Self {
            takes: !inbox.is_closed() && inbox.capacity() > 0,
            connections: stats.connections.load(Ordering::Relaxed),
            streams: stats.streams.load(Ordering::Relaxed),
            busy: stats.busy.load(Ordering::Relaxed),
        }
    }

    fn units(self) -> u64 {
        self.connections + self.streams
    }
}

impl Posts {
    /// Posts for workers with these counters, and what each of them receives from.
    #[must_use]
    pub fn of(stats: impl Iterator<Item = Arc<WorkerStats>>) -> (Self, Vec<mpsc::Receiver<Passed>>) {
        let posts = stats.map(|stats| {
            let (inbox, passed) = mpsc::channel(ON_THEIR_WAY);
            (Post { stats, inbox }, passed)
        });
        let (posts, inboxes): (Vec<_>, _) = posts.unzip();
        (Self(posts.into()), inboxes)
    }

    /// The worker that should have a connection that `own` has accepted; `None` when that is `own`.
    pub(super) fn elsewhere(&self, own: usize) -> Option<usize> {
        match self.0.len() {
            0 | 1 => None,
            count => choose(count, own, |id| Load::of(&self.0[id])),
        }
    }

    /// Passes a connection of `own` on to worker `to`; it comes back when that one takes no more.
    pub(super) fn pass(&self, own: usize, to: usize, passed: Passed) -> Result<(), Passed> {
        let post = &self.0[to];
        // Before it is on its way: who accepts next sees it.
        post.stats.connections.fetch_add(1, Ordering::Relaxed);
        post.inbox.try_send(passed).map_err(|error| {
            post.stats.connections.fetch_sub(1, Ordering::Relaxed);
            error.into_inner()
        })?;
        bump(&self.0[own].stats.passed_on, 1);
        Ok(())
    }
}

/// Does `take` with what others pass on, until `closed`; then with what is on its way already. What comes later comes back
/// to who passed it on, so that nothing is lost between the two.
pub(super) async fn receive<T>(
    mut inbox: mpsc::Receiver<T>,
    closed: impl Future<Output = ()>,
    mut take: impl FnMut(T),
) {
    let mut closed = std::pin::pin!(closed);
    loop {
        tokio::select! {
            biased;
            () = &mut closed => break,
            passed = inbox.recv() => match passed {
                Some(passed) => take(passed),
                None => return,
            },
        }
    }
    inbox.close();
    while let Some(passed) = inbox.recv().await {
        take(passed);
    }
}

/// Which of `count` workers should have the connection that `own` has accepted; `None` when it should stay. None of those
/// that take nothing more, and none that is hot, while there are others; of these the one with the least to do, of several
/// the first behind `own`.
fn choose(count: usize, own: usize, load: impl Fn(usize) -> Load) -> Option<usize> {
    let all = || (1..=count).map(|step| (own + step) % count).map(|id| (id, load(id)));
    let open = || all().filter(|(_, load)| load.takes);
    let calmest = open().map(|(_, load)| load.busy).min()?;
    let calm = || open().filter(|(_, load)| load.busy < calmest + HOTTER);
    let (to, least) = calm().min_by_key(|(_, load)| load.units())?;
    let margin = all().map(|(_, load)| load.units()).sum::<u64>() / count as u64 / MARGIN;
    let stays = calm().any(|(id, load)| id == own && load.units() <= least.units() + margin);
    (!stays).then_some(to)
}

/// How busy the thread is that it is asked on.
#[derive(Debug)]
pub(super) struct Busyness {
    /// What the kernel says of the thread; `None` where it says nothing.
    said: Option<File>,
    since: Instant,
    /// How long the thread had run then.
    ran: Duration,
    per_mille: u64,
}

impl Busyness {
    pub(super) fn new() -> Self {
        let said = File::open("/proc/thread-self/schedstat").ok();
        let ran = ran(said.as_ref());
        Self { said, since: clock::now(), ran, per_mille: 0 }
    }

    /// In about the last second, in per mille; to be asked once a tick.
    pub(super) fn look(&mut self) -> u64 {
        let (now, ran) = (clock::now(), ran(self.said.as_ref()));
        let (spent, passed) = (ran.saturating_sub(self.ran).as_micros(), (now - self.since).as_micros());
        let latest = (spent * 1000).checked_div(passed).and_then(|now| u64::try_from(now).ok()).unwrap_or(0);
        self.per_mille = (self.per_mille * (LATEST - 1) + latest.min(1000)).div_ceil(LATEST);
        (self.since, self.ran) = (now, ran);
        self.per_mille
    }
}

/// How long a thread has run: the first number of its `schedstat`, in nanoseconds (proc(5)).
fn ran(said: Option<&File>) -> Duration {
    let mut text = [0; 64];
    let length = said.and_then(|said| said.read_at(&mut text, 0).ok()).unwrap_or(0);
    let first = text[..length].split(|byte| *byte == b' ').next().unwrap_or_default();
    let nanos = str::from_utf8(first).ok().and_then(|nanos| nanos.parse().ok());
    nanos.map_or(Duration::ZERO, Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(connections: u64, streams: u64, busy: u64) -> Load {
        Load { takes: true, connections, streams, busy }
    }

    /// Which one has a connection that `own` has accepted.
    fn chosen(loads: &[Load], own: usize) -> usize {
        choose(loads.len(), own, |id| loads[id]).unwrap_or(own)
    }

    #[test]
    fn few_connections_are_spread_to_the_last_one() {
        for count in [2, 3, 8, 64] {
            let mut loads = vec![load(0, 0, 0); count];
            // All of them come to one worker, as they may.
            for _ in 0..3 * count {
                let to = chosen(&loads, count - 1);
                loads[to].connections += 1;
            }
            assert!(loads.iter().all(|load| load.connections == 3), "{loads:?}");
        }
    }

    #[test]
    fn among_many_a_small_difference_is_none() {
        assert_eq!(chosen(&[load(44, 0, 0), load(40, 0, 0)], 0), 0);
        assert_eq!(chosen(&[load(46, 0, 0), load(40, 0, 0)], 0), 1);
    }

    #[test]
    fn streams_are_a_load_as_connections_are() {
        assert_eq!(chosen(&[load(1, 20, 0), load(15, 0, 0)], 0), 1);
        assert_eq!(chosen(&[load(1, 20, 0), load(25, 0, 0)], 0), 0);
    }

    #[test]
    fn a_hot_worker_gets_none_while_others_are_calm() {
        assert_eq!(chosen(&[load(2, 0, 900), load(30, 0, 100), load(20, 0, 200)], 0), 2);
        assert_eq!(chosen(&[load(2, 0, 900), load(30, 0, 100), load(20, 0, 200)], 1), 2);
        let all_are = [load(2, 0, 990), load(30, 0, 950), load(20, 0, 1000)];
        assert_eq!((chosen(&all_are, 0), chosen(&all_are, 1)), (0, 0));
    }

    #[test]
    fn who_takes_nothing_more_gets_none() {
        let stats = [(); 3].map(|()| Arc::new(WorkerStats::default()));
        let (posts, mut inboxes) = Posts::of(stats.iter().cloned());
        stats[0].connections.store(5, Ordering::Relaxed);
        stats[2].connections.store(5, Ordering::Relaxed);
        let room = || posts.elsewhere(0);
        assert_eq!(room(), Some(1));
        let on_their_way = posts.0[1].inbox.try_reserve_many(ON_THEIR_WAY).unwrap();
        assert_eq!(room(), None);
        drop(on_their_way);
        assert_eq!(room(), Some(1));
        inboxes[1].close();
        assert_eq!(room(), None);
    }

    #[tokio::test]
    async fn who_closes_takes_what_is_on_its_way_and_nothing_after() {
        let (passing, inbox) = mpsc::channel(4);
        for number in 0..3 {
            passing.try_send(number).unwrap();
        }
        let (mut taken, late) = (Vec::new(), passing.clone());
        receive(inbox, async {}, |number| {
            // Somebody who has not heard of it yet.
            assert!(late.try_send(9).is_err());
            taken.push(number);
        })
        .await;
        assert_eq!(taken, [0, 1, 2]);
    }

    #[test]
    fn a_thread_that_works_is_busy_and_one_that_sleeps_is_not() {
        let mut busyness = Busyness::new();
        std::thread::sleep(Duration::from_millis(50));
        let idle = busyness.look();
        let until = ran(busyness.said.as_ref()) + Duration::from_millis(50);
        while ran(busyness.said.as_ref()) < until {}
        let busy = busyness.look();
        assert!(idle < 50 && busy > idle, "{idle}, {busy}");
    }
}
