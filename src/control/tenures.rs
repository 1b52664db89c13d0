//! The tenures that the metrics show: the present ones, and for a while those that are gone (contract §7).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock;
use crate::proxy::live::{Live, Snapshot};
use crate::proxy::upstream::Upstream;
use crate::table::{ServiceName, VersionName};

/// How long the series of a version stay after it is gone and drained, and those of a service after it is gone.
pub(super) const STAY: Duration = Duration::from_secs(300);

/// Tenures that are gone and still shown at most; beyond it those that have drained go first.
const MOST_GONE: usize = 1024;

/// All tenures that the metrics show. Written by control, read by the collector; no request comes by here.
#[derive(Debug)]
pub struct Tenures {
    live: Arc<Live>,
    gone: Mutex<Vec<Gone>>,
}

#[derive(Debug)]
struct Gone {
    upstream: Arc<Upstream>,
    /// Since when nothing has been left on it.
    drained: Option<Instant>,
}

impl Gone {
    fn is_over(&self, now: Instant) -> bool {
        self.drained.is_some_and(|drained| now.saturating_duration_since(drained) >= STAY)
    }
}

type Name<'u> = (&'u ServiceName, &'u VersionName);

fn name(upstream: &Upstream) -> Name<'_> {
    (&upstream.service, &upstream.version)
}

impl Tenures {
    pub(super) fn of(live: Arc<Live>) -> Self {
        Self { live, gone: Mutex::default() }
    }

    /// Every present tenure, and those that are gone for less than five minutes or not drained.
    ///
    /// A version that went and came again has several: add them up by service and version. The old ones stay as long
    /// as the name is shown, so that no sum ever falls.
    #[must_use]
    pub fn tenures(&self) -> Vec<Arc<Upstream>> {
        self.tenures_at(clock::instant())
    }

    fn tenures_at(&self, now: Instant) -> Vec<Arc<Upstream>> {
        let mut gone = self.lock();
        // Taken under the lock, and a tenure is put among the gone before it leaves the snapshot: none is missed.
        let snapshot = self.live.snapshot();
        forget(&mut gone, &snapshot, now);
        let mut all: Vec<_> = snapshot.upstreams().cloned().collect();
        if !gone.is_empty() {
            let present: HashSet<_> = all.iter().map(|upstream| upstream.id).collect();
            let others = gone.iter().filter(|gone| !present.contains(&gone.upstream.id));
            all.extend(others.map(|gone| Arc::clone(&gone.upstream)));
        }
        all
    }

    /// The tenures of one version: the present one, and those that are gone and still shown.
    #[must_use]
    pub fn of_version(&self, service: &ServiceName, version: &VersionName) -> Vec<Arc<Upstream>> {
        let gone = self.lock();
        // Under the lock, as above.
        let snapshot = self.live.snapshot();
        let mut all: Vec<_> = snapshot.tenure(service, version).cloned().into_iter().collect();
        for Gone { upstream, .. } in gone.iter().filter(|gone| name(&gone.upstream) == (service, version)) {
            if !all.iter().any(|other| other.id == upstream.id) {
                all.push(Arc::clone(upstream));
            }
        }
        all
    }

    /// `upstream` is about to leave the snapshot.
    pub(super) fn leave(&self, upstream: Arc<Upstream>, drained: Option<Instant>) {
        self.lock().push(Gone { upstream, drained });
    }

    /// Nothing is left on this tenure; nothing to do when it is still present.
    pub(super) fn on_drained(&self, id: u64, now: Instant) {
        let mut gone = self.lock();
        if let Some(gone) = gone.iter_mut().find(|gone| gone.upstream.id == id) {
            gone.drained = Some(now);
        }
    }

    /// Forgets those whose time is over; called at every change, so that it does not need a scrape.
    pub(super) fn sweep(&self, now: Instant) {
        let mut gone = self.lock();
        if !gone.is_empty() {
            forget(&mut gone, &self.live.snapshot(), now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Gone>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget(gone: &mut Vec<Gone>, snapshot: &Snapshot, now: Instant) {
    if gone.iter().any(|gone| gone.is_over(now)) {
        let present = snapshot.upstreams().map(Arc::clone);
        let lasting = gone.iter().filter(|gone| !gone.is_over(now)).map(|gone| Arc::clone(&gone.upstream));
        let shown: Vec<_> = present.chain(lasting).collect();
        let names: HashSet<Name<'_>> = shown.iter().map(|upstream| name(upstream)).collect();
        gone.retain(|gone| names.contains(&name(&gone.upstream)));
    }
    let mut excess = gone.len().saturating_sub(MOST_GONE);
    gone.retain(|gone| {
        let goes = excess > 0 && gone.drained.is_some();
        excess -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Epoch, Table};

    fn tenures() -> Tenures {
        let table = Arc::new(Table::build(Epoch(1), Vec::new()).unwrap());
        let none = Snapshot::join(table, None, |_, _| unreachable!("no services"));
        Tenures::of(Arc::new(Live::new(none)))
    }

    fn upstream(version: &str) -> Arc<Upstream> {
        Arc::new(Upstream::open("shop".parse().unwrap(), version.parse().unwrap(), 1))
    }

    #[test]
    fn a_gone_tenure_stays_until_five_minutes_after_its_drain() {
        let (tenures, blue, start) = (tenures(), upstream("blue"), clock::instant());
        tenures.leave(Arc::clone(&blue), None);
        assert_eq!(tenures.tenures_at(start + 9 * STAY).len(), 1, "not drained");
        tenures.on_drained(blue.id, start);
        assert_eq!(tenures.tenures_at(start + STAY - Duration::from_millis(1)).len(), 1);
        assert_eq!(tenures.tenures_at(start + STAY).len(), 0);
    }

    #[test]
    fn an_older_tenure_of_a_shown_version_stays_with_it() {
        let (tenures, start) = (tenures(), clock::instant());
        tenures.leave(upstream("blue"), Some(start));
        tenures.leave(upstream("blue"), Some(start + STAY));
        assert_eq!(tenures.tenures_at(start + STAY).len(), 2);
        assert_eq!(tenures.tenures_at(start + 2 * STAY).len(), 0);
    }

    #[test]
    fn the_gone_are_bounded_in_number() {
        let (tenures, start) = (tenures(), clock::instant());
        let busy = upstream("busy");
        tenures.leave(Arc::clone(&busy), None);
        for _ in 0..2 * MOST_GONE {
            tenures.leave(upstream("blue"), Some(start));
        }
        tenures.sweep(start);
        let left = tenures.tenures_at(start);
        assert_eq!(left.len(), MOST_GONE);
        assert_eq!(left[0].id, busy.id);
    }
}
