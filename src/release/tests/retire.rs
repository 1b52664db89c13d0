//! Retirements: who stays and who is new, what ends one, and what it bars.

use std::sync::Arc;
use std::time::Duration;

use super::world::*;
use crate::release::{
    Act, ChangeKind, Command, Effects, RampEnd, RampOrder, Retirement, Scopes, State, Supervise, Timestamp,
    step,
};
use crate::table::{Epoch, ServiceSpec, StickyBy, StickyRules};

/// The file, with users of `shop` who stay by this.
fn sticky(by: StickyBy) -> Vec<ServiceSpec> {
    let mut file = the_file();
    file[0].sticky = Some(Arc::new(StickyRules { by, salt: "shop".into() }));
    file
}

pub(super) fn minted() -> Vec<ServiceSpec> {
    sticky(StickyBy::Cookie { name: "sb_id".into(), mint: Some(StickyBy::MAX_AGE) })
}

fn canary(file: Vec<ServiceSpec>) -> State {
    after(&start(file), [weights("shop", &[("green", "25")], Some("blue"))])
}

fn retire() -> Command {
    ramp("shop", RampOrder::Retire { quiet: None, lasts: None })
}

fn over(state: &State) -> Command {
    ramp("shop", RampOrder::Retired { begun: under_way(state).unwrap().begun })
}

fn under_way(state: &State) -> Option<&Retirement> {
    state.deployment(&service("shop")).unwrap().retirement.as_ref()
}

/// How the last one ended, and at which epoch.
fn ended(state: &State) -> Option<(RampEnd, u64)> {
    let retired = state.deployment(&service("shop")).unwrap().retired.as_ref()?;
    Some((retired.how, retired.epoch.0))
}

fn shop(state: &State) -> String {
    split(state, "shop").to_string()
}

/// True while nobody new comes to green.
fn is_closed(state: &State) -> bool {
    let shop = state.table.service(&service("shop")).unwrap();
    shop.sticky.as_ref().and_then(|sticky| sticky.closed()) == Some(1)
}

fn summary((state, effects): (State, Effects)) -> (State, String) {
    (state, effects.change.unwrap().summary)
}

fn is_refused(state: &State, command: Command, token: &str) {
    let refused = run(state, command).unwrap_err();
    assert_eq!(refused.token(), token, "{refused}");
    assert!(!refused.hint().is_empty());
}

#[test]
fn who_is_there_stays_until_it_is_over() {
    let (retiring, told) = summary(run(&canary(minted()), retire()).unwrap());
    assert_eq!(
        (shop(&retiring), told.as_str()),
        ("blue 75 %, green 25 %".to_owned(), "shop: green is retiring")
    );
    assert!(is_closed(&retiring) && ended(&retiring).is_none());
    let it = under_way(&retiring).unwrap();
    assert_eq!((it.begun, it.version.as_str(), it.quiet), (Epoch(3), "green", super::super::retire::QUIET));
    assert_eq!(it.left(Timestamp(1)), super::super::retire::LASTS);
    assert_eq!(it.left(Timestamp(3_600_001)), Duration::from_hours(23));

    let (next, effects) = run(&retiring, over(&retiring)).unwrap();
    assert_eq!((shop(&next), ended(&next)), ("blue 100 %".to_owned(), Some((RampEnd::Finished, 4))));
    assert_eq!((effects.left, effects.lasting), (vec![(service("shop"), version("green"))], vec![]));
    let change = effects.change.unwrap();
    assert_eq!(
        (change.kind, change.summary.as_str()),
        (ChangeKind::Retire, "shop: blue 100 %, green is retired")
    );
    assert!(under_way(&next).is_none() && !is_closed(&next));
    // It is a way back itself.
    is_refused(&next, revert("shop"), "nothing_to_revert");
    is_refused(&next, over(&retiring), "no_ramp");
    is_refused(&next, retire(), "nothing_to_retire");
}

