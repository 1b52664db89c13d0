//! What supervision does in a trial, and what an operator does meanwhile.

use super::*;

#[test]
fn leaning_back_is_no_step_of_the_operators() {
    let flipped = after(&supervised(), [flip("shop", "green")]);
    let before = trial(&flipped).unwrap();
    let lean = act(&flipped, Act::Lean(weight("10")));
    assert_eq!(ChangeKind::of(&lean), ChangeKind::Weights);
    let (leaning, effects) = run(&flipped, lean).unwrap();
    assert_eq!(stands(&leaning), is("blue 90 %, green 10 %", "blue", "blue 100 %"));
    assert_eq!(trial(&leaning).unwrap(), &Trial { generation: 1, is_suspect: true, ..before.clone() });
    assert_eq!(watch(&leaning).unwrap().generation, 1);
    assert!(watch(&leaning).unwrap().goes_on(&watch(&flipped).unwrap()), "what is counted is not lost");
    assert!(trial(&leaning).unwrap().leans(&split(&leaning, "shop")));
    assert_eq!(effects.returned, [(service("shop"), version("blue"))]);
    let restored = acted(&leaning, Act::Restore);
    assert_eq!(stands(&restored), is("green 100 %", "green", "blue 100 %"));
    assert_eq!(trial(&restored).unwrap(), &Trial { generation: 2, ..before.clone() });
    for state in [flipped, leaning, restored] {
        assert_eq!(stands(&after(&state, [revert("shop")])), is("blue 100 %", "blue", "-"));
    }
}

#[test]
fn while_supervision_leans_back_stable_is_the_baseline() {
    let leaning = leaning();
    let safe = after(&leaning, [flip("shop", "@stable")]);
    assert_eq!(split(&safe, "shop").to_string(), "blue 100 %");
    let fewer = after(&leaning, [weights("shop", &[("green", "5")], Some("@stable"))]);
    assert_eq!(told(&fewer), "blue/green: blue 95 %, green 5 %");
    assert_eq!(split(&after(&leaning, [flip("shop", "@candidate")]), "shop").to_string(), "green 100 %");
    assert_eq!(stable(&acted(&leaning, Act::Restore), "shop"), "green");
}

#[test]
fn what_was_stable_with_the_weights_that_were_asked_for_is_so_with_them_again() {
    let halves = || weights("shop", &[("green", "50"), ("blue", "50")], None);
    let asked = after(&supervised(), [flip("shop", "green"), halves()]);
    assert_eq!(
        (told(&asked), stable(&asked, "shop")),
        ("blue/green: blue 50 %, green 50 %".into(), "green".into())
    );
    let leaning = acted(&asked, Act::Lean(weight("10")));
    assert_eq!(stands(&leaning), is("blue 90 %, green 10 %", "blue", "green 100 %"));
    for back in [act(&leaning, Act::Restore), halves()] {
        let back = after(&leaning, [back]);
        assert_eq!(stands(&back), is("blue 50 %, green 50 %", "green", "green 100 %"));
        let fewer = after(&back, [weights("shop", &[("blue", "5")], Some("@stable"))]);
        assert_eq!(split(&fewer, "shop").to_string(), "blue 5 %, green 95 %");
    }
}

#[test]
fn leaning_back_never_gives_the_candidate_more() {
    let next = acted(&after(&supervised(), [canary()]), Act::Lean(weight("10")));
    assert_eq!(stands(&next), is("blue 95 %, green 5 %", "blue", "blue 100 %"));
}

#[test]
fn a_conviction_is_the_end_of_it_and_leaves_nothing_to_revert() {
    let canary = after(&supervised(), [canary()]);
    for state in [after(&supervised(), [flip("shop", "green")]), canary, leaning()] {
        let convict = act(&state, Act::Convict);
        assert_eq!(ChangeKind::of(&convict), ChangeKind::Revert);
        let (next, effects) = run(&state, convict).unwrap();
        assert_eq!(stands(&next), is("blue 100 %", "blue", "-"));
        assert_eq!((told(&next), watch(&next)), ("-".into(), Some(rest("blue"))));
        assert_eq!(effects.left, [(service("shop"), version("green"))]);
        let nothing = Refused::NothingToRevert { service: service("shop") };
        assert_eq!(run(&next, revert("shop")).unwrap_err(), nothing);
        // The next try is one against the same.
        assert_eq!(told(&after(&next, [flip("shop", "green")])), "blue/green: green 100 %");
    }
}

#[test]
fn an_acquittal_leaves_the_weights_and_the_way_back() {
    let flipped = after(&supervised(), [flip("shop", "green")]);
    let acquit = act(&flipped, Act::Acquit);
    assert_eq!(ChangeKind::of(&acquit), ChangeKind::Supervision);
    let (next, effects) = run(&flipped, acquit).unwrap();
    assert_eq!(stands(&next), stands(&flipped));
    assert_eq!((told(&next), watch(&next)), ("-".into(), Some(rest("green"))));
    assert_eq!((effects.left.len(), effects.returned.len()), (0, 0));
    assert_eq!(summary(effects), "shop: nothing is compared any more");
    let next = after(&next, [weights("shop", &[("blue", "10")], Some("green"))]);
    assert_eq!(told(&next), "green/blue: blue 10 %, green 90 %", "now it is green that carries the service");
}

