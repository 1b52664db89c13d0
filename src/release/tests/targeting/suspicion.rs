//! Rules while supervision suspects the version that they lead to, and when it goes back.

use std::sync::Arc;

use super::super::world::*;
use super::{BETA, STAFF, act, done, is, phase, shop, summary, supervised};
use crate::release::{Act, Command, Effects, Phase, Scopes, State, Trial};
use crate::table::{SuperviseMode, SuperviseRules};

/// Green has this share and a rule; supervision has leaned back from it, to `lean` if that is less.
fn leaning(share: &str, lean: &str) -> State {
    let state = after(
        &supervised(),
        [weights("shop", &[("green", share)], Some("blue")), set_rules("shop", &[BETA, STAFF])],
    );
    act(&state, Act::Lean(weight(lean)))
}

fn suspicion(state: &State) -> Option<Trial> {
    state.deployment(&service("shop")).unwrap().trial.clone()
}

fn has_note(effects: &Effects, note: &str) -> bool {
    effects.notes.iter().any(|told| told == note)
}

#[test]
fn weights_never_send_anybody_to_who_is_suspect_by_rules_that_are_passed_over() {
    let gone = "a targeting rule of `shop` is taken away: supervision has passed over what led there, and other weights are asked for (header x-beta=yes -> green)";
    let leaning = leaning("50", "10");
    let (none, effects) = done(&leaning, weights("shop", &[("blue", "100")], None));
    assert_eq!((shop(&none), phase(&none)), (is("blue 100 %", &[STAFF]), draining()));
    assert!(has_note(&effects, gone), "{:?}", effects.notes);
    assert_eq!(summary(&effects), "shop: blue 100 %, 1 rule (client 10.0.0.0/8 -> blue)");
    // Whither it has leaned back.
    let (same, effects) = done(&leaning, weights("shop", &[("green", "10")], Some("blue")));
    assert_eq!(shop(&same), is("blue 90 %, green 10 %", &[STAFF]));
    assert!(has_note(&effects, gone), "{:?}", effects.notes);
    // Who insists on what he has asked for has all of that.
    let (again, effects) = done(&leaning, weights("shop", &[("green", "50")], Some("blue")));
    assert_eq!(shop(&again), is("blue 50 %, green 50 %", &[BETA, STAFF]));
    assert!(
        has_note(&effects, "a targeting rule of `shop` holds again (header x-beta=yes -> green)"),
        "{:?}",
        effects.notes
    );
    // So has he what he asks for together with them, in any order.
    for both in [
        [set_rules("shop", &[BETA]), weights("shop", &[("green", "30")], Some("blue"))],
        [weights("shop", &[("green", "30")], Some("blue")), set_rules("shop", &[BETA])],
    ] {
        assert_eq!(
            shop(&after(&leaning, [Command::Batch(both.into())])),
            is("blue 70 %, green 30 %", &[BETA])
        );
    }
}

fn draining() -> Phase {
    Phase::Draining { leaving: vec![version("green")] }
}

#[test]
fn a_rule_to_who_is_suspect_is_passed_over_whenever_it_was_set() {
    let little = after(&supervised(), [weights("shop", &[("green", "5")], Some("blue"))]);
    let suspect = act(&little, Act::Lean(weight("10")));
    let (set, effects) = done(&suspect, set_rules("shop", &[BETA]));
    assert_eq!(shop(&set), is("blue 95 %, green 5 %", &[]));
    let note = "supervision suspects `green` of `shop`: rules that lead there are passed over until it does so no more";
    assert_eq!(effects.notes, [note]);
    assert_eq!(
        summary(&effects),
        "shop: 1 rule (header x-beta=yes -> green), once supervision suspects green no more"
    );
    assert_eq!(shop(&act(&set, Act::Restore)), is("blue 95 %, green 5 %", &[BETA]));
}

fn supervised_by(mode: SuperviseMode) -> Command {
    let mut file = the_file();
    file[0].supervise = Some(Arc::new(SuperviseRules { mode, ..SuperviseRules::default() }));
    configure(file)
}

