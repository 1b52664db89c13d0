//! A ramp that is supervised: who is tried, and what suspicion and proof do to it.

use super::*;

fn trial(state: &State) -> Option<&crate::release::Trial> {
    state.deployment(&service("shop")).unwrap().trial.as_ref()
}

#[test]
fn each_step_is_tried_and_only_what_comes_after_the_last_one_ends_by_time() {
    let mut state = after(&supervised(), [up()]);
    for _ in 0..2 {
        let present = trial(&state).unwrap();
        assert_eq!((present.stage, &present.asked), (state.table.epoch(), &split(&state, "shop")));
        assert_eq!((present.baseline.as_str(), present.until), ("blue", None));
        state = stepped(&state);
    }
    assert_eq!(trial(&state).unwrap().lasts, Some(Duration::from_mins(10)));
    // Asked for by whoever begins it, from the first step on.
    let supervise = Supervise::For(Some(MINUTE));
    let (to, steps, every) = (reference("green"), Steps::default(), Some(MINUTE));
    let mut state = after(&plain(), [ramp("shop", RampOrder::Begin { to, steps, every, supervise })]);
    for _ in 0..4 {
        assert_eq!(trial(&state).unwrap().until, None);
        state = stepped(&state);
    }
    assert_eq!(trial(&state).unwrap().lasts, Some(MINUTE));
}

#[test]
fn supervision_that_leans_back_suspends_it_and_proof_ends_it() {
    let half = stepped(&at(&supervised(), up(), 0));
    let act = |act| supervise("shop", trial(&half).unwrap().stage, act);
    let leaning = at(&half, act(Act::Lean(weight("10"))), 50_000);
    assert_eq!((shop(&leaning), under_way(&leaning)), ("blue 90 %, green 10 %".into(), under_way(&half)));
    is_refused(&leaning, due(&leaning, "shop"), "suspect");
    is_refused(&leaning, ramp("shop", RampOrder::Promote { full: true }), "suspect");
    assert_eq!(shop(&after(&leaning, [ramp("shop", RampOrder::Abort)])), "blue 100 %");
    let back = at(&leaning, act(Act::Restore), 70_000);
    assert_eq!((shop(&back), under_way(&back).unwrap().step), (shop(&half), 1));
    assert_eq!(under_way(&back).unwrap().left(Timestamp(70_000)), Some(MINUTE), "the step begins anew");
    assert_eq!(shop(&stepped(&back)), "green 100 %");
    let convicted = at(&leaning, act(Act::Convict), 60_000);
    assert_eq!((shop(&convicted), under_way(&convicted)), ("blue 100 %".to_owned(), None));
    assert_eq!(ended(&convicted), Some((RampEnd::Reverted, "50 %".to_owned())));
    // One that is frozen meanwhile stays so.
    let frozen = after(&leaning, [ramp("shop", RampOrder::Freeze { left: None })]);
    let back = after(&frozen, [act(Act::Restore)]);
    let present = under_way(&back).unwrap();
    assert_eq!((present.is_frozen, present.left(Timestamp(0)), present.lasts), (true, None, MINUTE));
    // Nobody begins one while that is so.
    let flipped = after(&supervised(), [flip("shop", "green")]);
    let stage = trial(&flipped).unwrap().stage;
    let leaning = after(&flipped, [supervise("shop", stage, Act::Lean(weight("10")))]);
    is_refused(&leaning, begin_ramp("shop", "green", &["50", "100"]), "suspect");
}

#[test]
fn an_undo_of_what_supervision_leaned_back_from_ends_it() {
    // Nothing but the ramp has asked for supervision.
    let Command::Ramp { service, order: RampOrder::Begin { to, steps, every, .. } } = up() else { panic!() };
    let order = RampOrder::Begin { to, steps, every, supervise: Supervise::For(None) };
    let half = stepped(&after(&plain(), [Command::Ramp { service, order }]));
    let lean = supervise("shop", trial(&half).unwrap().stage, Act::Lean(weight("10")));
    let leaning = after(&half, [lean]);
    let undo = Command::Undo { to: half.table.epoch(), records: records(&half), scopes: Scopes::all() };
    let (undone, effects) = run(&leaning, undo).unwrap();
    assert_eq!((shop(&undone), under_way(&undone)), (shop(&half), None));
    assert_eq!(ended(&undone), Some((RampEnd::Superseded, "50 %".to_owned())));
    let note = "the ramp of `shop` to `green` is over; it had come to 50 % (step 2 of 3)";
    assert_eq!(effects.notes, [note]);
}

