//! File descriptors: what is kept of them for who operates the proxy, and for endpoints.
//!
//! Whoever opens enough connections takes all that there are. Clients and endpoints get none of the last few, so that a flip, a
//! scrape and the store still work; and that we have none left is never an endpoint's failure. Nor does one version get all of
//! the others: requests that hang in it, be they of one client, are not to cost other services theirs. Nor do checks, of which
//! there are as many as endpoints.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// How many are kept for the admin socket, metrics, checks, the store, and files that are read again.
const RESERVE: u64 = 64;

/// From where on they are kept. The limit is raised before anybody asks, and is not looked at again.
static RESERVED: LazyLock<RawFd> = LazyLock::new(|| first_after(usable));
/// And from where on for checks neither.
static RESERVED_OF_CHECKS: LazyLock<RawFd> = LazyLock::new(|| first_after(usable_by_checks));

/// How many the process may have; `None` when there is no limit.
#[must_use]
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How many clients may be connected with so many descriptors: a quarter of what the process itself leaves is for endpoints. It is not
/// known before [`count_others`].
///
/// An idle client needs one, and one with a request a second one most of the time.
#[must_use]
pub fn for_clients(limit: u64) -> usize {
    left_to_clients(limit, others())
}

fn left_to_clients(limit: u64, others: u64) -> usize {
    usize::try_from(usable(limit).saturating_sub(others) / 4 * 3).unwrap_or(usize::MAX)
}

/// Those that are not kept.
fn usable(limit: u64) -> u64 {
    limit - RESERVE.min(limit / 4)
}

/// Checks have half of those that are kept.
fn usable_by_checks(limit: u64) -> u64 {
    usable(limit).midpoint(limit)
}

fn first_after(usable: fn(u64) -> u64) -> RawFd {
    RawFd::try_from(usable(limit().unwrap_or(u64::MAX))).unwrap_or(RawFd::MAX)
}

/// How many checks may be under way at a time: an eighth, for each may last as long as its endpoint likes.
#[must_use]
pub fn checks_at_a_time() -> usize {
    usize::try_from(usable_here() / 8).unwrap_or(usize::MAX).max(1)
}

/// # Errors
/// As if there were none, when `descriptor` is one of those that are kept: the kernel gives the lowest that is free.
pub fn spare(descriptor: impl AsFd) -> io::Result<()> {
    is_before(*RESERVED, descriptor)
}

/// The same for a check.
///
/// # Errors
/// As there.
pub fn spare_for_check(descriptor: impl AsFd) -> io::Result<()> {
    is_before(*RESERVED_OF_CHECKS, descriptor)
}

fn is_before(first: RawFd, descriptor: impl AsFd) -> io::Result<()> {
    if descriptor.as_fd().as_raw_fd() < first { Ok(()) } else { Err(Errno::MFILE.into()) }
}

/// Those of clients' connections, of endpoints' that carry one request at a time or none, and of pipes: others are few.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Those that the process has besides, to listen, for its workers and its store.
static OTHERS: OnceLock<u64> = OnceLock::new();

/// Counts what is open besides, once all of it is but so many that are `to_come`. What is opened later is little.
pub fn count_others(to_come: usize) {
    let open = fs::read_dir("/proc/self/fd").map_or(0, |open| (open.count() + to_come) as u64);
    OTHERS.get_or_init(|| open.saturating_sub(TAKEN.load(Ordering::Relaxed)));
}

fn others() -> u64 {
    OTHERS.get().copied().unwrap_or(0)
}

/// True while half of them are free: what there is another way for may take one.
#[must_use]
pub fn are_plenty() -> bool {
    free() >= usable_here() / 2
}

/// Those of copies, of all services.
static COPYING: AtomicU64 = AtomicU64::new(0);

/// A copy of a request that may have one, until it is dropped.
#[derive(Debug)]
pub struct OfCopy(());

