//! What is counted of whom, and what is not.

mod clients;
mod pages;

use std::rc::Rc;
use std::sync::Arc;

use super::out::Way;
use super::*;
use crate::metrics::{Kind, Reason};
use crate::proxy::fields::Fields;
use crate::proxy::peer::{Door, Peer};
use crate::table::{Epoch, ServiceSpec, Split, Timeouts, VersionName};

fn version(name: &str) -> VersionName {
    name.parse().unwrap()
}

fn service(generation: u32) -> Service {
    let spec = ServiceSpec {
        name: "shop".parse().unwrap(),
        routes: Arc::new([]),
        versions: Vec::new(),
        discovering: Vec::new(),
        stable: version("blue"),
        weights: Vec::new(),
        timeouts: Timeouts::default(),
        rules: None,
        limits: crate::table::ServiceLimits::default(),
        drain: crate::table::DrainRules::default(),
        hold: crate::table::HoldLimits::standard(),
        pool: Arc::default(),
        supervise: Some(Arc::new(SuperviseRules {
            warmup: (Duration::ZERO, 0),
            ..SuperviseRules::default()
        })),
        sticky: None,
        targeting: Default::default(),
        shield: None,
        upgrades: Default::default(),
        mirror: None,
    };
    let mut service =
        Service::new(&spec, Vec::new(), version("blue"), Split::all_to(version("blue")), Epoch(7));
    let (baseline, candidate) = (version("blue"), Some(version("green")));
    service.watch = Some(Watch { stage: Epoch(7), generation, baseline, candidate });
    service
}

/// A comparison on two workers.
struct Trial {
    ledger: Arc<Ledger>,
    peer: Peer,
}

impl Trial {
    fn new() -> Self {
        let client = "192.0.2.1:4000".parse().unwrap();
        Self {
            ledger: Ledger::of(&service(0), None, 2).unwrap(),
            peer: Peer::new(Some(client), None, Arc::new(Door::default())),
        }
    }

    fn entry(&self, worker: usize, of: &str, generation: u32) -> Rc<Entry> {
        self.entry_of(Kind::Request, worker, of, generation)
    }

    fn entry_of(&self, kind: Kind, worker: usize, of: &str, generation: u32) -> Rc<Entry> {
        let counting = Counting::of(&service(generation), &version(of), Some(&self.ledger)).unwrap();
        counting.begin(worker, kind, (&self.peer, &Fields::default()), Drawn::Its)
    }

    /// Decided, failed and 4xx, of both, in this generation.
    fn counts(&self, generation: usize) -> [[u64; 3]; 2] {
        let sums = self.ledger.sums();
        sums.groups[generation].map(|of| [of.decided, of.failed, of.client_errors])
    }

    fn in_flight(&self) -> [u64; 2] {
        let sums = self.ledger.sums();
        [0, 1].map(|side| {
            let lately = sums.flights[side].iter().map(|(_, begun, ended)| begun - ended);
            lately.sum::<u64>() + sums.older[side]
        })
    }
}

#[test]
fn a_first_attempt_counts_once_by_what_became_of_it_and_whatever_came_later() {
    let trial = Trial::new();
    let answered = |code| trial.entry(0, "green", 0).answered(code, false, None);
    [200, 204, 302, 429, 499].into_iter().for_each(answered);
    assert_eq!(trial.counts(0)[1], [5, 0, 0]);
    [400, 404, 403].into_iter().for_each(answered);
    assert_eq!(trial.counts(0)[1], [8, 0, 3]);
    [500, 502, 503].into_iter().for_each(answered);
    assert_eq!(trial.counts(0)[1], [11, 3, 3]);
    // What another attempt hides from its user is the version's all the same.
    let retried = trial.entry(1, "green", 0);
    retried.failed(Reason::ConnectFailed, false, None);
    retried.answered(200, false, None);
    drop(retried);
    assert_eq!(trial.counts(0)[1], [12, 4, 3]);
    // Neither of these is the version's doing, nor known to be anything.
    for reason in [Reason::ClientGone, Reason::RequestTooLarge, Reason::DrainDeadline] {
        trial.entry(0, "green", 0).failed(reason, false, None);
    }
    for reason in [Reason::NoEndpoint, Reason::ResponseTimeout, Reason::UpstreamClosed] {
        trial.entry(0, "blue", 0).failed(reason, false, None);
    }
    trial.entry(0, "blue", 0).failed(Reason::Deadline, true, None);
    assert_eq!(trial.counts(0), [[4, 4, 0], [12, 4, 3]]);
    assert_eq!(trial.in_flight(), [0, 0]);
}

#[test]
fn a_call_is_judged_by_its_status_and_not_by_its_head() {
    let trial = Trial::new();
    let call = |status| {
        let entry = trial.entry(0, "green", 0);
        entry.answered(200, true, None);
        assert_eq!(trial.in_flight(), [0, 0], "its head has come");
        entry.grpc(status, None);
    };
    [Some(0), Some(5), Some(16)].into_iter().for_each(call);
    assert_eq!(trial.counts(0)[1], [3, 0, 0]);
    [Some(2), Some(4), Some(8), Some(13), Some(14), Some(15), None].into_iter().for_each(call);
    assert_eq!(trial.counts(0)[1], [10, 7, 0]);
    trial.entry(0, "green", 0).answered(503, true, None);
    assert_eq!(trial.counts(0)[1], [11, 8, 0], "without a call there is no status to wait for");
    // Known by its head alone, until a status says otherwise.
    for (status, failed) in [(0, 8), (14, 9)] {
        let entry = trial.entry(0, "green", 0);
        entry.answered(200, false, None);
        entry.grpc(Some(status), None);
        entry.stands();
        assert_eq!((trial.counts(0)[1][1], trial.ledger.sums().open), (failed, [0, 0]));
    }
    assert_eq!(trial.counts(0)[1], [13, 9, 0]);
}