#[test]
fn who_only_tells_passes_over_nothing_that_is_set_from_then_on() {
    let (told, effects) = done(&leaning("50", "10"), supervised_by(SuperviseMode::Alert));
    assert_eq!(shop(&told), is("blue 90 %, green 10 %", &[STAFF]));
    let note = "supervision of `shop` only tells from now on: the file says so; it stays at blue 90 %, green 10 %, and targeting rules are \
        passed over until they are set anew";
    assert_eq!(effects.notes, [note]);
    let (set, effects) = done(&told, set_rules("shop", &[BETA]));
    assert_eq!((shop(&set), effects.notes), (is("blue 90 %, green 10 %", &[BETA]), vec![]));
    assert_eq!(shop(&after(&told, [set_rules("shop", &[BETA, STAFF])])).1, [BETA, STAFF]);
    // It acts again, and what it suspected it still does.
    let (acting, effects) = done(&set, supervised_by(SuperviseMode::On));
    assert_eq!((shop(&acting), effects.notes.len()), (is("blue 90 %, green 10 %", &[]), 1));
    let (off, effects) = done(&leaning("50", "10"), supervised_by(SuperviseMode::Off));
    assert_eq!(shop(&off), is("blue 90 %, green 10 %", &[STAFF]));
    let note = "`shop` is not supervised any more: the file says so; it stays at blue 90 %, green 10 %, without the targeting rules that \
        were passed over";
    assert_eq!(effects.notes, [note]);
}

#[test]
fn an_undo_of_rules_leaves_supervision_where_it_is() {
    let then = leaning("50", "10");
    let undo = || Command::Undo { to: then.table.epoch(), records: records(&then), scopes: Scopes::all() };
    for rules in [&["cookie beta -> green", BETA, STAFF][..], &[BETA], &[], &["cookie beta -> green"]] {
        let (undone, effects) = done(&after(&then, [set_rules("shop", rules)]), undo());
        assert_eq!(shop(&undone), is("blue 90 %, green 10 %", &[STAFF]), "{rules:?}");
        assert_eq!(suspicion(&undone), suspicion(&then), "{rules:?}: {:?}", effects.notes);
        assert!(effects.change.is_some(), "{rules:?}");
        assert_eq!(shop(&act(&undone, Act::Restore)), is("blue 50 %, green 50 %", &[BETA, STAFF]));
        let way_back = |state: &State| state.deployment(&service("shop")).unwrap().previous.clone();
        assert_eq!(way_back(&undone), way_back(&then), "no step to take back");
    }
    // It has come back meanwhile: then they hold.
    let back = after(&act(&then, Act::Restore), [set_rules("shop", &[])]);
    let (moved, effects) = done(&back, undo());
    assert_eq!(shop(&moved), is("blue 90 %, green 10 %", &[STAFF]));
    let note = format!(
        "a targeting rule of `shop` is taken away: supervision passed over then what led there ({BETA})"
    );
    assert!(has_note(&effects, &note), "{:?}", effects.notes);
    let little = leaning("5", "10");
    let undo = Command::Undo { to: little.table.epoch(), records: records(&little), scopes: Scopes::all() };
    let back = after(&act(&little, Act::Restore), [set_rules("shop", &[]), undo]);
    assert_eq!(shop(&back), is("blue 95 %, green 5 %", &[BETA, STAFF]));
}

#[test]
fn supervision_that_goes_back_tells_which_rules_it_takes_along() {
    let leaning = leaning("50", "10");
    let stage = suspicion(&leaning).unwrap().stage;
    let (back, effects) = done(&leaning, supervise("shop", stage, Act::Convict));
    assert_eq!(shop(&back), is("blue 100 %", &[]));
    assert_eq!(
        effects.notes,
        [format!(
            "2 targeting rules of `shop` are taken away: supervision goes back to `blue` ({BETA}, {STAFF})"
        )]
    );
    // Also where all that it takes away was passed over.
    let passed_over = after(&leaning, [set_rules("shop", &[BETA])]);
    let (_, effects) = done(&passed_over, supervise("shop", stage, Act::Convict));
    assert_eq!(summary(&effects), "shop: blue 100 %, no rules");
}
