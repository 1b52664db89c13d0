//! Targeting rules: what sets them, what takes them away, and what brings them back.

mod suspicion;

use std::sync::Arc;

use super::retire::minted;
use super::world::*;
use crate::release::{Act, ChangeKind, Command, Effects, Phase, RampOrder, Scopes, State};
use crate::table::{ServiceSpec, SuperviseRules, Targeting};

const BETA: &str = "header x-beta=yes -> green";
const STAFF: &str = "client 10.0.0.0/8 -> blue";

fn beta(state: &State) -> State {
    after(state, [set_rules("shop", &[BETA])])
}

fn shop(state: &State) -> (String, Vec<String>) {
    (split(state, "shop").to_string(), rules(state, "shop"))
}

fn is(split: &str, rules: &[&str]) -> (String, Vec<String>) {
    (split.to_owned(), rules.iter().map(|rule| (*rule).to_owned()).collect())
}

fn done(state: &State, command: Command) -> (State, Effects) {
    run(state, command).unwrap()
}

fn summary(effects: &Effects) -> &str {
    &effects.change.as_ref().unwrap().summary
}

fn refused(state: &State, command: Command) -> &'static str {
    let why = run(state, command).unwrap_err();
    assert!(!why.hint().is_empty());
    why.token()
}

fn phase(state: &State) -> Phase {
    state.deployment(&service("shop")).unwrap().phase.clone()
}

fn supervised() -> State {
    let mut file = the_file();
    file[0].supervise = Some(Arc::new(SuperviseRules::default()));
    start(file)
}

fn act(state: &State, act: Act) -> State {
    let stage = state.deployment(&service("shop")).unwrap().trial.as_ref().unwrap().stage;
    after(state, [supervise("shop", stage, act)])
}

#[test]
fn a_version_that_only_a_rule_leads_to_is_live() {
    let (next, effects) = done(&start(the_file()), set_rules("shop", &[BETA, STAFF]));
    assert_eq!(shop(&next), is("blue 100 %", &[BETA, STAFF]));
    assert_eq!(effects.change.as_ref().unwrap().kind, ChangeKind::Rules);
    assert_eq!(summary(&effects), "shop: 2 rules (header x-beta=yes -> green, and 1 more)");
    assert_eq!(effects.returned, [(service("shop"), version("green"))]);
    assert_eq!(phase(&next), Phase::Canary);
    let deployment = next.deployment(&service("shop")).unwrap();
    assert_eq!(deployment.candidate(next.table.service(&service("shop")).unwrap()), Some(&version("green")));
    assert_eq!(refused(&next, remove("shop", "green")), "targeted");
    assert_eq!(refused(&next, put("shop", pool("green", &[]))), "targeted");
    assert_eq!(refused(&next, drain_endpoint("shop", "green", 9101)), "targeted");
    assert_eq!(refused(&next, remove_endpoint("shop", "green", 9101)), "targeted");
    assert_eq!(refused(&next, remove("shop", "blue")), "version_in_use");
    // The same list again is no change, and an empty one takes it all away.
    assert_eq!(done(&next, set_rules("shop", &[BETA, STAFF])).1.change, None);
    let (none, effects) = done(&next, set_rules("shop", &[]));
    assert_eq!((shop(&none), summary(&effects)), (is("blue 100 %", &[]), "shop: no rules"));
    assert_eq!(effects.left, [(service("shop"), version("green"))]);
    assert_eq!(phase(&none), Phase::Draining { leaving: vec![version("green")] });
}

#[test]
fn a_rule_leads_to_a_version_that_can_answer() {
    let state = start(the_file());
    assert_eq!(refused(&state, set_rules("shop", &["header a -> v9"])), "unknown_version");
    assert_eq!(refused(&state, set_rules("shop", &["header a -> hollow"])), "empty_version");
    assert_eq!(refused(&state, set_rules("shop", &["header a -> @candidate"])), "unknown_version");
    assert_eq!(refused(&state, set_rules("shop", &[BETA; 65])), "bad_rules");
    assert_eq!(shop(&after(&state, [set_rules("shop", &["header a -> @stable"])])).1, ["header a -> blue"]);
}

