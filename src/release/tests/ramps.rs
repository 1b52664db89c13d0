//! Ramps: what each step is, what its time is, what stops it, and how it ends.

mod others;
mod tried;

use std::sync::Arc;
use std::time::Duration;

use super::world::*;
use crate::release::{
    Act, ActorKind, ChangeKind, Command, Effects, Event, Health, Order, Ramp, RampEnd, RampOrder, Refused,
    Scopes, State, Steps, Supervise, Timestamp, step,
};
use crate::table::{BasisPoints, Epoch, PoolRules, ServiceSpec, SuperviseMode, SuperviseRules};

const MINUTE: Duration = Duration::from_secs(60);

fn plain() -> State {
    start(the_file())
}

fn supervised() -> State {
    let mut file = the_file();
    file[0].supervise = Some(Arc::default());
    start(file)
}

fn up() -> Command {
    begin_ramp("shop", "green", &["1", "50", "100"])
}

fn under_way(state: &State) -> Option<&Ramp> {
    state.deployment(&service("shop")).unwrap().ramp.as_ref()
}

/// How the last one ended, and at what weight.
fn ended(state: &State) -> Option<(RampEnd, String)> {
    let ramped = state.deployment(&service("shop")).unwrap().ramped.as_ref()?;
    Some((ramped.how, ramped.reached.to_string()))
}

fn shop(state: &State) -> String {
    split(state, "shop").to_string()
}

fn is_refused(state: &State, command: Command, token: &str) {
    let refused = run(state, command).unwrap_err();
    assert_eq!(refused.token(), token, "{refused}");
    assert!(!refused.hint().is_empty());
}

/// One step, as control takes it.
fn stepped(state: &State) -> State {
    after(state, [due(state, "shop")])
}

fn at(state: &State, command: Command, millis: u64) -> State {
    step(state, order(command), Timestamp(millis)).unwrap().0
}

#[test]
fn each_step_is_a_change_of_weights_and_the_last_one_ends_it() {
    let begun = after(&plain(), [up()]);
    assert_eq!((shop(&begun), under_way(&begun).unwrap().step), ("blue 99 %, green 1 %".to_owned(), 0));
    let (half, Effects { change, .. }) = run(&begun, due(&begun, "shop")).unwrap();
    let change = change.unwrap();
    assert_eq!((change.kind, change.epoch), (ChangeKind::Ramp, begun.table.epoch().next()));
    assert_eq!(change.summary, "shop: blue 50 %, green 50 %, ramp to green, step 2 of 3");
    assert_eq!((shop(&half), stable(&half, "shop")), ("blue 50 %, green 50 %".to_owned(), "blue".to_owned()));
    let all = stepped(&half);
    assert_eq!((shop(&all), stable(&all, "shop")), ("green 100 %".to_owned(), "green".to_owned()));
    assert_eq!((under_way(&all), ended(&all)), (None, Some((RampEnd::Finished, "100 %".to_owned()))));
}

#[test]
fn a_revert_takes_all_of_it_back_also_when_it_is_over() {
    let begun = after(&plain(), [up()]);
    let half = stepped(&begun);
    for state in [&begun, &half, &stepped(&half)] {
        let back = after(state, [revert("shop")]);
        assert_eq!((shop(&back), stable(&back, "shop")), ("blue 100 %".to_owned(), "blue".to_owned()));
        assert_eq!(under_way(&back), None);
        is_refused(&back, revert("shop"), "nothing_to_revert");
    }
    assert_eq!(ended(&after(&half, [revert("shop")])), Some((RampEnd::Aborted, "50 %".to_owned())));
}

#[test]
fn an_abort_brings_back_what_was_before_and_is_for_a_ramp_alone() {
    let canary = after(&plain(), [weights("shop", &[("green", "10")], Some("blue"))]);
    let half = stepped(&after(&canary, [begin_ramp("shop", "green", &["20", "50", "100"])]));
    let (back, effects) = run(&half, ramp("shop", RampOrder::Abort)).unwrap();
    assert_eq!(effects.change.unwrap().kind, ChangeKind::Abort);
    assert_eq!(shop(&back), "blue 90 %, green 10 %");
    assert_eq!(ended(&back), Some((RampEnd::Aborted, "50 %".to_owned())));
    for order in [
        RampOrder::Abort,
        RampOrder::Promote { full: false },
        RampOrder::Freeze { left: None },
        RampOrder::Resume,
        RampOrder::Step { begun: Epoch(1), from: 0 },
    ] {
        is_refused(&back, ramp("shop", order), "no_ramp");
    }
}

