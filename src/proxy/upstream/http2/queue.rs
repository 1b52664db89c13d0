//! Those who wait for a place on a connection.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::{Risk, Wish};

/// Those who wait for a place at one endpoint, and what is to be known for it.
///
/// A place that becomes free is handed to the first whom it suits. So nobody is overtaken, one is woken for each place, and a
/// place is free only while nobody waits for it: who finds one need not look here.
#[derive(Debug)]
pub(super) struct Queue<P> {
    /// Those who go beside others.
    pub(super) sharing: Line<P>,
    /// Those who want a connection for themselves. They come first where one has no request, which is rare: beside others who
    /// wait they would never get one.
    pub(super) alone: Line<P>,
    /// Those for whom the connections that are there were of no use. They come first on another one, and on these only when there is
    /// none.
    pub(super) fresh: Line<P>,
    /// True while another connection is being opened.
    pub(super) is_opening: Cell<bool>,
    /// How many connections somebody has for itself.
    pub(super) taken: Cell<usize>,
}

/// Some of them, in the order in which they came.
#[derive(Debug)]
pub(super) struct Line<P> {
    waiting: RefCell<BTreeMap<u64, Waiter<P>>>,
    next: Cell<u64>,
}

/// Who waits.
#[derive(Debug)]
pub(super) struct Waiter<P> {
    pub(super) wish: Wish,
    /// Where the place goes.
    pub(super) place: oneshot::Sender<P>,
}

impl<P> Queue<P> {
    /// A place when it is one's turn; `None` when one may be had elsewhere, and is to be looked for.
    ///
    /// Cancel-safe: who is dropped waits no more, and what it was handed meanwhile is dropped with it.
    pub(super) async fn wait(&self, wish: Wish) -> Option<P> {
        let line = match wish {
            Wish { may_reuse: false, .. } => &self.fresh,
            Wish { risk: Risk::None, .. } => &self.sharing,
            Wish { risk: Risk::Head | Risk::Trailers, .. } => &self.alone,
        };
        let (place, handed) = oneshot::channel();
        let _waiting = line.enter(Waiter { wish, place });
        handed.await.ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines().into_iter().all(Line::is_empty)
    }

    /// What the first of each line wants.
    pub(super) fn firsts(&self) -> [Option<Wish>; 3] {
        self.lines().map(|line| line.waiting.borrow().values().next().map(|waiter| waiter.wish))
    }

    /// Hands this to all of those who want such a thing.
    pub(super) fn tell(&self, whom: impl Fn(&Wish) -> bool, what: impl Fn() -> P) {
        for line in self.lines() {
            let told = line.waiting.borrow_mut().extract_if(.., |_, it| whom(&it.wish)).collect::<Vec<_>>();
            told.into_iter().for_each(|(_, waiter)| drop(waiter.place.send(what())));
        }
    }

    fn lines(&self) -> [&Line<P>; 3] {
        [&self.fresh, &self.alone, &self.sharing]
    }

    /// Everybody looks anew.
    pub(super) fn dismiss(&self) {
        self.lines().into_iter().for_each(|line| drop(line.waiting.take()));
    }
}

impl<P> Default for Queue<P> {
    fn default() -> Self {
        let [sharing, alone, fresh] = [(); 3].map(|()| Line::default());
        Self { sharing, alone, fresh, is_opening: Cell::new(false), taken: Cell::new(0) }
    }
}

impl<P> Line<P> {
    fn enter(&self, waiter: Waiter<P>) -> Waiting<'_, P> {
        let number = self.next.replace(self.next.get() + 1);
        self.waiting.borrow_mut().insert(number, waiter);
        Waiting { line: self, number }
    }

    fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// The first, if it is one of those; it does not wait any more.
    pub(super) fn first_if(&self, is_it: impl FnOnce(&Waiter<P>) -> bool) -> Option<Waiter<P>> {
        let mut waiting = self.waiting.borrow_mut();
        let first = waiting.first_entry()?;
        is_it(first.get()).then(|| first.remove())
    }
}

impl<P> Default for Line<P> {
    fn default() -> Self {
        Self { waiting: RefCell::default(), next: Cell::new(0) }
    }
}

/// One who waits, until dropped.
struct Waiting<'l, P> {
    line: &'l Line<P>,
    number: u64,
}

impl<P> Drop for Waiting<'_, P> {
    fn drop(&mut self) {
        self.line.waiting.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;

    fn wish(risk: Risk) -> Wish {
        Wish { may_reuse: true, risk, most: 2, connect: Duration::ZERO, lifetime: Duration::ZERO }
    }

    fn hand(queue: &Queue<u32>, place: u32) -> bool {
        queue.sharing.first_if(|_| true).is_some_and(|waiter| waiter.place.send(place).is_ok())
    }

    #[test]
    fn places_go_to_those_who_have_waited_longest_and_still_wait() {
        let (queue, mut cx) = (Queue::default(), Context::from_waker(Waker::noop()));
        let [mut first, mut third] = [(); 2].map(|()| Box::pin(queue.wait(wish(Risk::None))));
        let mut second = Box::pin(queue.wait(wish(Risk::None)));
        assert!(first.as_mut().poll(&mut cx).is_pending());
        assert!(second.as_mut().poll(&mut cx).is_pending());
        assert!(third.as_mut().poll(&mut cx).is_pending());
        drop(second);
        assert!(hand(&queue, 1) && hand(&queue, 2) && !hand(&queue, 3));
        assert_eq!(third.as_mut().poll(&mut cx), Poll::Ready(Some(2)));
        assert_eq!(first.as_mut().poll(&mut cx), Poll::Ready(Some(1)));
        assert!(queue.is_empty());
    }

    #[test]
    fn who_is_dismissed_has_no_place() {
        let (queue, mut cx) = (Queue::<u32>::default(), Context::from_waker(Waker::noop()));
        let mut alone = pin!(queue.wait(wish(Risk::Head)));
        assert!(alone.as_mut().poll(&mut cx).is_pending());
        assert!(queue.alone.first_if(|waiter| waiter.wish.half() > 1).is_none() && !queue.is_empty());
        queue.dismiss();
        assert_eq!(alone.as_mut().poll(&mut cx), Poll::Ready(None));
    }
}