#[test]
fn weights_and_ramps_leave_them_and_whatever_moves_everybody_takes_them_away() {
    let canary = after(&beta(&start(the_file())), [weights("shop", &[("green", "5")], Some("@stable"))]);
    assert_eq!(shop(&canary), is("blue 95 %, green 5 %", &[BETA]));
    let none = after(&canary, [weights("shop", &[("blue", "100")], None)]);
    assert_eq!((shop(&none), phase(&none)), (is("blue 100 %", &[BETA]), Phase::Canary), "green is not left");

    let ramping = after(&beta(&start(the_file())), [begin_ramp("shop", "green", &["1", "50", "100"])]);
    let frozen = after(&ramping, [due(&ramping, "shop"), ramp("shop", RampOrder::Freeze { left: None })]);
    assert_eq!(shop(&frozen), is("blue 50 %, green 50 %", &[BETA]));
    // Rules may change meanwhile, and the ramp goes on.
    let other = after(&frozen, [set_rules("shop", &[BETA, STAFF])]);
    let (over, effects) = done(&other, ramp("shop", RampOrder::Promote { full: true }));
    assert_eq!(shop(&over), is("green 100 %", &[BETA, STAFF]));
    assert!(effects.notes.iter().any(|note| note.contains("still lead to `blue`")), "{:?}", effects.notes);
    assert!(effects.left.is_empty(), "a rule leads to blue");

    let (flipped, effects) = done(&other, flip("shop", "green"));
    assert_eq!(shop(&flipped), is("green 100 %", &[]));
    let note =
        format!("2 targeting rules of `shop` are taken away: a flip is of all requests ({BETA}, {STAFF})");
    assert!(effects.notes.contains(&note), "{:?}", effects.notes);
    assert!(summary(&effects).contains("no rules"), "{}", summary(&effects));
    // Also where it moves no weight.
    let (same, effects) = done(&beta(&start(the_file())), flip("shop", "blue"));
    assert_eq!((shop(&same), summary(&effects)), (is("blue 100 %", &[]), "shop: no rules"));
    assert_eq!(shop(&after(&beta(&start(the_file())), [switch("shop", "green")])), is("green 100 %", &[]));
}

#[test]
fn a_revert_brings_back_what_there_was_and_an_abort_sends_everybody_back() {
    let canary = after(&beta(&start(the_file())), [weights("shop", &[("green", "5")], Some("@stable"))]);
    let back = after(&canary, [flip("shop", "green"), revert("shop")]);
    assert_eq!(shop(&back), is("blue 95 %, green 5 %", &[BETA]));
    // Rules are no step of their own: a revert goes to before the last weights, with the rules of then.
    let later = after(&canary, [set_rules("shop", &[BETA, STAFF]), revert("shop")]);
    assert_eq!(shop(&later), is("blue 100 %", &[BETA]));
    assert_eq!(refused(&beta(&start(the_file())), revert("shop")), "nothing_to_revert");

    let ramping = after(
        &start(the_file()),
        [set_rules("shop", &[BETA, STAFF]), begin_ramp("shop", "green", &["1", "100"])],
    );
    let (aborted, effects) = done(&ramping, ramp("shop", RampOrder::Abort));
    assert_eq!(shop(&aborted), is("blue 100 %", &[STAFF]));
    let note = format!("a targeting rule of `shop` is taken away: nobody goes to `green` ({BETA})");
    assert!(effects.notes.contains(&note), "{:?}", effects.notes);
    assert_eq!(effects.left, [(service("shop"), version("green"))]);
    assert_eq!(shop(&after(&ramping, [revert("shop")])), is("blue 100 %", &[BETA, STAFF]));
}

#[test]
fn nobody_is_sent_to_who_is_retired() {
    let canary = |file| after(&beta(&start(file)), [weights("shop", &[("green", "25")], Some("blue"))]);
    let retire = || ramp("shop", RampOrder::Retire { quiet: None, lasts: None });
    let retiring = after(&canary(minted()), [retire()]);
    assert_eq!(shop(&retiring), is("blue 75 %, green 25 %", &[]));
    assert_eq!(refused(&retiring, set_rules("shop", &[BETA])), "retiring");
    let other = after(&retiring, [set_rules("shop", &[STAFF])]);
    let begun = other.deployment(&service("shop")).unwrap().retirement.as_ref().unwrap().begun;
    assert_eq!(
        shop(&after(&other, [ramp("shop", RampOrder::Retired { begun })])),
        is("blue 100 %", &[STAFF])
    );
    // Where nobody stays, and where only a rule leads to it, it is over at once.
    for file in [the_file(), minted()] {
        let (next, effects) = done(&beta(&start(file)), retire());
        assert_eq!(shop(&next), is("blue 100 %", &[]));
        assert_eq!(effects.left, [(service("shop"), version("green"))]);
        assert!(next.deployment(&service("shop")).unwrap().retirement.is_none());
    }
}

