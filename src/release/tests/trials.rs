//! Trials: when one begins, between whom, what supervision may do in it, and what ends it.

mod acts;
mod renewed;

use std::sync::Arc;
use std::time::Duration;

use super::world::*;
use crate::release::{
    Act, ChangeKind, Command, Effects, Refused, Scopes, State, Supervise, Timestamp, Trial, step,
};
use crate::table::{Epoch, ServiceSpec, Split, SuperviseMode, SuperviseRules, Watch};

/// The file of most tests, with `shop` supervised in this mode.
fn file(mode: SuperviseMode) -> Vec<ServiceSpec> {
    let mut file = the_file();
    file[0].supervise = Some(Arc::new(SuperviseRules { mode, ..SuperviseRules::default() }));
    file
}

fn supervised() -> State {
    start(file(SuperviseMode::On))
}

/// `shop`, of which nothing is said about supervision.
fn plain() -> State {
    start(the_file())
}

fn trial(state: &State) -> Option<&Trial> {
    state.deployment(&service("shop")).unwrap().trial.as_ref()
}

/// Baseline, candidate, and what was asked for, in a line: `blue/green: green 100 %`.
fn told(state: &State) -> String {
    trial(state)
        .map_or("-".to_owned(), |trial| format!("{}/{}: {}", trial.baseline, trial.candidate, trial.asked))
}

fn watch(state: &State) -> Option<Watch> {
    state.table.service(&service("shop")).unwrap().watch.clone()
}

fn rest(of: &str) -> Watch {
    Watch { stage: Epoch(0), generation: 0, baseline: version(of), candidate: None }
}

/// Five of a hundred to green.
fn canary() -> Command {
    weights("shop", &[("green", "5")], Some("blue"))
}

fn third() -> Command {
    put("shop", pool("v3", &[9401]))
}

/// What supervision wants in the trial that is under way.
fn act(state: &State, act: Act) -> Command {
    supervise("shop", trial(state).unwrap().stage, act)
}

fn acted(state: &State, what: Act) -> State {
    after(state, [act(state, what)])
}

/// All to green, and suspect: nine of ten are with blue again.
fn leaning() -> State {
    acted(&after(&supervised(), [flip("shop", "green")]), Act::Lean(weight("10")))
}

/// What an operator sees of it.
fn stands(state: &State) -> (String, String, String) {
    let way_back = state.deployment(&service("shop")).unwrap().previous.as_ref();
    let way_back = way_back.map_or("-".to_owned(), |way| way.split.to_string());
    (split(state, "shop").to_string(), stable(state, "shop"), way_back)
}

fn is(split: &str, stable: &str, way_back: &str) -> (String, String, String) {
    (split.to_owned(), stable.to_owned(), way_back.to_owned())
}

fn summary(effects: Effects) -> String {
    effects.change.unwrap().summary
}

#[test]
fn a_flip_tries_the_new_version_against_the_one_that_carried_the_service() {
    let (next, effects) = run(&supervised(), flip("shop", "green")).unwrap();
    assert_eq!(
        trial(&next).unwrap(),
        &Trial {
            stage: next.table.epoch(),
            generation: 0,
            baseline: version("blue"),
            candidate: version("green"),
            asked: Split::all_to(version("green")),
            stable: version("green"),
            is_suspect: false,
            acts: true,
            by_file: true,
            exclusive: None,
            until: Some(Timestamp(1 + 600_000)),
            lasts: Some(Duration::from_secs(600)),
        }
    );
    let pair = (version("blue"), Some(version("green")));
    let expected = Watch { stage: next.table.epoch(), generation: 0, baseline: pair.0, candidate: pair.1 };
    assert_eq!(watch(&next), Some(expected));
    assert_eq!(effects.notes, [""; 0]);
}

#[test]
fn weights_try_the_other_version_against_stable_until_the_next_ones() {
    let state = after(&supervised(), [canary()]);
    assert_eq!(told(&state), "blue/green: blue 95 %, green 5 %");
    assert_eq!(trial(&state).unwrap().until, None);
    let more = after(&state, [weights("shop", &[("green", "50")], Some("blue"))]);
    assert_eq!(told(&more), "blue/green: blue 50 %, green 50 %");
    assert_eq!(trial(&more).unwrap().stage, more.table.epoch(), "a new one");
    let of_others = after(&state, [add_endpoint("shop", "green", 9102), flip("cart", "two")]);
    assert_eq!(trial(&of_others), trial(&state), "which goes on when weights stay");
}

#[test]
fn a_first_file_with_two_versions_is_a_canary() {
    let mut file = file(SuperviseMode::On);
    file[0].weights = vec![(version("blue"), 9_000), (version("green"), 1_000)];
    assert_eq!(told(&start(file)), "blue/green: blue 90 %, green 10 %");
    assert_eq!(told(&supervised()), "-");
}

