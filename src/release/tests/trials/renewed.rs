//! What ends a trial or begins it anew without new weights, and one that nobody else may be with.

use super::*;
use crate::table::{HoldScope, Holder};

#[test]
fn a_restart_with_a_file_that_says_no_more_of_it_ends_a_trial_as_a_reload_does() {
    let restarted = |state: &State, services| {
        let again = Command::Configure { services, records: records(state) };
        run(&State::at(state.table.epoch()), again).unwrap()
    };
    for off in [file(SuperviseMode::Off), the_file()] {
        let (next, effects) = restarted(&leaning(), off);
        assert_eq!((told(&next), watch(&next)), ("-".into(), None));
        let note = "`shop` is not supervised any more: the file says so; it stays at blue 90 %, green 10 %";
        assert_eq!(effects.notes, [note]);
    }
    // Only a change has asked for this one, until the file does.
    let asked = after(&plain(), [flip_with("shop", "green", Supervise::For(None))]);
    assert_eq!(trial(&restarted(&asked, file(SuperviseMode::Off)).0), trial(&asked));
    let both = after(&asked, [configure(file(SuperviseMode::On))]);
    assert_eq!(told(&restarted(&both, the_file()).0), "-");
}

#[test]
fn a_pool_of_others_is_tried_anew_and_one_of_which_anybody_stays_is_not() {
    let canary = after(&supervised(), [canary()]);
    let stage = |state: &State| trial(state).unwrap().stage;
    let leaning = acted(&after(&supervised(), [flip("shop", "green")]), Act::Lean(weight("10")));
    for state in [&canary, &leaning] {
        let (next, effects) = run(state, put("shop", pool("green", &[9901, 9902]))).unwrap();
        let epoch = next.table.epoch();
        assert_eq!(
            trial(&next),
            Some(&Trial { stage: epoch, generation: 0, ..trial(state).unwrap().clone() })
        );
        assert!(!watch(&next).unwrap().goes_on(&watch(state).unwrap()), "what is counted is others'");
        assert_eq!(effects.change.unwrap().epoch, epoch);
        assert_eq!(stands(&next), stands(state));
        let by_file = {
            let mut file = file(SuperviseMode::On);
            let green = file[0].versions.iter_mut().find(|spec| spec.name == version("green")).unwrap();
            green.endpoints = pool("green", &[9901]).endpoints;
            after(state, [configure(file)])
        };
        assert_eq!(stage(&by_file), by_file.table.epoch());
    }
    let two = after(&canary, [add_endpoint("shop", "green", 9901)]);
    for same in [
        two.clone(),
        after(&two, [put("shop", pool("green", &[9901, 9902]))]),
        after(&canary, [put("shop", pool("blue", &[9801]))]),
        after(&canary, [third(), put("shop", pool("v3", &[9901]))]),
    ] {
        assert_eq!(stage(&same), stage(&canary));
    }
}

#[test]
fn what_is_found_of_a_pool_comes_and_goes_in_one_trial() {
    let found = |ports: &[u16]| Command::Discover {
        service: service("shop"),
        version: version("green"),
        endpoints: Some(pool("green", ports).endpoints.to_vec()),
    };
    let state = after(&supervised(), [found(&[9901]), canary()]);
    let next = after(&state, [found(&[9902])]);
    assert_eq!(trial(&next), trial(&state));
}

#[test]
fn after_an_exclusive_flip_nobody_leans_back_and_the_way_back_ends_its_own_hold() {
    let exclusive = || hold_by("shop", Holder::Exclusive, HoldScope::All);
    let flipped = after(&supervised(), [exclusive(), switch("shop", "green")]);
    assert_eq!(trial(&flipped).unwrap().exclusive, Some(HoldScope::All));
    let (same, effects) = run(&flipped, act(&flipped, Act::Lean(weight("10")))).unwrap();
    assert_eq!((effects.change, stands(&same)), (None, stands(&flipped)));
    let held = after(&flipped, [hold("shop", HoldScope::Writes), exclusive()]);
    assert_eq!(trial(&held), trial(&flipped));
    let back = acted(&held, Act::Convict);
    assert_eq!(stands(&back), is("blue 100 %", "blue", "-"));
    let holds = back.table.service(&service("shop")).unwrap().holds;
    assert_eq!(holds.iter().map(|hold| hold.holder).collect::<Vec<_>>(), [Holder::Operator]);
    // It stays so when it is only watched for longer, and not when the operator moves on.
    let longer = after(&flipped, [flip_with("shop", "green", Supervise::For(None))]);
    assert_eq!(trial(&longer).unwrap().exclusive, Some(HoldScope::All));
    let canary = after(&flipped, [weights("shop", &[("green", "50")], Some("blue"))]);
    assert_eq!(trial(&canary).unwrap().exclusive, None);
}

#[test]
fn where_supervision_may_go_back_to_keeps_an_endpoint_that_serves() {
    let flipped = after(&supervised(), [flip("shop", "green"), drain_endpoint("shop", "blue", 9001)]);
    let measure = || Refused::Measure {
        service: service("shop"),
        version: version("blue"),
        candidate: version("green"),
    };
    for last in [
        drain_endpoint("shop", "blue", 9002),
        remove_endpoint("shop", "blue", 9002),
        put("shop", pool("blue", &[])),
        Command::Batch(vec![flip("cart", "two"), drain_endpoint("shop", "blue", 9002)]),
    ] {
        assert_eq!(run(&flipped, last.clone()).unwrap_err(), measure(), "{last:?}");
    }
    // Nobody goes back to it any more, or only tells.
    let last = || drain_endpoint("shop", "blue", 9002);
    let ended = after(&flipped, [flip_with("shop", "green", Supervise::No)]);
    let elsewhere = Command::Batch(vec![third(), flip("shop", "v3"), last()]);
    let tells = after(
        &start(file(SuperviseMode::Alert)),
        [flip("shop", "green"), drain_endpoint("shop", "blue", 9001)],
    );
    for (state, goes) in [(&ended, last()), (&flipped, elsewhere), (&tells, last())] {
        assert!(run(state, goes.clone()).is_ok(), "{goes:?}");
    }
    // Who takes it out with the traffic, as a rollout does, and a file are told.
    let note = "supervision cannot give the traffic of `shop` back to `blue` while no endpoint of it serves";
    let canary = after(&supervised(), [canary(), drain_endpoint("shop", "blue", 9001)]);
    let rollout = Command::Batch(vec![flip("shop", "green"), last()]);
    let mut empty = file(SuperviseMode::On);
    empty[0].versions[0] = pool("blue", &[]);
    for (state, takes) in [(&canary, rollout), (&flipped, configure(empty))] {
        let (next, effects) = run(state, takes).unwrap();
        assert_eq!(told(&next), "blue/green: green 100 %");
        assert!(effects.notes.iter().any(|said| said == note), "{:?}", effects.notes);
    }
}
