//! What a page keeps, and what many of them are together.

use std::time::Duration;

use super::super::page::{Decided, Outcome};
use super::*;
use crate::proxy::clock::Clock;
use crate::proxy::upstream::balance::Asking;
use crate::proxy::upstream::{Locals, Seat, Target, Upstream};

/// The seat of green's only endpoint, on worker 0.
fn seat() -> (Rc<Seat>, Arc<Upstream>) {
    let upstream = Arc::new(Upstream::open("shop".parse().unwrap(), version("green"), 1));
    let mut target = Target::default();
    target.endpoints = ["127.0.0.1:1".parse().unwrap()].into();
    let local = Locals::new(0, Rc::default()).of(&upstream, upstream.slot());
    local.follow(&Arc::new(target));
    let anybody = Asking { suits: None, lot: &|| 0, key: &|_| None, now: &clock::now };
    (local.pick(&Clock::default(), anybody).unwrap().seat, upstream)
}

#[test]
fn what_workers_have_counted_is_summed_up() {
    let trial = Trial::new();
    for (worker, code) in [(0, 200), (1, 500), (1, 404), (0, 500)] {
        trial.entry(worker, "green", 0).answered(code, false, None);
    }
    for (worker, id, has_failed) in [(0, 7, false), (1, 7, true), (1, 8, false), (0, 7, true)] {
        trial.ledger.page(worker).of_endpoint(Side::Candidate, id, has_failed);
    }
    trial.ledger.page(1).of_endpoint(Side::Baseline, 9, true);
    (0..2).for_each(|worker| trial.ledger.page(worker).took(Side::Baseline, 5));
    let out = trial.entry(1, "blue", 0);
    let sums = trial.ledger.sums();
    assert_eq!(trial.counts(0), [[0; 3], [4, 2, 1]]);
    assert_eq!(trial.ledger.endpoints(Side::Candidate), [(7, 3, 2), (8, 1, 0)]);
    assert_eq!(trial.ledger.endpoints(Side::Baseline), [(9, 1, 1)]);
    assert_eq!((sums.took[0][5], sums.took[0].iter().sum::<u64>(), sums.took[1][5]), (2, 2, 0));
    assert_eq!((trial.ledger.decided(), sums.decided()), (4, 4));
    assert_eq!((trial.in_flight(), sums.has_out()), ([1, 0], true));
    drop(out);
    assert_eq!((trial.in_flight(), trial.ledger.sums().has_out()), ([0, 0], false));
}

#[test]
fn the_endpoints_of_both_versions_are_told_apart_however_many_the_other_has() {
    let trial = Trial::new();
    let page = trial.ledger.page(0);
    for id in 1..=200 {
        let side = if id % 2 == 0 { Side::Baseline } else { Side::Candidate };
        let before = [true, false, id == 199].map(|has_failed| page.of_endpoint(side, id, has_failed));
        assert_eq!(before, [0, 1, 2], "{id}");
    }
    let endpoints = trial.ledger.endpoints(Side::Candidate);
    assert_eq!((endpoints.len(), endpoints[0], endpoints[99]), (100, (1, 3, 1), (199, 3, 2)));
    assert!(trial.ledger.endpoints(Side::Baseline).iter().all(|(id, ..)| id % 2 == 0));
}

#[test]
fn one_endpoint_too_many_is_counted_with_nobody_else_and_its_speed_at_once() {
    let trial = Trial::new();
    let page = trial.ledger.page(0);
    let before = (1..=2_000).map(|id| page.of_endpoint(Side::Candidate, id, true)).collect::<Vec<_>>();
    let known = before.iter().take_while(|before| **before == 0).count();
    assert!((1_000..1_100).contains(&known), "{known}");
    assert!(before[known..].iter().all(|before| *before == u32::MAX));
    assert_eq!(
        trial.ledger.endpoints(Side::Candidate),
        (1..=known as u64).map(|id| (id, 1, 1)).collect::<Vec<_>>()
    );
}

/// What is counted of one that is gone is never another's, who may be where it was in memory.
#[test]
fn an_endpoint_that_comes_after_another_is_another() {
    let mut ids: Vec<_> = (0..100).map(|_| seat().0.id()).collect();
    assert!(!ids.contains(&0));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 100);
}