#[test]
fn what_is_suspect_at_a_tenth_and_less_stays_so_and_no_step_goes_past_it() {
    let begun = at(&supervised(), begin_ramp("shop", "green", &["5", "50", "100"]), 0);
    let act = |state: &State, act, millis| {
        let stage = trial(state).unwrap().stage;
        step(state, order(supervise("shop", stage, act)), Timestamp(millis)).unwrap()
    };
    let (suspect, effects) = act(&begun, Act::Lean(weight("5")), 40_000);
    assert_eq!(effects.change.unwrap().summary, "shop: green is suspect");
    assert_eq!((shop(&suspect), trial(&suspect).unwrap().is_suspect), (shop(&begun), true));
    assert_eq!(act(&suspect, Act::Lean(weight("5")), 41_000).1.change, None, "it is so already");
    is_refused(&suspect, due(&suspect, "shop"), "suspect");
    is_refused(&suspect, ramp("shop", RampOrder::Promote { full: false }), "suspect");
    assert_eq!(shop(&after(&suspect, [ramp("shop", RampOrder::Abort)])), "blue 100 %");
    let (well, effects) = act(&suspect, Act::Restore, 90_000);
    assert_eq!(effects.change.unwrap().summary, "shop: green is suspect no more");
    assert_eq!(under_way(&well).unwrap().left(Timestamp(90_000)), Some(MINUTE), "the step begins anew");
    assert_eq!(shop(&stepped(&well)), "blue 50 %, green 50 %");
}

#[test]
fn what_only_tells_holds_up_no_step_also_when_the_file_says_so_while_it_leans_back() {
    let file = |mode| {
        let mut file = the_file();
        file[0].supervise = Some(Arc::new(SuperviseRules { mode, ..SuperviseRules::default() }));
        file
    };
    let begun = at(&start(file(SuperviseMode::On)), begin_ramp("shop", "green", &["50", "80", "100"]), 0);
    let stage = trial(&begun).unwrap().stage;
    let leaning = at(&begun, supervise("shop", stage, Act::Lean(weight("10"))), 10_000);
    is_refused(&leaning, due(&leaning, "shop"), "suspect");
    let (told_only, effects) =
        step(&leaning, order(configure(file(SuperviseMode::Alert))), Timestamp(40_000)).unwrap();
    assert_eq!(shop(&told_only), "blue 90 %, green 10 %", "a file moves no traffic");
    assert_eq!(under_way(&told_only).unwrap().left(Timestamp(40_000)), Some(MINUTE), "the step begins anew");
    let note =
        "supervision of `shop` only tells from now on: the file says so; it stays at blue 90 %, green 10 %";
    assert_eq!(effects.notes, [note]);
    for next in [due(&told_only, "shop"), ramp("shop", RampOrder::Promote { full: false })] {
        let next = after(&told_only, [next]);
        assert_eq!((shop(&next), trial(&next).unwrap().acts), ("blue 20 %, green 80 %".to_owned(), false));
        assert_eq!(shop(&after(&next, [ramp("shop", RampOrder::Abort)])), "blue 100 %");
    }
    // And so it is held up again as soon as supervision acts again.
    let again = after(&told_only, [configure(file(SuperviseMode::On))]);
    is_refused(&again, due(&again, "shop"), "suspect");
}

#[test]
fn who_ramps_is_who_is_tried_also_back_to_the_measure() {
    let back =
        after(&supervised(), [flip("shop", "green"), begin_ramp("shop", "blue", &["20", "50", "100"])]);
    let pair = |state: &State| {
        let trial = trial(state).unwrap();
        (trial.baseline.to_string(), trial.candidate.to_string())
    };
    let half = stepped(&back);
    let all = stepped(&half);
    for state in [&back, &half, &all] {
        assert_eq!(pair(state), ("green".to_owned(), "blue".to_owned()), "{}", shop(state));
    }
    let convicted = after(&half, [supervise("shop", trial(&half).unwrap().stage, Act::Convict)]);
    assert_eq!((shop(&convicted), ended(&convicted).unwrap().0), ("green 100 %".into(), RampEnd::Reverted));
    // One step alone is one too.
    let once = after(&supervised(), [flip("shop", "green"), begin_ramp("shop", "blue", &["50"])]);
    assert_eq!(pair(&once), ("green".to_owned(), "blue".to_owned()));
}