#[test]
fn an_answer_counts_under_the_weights_its_coin_was_thrown_under_unless_these_are_long_gone() {
    let trial = Trial::new();
    let (old, late) = (trial.entry(0, "blue", 0), trial.entry(1, "green", 1));
    let newest = u32::try_from(GENERATIONS).unwrap();
    trial.entry(0, "blue", newest).answered(200, false, None);
    late.answered(500, false, None);
    assert_eq!((trial.counts(1), trial.counts(0)), ([[0; 3], [1, 1, 0]], [[1, 0, 0], [0; 3]]));
    old.answered(500, false, None);
    assert_eq!(trial.counts(0), [[1, 0, 0], [0; 3]], "its place is another's by now");
    assert_eq!(trial.in_flight(), [0, 0]);
}

#[test]
fn what_is_in_flight_is_known_by_when_it_was_begun_however_long_that_is_ago() {
    const WAY: Way = Way { side: Side::Baseline, is_cold: false, is_beyond: false };
    let trial = Trial::new();
    let page = trial.ledger.page(0);
    page.out.began(WAY, 10);
    page.out.began(WAY, 20);
    page.out.ended(WAY, 10);
    let lately = |trial: &Trial| trial.ledger.sums().flights[0].clone();
    assert_eq!(lately(&trial).iter().map(|(_, begun, ended)| (*begun, *ended)).collect::<Vec<_>>(), [(2, 1)]);
    // The same place, one time round later.
    page.out.began(WAY, LATELY + 10);
    let sums = trial.ledger.sums();
    assert_eq!((sums.flights[0].len(), sums.flights[0][0].1, sums.older[0]), (1, 1, 1));
    page.out.ended(WAY, 20);
    page.out.ended(WAY, LATELY + 10);
    assert_eq!(trial.in_flight(), [0, 0]);
}

#[test]
fn failures_in_a_row_blow_the_fuse_once_and_a_good_answer_mends_it() {
    let trial = Trial::new();
    trial.ledger.arm(20);
    let fails = |client: u8| {
        let from = format!("192.0.2.{client}:1").parse().unwrap();
        let peer = Peer::new(Some(from), None, Arc::new(Door::default()));
        Trial { ledger: Arc::clone(&trial.ledger), peer }.entry(0, "green", 0).answered(500, false, None);
    };
    (0..15).for_each(fails);
    trial.entry(0, "green", 0).answered(200, false, None);
    // One client alone counts no more than this: two in a second.
    (0..12).for_each(|_| fails(20));
    assert!(!trial.ledger.has_blown());
    let group = trial.ledger.sums().groups[0][1];
    assert_eq!(group.failed, 27);
    assert!(group.capped < 27, "{group:?}");
    (30..60).for_each(fails);
    assert!(trial.ledger.has_blown());
    assert!(!trial.ledger.has_blown(), "once");
}

#[test]
fn only_what_is_compared_is_counted() {
    let trial = Trial::new();
    assert!(Counting::of(&service(0), &version("grey"), Some(&trial.ledger)).is_none());
    let mut unwatched = service(0);
    unwatched.watch = None;
    assert!(Ledger::of(&unwatched, Some(&trial.ledger), 2).is_none());
    assert!(Arc::ptr_eq(&Ledger::of(&service(3), Some(&trial.ledger), 2).unwrap(), &trial.ledger));
    let mut other = service(0);
    other.watch.as_mut().unwrap().stage = Epoch(8);
    assert!(!Arc::ptr_eq(&Ledger::of(&other, Some(&trial.ledger), 2).unwrap(), &trial.ledger));
}

#[test]
fn an_answer_that_nobody_waited_for_counts_only_once_it_is_known_to_be_slow() {
    let trial = Trial::new();
    let gone = trial.entry(0, "green", 0);
    gone.sent();
    drop(gone);
    assert_eq!(trial.counts(0)[1], [0; 3], "nobody knows what is slow");
    trial.ledger.set_slow([[0; QUANTILES]; 2]);
    let gone = trial.entry(0, "green", 0);
    gone.sent();
    drop(gone);
    drop(trial.entry(0, "green", 0));
    let group = trial.ledger.sums().groups[0][1];
    assert_eq!((group.decided, group.failed, group.measured, group.slow), (1, 0, 1, [1; 3]));
}

#[test]
fn what_was_good_has_failed_once_the_version_breaks_it_off() {
    let trial = Trial::new();
    let begun = || {
        let entry = trial.entry(0, "green", 0);
        entry.answered(200, false, None);
        entry
    };
    let [cut, stalled, whole, left] = [(); 4].map(|()| begun());
    assert_eq!((trial.counts(0)[1], trial.ledger.sums().open), ([4, 0, 0], [0, 4]));
    cut.failed(Reason::BodyTruncated, false, None);
    cut.failed(Reason::BodyTruncated, false, None);
    stalled.failed(Reason::BodyStalled, false, None);
    whole.stands();
    whole.failed(Reason::BodyTruncated, false, None);
    left.failed(Reason::ClientGone, false, None);
    drop(left);
    let group = trial.ledger.sums().groups[0][1];
    assert_eq!((group.decided, group.failed, group.broken, group.capped), (4, 2, 2, 2), "each once");
    assert_eq!(trial.ledger.sums().open, [0, 0]);
    // What is no good answer stays what it is.
    for code in [404, 500] {
        let entry = trial.entry(0, "blue", 0);
        entry.answered(code, false, None);
        entry.failed(Reason::BodyTruncated, false, None);
    }
    assert_eq!(trial.counts(0), [[2, 1, 1], [4, 2, 0]]);
}
