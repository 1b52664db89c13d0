//! File descriptors: what is kept of them for who operates the proxy, and for endpoints.
//!
//! Whoever opens enough connections takes all that there are. Clients and endpoints get none of the last few, so that a flip, a
//! scrape and the store still work; and that we have none left is never an endpoint's failure.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::LazyLock;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// How many are kept for the admin socket, metrics, checks, the store, and files that are read again.
const RESERVE: u64 = 64;

/// From where on they are kept. The limit is raised before anybody asks, and is not looked at again.
static RESERVED: LazyLock<RawFd> =
    LazyLock::new(|| RawFd::try_from(usable(limit().unwrap_or(u64::MAX))).unwrap_or(RawFd::MAX));

/// How many the process may have; `None` when there is no limit.
#[must_use]
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How many clients may be connected with so many descriptors: a quarter is for endpoints.
///
/// An idle client needs one, and one with a request a second one most of the time.
#[must_use]
pub fn for_clients(limit: u64) -> usize {
    usize::try_from(usable(limit) / 4 * 3).unwrap_or(usize::MAX).max(1)
}

/// Those that are not kept.
fn usable(limit: u64) -> u64 {
    limit - RESERVE.min(limit / 4)
}

/// # Errors
/// As if there were none, when `descriptor` is one of those that are kept: the kernel gives the lowest that is free.
pub fn spare(descriptor: impl AsFd) -> io::Result<()> {
    if descriptor.as_fd().as_raw_fd() < *RESERVED { Ok(()) } else { Err(Errno::MFILE.into()) }
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
        assert_eq!([1, 256, 20_000].map(for_clients), [1, 144, 14_952]);
    }

    #[test]
    fn what_an_endpoint_does_is_not_ours() {
        assert!(is_ours(&Errno::MFILE.into()) && is_ours(&Errno::ADDRNOTAVAIL.into()));
        assert!(!is_ours(&Errno::CONNREFUSED.into()));
        // Of a name that has none.
        assert!(!is_ours(&io::ErrorKind::AddrNotAvailable.into()));
    }
}