/// Copies have a thirty-second of them, and none while less than half are free: users need what is left, and come first.
#[must_use]
pub fn for_copy() -> Option<OfCopy> {
    let copying = COPYING.fetch_add(1, Ordering::Relaxed) + 1;
    let one = OfCopy(());
    (copying <= (usable_here() / 32).max(1) && are_plenty()).then_some(one)
}

impl Drop for OfCopy {
    fn drop(&mut self) {
        COPYING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One of these, counted until it is dropped.
#[derive(Debug)]
pub struct Taken(());

impl Taken {
    /// One more, which there is.
    #[must_use]
    pub fn one() -> Self {
        // Relaxed, here and below: the counts alone matter, they order nothing else.
        TAKEN.fetch_add(1, Ordering::Relaxed);
        Self(())
    }

    /// Two more for a pipe's ends.
    ///
    /// # Errors
    /// As if there were none, when less than half would be left: bodies pass without pipes too, and connections have no other way.
    pub fn for_pipe() -> io::Result<[Self; 2]> {
        let ends = [Self::one(), Self::one()];
        if are_plenty() { Ok(ends) } else { Err(Errno::MFILE.into()) }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        TAKEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One version's part of them, on all workers. Touched when a connection is opened or closed, not for a request on one that is.
#[derive(Debug, Default)]
pub struct Share(AtomicU64);

/// One of a version's, counted until it is dropped: it goes where the connection goes.
#[derive(Debug)]
pub struct Held {
    share: Arc<Share>,
    _taken: Taken,
}

impl Share {
    /// One more for a connection that is to be opened.
    ///
    /// # Errors
    /// As if there were none, when it would leave too few to others.
    pub fn take(self: &Arc<Self>) -> io::Result<Held> {
        let own = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        let held = Held { share: Arc::clone(self), _taken: Taken::one() };
        if leaves_enough(own, free()) { Ok(held) } else { Err(Errno::MFILE.into()) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.share.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Those of the process that are not kept.
fn usable_here() -> u64 {
    u64::try_from(*RESERVED).unwrap_or(u64::MAX)
}

/// And that nobody has.
fn free() -> u64 {
    usable_here().saturating_sub(others() + TAKEN.load(Ordering::Relaxed))
}

/// True when a version that has `own` leaves a quarter of all that are its own or free. Not of all that there are: several that
/// hang would take them together.
fn leaves_enough(own: u64, free: u64) -> bool {
    own.div_ceil(3) <= free
}

/// True when a connection could not be opened for something that we have not got: descriptors, memory, local ports.
#[must_use]
pub fn is_ours(error: &io::Error) -> bool {
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| ours.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_kept_whatever_the_limit() {
        assert_eq!([4, 256, 20_000, 1 << 20].map(usable), [3, 192, 19_936, (1 << 20) - 64]);
        assert_eq!([256, 20_000].map(|limit| left_to_clients(limit, 0)), [144, 14_952]);
        assert_eq!([40, 192, 300].map(|others| left_to_clients(256, others)), [114, 0, 0]);
        assert_eq!([256, 20_000, u64::MAX].map(usable_by_checks), [224, 19_968, u64::MAX - 32]);
    }

    #[test]
    fn each_version_that_takes_all_it_may_leaves_a_quarter_of_what_the_others_left() {
        let left_by = |versions: usize, mut free: u64| {
            let mut own = vec![0; versions];
            while let Some(taker) = own.iter_mut().find(|own| leaves_enough(**own + 1, free - 1)) {
                (*taker, free) = (*taker + 1, free - 1);
            }
            free
        };
        assert_eq!([1, 2, 3].map(|versions| left_by(versions, 4_032)), [1_008, 252, 63]);
        assert_eq!(left_by(1, 2), 1);
    }

    #[test]
    fn what_an_endpoint_does_is_not_ours() {
        assert!(is_ours(&Errno::MFILE.into()) && is_ours(&Errno::ADDRNOTAVAIL.into()));
        assert!(!is_ours(&Errno::CONNREFUSED.into()));
        // Of a name that has none.
        assert!(!is_ours(&io::ErrorKind::AddrNotAvailable.into()));
    }
}