/// Its client sends at its own pace, and may be stopped for it: that says nothing about the version.
#[test]
fn an_upload_is_waited_for_from_its_end_on() {
    let trial = Trial::new();
    trial.ledger.set_slow([[0; QUANTILES]; 2]);
    let upload = |of| {
        let upload = trial.entry_of(Kind::Upload, 0, of, 0);
        upload.sent();
        assert_eq!(trial.in_flight(), [0, 0], "nobody waits for its head");
        upload
    };
    // Too large, too slow, or given up.
    upload("green").failed(Reason::RequestTooLarge, false, None);
    upload("green").failed(Reason::Deadline, false, None);
    drop(upload("green"));
    assert_eq!(trial.counts(0)[1], [0; 3]);
    let group = || trial.ledger.sums().groups[0][1];
    // Answered before its end: by how much that is slow nobody can say.
    let early = upload("green");
    early.answered(503, false, None);
    early.uploaded();
    drop(early);
    assert_eq!((trial.counts(0)[1], group().measured), ([1, 1, 0], 0));
    let whole = upload("green");
    whole.uploaded();
    assert_eq!(trial.in_flight(), [0, 1]);
    whole.answered(200, false, None);
    assert_eq!((trial.counts(0)[1], group().measured), ([2, 1, 0], 1));
    let given_up = upload("green");
    given_up.uploaded();
    drop(given_up);
    assert_eq!((trial.counts(0)[1], group().slow), ([3, 1, 0], [2; 3]));
    assert_eq!((trial.in_flight(), trial.ledger.sums().took[1].iter().sum::<u64>()), ([0, 0], 1));
}

#[test]
fn the_first_answers_of_an_endpoint_may_be_slow_but_may_not_fail() {
    let mut supervised = service(0);
    let rules = SuperviseRules { warmup: (Duration::ZERO, 2), ..SuperviseRules::default() };
    supervised.supervise = Some(Arc::new(rules));
    let trial = Trial { ledger: Ledger::of(&supervised, None, 2).unwrap(), ..Trial::new() };
    trial.ledger.set_slow([[0; QUANTILES]; 2]);
    let (seat, _upstream) = seat();
    let answered = |code| {
        let entry = trial.entry(0, "green", 0);
        entry.sent();
        entry.answered(code, false, Some(&seat));
        let group = trial.ledger.sums().groups[0][1];
        (group.decided, group.failed, group.measured)
    };
    assert_eq!([500, 200, 200, 404].map(answered), [(1, 1, 0), (2, 1, 0), (3, 1, 1), (4, 1, 2)]);
    assert_eq!(trial.ledger.endpoints(Side::Candidate), [(seat.id(), 4, 1)]);
}

#[test]
fn what_is_out_is_told_apart_by_whether_its_endpoint_is_warm() {
    let mut supervised = service(0);
    let rules = SuperviseRules { warmup: (Duration::from_secs(60), 1), ..SuperviseRules::default() };
    supervised.supervise = Some(Arc::new(rules));
    let trial = Trial { ledger: Ledger::of(&supervised, None, 2).unwrap(), ..Trial::new() };
    let (seat, _upstream) = seat();
    let out = |all: &[Vec<_>; 2]| {
        all.each_ref()
            .map(|side| side.iter().map(|(_, begun, ended): &(u64, u64, u64)| begun - ended).sum::<u64>())
    };
    let both = || {
        let sums = trial.ledger.sums();
        (out(&sums.flights), out(&sums.slowly))
    };
    let asked = |of| {
        let entry = trial.entry(0, of, 0);
        entry.goes_to(&seat);
        entry
    };
    let (blue, cold) = (asked("blue"), asked("green"));
    cold.goes_to(&seat);
    assert_eq!(both(), ([1, 0], [1, 1]), "the baseline is never cold");
    let uploading = trial.entry_of(Kind::Upload, 0, "green", 0);
    uploading.goes_to(&seat);
    uploading.uploaded();
    assert_eq!(both(), ([1, 0], [1, 2]));
    cold.answered(200, false, Some(&seat));
    let warm = asked("green");
    assert_eq!(both(), ([1, 1], [1, 1]));
    assert!(trial.ledger.sums().has_out());
    drop((blue, warm, uploading));
    assert_eq!(both(), ([0; 2], [0; 2]));
    assert!(!trial.ledger.sums().has_out());
}