#[test]
fn supervision_passes_them_over_while_it_leans_back_and_takes_them_away_when_it_goes_back() {
    let state = after(
        &supervised(),
        [weights("shop", &[("green", "50")], Some("blue")), set_rules("shop", &[BETA, STAFF])],
    );
    let trial = |state: &State| state.deployment(&service("shop")).unwrap().trial.clone();
    let before = trial(&state).unwrap();
    assert_eq!((before.asked.rules().rules().len(), before.leans(&split(&state, "shop"))), (2, false));
    let leaning = act(&state, Act::Lean(weight("5")));
    assert_eq!(shop(&leaning), is("blue 95 %, green 5 %", &[STAFF]));
    let numbers = |state: &State| {
        let aims = state.table.service(&service("shop")).unwrap().aims.clone().unwrap();
        [1, 2, 3].map(|number| aims.rule(number).map(ToString::to_string))
    };
    let staff = || Some(STAFF.to_owned());
    assert_eq!(numbers(&leaning), [None, staff(), None], "it is the second one that was set");
    assert_eq!(numbers(&act(&leaning, Act::Acquit)), [staff(), None, None], "the first one was given up");
    // What is set meanwhile is asked for, and passed over as well.
    let (set, effects) = done(&leaning, set_rules("shop", &["cookie beta -> green", STAFF, BETA]));
    assert_eq!(shop(&set), is("blue 95 %, green 5 %", &[STAFF]));
    assert!(effects.notes.iter().any(|note| note.contains("passed over")), "{:?}", effects.notes);
    assert_eq!(
        shop(&act(&set, Act::Restore)),
        is("blue 50 %, green 50 %", &["cookie beta -> green", STAFF, BETA])
    );
    assert_eq!(shop(&act(&leaning, Act::Restore)), is("blue 50 %, green 50 %", &[BETA, STAFF]));
    assert_eq!(shop(&act(&leaning, Act::Convict)), is("blue 100 %", &[]));
    let (set, effects) = done(&leaning, set_rules("shop", &[STAFF]));
    assert_eq!(shop(&set), is("blue 95 %, green 5 %", &[STAFF]));
    assert_eq!(summary(&effects), "shop: 1 rule (client 10.0.0.0/8 -> blue)");
    assert_eq!(shop(&act(&set, Act::Restore)), is("blue 50 %, green 50 %", &[STAFF]));
    // The trial went on all the time.
    assert_eq!(trial(&set).unwrap().stage, before.stage);
    // Also where there is so little that leaning back takes no weight away.
    let little =
        after(&supervised(), [weights("shop", &[("green", "1")], Some("blue")), set_rules("shop", &[BETA])]);
    let stage = trial(&little).unwrap().stage;
    let (leaning, effects) = done(&little, supervise("shop", stage, Act::Lean(weight("5"))));
    assert_eq!(summary(&effects), "shop: green is suspect, rules to green are passed over");
    assert_eq!(shop(&leaning), is("blue 99 %, green 1 %", &[]));
    assert_eq!(shop(&act(&leaning, Act::Restore)), is("blue 99 %, green 1 %", &[BETA]));
    // Rules alone are nothing that could be compared.
    assert_eq!(trial(&beta(&supervised())), None);
}

