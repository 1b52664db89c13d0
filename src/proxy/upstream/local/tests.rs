//! One worker's parts: found again, forgotten, and told what control has found.

use super::*;
use crate::proxy::clock;
use crate::proxy::upstream::{Standing, Suspicion, Verdict};
use crate::table::OutlierRules;
use crate::table::pool::outliers::Cause;

fn list(addresses: &[&str]) -> Arc<Target> {
    let endpoints = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let mut target = Target::default();
    target.endpoints = endpoints;
    Arc::new(target)
}

fn part(locals: &Locals, upstream: &Arc<Upstream>) -> Rc<Local> {
    locals.of(upstream, upstream.slot())
}

fn anybody() -> Asking<'static> {
    Asking { suits: None, lot: &|| 0, key: &|_| None, now: &clock::now }
}

fn upstream(version: &str) -> Arc<Upstream> {
    Arc::new(Upstream::open("shop".parse().unwrap(), version.parse().unwrap(), 1))
}

#[test]
fn versions_that_list_the_same_address_get_the_same_endpoint() {
    let (locals, clock) = (Locals::new(0, Rc::default()), Clock::default());
    let pick = |upstream: &Arc<Upstream>, addresses: &[&str]| {
        let local = part(&locals, upstream);
        local.follow(&list(addresses));
        Rc::clone(&local.pick(&clock, anybody()).unwrap().seat.endpoint)
    };
    let (blue, green) = (upstream("blue"), upstream("green"));
    let shared = pick(&blue, &["127.0.0.1:1"]);
    assert!(Rc::ptr_eq(&shared, &pick(&green, &["127.0.0.1:1"])));
    assert!(!Rc::ptr_eq(&shared, &pick(&green, &["127.0.0.1:2"])));
}

#[test]
fn every_part_is_found_again_and_is_the_versions_own() {
    let locals = Locals::new(0, Rc::default());
    let upstreams: Vec<_> = (0..100).map(|number| upstream(&format!("v{number}"))).collect();
    let parts: Vec<_> = upstreams.iter().map(|upstream| part(&locals, upstream)).collect();
    for (upstream, made) in upstreams.iter().zip(&parts) {
        assert!(Rc::ptr_eq(&part(&locals, upstream), made));
        assert!(Arc::ptr_eq(made.upstream(), upstream));
    }
}

#[test]
fn what_is_not_used_is_forgotten_and_what_left_at_once_unless_it_has_work() {
    let (locals, clock) = (Locals::new(0, Rc::default()), Clock::default());
    clock.advance(Duration::from_secs(1));
    let (used, unused, gone, empty) =
        (upstream("used"), upstream("unused"), upstream("gone"), upstream("empty"));
    let held = [&used, &gone].map(|upstream| {
        let local = part(&locals, upstream);
        local.follow(&list(&["127.0.0.1:1"]));
        local.pick(&clock, anybody()).unwrap();
        local
    });
    drop(part(&locals, &unused));
    drop(part(&locals, &empty));
    part(&locals, &empty).pick(&clock, anybody());
    gone.leave();
    empty.leave();
    locals.sweep(clock.ticks());
    let known = |upstream: &Arc<Upstream>| locals.known(upstream).is_some();
    assert_eq!([&used, &unused, &gone, &empty].map(known), [true, false, true, false]);
    assert!(!held[1].seats.borrow().are_named());
}

#[test]
fn a_choice_among_those_that_do_not_serve_is_counted() {
    let (locals, clock) = (Locals::new(0, Rc::default()), Clock::default());
    let blue = upstream("blue");
    let local = part(&locals, &blue);
    local.follow(&list(&["127.0.0.1:1", "127.0.0.1:2"]));
    let vitals = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| blue.vitals(&address.parse().unwrap()));
    let chosen = || local.pick(&clock, anybody()).unwrap().counted(&local).endpoint.address.to_string();
    vitals[0].set_standing(Standing::Down, clock::now());
    assert!((0..10).all(|_| chosen() == "127.0.0.1:2"));
    assert_eq!(local.shard().cells().panics(), 0);
    vitals[1].set_standing(Standing::Ejected, clock::now());
    chosen();
    assert_eq!(local.shard().cells().panics(), 1);
    vitals[0].set_standing(Standing::Up, clock::now());
    assert!((0..10).all(|_| chosen() == "127.0.0.1:1"));
    assert_eq!(local.shard().cells().panics(), 1);
}

#[test]
fn every_worker_takes_over_what_is_looked_for_with_its_next_choice() {
    let (clock, suspects) = (Clock::default(), Arc::default());
    let blue = Arc::new(Upstream::open("shop".parse().unwrap(), "blue".parse().unwrap(), 2));
    let workers = [0, 1].map(|worker| Locals::new(worker, Rc::default()));
    let target = list(&["127.0.0.1:1"]);
    let chosen = |worker: usize| {
        let local = part(&workers[worker], &blue);
        local.follow(&target);
        local.pick(&clock, anybody()).unwrap().seat
    };
    let row = || blue.known_vitals(&target.endpoints[0]).unwrap().row(Cause::LocalErrors);
    let first = chosen(0);
    first.ended(Verdict::Reset, None);
    assert_eq!(row(), 0, "nothing is looked for");
    blue.suspect(Some(Suspicion::new(&OutlierRules::default(), &suspects)));
    first.ended(Verdict::Reset, None);
    assert_eq!(row(), 0, "it has not been chosen again");
    // One worker had its part before, the other one has it from now on.
    for worker in [0, 1] {
        chosen(worker).ended(Verdict::Reset, None);
    }
    assert_eq!(row(), 2);
    blue.suspect(None);
    chosen(1).ended(Verdict::Reset, None);
    assert_eq!(row(), 2);
}

#[test]
fn a_slot_is_used_again_when_nobody_has_the_tenure_any_more() {
    let locals = Locals::new(0, Rc::default());
    let first = upstream("first");
    let held = part(&locals, &first);
    drop(first);
    assert_ne!(upstream("second").slot(), held.upstream().slot(), "a part holds the tenure, and its slot");
}