#[test]
fn a_step_is_taken_once_and_for_its_own_ramp() {
    let begun = after(&plain(), [up()]);
    let first = due(&begun, "shop");
    let half = after(&begun, [first.clone()]);
    is_refused(&half, first.clone(), "no_ramp");
    let another = after(&half, [ramp("shop", RampOrder::Abort), up()]);
    is_refused(&another, first, "no_ramp");
}

#[test]
fn it_goes_up_from_where_the_version_is_and_needs_something_to_go_up_to() {
    let canary = after(&plain(), [weights("shop", &[("green", "10")], Some("blue"))]);
    let (begun, effects) = run(&canary, begin_ramp("shop", "green", &["1", "10", "25", "100"])).unwrap();
    assert_eq!(
        (shop(&begun), under_way(&begun).unwrap().steps.all().len()),
        ("blue 75 %, green 25 %".into(), 2)
    );
    assert_eq!(effects.notes, ["`green` of `shop` has 10 % already: lower steps are left out"]);
    is_refused(&canary, begin_ramp("shop", "green", &["5", "10"]), "nothing_to_ramp");
    is_refused(&plain(), begin_ramp("shop", "blue", &["50", "100"]), "nothing_to_ramp");
    is_refused(&plain(), begin_ramp("shop", "nowhere", &["50"]), "unknown_version");
    is_refused(&plain(), begin_ramp("shop", "hollow", &["50"]), "empty_version");
    is_refused(&begun, begin_ramp("shop", "blue", &["90"]), "ramping");
    is_refused(&plain(), Command::Batch(vec![up()]), "ramp_in_batch");
    // One step alone is over at once.
    let once = after(&plain(), [begin_ramp("shop", "green", &["30"])]);
    assert_eq!((under_way(&once), ended(&once)), (None, Some((RampEnd::Finished, "30 %".to_owned()))));
}

#[test]
fn steps_rise() {
    let steps = |all: &[&str]| Steps::new(all.iter().map(|step| weight(step)).collect());
    assert!(steps(&["0.01", "5", "100"]).is_ok());
    for bad in [&[][..], &["0", "5"], &["5", "5"], &["50", "25"]] {
        steps(bad).unwrap_err();
    }
    assert!(Steps::new((1..=101).map(|points| BasisPoints::new(points).unwrap()).collect()).is_err());
    let usual: Vec<_> = Steps::default().all().iter().map(ToString::to_string).collect();
    assert_eq!(usual, ["1 %", "5 %", "25 %", "50 %", "100 %"]);
}

#[test]
fn the_others_share_the_rest_as_they_did() {
    let third = put("shop", pool("v3", &[9401]));
    let mixed = weights("shop", &[("green", "10"), ("v3", "30")], Some("blue"));
    let begun = after(&plain(), [third, mixed, begin_ramp("shop", "green", &["40", "99.99", "100"])]);
    assert_eq!(shop(&begun), "blue 40 %, green 40 %, v3 20 %");
    let almost = stepped(&begun);
    assert_eq!(shop(&almost), "blue 0.01 %, green 99.99 %");
    assert_eq!(shop(&after(&almost, [revert("shop")])), "blue 60 %, green 10 %, v3 30 %");
    // Each to a point, whoever carries the service: half of 33.34 % and of 33.33 % twice.
    let even = [put("shop", pool("v3", &[9401])), put("shop", pool("v4", &[9501]))];
    let even =
        after(&after(&plain(), even), [weights("shop", &[("v3", "33.33"), ("v4", "33.33")], Some("blue"))]);
    let half = after(&even, [begin_ramp("shop", "green", &["50", "100"])]);
    assert_eq!(shop(&half), "blue 16.67 %, green 50 %, v3 16.67 %, v4 16.66 %");
    // What an abort needs is gone: nobody may go on as if it were there.
    let (gone, effects) = run(&almost, remove("shop", "v3")).unwrap();
    assert_eq!((under_way(&gone), ended(&gone).unwrap().0), (None, RampEnd::Superseded));
    assert!(effects.notes[0].starts_with("the ramp of `shop` to `green` is over; it had come to 99.99 %"));
}

#[test]
fn a_flip_that_is_to_end_nothing_is_refused_while_it_is_under_way() {
    let begun = after(&plain(), [up()]);
    is_refused(&begun, flip_aside("shop", "green"), "ramping");
    let aborted = after(&begun, [ramp("shop", RampOrder::Abort), flip_aside("shop", "green")]);
    assert_eq!(shop(&aborted), "green 100 %");
}