#[test]
fn orders_of_a_trial_that_is_over_are_refused() {
    let flipped = after(&supervised(), [flip("shop", "green")]);
    let stage = trial(&flipped).unwrap().stage;
    let later = [
        acted(&flipped, Act::Convict),
        acted(&flipped, Act::Acquit),
        after(&flipped, [flip("shop", "blue")]),
        after(&flipped, [weights("shop", &[("green", "50")], Some("blue"))]),
        after(&flipped, [flip_with("shop", "green", Supervise::For(None))]),
        supervised(),
    ];
    for state in later {
        for what in [Act::Lean(weight("10")), Act::Restore, Act::Convict, Act::Acquit] {
            let refused = run(&state, supervise("shop", stage, what)).unwrap_err();
            assert_eq!(refused, Refused::NoTrial { service: service("shop") }, "{}", told(&state));
        }
    }
    let unknown = run(&flipped, supervise("stop", stage, Act::Convict)).unwrap_err();
    assert_eq!(unknown.token(), "unknown_service");
}

#[test]
fn nobody_is_sent_back_to_a_baseline_without_endpoints() {
    let mut empty = file(SuperviseMode::On);
    empty[0].versions[0] = pool("blue", &[]);
    let state = after(&supervised(), [flip("shop", "green"), configure(empty)]);
    assert_eq!(told(&state), "blue/green: green 100 %", "it may come back");
    for what in [Act::Lean(weight("10")), Act::Convict] {
        let refused = run(&state, act(&state, what)).unwrap_err();
        assert_eq!(refused, Refused::EmptyVersion { service: service("shop"), version: version("blue") });
    }
}

#[test]
fn weights_that_supervision_leaned_back_to_are_the_operators_once_asked_for() {
    let mine = weights("shop", &[("green", "10")], Some("blue"));
    let (taken, effects) = run(&leaning(), mine.clone()).unwrap();
    assert_eq!(told(&taken), "blue/green: blue 90 %, green 10 %", "it will not be restored to more");
    assert_eq!(trial(&taken).unwrap().stage, taken.table.epoch());
    assert_eq!(stands(&taken), is("blue 90 %, green 10 %", "blue", "blue 100 %"));
    assert_eq!(summary(effects), "shop: green is compared with blue");
    // Once is enough.
    assert_eq!(run(&taken, mine).unwrap().1.change, None);
}

#[test]
fn a_revert_to_where_supervision_leaned_back_to_is_one() {
    // Ten of a hundred, all, and back at ten by supervision.
    let tenth = after(&supervised(), [weights("shop", &[("green", "10")], Some("blue"))]);
    let leaning = acted(&after(&tenth, [flip("shop", "green")]), Act::Lean(weight("10")));
    let back = after(&leaning, [revert("shop")]);
    assert_eq!(stands(&back), is("blue 90 %, green 10 %", "blue", "-"));
    assert_eq!(told(&back), "blue/green: blue 90 %, green 10 %", "nothing restores the flip");
    // The same between two canaries, where nothing else moves.
    let half = weights("shop", &[("green", "50")], Some("blue"));
    let leaning = acted(&after(&tenth, [half]), Act::Lean(weight("10")));
    let back = after(&leaning, [revert("shop")]);
    assert_eq!(stands(&back), is("blue 90 %, green 10 %", "blue", "-"));
    assert_eq!(told(&back), "blue/green: blue 90 %, green 10 %");
}

#[test]
fn who_insists_on_a_flip_keeps_the_way_back_from_before_it() {
    let insisted = after(&leaning(), [flip("shop", "green")]);
    assert_eq!(stands(&insisted), is("green 100 %", "green", "blue 100 %"));
    assert_eq!(told(&insisted), "blue/green: green 100 %");
    assert_eq!(trial(&insisted).unwrap().stage, insisted.table.epoch());
}

#[test]
fn to_end_supervision_while_it_leans_leaves_no_way_back_to_where_one_is() {
    let tenth = weights("shop", &[("green", "10")], Some("blue"));
    let half = |wish| weights_with("shop", &[("green", "50")], Some("blue"), wish);
    let state = after(&supervised(), [tenth, half(Supervise::AsConfigured)]);
    let leaning = acted(&state, Act::Lean(weight("10")));
    assert_eq!(stands(&leaning), is("blue 90 %, green 10 %", "blue", "blue 90 %, green 10 %"));
    assert_eq!(stands(&acted(&leaning, Act::Acquit)), is("blue 90 %, green 10 %", "blue", "-"));
    let none = weights_with("shop", &[("green", "10")], Some("blue"), Supervise::No);
    let ended = after(&leaning, [none]);
    assert_eq!((told(&ended), stands(&ended)), ("-".into(), is("blue 90 %, green 10 %", "blue", "-")));
}

#[test]
fn an_order_that_comes_twice_is_no_second_change() {
    let flipped = after(&supervised(), [flip("shop", "green")]);
    for (state, what) in [(flipped, Act::Lean(weight("10"))), (leaning(), Act::Restore)] {
        let once = acted(&state, what);
        let (twice, effects) = run(&once, act(&once, what)).unwrap();
        assert_eq!((effects.change, trial(&twice)), (None, trial(&once)), "the weights are the same ones");
    }
}