#[test]
fn of_what_one_client_has_out_two_begun_in_a_second_are_suspicious_and_of_another_as_many() {
    let trial = Trial::new();
    let other = Peer::new(Some("192.0.2.2:1".parse().unwrap()), None, Arc::new(Door::default()));
    let other = Trial { ledger: Arc::clone(&trial.ledger), peer: other };
    let (seat, _upstream) = seat();
    let asked: Vec<_> = (0..10).map(|_| trial.entry(0, "green", 0)).collect();
    let _blue: Vec<_> = (0..10).map(|_| trial.entry(0, "blue", 0)).collect();
    let _others = [0, 1].map(|worker| other.entry(worker, "green", 0));
    let out = |all: &[Vec<(u64, u64, u64)>; 2]| {
        all.each_ref().map(|these| these.iter().map(|(_, begun, ended)| begun - ended).sum::<u64>())
    };
    let beyond = || out(&trial.ledger.sums().beyond);
    // It may have taken longer than a second.
    let [warm, cold] = beyond();
    assert!((4..=8).contains(&warm) && cold == 0, "{warm}, {cold}");
    assert_eq!(out(&trial.ledger.sums().flights), [10, 12], "as proof all of them count");
    asked.iter().for_each(|entry| entry.goes_to(&seat));
    assert_eq!(beyond(), [warm, 0], "no endpoint has to get warm");
    drop(asked);
    assert_eq!(beyond(), [0, 0]);
}

#[test]
fn an_endpoint_is_silent_from_its_first_request_to_its_first_answer() {
    let trial = Trial::new();
    let page = trial.ledger.page(0);
    let silence = |now| page.silence(Side::Candidate, 7, now);
    assert_eq!([0, 5, 9].map(silence), [0, 5, 9]);
    page.of_endpoint(Side::Candidate, 7, false);
    assert_eq!(silence(12), 0);
}

#[test]
fn an_answer_is_slow_at_those_quantiles_whose_bucket_it_has_reached() {
    let trial = Trial::new();
    let took = |side, bucket| {
        let (generation, outcome) = (0, Outcome::Good);
        let decided = Decided {
            side,
            generation,
            outcome,
            is_capped: false,
            bucket: Some(bucket),
            client: 3,
            slot: None,
        };
        trial.ledger.page(0).decided(&decided);
        let group = trial.ledger.sums().groups[0][side as usize];
        (group.measured, group.slow)
    };
    assert_eq!(took(Side::Baseline, 300), (0, [0; 3]), "nobody knows what is slow");
    trial.ledger.set_slow([[10, 20, 30], [11, 21, 31]]);
    trial.ledger.set_slow([[0; QUANTILES]; 2]);
    assert_eq!(trial.ledger.slow(), Some(&[[10, 20, 30], [11, 21, 31]]), "the first word stays");
    let baseline = [9, 10, 29, 30].map(|bucket| took(Side::Baseline, bucket));
    assert_eq!(baseline, [(1, [0, 0, 0]), (2, [1, 0, 0]), (3, [2, 1, 0]), (4, [3, 2, 1])]);
    let candidate = [10, 30, 31].map(|bucket| took(Side::Candidate, bucket));
    assert_eq!(candidate, [(1, [0, 0, 0]), (2, [1, 1, 0]), (3, [2, 2, 1])]);
}

/// Of those the quick ones have not counted, and all that is still out is slow.
#[test]
fn what_was_begun_before_it_is_known_what_is_slow_is_not_compared() {
    let trial = Trial::new();
    let since = micros(trial.ledger.begun(), trial.ledger.begun() + Duration::from_secs(60));
    trial.ledger.shared.slow.get_or_init(|| (since, [[0; QUANTILES]; 2]));
    let [answered, given_up] = [(); 2].map(|()| trial.entry(0, "green", 0));
    [&answered, &given_up].iter().for_each(|entry| entry.sent());
    answered.answered(200, false, None);
    drop(given_up);
    let group = trial.ledger.sums().groups[0][1];
    assert_eq!((group.decided, group.measured, trial.ledger.slow_since()), (1, 0, Some(since)));
}

/// A stream is as long as its client wants it: that says nothing about the version.
#[test]
fn a_call_that_its_client_ends_after_the_head_is_not_slow() {
    let trial = Trial::new();
    trial.ledger.set_slow([[0; QUANTILES]; 2]);
    let call = trial.entry(0, "green", 0);
    call.sent();
    call.answered(200, true, None);
    drop(call);
    let group = trial.ledger.sums().groups[0][1];
    assert_eq!((group.decided, group.measured), (0, 0), "{group:?}");
    assert_eq!(trial.in_flight(), [0, 0]);
}

