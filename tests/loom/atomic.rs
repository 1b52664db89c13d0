//! Loom's atomics, where the code under test looks for the standard ones.

pub(super) use loom::sync::atomic::{Ordering, fence};

/// Loom's atomic, but a relaxed load is taken aside: it is the writer reading its own cell before it adds to it.
///
/// Loom 0.7 tries a store against the *last* access of another thread, and such a load would be that last access:
/// it hides the reader's load before it, and loom skips the interleavings in which the two change places.
#[derive(Debug, Default)]
pub(super) struct AtomicU64 {
    shared: loom::sync::atomic::AtomicU64,
    /// The newest value; loom runs one thread at a time.
    own: std::sync::atomic::AtomicU64,
}

impl AtomicU64 {
    pub(super) fn new(value: u64) -> Self {
        Self { shared: loom::sync::atomic::AtomicU64::new(value), own: value.into() }
    }

    pub(super) fn load(&self, order: Ordering) -> u64 {
        match order {
            Ordering::Relaxed => self.own.load(order),
            _ => self.shared.load(order),
        }
    }

    pub(super) fn compare_exchange(
        &self,
        from: u64,
        to: u64,
        done: Ordering,
        not: Ordering,
    ) -> Result<u64, u64> {
        let turned = self.shared.compare_exchange(from, to, done, not);
        if turned.is_ok() {
            self.own.store(to, Ordering::Relaxed);
        }
        turned
    }

    pub(super) fn store(&self, value: u64, order: Ordering) {
        self.own.store(value, Ordering::Relaxed);
        self.shared.store(value, order);
    }
}