#[test]
fn an_abort_leaves_rules_as_they_are_and_a_revert_tells_of_those_of_before() {
    let red = "cookie red -> red";
    let mut file = the_file();
    file[0].versions.push(pool("red", &[9401]));
    let begin = || begin_ramp("shop", "green", &["1", "100"]);
    let abort = || ramp("shop", RampOrder::Abort);
    let set = after(&start(file.clone()), [begin(), set_rules("shop", &[BETA, red])]);
    let (aborted, effects) = done(&set, abort());
    assert_eq!(shop(&aborted), is("blue 100 %", &[red]));
    assert_eq!(
        effects.notes,
        [format!("a targeting rule of `shop` is taken away: nobody goes to `green` ({BETA})")]
    );
    let (reverted, effects) = done(&set, revert("shop"));
    assert_eq!(shop(&reverted), is("blue 100 %", &[]));
    let why = "a revert brings back those of before";
    assert_eq!(effects.notes, [format!("2 targeting rules of `shop` are taken away: {why} ({BETA}, {red})")]);
    let cleared = after(&start(file), [set_rules("shop", &[red]), begin(), set_rules("shop", &[])]);
    let (aborted, effects) = done(&cleared, abort());
    assert_eq!((shop(&aborted), effects.notes), (is("blue 100 %", &[]), vec![]));
    let (reverted, effects) = done(&cleared, revert("shop"));
    assert_eq!(shop(&reverted), is("blue 100 %", &[red]));
    assert_eq!(effects.notes, [format!("a targeting rule of `shop` holds again ({red})")]);
}

#[test]
fn an_undo_brings_them_back_as_they_were() {
    let state = beta(&start(the_file()));
    let (to, records) = (state.table.epoch(), records(&state));
    let undo = || Command::Undo { to, records: records.clone(), scopes: Scopes::all() };
    let flipped = after(&state, [flip("shop", "green"), set_rules("shop", &[STAFF])]);
    assert_eq!(shop(&after(&flipped, [undo()])), is("blue 100 %", &[BETA]));
    let gone = after(&state, [set_rules("shop", &[]), remove("shop", "green")]);
    let (back, effects) =
        done(&after(&gone, [flip("cart", "two"), weights("shop", &[("blue", "100")], None)]), undo());
    assert_eq!(shop(&back), is("blue 100 %", &[BETA]), "the version came back with it: {:?}", effects.notes);
}

#[test]
fn an_undo_leads_nobody_where_nobody_serves() {
    let mut file = the_file();
    file[0].discovering = vec![version("green")];
    file[0].versions[1] = pool("green", &[]);
    let found = |ports: &[u16]| {
        let endpoints = Some(ports.iter().copied().map(endpoint).collect());
        Command::Discover { service: service("shop"), version: version("green"), endpoints }
    };
    let half_drained = after(&start(file), [found(&[9101, 9102]), drain_endpoint("shop", "green", 9101)]);
    // Of the two one serves again, and the other is there no more: what drained then is all that there is.
    let serve_again = || [add_endpoint("shop", "green", 9101), found(&[9101])];
    let undone = |then: &State, since: Vec<Command>| {
        let (to, records) = (then.table.epoch(), records(then));
        run(&after(then, since), Command::Undo { to, records, scopes: Scopes::all() })
    };
    let why = "does not come back: what it led to is gone or empty";
    let lost = format!("a targeting rule of `shop` {why} ({BETA})");

    let led = after(&half_drained, [set_rules("shop", &[STAFF, BETA])]);
    for since in [vec![], vec![flip("shop", "blue")]] {
        let (back, effects) = undone(&led, since.into_iter().chain(serve_again()).collect()).unwrap();
        assert_eq!((shop(&back), effects.notes), (is("blue 100 %", &[STAFF]), vec![lost.clone()]));
    }
    let half = after(&half_drained, [weights("shop", &[("green", "50")], Some("blue"))]);
    for since in [vec![], vec![flip("shop", "blue")]] {
        let refused = undone(&half, since.into_iter().chain(serve_again()).collect()).unwrap_err();
        assert_eq!(refused.token(), "gone");
    }
}

#[test]
fn an_undo_does_not_bring_back_what_leads_nowhere_and_tells_only_those_who_may_hear() {
    let mut file = the_file();
    file[1].versions.push(pool("red", &[9401]));
    let rule = "cookie red -> red";
    let state = after(&start(file), [set_rules("cart", &[rule])]);
    let (to, records) = (state.table.epoch(), records(&state));
    let later = after(&state, [flip("shop", "green"), set_rules("cart", &[]), configure(the_file())]);
    let undo = |scope: &str| {
        let scopes = Scopes::of(vec![scope.parse().unwrap()]);
        done(&later, Command::Undo { to, records: records.clone(), scopes })
    };
    let note =
        format!("a targeting rule of `cart` does not come back: what it led to is gone or empty ({rule})");
    for (scope, notes) in [("operate:shop", vec![]), ("admin", vec![note])] {
        let (back, effects) = undo(scope);
        assert_eq!((shop(&back), effects.notes), (is("blue 100 %", &[]), notes), "{scope}");
        let changed = effects.change.unwrap().services;
        assert_eq!(changed.iter().map(|record| record.service.as_str()).collect::<Vec<_>>(), ["shop"]);
    }
}