#[test]
fn the_baseline_is_alive_by_good_answers_to_what_was_asked_after_the_mark() {
    let trial = Trial::new();
    let alive = || trial.ledger.sums().alive;
    trial.entry(0, "blue", 0).answered(200, false, None);
    assert_eq!(alive(), 0, "there is no mark");
    let asked = [trial.entry(0, "blue", 0), trial.entry(1, "blue", 0), trial.entry(0, "green", 0)];
    // Of its own time: all of this may fall into one microsecond.
    let mark = |at| trial.ledger.shared.mark.store(at, Ordering::Relaxed);
    mark(u64::MAX - 1);
    asked.iter().for_each(|entry| entry.answered(200, false, None));
    assert_eq!(alive(), 0, "they were asked before it");
    mark(0);
    for (of, code) in [("green", 200), ("blue", 500), ("blue", 200), ("blue", 404)] {
        trial.entry(0, of, 0).answered(code, false, None);
    }
    assert_eq!(alive(), 2);
    trial.ledger.mark();
    trial.entry(1, "blue", 0).answered(200, false, None);
    assert_eq!(alive(), 3, "it is set to the present");
}

#[test]
fn of_one_client_two_of_a_kind_in_a_second_count_and_of_another_as_many() {
    let trial = Trial::new();
    let shared = &trial.ledger.shared;
    let counts = |client, micros| shared.counts_for(client, Bad::Failed, micros);
    let second = 1_000_000;
    assert_eq!([0, 1, second - 1].map(|at| counts(3, at)), [true, true, false]);
    assert_eq!([2, 3, 4].map(|at| counts(4, at)), [true, true, false]);
    assert_eq!([second, second + 1, 2 * second - 1].map(|at| counts(3, at)), [true, true, false]);
    assert!(counts(3, 100 * second));
    // Who is slow is still seen to fail, and the other way round.
    let slow = |quantile| [0, 1, 2].map(|at| shared.counts_for(5, Bad::Slow(quantile), at));
    assert_eq!([0, 1, 2].map(slow), [[true, true, false]; 3]);
    assert_eq!([3, 4, 5].map(|at| counts(5, at)), [true, true, false]);
    assert!((0..3).all(|quantile| !shared.counts_for(5, Bad::Slow(quantile), second - 1)));
}

#[test]
fn what_one_client_waits_for_is_as_suspicious_as_two_in_a_second_whether_it_stays_or_leaves() {
    let trial = Trial::new();
    trial.ledger.set_slow([[0; QUANTILES]; 2]);
    let asked = |of| {
        let entry = trial.entry(0, of, 0);
        entry.sent();
        entry
    };
    for _ in 0..10 {
        asked("green").answered(200, false, None);
        drop(asked("green"));
        asked("blue").answered(200, false, None);
    }
    let [blue, green] = trial.ledger.sums().groups[0];
    assert_eq!((green.measured, green.slow), (20, [20; 3]), "as proof all of them count");
    // It may have taken longer than a second.
    assert!(green.slow_beyond.iter().all(|beyond| (10..=18).contains(beyond)), "{green:?}");
    assert_eq!((blue.slow, blue.slow_beyond), ([10; 3], [0; 3]));
}

#[test]
fn a_fuse_blows_only_when_it_is_armed_and_one_that_is_armed_again_begins_anew() {
    let trial = Trial::new();
    let fails = |times| (0..times).for_each(|_| trial.ledger.shared.candidate_failed());
    fails(70);
    assert!(!trial.ledger.has_blown());
    trial.ledger.arm(3);
    fails(2);
    trial.ledger.arm(3);
    fails(2);
    assert!(!trial.ledger.has_blown());
    fails(1);
    assert!(trial.ledger.has_blown());
    trial.ledger.arm(3);
    fails(3);
    trial.ledger.arm(3);
    assert!(!trial.ledger.has_blown(), "it blew before");
    fails(2);
    trial.ledger.shared.candidate_answered();
    fails(2);
    assert!(!trial.ledger.has_blown());
    fails(1);
    assert!(trial.ledger.has_blown());
}

#[test]
fn what_came_since_a_count_is_never_less_than_nothing() {
    let before = Counted { decided: 3, ..Counted::default() };
    let after = Counted { decided: 5, failed: 1, ..Counted::default() };
    assert_eq!(after.less(&before), Counted { decided: 2, failed: 1, ..Counted::default() });
    assert_eq!(before.less(&after), Counted::default());
}
