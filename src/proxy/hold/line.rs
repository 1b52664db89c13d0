//! Who waits on one worker, in the order in which they came.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::task::{Context, Poll, Waker};

use crate::table::ServiceName;

/// The lines of one worker: of each service of which somebody waits one of reads and one of writes.
///
/// What holds one request of a line holds all of it. Reads have one of their own because they may go on while writes are held.
#[derive(Debug, Default)]
pub struct Lines {
    all: [RefCell<HashMap<ServiceName, Line>>; 2],
    /// How many wait in all of them.
    length: Cell<usize>,
    next: Cell<u64>,
}

/// Whose line, and whether it is that of the writes.
pub(super) type Which<'s> = (&'s ServiceName, bool);

/// Those who wait, in the order in which they came, and whom to wake for each.
#[derive(Debug, Default)]
struct Line(BTreeMap<u64, Option<Waker>>);

impl Lines {
    /// True when nobody waits on this worker: what most requests look at, and nothing else.
    #[must_use]
    pub fn are_empty(&self) -> bool {
        self.length.get() == 0
    }

    fn of(&self, writes: bool) -> &RefCell<HashMap<ServiceName, Line>> {
        &self.all[usize::from(writes)]
    }

    pub(super) fn join(&self, (service, writes): Which<'_>) -> u64 {
        let number = self.next.replace(self.next.get() + 1);
        self.of(writes).borrow_mut().entry(service.clone()).or_default().0.insert(number, None);
        self.length.set(self.length.get() + 1);
        number
    }

    /// Takes somebody out; the one who is first then has to look.
    pub(super) fn leave(&self, (service, writes): Which<'_>, number: u64) {
        let mut all = self.of(writes).borrow_mut();
        let Some(Line(line)) = all.get_mut(service) else { return };
        line.remove(&number);
        self.length.set(self.length.get() - 1);
        let next = line.first_entry().and_then(|mut first| first.get_mut().take());
        if line.is_empty() {
            all.remove(service);
        }
        drop(all);
        next.into_iter().for_each(Waker::wake);
    }

    /// True when nobody of this line came before `number`.
    pub(super) fn is_first(&self, (service, writes): Which<'_>, number: u64) -> bool {
        let all = self.of(writes).borrow();
        all.get(service).and_then(|line| line.0.keys().next()).is_none_or(|first| number <= *first)
    }

    pub(super) fn poll_first(&self, which: Which<'_>, number: u64, cx: &Context<'_>) -> Poll<()> {
        if self.is_first(which, number) {
            return Poll::Ready(());
        }
        let (service, writes) = which;
        let mut all = self.of(writes).borrow_mut();
        if let Some(waker) = all.get_mut(service).and_then(|line| line.0.get_mut(&number)) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn lines() -> (Lines, ServiceName) {
        (Lines::default(), "shop".parse().unwrap())
    }

    fn is_its_turn(lines: &Lines, which: Which<'_>, number: u64) -> bool {
        lines.poll_first(which, number, &Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn whoever_came_first_goes_first_also_when_others_leave() {
        let (lines, shop) = lines();
        let shop = (&shop, true);
        assert!(lines.are_empty());
        let [first, second, third] = [(); 3].map(|()| lines.join(shop));
        let turns = || [first, second, third].map(|number| is_its_turn(&lines, shop, number));
        assert_eq!(turns(), [true, false, false]);
        lines.leave(shop, second);
        assert!(!turns()[2]);
        lines.leave(shop, first);
        assert!(turns()[2]);
        assert!(!lines.is_first(shop, u64::MAX), "somebody who comes now is behind");
        lines.leave(shop, third);
        assert!(lines.are_empty() && lines.is_first(shop, u64::MAX));
        assert!(lines.of(true).borrow().is_empty(), "nothing is left of it");
    }

    #[test]
    fn services_have_lines_of_their_own() {
        let (lines, shop) = lines();
        let shop = (&shop, true);
        let cart = "cart".parse().unwrap();
        let [_, first_of_cart] = [shop, (&cart, true)].map(|which| lines.join(which));
        assert!(is_its_turn(&lines, (&cart, true), first_of_cart));
    }

    #[test]
    fn a_read_stands_behind_no_write_of_its_service() {
        let (lines, shop) = lines();
        let [write, read, next] = [true, false, false].map(|writes| lines.join((&shop, writes)));
        let turns = |reads: [u64; 2]| reads.map(|number| is_its_turn(&lines, (&shop, false), number));
        assert!(is_its_turn(&lines, (&shop, true), write));
        assert_eq!(turns([read, next]), [true, false]);
        lines.leave((&shop, false), read);
        assert_eq!(turns([read, next]), [true, true]);
    }

    #[test]
    fn whoever_is_next_is_woken() {
        let (lines, shop) = lines();
        let shop = (&shop, true);
        let [first, second] = [(); 2].map(|()| lines.join(shop));
        let (waker, woken) = waker();
        assert!(lines.poll_first(shop, second, &Context::from_waker(&waker)).is_pending());
        lines.leave(shop, first);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn waker() -> (Waker, Arc<Woken>) {
        let woken = Arc::<Woken>::default();
        (Waker::from(Arc::clone(&woken)), woken)
    }
}