#[test]
fn what_a_way_back_does_not_bring_back_any_more_is_told_once() {
    let mut file = the_file();
    file[0].versions.push(pool("red", &[9401]));
    let red = "cookie red -> red";
    let ruled = after(&start(file), [set_rules("shop", &[red, STAFF])]);
    let why = "does not come back by a revert any more: what it led to is gone";
    let note = format!("a targeting rule of `shop` {why} ({red})");
    let ramping = || [begin_ramp("shop", "green", &["1", "100"]), set_rules("shop", &[])];
    for under_way in [after(&ruled, [flip("shop", "green")]), after(&ruled, ramping())] {
        let (gone, effects) = done(&under_way, remove("shop", "red"));
        assert_eq!(effects.notes, [&*note]);
        let (later, effects) = done(&gone, put("shop", pool("v3", &[9501])));
        assert!(effects.notes.is_empty(), "{:?}", effects.notes);
        assert_eq!(shop(&after(&later, [revert("shop")])), is("blue 100 %", &[STAFF]));
    }
}

#[test]
fn the_end_of_a_version_that_only_a_rule_led_to_is_no_step() {
    let mut file = the_file();
    file[0].versions.push(pool("red", &[9401]));
    let targeted = after(&start(file), [flip("shop", "green"), set_rules("shop", &["cookie red -> red"])]);
    let retired = after(&targeted, [ramp("shop", RampOrder::Retire { quiet: None, lasts: None })]);
    assert_eq!(shop(&retired), is("green 100 %", &[]));
    assert_eq!(shop(&after(&retired, [revert("shop")])), is("blue 100 %", &[]), "the way back of the flip");
}

fn ruled(rules: &[&str]) -> Vec<ServiceSpec> {
    let mut file = the_file();
    file[0].targeting = Targeting::new(rules.iter().map(|rule| rule.parse().unwrap()).collect()).unwrap();
    file
}

#[test]
fn the_file_says_the_first_ones() {
    let state = start(ruled(&[BETA]));
    assert_eq!(shop(&state), is("blue 100 %", &[BETA]));
    let (same, effects) = done(&state, configure(ruled(&[STAFF])));
    assert_eq!(shop(&same), is("blue 100 %", &[BETA]));
    let note =
        "the file's rules of `shop` are only its first ones; it stays at 1 rule (header x-beta=yes -> green)";
    assert_eq!(effects.notes, [note]);
    // A version that goes takes the rules along that lead there.
    let mut without = the_file();
    without[0].versions.retain(|version| version.name.as_str() != "green");
    let (less, effects) = done(&after(&state, [set_rules("shop", &[BETA, STAFF])]), configure(without));
    assert_eq!(shop(&less), is("blue 100 %", &[STAFF]));
    assert!(summary(&effects).contains("1 rule (client 10.0.0.0/8 -> blue)"), "{}", summary(&effects));
    assert!(
        effects.notes.iter().any(|note| note.contains("is taken away: what it led to is gone")),
        "{:?}",
        effects.notes
    );
    assert_eq!(effects.left, [(service("shop"), version("green"))]);
}

#[test]
fn a_batch_is_one_change_and_what_comes_after_a_flip_in_it_holds() {
    let both = Command::Batch(vec![flip("shop", "green"), set_rules("shop", &[STAFF])]);
    let (next, effects) = done(&beta(&start(the_file())), both);
    assert_eq!(shop(&next), is("green 100 %", &[STAFF]));
    assert!(effects.left.is_empty(), "blue is led to");
    assert_eq!(summary(&effects), "shop: green 100 %, 1 rule (client 10.0.0.0/8 -> blue)");
    let back = after(&next, [revert("shop")]);
    assert_eq!(shop(&back), is("blue 100 %", &[BETA]));
}