#[test]
fn whoever_moves_the_traffic_otherwise_ends_it() {
    let half = stepped(&after(&plain(), [up()]));
    let others = [
        (flip("shop", "green"), "green 100 %"),
        (flip("shop", "blue"), "blue 100 %"),
        (switch("shop", "green"), "green 100 %"),
        (weights("shop", &[("green", "50")], Some("blue")), "blue 50 %, green 50 %"),
        (Command::Undo { to: Epoch(1), records: records(&plain()), scopes: Scopes::all() }, "blue 100 %"),
    ];
    for (command, expected) in others {
        let (next, effects) = run(&half, command.clone()).unwrap();
        assert_eq!((shop(&next), under_way(&next)), (expected.to_owned(), None), "{command:?}");
        assert_eq!(ended(&next), Some((RampEnd::Superseded, "50 %".to_owned())), "{command:?}");
        let note = "the ramp of `shop` to `green` is over; it had come to 50 % (step 2 of 3)";
        assert!(effects.notes.iter().any(|noted| noted == note), "{command:?}: {:?}", effects.notes);
    }
    let mut file = the_file();
    file[0].versions.remove(1);
    let without = after(&half, [configure(file)]);
    assert_eq!((shop(&without), under_way(&without)), ("blue 100 %".to_owned(), None));
    assert_eq!(ended(&without), Some((RampEnd::Superseded, "50 %".to_owned())));
}

#[test]
fn what_moves_no_traffic_leaves_it_alone() {
    let half = stepped(&after(&plain(), [up()]));
    let mut file = the_file();
    file[0].versions[1] = pool("green", &[9102]);
    for command in [
        hold("shop", crate::table::HoldScope::All),
        add_endpoint("shop", "green", 9102),
        put("shop", pool("v3", &[9401])),
        remove("shop", "hollow"),
        configure(the_file()),
        configure(file),
        flip("cart", "two"),
        Command::Undo { to: half.table.epoch(), records: records(&half), scopes: Scopes::all() },
    ] {
        let next = after(&half, [command.clone()]);
        assert_eq!(under_way(&next), under_way(&half), "{command:?}");
    }
    // An undo of what came since the step leaves the step.
    let later = after(&half, [add_endpoint("shop", "green", 9102)]);
    let undone = after(
        &later,
        [Command::Undo { to: half.table.epoch(), records: records(&half), scopes: Scopes::all() }],
    );
    assert_eq!(under_way(&undone), under_way(&half));
    assert_eq!(shop(&after(&undone, [ramp("shop", RampOrder::Abort)])), "blue 100 %");
}

#[test]
fn a_step_has_its_time_and_no_calendar_gives_it_more() {
    let begun = at(&plain(), up(), 1_000_000);
    let present = under_way(&begun).unwrap();
    let left = |millis| present.left(Timestamp(millis));
    assert_eq!((left(1_000_000), left(1_020_000)), (Some(MINUTE), Some(Duration::from_secs(40))));
    assert_eq!(left(9_000_000), Some(Duration::ZERO), "it was over while nobody was there");
    assert_eq!(left(0), Some(MINUTE), "somebody has set the calendar back");
    // The next one has all of its own.
    let next = at(&begun, due(&begun, "shop"), 9_000_000);
    assert_eq!(under_way(&next).unwrap().left(Timestamp(9_000_000)), Some(MINUTE));
}

#[test]
fn a_frozen_one_stays_and_goes_on_with_what_was_left() {
    let begun = at(&plain(), up(), 0);
    let left = Some(Duration::from_secs(45));
    let frozen = at(&begun, ramp("shop", RampOrder::Freeze { left }), 50_000);
    let present = under_way(&frozen).unwrap();
    assert_eq!((present.left(Timestamp(0)), present.is_frozen), (None, true));
    is_refused(&frozen, due(&frozen, "shop"), "no_ramp");
    assert_eq!(shop(&frozen), shop(&begun));
    let again = run(&frozen, ramp("shop", RampOrder::Freeze { left: None })).unwrap().1;
    assert_eq!(again.change, None, "it is so already");
    let on = at(&frozen, ramp("shop", RampOrder::Resume), 900_000);
    assert_eq!(under_way(&on).unwrap().left(Timestamp(900_000)), left);
    assert_eq!(run(&on, ramp("shop", RampOrder::Resume)).unwrap().1.change, None);
    // By the calendar where nobody knows better.
    let frozen = at(&begun, ramp("shop", RampOrder::Freeze { left: None }), 50_000);
    assert_eq!(under_way(&frozen).unwrap().lasts, Duration::from_secs(10));
    let on = at(&frozen, ramp("shop", RampOrder::Promote { full: false }), 900_000);
    let present = under_way(&on).unwrap();
    assert_eq!((present.step, present.is_frozen), (1, false), "who is promoted goes on");
    assert_eq!(present.left(Timestamp(900_000)), Some(MINUTE));
}