#[test]
fn asked_once_more_it_says_how_long() {
    let retiring = after(&canary(minted()), [retire()]);
    assert_eq!(run(&retiring, retire()).unwrap().1.change, None);
    let (quiet, lasts) = (Some(Duration::from_secs(60)), Some(Duration::from_hours(1)));
    let order = ramp("shop", RampOrder::Retire { quiet, lasts });
    let (next, effects) = step(&retiring, super::world::order(order), Timestamp(1_000)).unwrap();
    assert_eq!(effects.change.unwrap().summary, "shop: green is retiring, otherwise than before");
    let it = under_way(&next).unwrap();
    assert_eq!((it.begun, it.quiet, it.until), (Epoch(3), Duration::from_secs(60), Timestamp(3_601_000)));
}

#[test]
fn where_nobody_stays_the_others_have_everything_at_once() {
    let (next, effects) = run(&canary(the_file()), retire()).unwrap();
    assert_eq!((shop(&next), ended(&next)), ("blue 100 %".to_owned(), Some((RampEnd::Finished, 3))));
    assert!(under_way(&next).is_none());
    assert_eq!(effects.lasting, [(service("shop"), super::super::retire::LASTS)], "nothing is told to go");
    is_refused(&next, revert("shop"), "nothing_to_revert");
    // Of a ramp as of a canary.
    let ramping = after(&start(the_file()), [begin_ramp("shop", "green", &["25", "100"])]);
    let next = after(&ramping, [retire()]);
    let ramped = next.deployment(&service("shop")).unwrap().ramped.clone().unwrap();
    assert_eq!((shop(&next), ramped.how), ("blue 100 %".to_owned(), RampEnd::Superseded));
}

#[test]
fn who_is_new_has_to_be_told_from_who_is_not() {
    let others = [
        StickyBy::Cookie { name: "sid".into(), mint: None },
        StickyBy::Header("x-user".into()),
        StickyBy::Client,
    ];
    for by in others {
        let state = canary(sticky(by));
        is_refused(&state, retire(), "nobody_is_new");
    }
    let refused = run(&canary(sticky(StickyBy::Client)), retire()).unwrap_err();
    assert!(refused.to_string().contains("stay by the client's address, which"), "{refused}");
    assert!(refused.hint().contains("`switchback flip shop --to blue`"), "{}", refused.hint());
}

#[test]
fn nothing_is_retired_where_nothing_is_tried() {
    is_refused(&start(minted()), retire(), "nothing_to_retire");
    // Up to stable again: there is nobody who was brought by it.
    let back = after(&canary(minted()), [begin_ramp("shop", "blue", &["90", "100"])]);
    is_refused(&back, retire(), "nothing_to_retire");
    let batch = Command::Batch(vec![retire()]);
    is_refused(&canary(minted()), batch, "ramp_in_batch");
}

#[test]
fn a_flip_that_is_to_end_nothing_is_refused_while_it_is_under_way() {
    let begun = after(&canary(minted()), [retire()]);
    is_refused(&begun, flip_aside("shop", "green"), "retiring");
    let over = after(&begun, [over(&begun), flip_aside("shop", "green")]);
    assert_eq!(shop(&over), "green 100 %");
}

#[test]
fn whoever_moves_the_traffic_ends_it() {
    let retiring = after(&canary(minted()), [retire()]);
    for (command, how, now) in [
        (ramp("shop", RampOrder::Abort), RampEnd::Aborted, "blue 100 %"),
        (revert("shop"), RampEnd::Aborted, "blue 100 %"),
        (flip("shop", "green"), RampEnd::Superseded, "green 100 %"),
        (switch("shop", "blue"), RampEnd::Superseded, "blue 100 %"),
        // The same weights: everybody comes again.
        (weights("shop", &[("green", "25")], Some("blue")), RampEnd::Superseded, "blue 75 %, green 25 %"),
    ] {
        let (next, effects) = run(&retiring, command.clone()).unwrap();
        assert_eq!((ended(&next), shop(&next).as_str()), (Some((how, 4)), now), "{command:?}");
        assert!(!is_closed(&next) && under_way(&next).is_none());
        let is_noted = effects.notes.iter().any(|note| note == "the retirement of `green` of `shop` is over");
        assert_eq!(is_noted, how == RampEnd::Superseded, "{:?}", effects.notes);
    }
    for command in [
        begin_ramp("shop", "green", &["50", "100"]),
        ramp("shop", RampOrder::Promote { full: true }),
        ramp("shop", RampOrder::Freeze { left: None }),
        ramp("shop", RampOrder::Resume),
    ] {
        is_refused(&retiring, command, "retiring");
    }
    // What has nothing to do with it leaves it alone.
    let other = after(&retiring, [add_endpoint("shop", "green", 9102), flip("cart", "two")]);
    assert!(is_closed(&other) && under_way(&other) == under_way(&retiring));
    is_refused(&other, remove("shop", "green"), "version_in_use");
}