#[test]
fn the_baseline_stays_while_its_candidate_rises_and_falls() {
    let all = after(&supervised(), [canary(), flip("shop", "green")]);
    assert_eq!((told(&all).as_str(), stable(&all, "shop").as_str()), ("blue/green: green 100 %", "green"));
    let fewer = after(&all, [weights("shop", &[("blue", "20")], Some("green"))]);
    assert_eq!(told(&fewer), "blue/green: blue 20 %, green 80 %");
    let swapped = after(&fewer, [third(), weights("shop", &[("v3", "5")], Some("blue"))]);
    assert_eq!(told(&swapped), "blue/v3: blue 95 %, v3 5 %");
}

#[test]
fn a_flip_past_the_candidate_is_measured_by_who_carries_the_service() {
    let passed = after(&supervised(), [third(), canary(), flip("shop", "v3")]);
    assert_eq!(told(&passed), "blue/v3: v3 100 %");
    let chained = after(&supervised(), [third(), flip("shop", "green"), flip("shop", "v3")]);
    assert_eq!(told(&chained), "green/v3: v3 100 %");
    let in_one = after(&supervised(), [Command::Batch(vec![third(), flip("shop", "v3")])]);
    assert_eq!(told(&in_one), "blue/v3: v3 100 %");
    let hasty = after(&leaning(), [third(), flip("shop", "v3")]);
    assert_eq!(told(&hasty), "blue/v3: v3 100 %", "who is suspect is no measure");
}

#[test]
fn what_goes_back_to_the_baseline_is_no_trial() {
    for from in [after(&supervised(), [flip("shop", "green")]), after(&supervised(), [canary()]), leaning()] {
        for back in [flip("shop", "blue"), weights("shop", &[("blue", "100")], None)] {
            let next = after(&from, [back]);
            assert_eq!((told(&next), watch(&next)), ("-".into(), Some(rest("blue"))));
        }
    }
    let reverted = after(&supervised(), [flip("shop", "green"), revert("shop")]);
    assert_eq!((told(&reverted), watch(&reverted)), ("-".into(), Some(rest("blue"))));
    // That it was asked for is no use, and that is said.
    let (next, effects) =
        run(&after(&supervised(), [flip("shop", "green")]), flip_with("shop", "blue", Supervise::For(None)))
            .unwrap();
    assert_eq!((told(&next).as_str(), effects.notes.len()), ("-", 1));
}

#[test]
fn a_way_back_to_several_versions_is_a_trial_again() {
    let canary = after(&supervised(), [canary()]);
    let back = after(&canary, [flip("shop", "green"), revert("shop")]);
    assert_eq!(told(&back), "blue/green: blue 95 %, green 5 %");
    assert_eq!(trial(&back).unwrap().stage, back.table.epoch());
    // And one to the version that had been left is none, though it was new then.
    let twice = after(&supervised(), [flip("shop", "green"), flip("shop", "blue"), revert("shop")]);
    assert_eq!((told(&twice).as_str(), stable(&twice, "shop").as_str()), ("-", "green"));
}

#[test]
fn three_versions_are_not_compared_and_that_is_said_to_who_asked() {
    let state = after(&supervised(), [third(), canary()]);
    let thirds = |wish| weights_with("shop", &[("green", "5"), ("v3", "5")], Some("blue"), wish);
    let (next, effects) = run(&state, thirds(Supervise::AsConfigured)).unwrap();
    assert_eq!((told(&next), watch(&next)), ("-".into(), Some(rest("blue"))));
    assert_eq!(effects.notes, [""; 0]);
    let (_, effects) = run(&state, thirds(Supervise::For(None))).unwrap();
    let note = "`shop` is not supervised: that compares two versions, of which one was there before";
    assert_eq!(effects.notes, [note]);
}