#[test]
fn an_undo_takes_back_a_freeze_and_a_resume_too() {
    let begun = at(&plain(), up(), 0);
    let freeze = ramp("shop", RampOrder::Freeze { left: Some(Duration::from_secs(45)) });
    let frozen = at(&begun, freeze, 15_000);
    let undo =
        |to: &State| Command::Undo { to: to.table.epoch(), records: records(to), scopes: Scopes::all() };
    let (on, effects) = step(&frozen, order(undo(&begun)), Timestamp(900_000)).unwrap();
    assert_eq!(effects.change.unwrap().summary, "shop: the ramp to green goes on");
    let present = under_way(&on).unwrap();
    assert_eq!((present.is_frozen, present.left(Timestamp(900_000))), (false, Some(Duration::from_secs(45))));
    let again = at(&on, undo(&frozen), 910_000);
    assert_eq!(under_way(&again), under_way(&frozen));
    assert_eq!(run(&again, undo(&frozen)).unwrap().1.change, None, "it is so already");
    assert_eq!(shop(&after(&on, [ramp("shop", RampOrder::Abort)])), "blue 100 %");
}

#[test]
fn without_a_time_each_step_waits_for_somebody() {
    let steps = Steps::default();
    let begin =
        RampOrder::Begin { to: reference("green"), steps, every: None, supervise: Supervise::AsConfigured };
    let mut state = after(&plain(), [ramp("shop", begin)]);
    for expected in ["5 %", "25 %", "50 %"] {
        assert_eq!(under_way(&state).unwrap().left(Timestamp(u64::MAX)), None);
        state = after(&state, [ramp("shop", RampOrder::Promote { full: false })]);
        assert_eq!(under_way(&state).unwrap().weight().to_string(), expected);
    }
    let frozen = after(&state, [ramp("shop", RampOrder::Freeze { left: None })]);
    let on = after(&frozen, [ramp("shop", RampOrder::Resume)]);
    assert_eq!(under_way(&on).unwrap().left(Timestamp(0)), None);
    let all = after(&frozen, [ramp("shop", RampOrder::Promote { full: true })]);
    assert_eq!((shop(&all), ended(&all).unwrap().0), ("green 100 %".to_owned(), RampEnd::Finished));
}

#[test]
fn the_candidate_is_the_version_that_ramps() {
    let mixed = weights("shop", &[("v3", "20")], Some("blue"));
    let ramping = begin_ramp("shop", "green", &["10", "50", "100"]);
    let begun = after(&plain(), [put("shop", pool("v3", &[9401])), mixed, ramping]);
    assert_eq!(shop(&begun), "blue 72 %, green 10 %, v3 18 %");
    assert_eq!(shop(&after(&begun, [flip("shop", "@candidate")])), "green 100 %");
}

#[test]
fn the_step_is_of_who_began_it_and_its_reason_goes_along() {
    let begun = after(&plain(), [up()]);
    let present = under_way(&begun).unwrap();
    assert_eq!(
        (present.actor.kind, &*present.actor.name, &*present.reason),
        (ActorKind::Operator, "uid=0", "because")
    );
}

#[test]
fn a_version_that_is_not_ready_gets_no_step_unless_that_is_forced() {
    let checked = PoolRules { health: Some(Arc::default()), ..PoolRules::default() };
    let mut file = the_file();
    file[0] = ServiceSpec { pool: Arc::new(checked), ..file[0].clone() };
    let state = start(file);
    let asked = |state: &State, command, forced| {
        let Event::Order(asked) = order(command) else { unreachable!() };
        let health = Health { forced, endpoints: Vec::new() };
        step(state, Event::Order(Order { health, ..asked }), Timestamp(1))
    };
    assert!(matches!(asked(&state, up(), false), Err(Refused::NotReady { .. })));
    let (begun, _) = asked(&state, up(), true).unwrap();
    assert!(matches!(asked(&begun, due(&begun, "shop"), false), Err(Refused::NotReady { .. })));
    let promote = || ramp("shop", RampOrder::Promote { full: false });
    assert!(matches!(asked(&begun, promote(), false), Err(Refused::NotReady { .. })));
    asked(&begun, promote(), true).unwrap();
    asked(&begun, ramp("shop", RampOrder::Abort), false).unwrap();
}