#[test]
fn of_three_the_others_share_who_is_new() {
    let three = after(
        &start(minted()),
        [
            put("shop", pool("v3", &[9401])),
            weights("shop", &[("green", "30"), ("v3", "20")], Some("blue")),
            retire(),
        ],
    );
    assert_eq!(under_way(&three).unwrap().version.as_str(), "green", "the candidate");
    assert_eq!(shop(&after(&three, [over(&three)])), "blue 71.43 %, v3 28.57 %");
}

#[test]
fn supervision_leans_back_and_comes_back_and_convicts() {
    let mut file = minted();
    file[0].supervise = Some(Arc::default());
    let canary = canary(file);
    let stage = canary.deployment(&service("shop")).unwrap().trial.as_ref().unwrap().stage;
    let act = |act| supervise("shop", stage, act);
    is_refused(&after(&canary, [act(Act::Lean(weight("10")))]), retire(), "suspect");

    let retiring = after(&canary, [retire()]);
    let trial = retiring.deployment(&service("shop")).unwrap().trial.as_ref().unwrap();
    assert_eq!(trial.stage, stage, "it goes on");
    let leaning = after(&retiring, [act(Act::Lean(weight("10")))]);
    assert_eq!(shop(&leaning), "blue 90 %, green 10 %");
    assert!(is_closed(&leaning) && under_way(&leaning) == under_way(&retiring));
    let back = after(&leaning, [act(Act::Restore)]);
    assert_eq!((shop(&back), under_way(&back)), ("blue 75 %, green 25 %".to_owned(), under_way(&retiring)));
    let convicted = after(&leaning, [act(Act::Convict)]);
    assert_eq!(
        (shop(&convicted), ended(&convicted).unwrap().0),
        ("blue 100 %".to_owned(), RampEnd::Reverted)
    );
    // Its end is the end of the trial too, also while it leans.
    for state in [&retiring, &leaning] {
        let next = after(state, [over(state)]);
        assert!(next.deployment(&service("shop")).unwrap().trial.is_none());
    }
}

#[test]
fn a_file_that_knows_nobody_any_more_ends_it_and_a_restart_does_not() {
    let retiring = after(&canary(minted()), [retire()]);
    let restarted = |file: Vec<ServiceSpec>| {
        run(
            &State::at(retiring.table.epoch()),
            Command::Configure { services: file, records: records(&retiring) },
        )
        .unwrap()
    };
    let (same, effects) = restarted(minted());
    assert_eq!((under_way(&same), effects.change), (under_way(&retiring), None));
    assert!(is_closed(&same));
    let (other, effects) = restarted(the_file());
    assert_eq!((shop(&other), ended(&other)), ("blue 100 %".to_owned(), Some((RampEnd::Superseded, 4))));
    assert!(effects.notes.contains(&"the retirement of `green` of `shop` is over".to_owned()));
    let reloaded = after(&retiring, [configure(sticky(StickyBy::Client))]);
    assert_eq!(
        (shop(&reloaded), ended(&reloaded).unwrap().0),
        ("blue 100 %".to_owned(), RampEnd::Superseded)
    );
    let mut gone = minted();
    gone[0].versions.remove(1);
    let gone = after(&retiring, [configure(gone)]);
    assert_eq!((shop(&gone), ended(&gone).unwrap().0), ("blue 100 %".to_owned(), RampEnd::Superseded));
}

