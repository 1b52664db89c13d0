//! What came of the orders in a trial: what stands in their way, and when they are given again.

use std::time::{Duration, Instant};

use crate::control::Failed;
use crate::metrics::Kind;
use crate::release::Act;
use crate::table::{EndpointAddr, VersionName};

/// How long after an order the next one is given, whatever came of it.
const AGAIN: Duration = Duration::from_secs(1);
/// The same after one for which requests had to wait,
const AGAIN_EXCLUSIVE: Duration = Duration::from_secs(10);
/// twice as long each time that they waited in vain, up to this, while what was in the way is there.
const LONGEST: Duration = Duration::from_mins(5);

/// What supervision wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Something about the weights.
    Act(Act),
    /// This endpoint of the candidate is bad, and not its version.
    Eject(VersionName, EndpointAddr),
}

/// The orders of one trial.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// The last one, until it is answered: a store that hangs is not told the same again and again.
    underway: Option<Wanted>,
    /// Nothing is ordered before then.
    patience: Option<Instant>,
    /// What is to be ordered before anything else: it was refused for no reason of its own.
    owed: Option<Wanted>,
    /// Why the last one was not carried out, in words.
    hindrance: Option<String>,
    /// How often in a row requests waited for one that was not carried out.
    in_vain: u32,
    /// What they waited for, and from when on it is looked whether that is gone.
    barred: Option<(Vec<Kind>, Instant)>,
}

/// Why an order was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// It says nothing about the order: the next one may be carried out.
    Passing,
    /// What was in the way did not go, and requests waited for it.
    InVain,
    /// It cannot be.
    Lasting,
}

impl Cause {
    fn of(failed: &Failed) -> Self {
        match failed {
            Failed::Store(_) | Failed::Lent | Failed::Underway { .. } => Self::Passing,
            Failed::HoldEnded(_) => Self::InVain,
            Failed::Refused(_)
            | Failed::Beyond(_)
            | Failed::KeyReused(_)
            | Failed::StreamsOpen { .. }
            | Failed::WorkElsewhere(_)
            | Failed::Holding
            | Failed::Queueing(_)
            | Failed::RollingOut
            | Failed::Closed
            | Failed::Unfenced
            | Failed::Overtaken
            | Failed::Succeeded
            | Failed::LeftBehind => Self::Lasting,
        }
    }
}

impl Orders {
    /// True while nothing can be ordered; `count` is what the candidate has in flight.
    pub(super) fn are_waited_for(&self, now: Instant, count: impl Fn(Kind) -> u64) -> bool {
        let is_gone = |(kinds, from): &(Vec<Kind>, Instant)| {
            now >= *from && !kinds.is_empty() && kinds.iter().all(|kind| count(*kind) == 0)
        };
        self.patience.is_some_and(|until| now < until) && !self.barred.as_ref().is_some_and(is_gone)
    }

    /// What is to be ordered before anything else.
    pub(super) fn owed(&self) -> Option<&Wanted> {
        self.owed.as_ref()
    }

    /// Nothing is wanted: nothing stands in its way.
    pub(super) fn rest(&mut self) {
        self.hindrance = None;
    }

    /// Gives this order; false when it is given already, and not answered.
    pub(super) fn give(&mut self, wanted: &Wanted, now: Instant) -> bool {
        if self.underway.as_ref() == Some(wanted) {
            return false;
        }
        (self.owed, self.barred) = (None, None);
        self.underway = Some(wanted.clone());
        self.patience = Some(now + AGAIN);
        true
    }

    /// This one was carried out.
    pub(super) fn done(&mut self, wanted: &Wanted) {
        self.end(wanted);
        (self.patience, self.hindrance, self.in_vain) = (None, None, 0);
    }

    /// This one was not; true when it has to be given again before any other, and whether the reason is news.
    pub(super) fn refused(
        &mut self,
        wanted: &Wanted,
        failed: &Failed,
        is_exclusive: bool,
        now: Instant,
    ) -> (bool, Option<&str>) {
        self.end(wanted);
        let cause = Cause::of(failed);
        self.in_vain = if cause == Cause::InVain { self.in_vain.saturating_add(1) } else { 0 };
        let pause = if is_exclusive { AGAIN_EXCLUSIVE } else { AGAIN };
        let times = 1 << self.in_vain.saturating_sub(1).min(8);
        self.patience = Some(now + (pause * times).min(LONGEST.max(pause)));
        if let Failed::HoldEnded(ended) = failed {
            self.barred = Some((ended.left.iter().map(|left| left.kind).collect(), now + pause));
        }
        let is_owed = cause == Cause::Passing && matches!(wanted, Wanted::Eject(..));
        self.owed = is_owed.then(|| wanted.clone());
        let why = Some(failed.to_string());
        let is_news = self.hindrance != why;
        self.hindrance = why;
        (is_owed, self.hindrance.as_deref().filter(|_| is_news))
    }