#[test]
fn what_is_asked_for_and_what_is_configured() {
    use Supervise::{AsConfigured, For, No};
    let (short, long) = (Some(Duration::from_secs(60)), Some(Duration::MAX));
    let files = [
        ("nothing said", the_file()),
        ("off", file(SuperviseMode::Off)),
        ("alert", file(SuperviseMode::Alert)),
        ("on", file(SuperviseMode::On)),
    ];
    let mut table = String::new();
    for (mode, file) in files {
        for wish in [AsConfigured, For(None), For(short), For(long), No] {
            let weights = weights_with("shop", &[("green", "5")], Some("blue"), wish);
            let seen = [flip_with("shop", "green", wish), weights, switch_with("shop", "green", wish)];
            let seen = seen.map(|command| match trial(&after(&start(file.clone()), [command])) {
                None => "-".to_owned(),
                Some(Trial { acts, until, .. }) => {
                    let until = until.map_or("the next weights".to_owned(), |until| until.0.to_string());
                    format!("{} until {until}", if *acts { "acts" } else { "tells" })
                }
            });
            let [flip, weights, switch] = seen;
            assert_eq!(flip, switch);
            table += &format!("{mode:<13} {wish:<24?} flip: {flip:<32} weights: {weights}\n");
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn rules_of_the_file_say_how_long_a_flip_is_watched() {
    let mut file = file(SuperviseMode::On);
    let rules = SuperviseRules { keep_old: Duration::from_secs(7), ..SuperviseRules::default() };
    file[0].supervise = Some(Arc::new(rules));
    let state = after(&start(file), [flip("shop", "green")]);
    assert_eq!(trial(&state).unwrap().until, Some(Timestamp(7_001)));
}

#[test]
fn to_ask_once_more_begins_anew_and_to_ask_for_none_ends_it() {
    let state = after(&supervised(), [flip("shop", "green")]);
    let (same, effects) = run(&state, flip("shop", "green")).unwrap();
    assert_eq!((effects.change, trial(&same)), (None, trial(&state)));
    let wish = Supervise::For(Some(Duration::from_secs(60)));
    let (longer, effects) = run(&state, flip_with("shop", "green", wish)).unwrap();
    assert_eq!(told(&longer), "blue/green: green 100 %");
    let longer = trial(&longer).unwrap();
    assert_eq!((longer.stage, longer.until), (state.table.epoch().next(), Some(Timestamp(60_001))));
    assert_eq!(summary(effects), "shop: green is compared with blue");
    let (none, effects) = run(&state, flip_with("shop", "green", Supervise::No)).unwrap();
    assert_eq!((told(&none), watch(&none)), ("-".into(), Some(rest("green"))));
    assert_eq!(summary(effects), "shop: nothing is compared any more");
    let (idle, effects) = run(&plain(), flip_with("shop", "blue", wish)).unwrap();
    assert_eq!((told(&idle).as_str(), effects.change, effects.notes.len()), ("-", None, 1));
}

#[test]
fn at_rest_what_carries_the_service_is_watched_where_it_is_supervised() {
    assert_eq!(watch(&supervised()), Some(rest("blue")));
    assert_eq!(watch(&start(file(SuperviseMode::Alert))), Some(rest("blue")));
    assert_eq!(watch(&start(file(SuperviseMode::Off))), None);
    assert_eq!(watch(&plain()), None);
    let asked = after(&plain(), [flip_with("shop", "green", Supervise::For(None))]);
    assert!(watch(&asked).is_some());
    assert_eq!(watch(&acted(&asked, Act::Acquit)), None);
}

#[test]
fn a_version_that_is_gone_ends_its_trial() {
    let flipped = after(&supervised(), [flip("shop", "green")]);
    let (next, effects) = run(&flipped, remove("shop", "blue")).unwrap();
    assert_eq!((told(&next), watch(&next)), ("-".into(), Some(rest("green"))));
    let ended = "`shop` is not supervised any more: `blue` is gone";
    assert_eq!(
        (effects.notes.len(), effects.notes[0].as_str()),
        (2, ended),
        "and no way back: {:?}",
        effects.notes
    );
    let without = |name: &str, base: &[ServiceSpec]| {
        let mut file = base.to_vec();
        file[0].versions.retain(|spec| spec.name != version(name));
        file[0].stable = version(if name == "blue" { "green" } else { "blue" });
        file[0].weights = vec![(file[0].stable.clone(), 10_000)];
        configure(file)
    };
    let on = file(SuperviseMode::On);
    for (state, gone, left) in [
        (&flipped, "blue", "green 100 %"),
        (&flipped, "green", "blue 100 %"),
        (&leaning(), "blue", "green 100 %"),
        (&leaning(), "green", "blue 100 %"),
    ] {
        let next = after(state, [without(gone, &on)]);
        assert_eq!((told(&next), split(&next, "shop").to_string()), ("-".into(), left.into()));
    }
    let others = after(&flipped, [remove("shop", "hollow")]);
    assert_eq!(trial(&others), trial(&flipped));
}

#[test]
fn a_file_that_says_nothing_new_of_it_leaves_a_trial_alone() {
    let state = leaning();
    assert_eq!(run(&state, configure(file(SuperviseMode::On))).unwrap().1.change, None);
    let mut edited = file(SuperviseMode::On);
    edited[0].timeouts.total = Some(Duration::from_secs(9));
    edited[1].versions.remove(1);
    assert_eq!(trial(&after(&state, [configure(edited)])), trial(&state));
    // Nobody but a change has asked for this one.
    let asked = after(&plain(), [flip_with("shop", "green", Supervise::For(None))]);
    let off = after(&asked, [configure(file(SuperviseMode::Off))]);
    assert_eq!(trial(&off), trial(&asked));
}

#[test]
fn what_the_file_says_of_supervision_holds_for_a_trial_under_way() {
    let leaning = leaning();
    let told_only = after(&leaning, [configure(file(SuperviseMode::Alert))]);
    assert_eq!(trial(&told_only).unwrap(), &Trial { acts: false, ..trial(&leaning).unwrap().clone() });
    let again = after(&told_only, [configure(file(SuperviseMode::On))]);
    assert_eq!(trial(&again), trial(&leaning));
    for off in [file(SuperviseMode::Off), the_file()] {
        let (next, effects) = run(&leaning, configure(off)).unwrap();
        assert_eq!((told(&next), watch(&next)), ("-".into(), None));
        let note = "`shop` is not supervised any more: the file says so; it stays at blue 90 %, green 10 %";
        assert_eq!(effects.notes, [note]);
        assert_eq!(stands(&next), stands(&leaning), "traffic stays where it is");
    }
}

#[test]
fn a_trial_survives_a_restart() {
    let asked = after(&plain(), [flip_with("shop", "green", Supervise::For(None))]);
    for (state, file) in [
        (leaning(), file(SuperviseMode::On)),
        (after(&supervised(), [canary()]), file(SuperviseMode::On)),
        (asked, the_file()),
    ] {
        let records = records(&state);
        let again = Command::Configure { services: file, records };
        let (next, effects) = run(&State::at(state.table.epoch()), again).unwrap();
        assert_eq!(effects.change, None);
        assert_eq!((trial(&next), watch(&next)), (trial(&state), watch(&state)));
        let back = acted(&next, Act::Convict);
        assert_eq!(stands(&back), is("blue 100 %", "blue", "-"));
    }
    let state = leaning();
    let (services, records) = (file(SuperviseMode::Alert), records(&state));
    let (next, _) = run(&State::at(state.table.epoch()), Command::Configure { services, records }).unwrap();
    assert!(!trial(&next).unwrap().acts, "the file says so by now");
}

/// Back to where `then` stood.
fn undo(then: &State) -> Command {
    Command::Undo { to: then.table.epoch(), records: records(then), scopes: Scopes::all() }
}

#[test]
fn an_undo_ends_a_trial_or_begins_one_anew() {
    let first = supervised();
    let canary = after(&first, [canary()]);
    let flipped = after(&canary, [flip("shop", "green")]);
    assert_eq!(told(&after(&flipped, [undo(&first)])), "-");
    let again = after(&flipped, [undo(&canary)]);
    assert_eq!(told(&again), "blue/green: blue 95 %, green 5 %");
    assert_eq!(
        trial(&again).unwrap().stage,
        again.table.epoch(),
        "evidence of another time is not this one's"
    );
    // What supervision did is undone like anything else.
    let leaning = acted(&flipped, Act::Lean(weight("10")));
    let undone = after(&leaning, [undo(&flipped)]);
    assert_eq!((told(&undone).as_str(), split(&undone, "shop").to_string().as_str()), ("-", "green 100 %"));
    let convicted = acted(&leaning, Act::Convict);
    let undone = after(&convicted, [undo(&leaning)]);
    assert_eq!(told(&undone), "blue/green: blue 90 %, green 10 %");
}

#[test]
fn an_undo_that_moves_no_traffic_leaves_a_trial_alone() {
    let leaning = leaning();
    let edited = after(&leaning, [add_endpoint("shop", "green", 9102)]);
    let undone = after(&edited, [undo(&leaning)]);
    assert_eq!(trial(&undone), trial(&leaning));
    assert_eq!(stands(&undone), stands(&leaning));
    // To the weights that supervision went to, when they were an operator's.
    let tenth = after(&supervised(), [weights("shop", &[("green", "10")], Some("blue"))]);
    let all = after(&tenth, [flip("shop", "green")]);
    let back = after(&acted(&all, Act::Lean(weight("10"))), [undo(&tenth)]);
    assert_eq!(stands(&back).0, "blue 90 %, green 10 %");
    assert_eq!(told(&back), "blue/green: blue 90 %, green 10 %", "nothing restores the flip");
    // And an undo of a trial's end by time, which moved nothing, is none either.
    let flipped = after(&supervised(), [flip("shop", "green")]);
    let acquitted = acted(&after(&flipped, [add_endpoint("shop", "green", 9102)]), Act::Acquit);
    assert_eq!(told(&after(&acquitted, [undo(&flipped)])), "-");
}

#[test]
fn until_the_end_of_time_is_as_far_as_it_goes() {
    let wish = Supervise::For(Some(Duration::MAX));
    let asked = order(flip_with("shop", "green", wish));
    let (next, _) = step(&supervised(), asked, Timestamp(u64::MAX - 1)).unwrap();
    assert_eq!(trial(&next).unwrap().until, Some(Timestamp(u64::MAX)));
}