#[test]
fn nobody_new_comes_by_an_end_that_nobody_has_asked_for() {
    let mut file = minted();
    file[0].supervise = Some(Arc::default());
    let retiring = after(&canary(file), [retire()]);
    let stage = retiring.deployment(&service("shop")).unwrap().trial.as_ref().unwrap().stage;
    let leaning = after(&retiring, [supervise("shop", stage, Act::Lean(weight("10")))]);
    let is_over = |state: &State| {
        let deployment = state.deployment(&service("shop")).unwrap();
        assert_eq!((shop(state).as_str(), ended(state).unwrap().0), ("blue 100 %", RampEnd::Superseded));
        assert!(deployment.trial.is_none() && !is_closed(state));
    };
    // Nobody compares any more, and supervision has leaned back.
    is_over(&after(&leaning, [configure(minted())]));
    // Others stay by the same cookie.
    let mut salted = minted();
    salted[0].sticky = Some(Arc::new(StickyRules { salt: "store".into(), ..rules(&salted) }));
    is_over(&after(&retiring, [configure(salted)]));
    // That leaned then.
    let aborted = after(&leaning, [ramp("shop", RampOrder::Abort)]);
    let undo = Command::Undo { to: leaning.table.epoch(), records: records(&leaning), scopes: Scopes::all() };
    let (undone, effects) = run(&aborted, undo).unwrap();
    is_over(&undone);
    assert!(effects.notes.contains(&"the retirement of `green` of `shop` is over".to_owned()));
    // Another version is gone that had a share.
    let mut three = minted();
    three[0].versions.push(pool("v3", &[9401]));
    let split = weights("shop", &[("green", "30"), ("v3", "20")], Some("blue"));
    is_over(&after(&start(three), [split, retire(), configure(minted())]));
}

fn rules(file: &[ServiceSpec]) -> StickyRules {
    StickyRules::clone(file[0].sticky.as_ref().unwrap())
}

#[test]
fn an_undo_takes_it_back_or_takes_it_up() {
    let canary = canary(minted());
    let retiring = after(&canary, [retire()]);
    let back =
        after(&retiring, [Command::Undo { to: Epoch(2), records: records(&canary), scopes: Scopes::all() }]);
    assert_eq!((shop(&back), under_way(&back)), ("blue 75 %, green 25 %".to_owned(), None));
    assert!(!is_closed(&back) && ended(&back) == Some((RampEnd::Superseded, 4)));

    let over = after(&retiring, [over(&retiring)]);
    let undo = Command::Undo { to: Epoch(3), records: records(&retiring), scopes: Scopes::all() };
    let (again, _) = step(&over, order(undo), Timestamp(5_000)).unwrap();
    let it = under_way(&again).unwrap();
    assert!(is_closed(&again) && shop(&again) == "blue 75 %, green 25 %");
    assert_eq!((it.begun, it.until.0), (Epoch(5), 5_000 + 86_400_000), "it has its time anew");
    assert_eq!(ended(&again), Some((RampEnd::Finished, 4)), "and the one before had its end");
    // What was done meanwhile and has nothing to do with it.
    let more = after(&retiring, [add_endpoint("shop", "green", 9102)]);
    let undone =
        after(&more, [Command::Undo { to: Epoch(3), records: records(&retiring), scopes: Scopes::all() }]);
    assert_eq!(under_way(&undone), under_way(&retiring));
}

#[test]
fn a_ramp_that_is_supervised_goes_on_being_so() {
    let wish = Supervise::For(None);
    let steps = crate::release::Steps::new(vec![weight("25"), weight("100")]).unwrap();
    let begin = RampOrder::Begin { to: reference("green"), steps, every: None, supervise: wish };
    let ramping = after(&start(minted()), [ramp("shop", begin)]);
    let retiring = after(&ramping, [retire()]);
    let deployment = retiring.deployment(&service("shop")).unwrap();
    assert!(deployment.trial.is_some() && deployment.ramp.is_none());
    assert_eq!(
        deployment.candidate(retiring.table.service(&service("shop")).unwrap()),
        Some(&version("green"))
    );
}