    fn end(&mut self, wanted: &Wanted) {
        self.underway.take_if(|underway| underway == wanted);
    }

    /// Why the last one was not carried out.
    pub(super) fn hindrance(&self) -> Option<&str> {
        self.hindrance.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Ended, HoldEnded, InTheWay, clock};
    use crate::store::StoreError;

    const CONVICT: Wanted = Wanted::Act(Act::Convict);

    fn store() -> Failed {
        Failed::Store(StoreError::Io("the disk is full".to_owned()))
    }

    /// There is one of everything.
    fn one(_: Kind) -> u64 {
        1
    }

    fn waited_in_vain() -> Failed {
        Failed::HoldEnded(Box::new(HoldEnded {
            service: "shop".parse().unwrap(),
            to: "blue".parse().unwrap(),
            why: Ended::Time,
            reason: "its time was over".to_owned(),
            left: vec![InTheWay { version: "green".parse().unwrap(), kind: Kind::Upload, count: 1 }],
            lasted: Duration::from_secs(10),
        }))
    }

    #[test]
    fn what_a_store_refuses_is_ordered_once_a_second_and_told_once() {
        let (mut orders, start) = (Orders::default(), clock::instant());
        let mut news = 0;
        for second in 0..5 {
            let now = start + AGAIN * second;
            assert!(!orders.are_waited_for(now, one) && orders.give(&CONVICT, now));
            let (is_owed, why) = orders.refused(&CONVICT, &store(), false, now);
            assert!(!is_owed);
            news += u32::from(why.is_some());
            assert!(orders.are_waited_for(now + AGAIN - Duration::from_millis(1), one));
        }
        assert_eq!(
            (news, orders.hindrance()),
            (1, Some("nothing has changed: the state store failed: the disk is full"))
        );
        orders.give(&CONVICT, start + AGAIN * 5);
        orders.done(&CONVICT);
        assert_eq!((orders.hindrance(), orders.are_waited_for(start + AGAIN * 5, one)), (None, false));
    }

    #[test]
    fn a_store_that_hangs_is_not_told_the_same_again_and_again() {
        let (mut orders, start) = (Orders::default(), clock::instant());
        let lean = Wanted::Act(Act::Lean(crate::table::BasisPoints::ALL));
        assert!(orders.give(&lean, start));
        let later = start + Duration::from_mins(1);
        assert!(!orders.are_waited_for(later, one) && !orders.give(&lean, later));
        assert!(orders.give(&CONVICT, later), "something else is wanted by now");
        orders.done(&lean);
        assert!(!orders.give(&CONVICT, later + AGAIN), "that one is not answered");
    }

    #[test]
    fn an_endpoint_that_could_not_be_drained_is_owed() {
        let (mut orders, start) = (Orders::default(), clock::instant());
        let eject = Wanted::Eject("green".parse().unwrap(), "127.0.0.1:1".parse().unwrap());
        orders.give(&eject, start);
        assert!(orders.refused(&eject, &store(), false, start).0);
        assert_eq!(orders.owed(), Some(&eject));
        orders.give(&eject, start + AGAIN);
        assert_eq!(orders.owed(), None);
        assert!(!orders.refused(&eject, &Failed::Closed, false, start + AGAIN).0, "that is for good");
        assert_eq!(orders.owed(), None);
    }

    #[test]
    fn requests_do_not_wait_in_vain_all_the_time() {
        let (mut orders, mut now) = (Orders::default(), clock::instant());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert!(orders.give(&CONVICT, now));
            orders.refused(&CONVICT, &waited_in_vain(), true, now);
            let pause =
                (1..).find(|seconds| !orders.are_waited_for(now + Duration::from_secs(*seconds), one));
            pauses.push(pause.unwrap());
            now += Duration::from_secs(pauses[pauses.len() - 1]);
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300, 300]);
        assert!(orders.give(&CONVICT, now));
        orders.refused(&CONVICT, &waited_in_vain(), true, now);
        let is_gone = |kind| u64::from(kind != Kind::Upload);
        let soon = now + AGAIN_EXCLUSIVE;
        assert!(
            orders.are_waited_for(soon - Duration::from_millis(1), is_gone),
            "not more often than before"
        );
        assert!(!orders.are_waited_for(soon, is_gone), "what was in the way is gone");
        assert!(orders.are_waited_for(soon, one));
        assert!(orders.give(&CONVICT, now));
        orders.refused(&CONVICT, &store(), true, now);
        assert!(!orders.are_waited_for(now + AGAIN_EXCLUSIVE, one), "for a store nobody waits");
    }
}
