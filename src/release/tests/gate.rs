//! Who gets traffic has to be well enough; who gets it back does not.

use std::sync::Arc;

use super::world::*;
use crate::release::gate::EndpointHealth;
use crate::release::{
    Act, Command, Effects, Event, Health, Order, RampOrder, Refused, Scopes, State, Timestamp, step,
};
use crate::table::{
    BasisPoints, HealthCheck, Least, PoolRules, Protocol, ServiceSpec, StickyBy, StickyRules, VersionSpec,
};

/// `shop` with checks, all of it on blue (9001, 9002); green has 9101, 9102 and 9103. `cart` has none.
fn checked(min_healthy: Least) -> State {
    start(the_checked(min_healthy))
}

/// The file that says so.
fn the_checked(min_healthy: Least) -> Vec<ServiceSpec> {
    let mut shop =
        spec("shop", "blue", &[("blue", &[9001, 9002]), ("green", &[9101, 9102, 9103]), ("v3", &[9301])]);
    let check = HealthCheck { min_healthy, ..HealthCheck::default() };
    shop.pool = Arc::new(PoolRules { health: Some(Arc::new(check)), ..PoolRules::default() });
    vec![shop, spec("cart", "one", &[("one", &[9201]), ("two", &[9301])])]
}

/// These endpoints are well, and those of `bad` have answered 503.
fn known(version_name: &str, well: &[u16], bad: &[u16]) -> Vec<EndpointHealth> {
    let one = |port: u16, is_well: bool| EndpointHealth {
        service: service("shop"),
        version: version(version_name),
        endpoint: endpoint(port),
        protocol: Protocol::default(),
        is_well,
        last: Some((if is_well { "status 200" } else { "status 503" }.to_owned(), Timestamp(7))),
    };
    well.iter().map(|port| one(*port, true)).chain(bad.iter().map(|port| one(*port, false))).collect()
}

fn try_with(
    state: &State,
    command: Command,
    endpoints: Vec<EndpointHealth>,
    forced: bool,
) -> Result<(State, Effects), Refused> {
    let Event::Order(asked) = order(command) else { unreachable!("an order") };
    step(state, Event::Order(Order { health: Health { forced, endpoints }, ..asked }), Timestamp(1))
}

#[test]
fn a_version_gets_traffic_when_enough_of_it_is_well() {
    let half = Least::Share(BasisPoints::new(5_000).unwrap());
    let state = checked(half);
    let refused =
        try_with(&state, flip("shop", "green"), known("green", &[9101], &[9102]), false).unwrap_err();
    assert_eq!(refused.token(), "not_ready");
    assert_eq!(
        refused.to_string(),
        "`green` of `shop` is not ready for traffic: 1 of 3 endpoints healthy, 2 needed \
         (127.0.0.1:9102: status 503; 127.0.0.1:9103: not checked yet)"
    );
    let (next, effects) =
        try_with(&state, flip("shop", "green"), known("green", &[9101, 9102], &[9103]), false).unwrap();
    assert_eq!(split(&next, "shop").to_string(), "green 100 %");
    assert_eq!(effects.notes, [""; 0]);
    assert!(try_with(&state, flip("cart", "two"), Vec::new(), false).is_ok(), "it is not checked");
}

#[test]
fn every_way_to_more_traffic_is_gated_and_none_to_less() {
    let state = checked(Least::Count(1));
    let canary = after(&checked(Least::Count(0)), [weights("shop", &[("green", "5")], Some("@stable"))]);
    let green_is_down = || known("green", &[], &[9101]);
    let more = [
        flip("shop", "green"),
        switch("shop", "green"),
        weights("shop", &[("green", "6")], Some("@stable")),
        set_rules("shop", &["header x-beta=yes -> green"]),
        Command::Batch(vec![flip("cart", "two"), flip("shop", "green")]),
        Command::Batch(vec![put("shop", pool("v4", &[9401])), flip("shop", "v4")]),
    ];
    for command in more {
        let refused = try_with(&state, command.clone(), green_is_down(), false).unwrap_err();
        assert!(matches!(refused, Refused::NotReady { .. }), "{command:?}: {refused}");
    }
    for command in [
        weights("shop", &[("green", "4")], Some("@stable")),
        weights("shop", &[("green", "5")], Some("@stable")),
        set_rules("shop", &["header x-beta=yes -> green"]),
        put("shop", pool("green", &[9101])),
        add_endpoint("shop", "green", 9109),
    ] {
        // What green has, it may keep; blue gets more, and is well.
        let health = [green_is_down(), known("blue", &[9001], &[])].concat();
        assert!(try_with(&canary, command.clone(), health, false).is_ok(), "{command:?}");
    }
}

#[test]
fn a_forced_order_is_carried_out_and_says_so_for_ever() {
    let state = checked(Least::Count(1));
    let (next, effects) =
        try_with(&state, flip("shop", "green"), known("green", &[], &[9101]), true).unwrap();
    assert_eq!(split(&next, "shop").to_string(), "green 100 %");
    assert!(
        effects.notes[0].starts_with("forced to `green` of `shop`: 0 of 3 endpoints healthy"),
        "{effects:?}"
    );
    let summary = effects.change.unwrap().summary;
    assert_eq!(summary, "shop: green 100 %; shop: forced, 0 of 3 of green healthy");
    let (_, effects) = try_with(&state, flip("shop", "green"), known("green", &[9101], &[]), true).unwrap();
    assert_eq!(effects.notes, [""; 0], "nothing had to be forced");
}

#[test]
fn the_way_back_is_open_whatever_is_known() {
    let state = checked(Least::Count(1));
    let before = state.table.epoch();
    let (flipped, _) = try_with(&state, flip("shop", "green"), known("green", &[9101], &[]), false).unwrap();
    let (next, effects) =
        try_with(&flipped, revert("shop"), known("blue", &[], &[9001, 9002]), false).unwrap();
    assert_eq!(split(&next, "shop").to_string(), "blue 100 %");
    assert!(
        effects.notes[0].starts_with("`blue` of `shop`: 0 of 2 endpoints healthy, 1 needed"),
        "{effects:?}"
    );
    assert!(!effects.change.unwrap().summary.contains("forced"));
    let undo = Command::Undo { to: before, records: records(&state), scopes: Scopes::all() };
    assert!(try_with(&flipped, undo, Vec::new(), false).is_ok());
    assert!(try_with(&flipped, configure(the_file()), Vec::new(), false).is_ok());
}

#[test]
fn who_is_retired_is_left_only_to_who_is_ready() {
    let retire = || ramp("shop", RampOrder::Retire { quiet: None, lasts: None });
    let blue_is_down = || known("blue", &[], &[9001, 9002]);
    let canary = |file: Vec<ServiceSpec>| {
        let canary = weights("shop", &[("green", "25")], Some("blue"));
        try_with(&start(file), canary, known("green", &[9101], &[]), false).unwrap().0
    };
    let coins = canary(the_checked(Least::Count(1)));
    let refused = try_with(&coins, retire(), blue_is_down(), false).unwrap_err();
    assert!(matches!(refused, Refused::NotReady { .. }), "{refused}");
    let (_, effects) = try_with(&coins, retire(), blue_is_down(), true).unwrap();
    assert_eq!(
        effects.change.unwrap().summary,
        "shop: blue 100 %, green is retired; shop: forced, 0 of 2 of blue healthy"
    );

    let mut file = the_checked(Least::Count(1));
    let by = StickyBy::Cookie { name: "sb_id".into(), mint: Some(StickyBy::MAX_AGE) };
    file[0].sticky = Some(Arc::new(StickyRules { by, salt: "shop".into() }));
    let (retiring, _) = try_with(&canary(file), retire(), blue_is_down(), false).unwrap();
    let begun = retiring.deployment(&service("shop")).unwrap().retirement.as_ref().unwrap().begun;
    let over = || ramp("shop", RampOrder::Retired { begun });
    let refused = try_with(&retiring, over(), blue_is_down(), false).unwrap_err();
    assert!(matches!(refused, Refused::NotReady { .. }), "{refused}");
    let (next, _) = try_with(&retiring, over(), known("blue", &[9001], &[9002]), false).unwrap();
    assert_eq!(split(&next, "shop").to_string(), "blue 100 %");
    // Whoever sends everybody back is not asked.
    for back in [ramp("shop", RampOrder::Abort), revert("shop")] {
        assert!(try_with(&retiring, back, blue_is_down(), false).is_ok());
    }
}

#[test]
fn a_revert_in_a_batch_opens_no_other_way() {
    let unchecked = after(&checked(Least::Count(0)), [flip("shop", "green")]);
    let state = after(&unchecked, [configure(the_checked(Least::Count(1)))]);
    let health = || known("blue", &[], &[9001, 9002]);
    let batch = |commands: &[Command]| {
        try_with(&state, Command::Batch(commands.to_vec()), health(), false)
            .map(|(next, _)| split(&next, "shop").to_string())
    };
    let to_v3 = [flip("shop", "v3"), weights("shop", &[("v3", "1")], Some("@stable"))];
    for other in to_v3 {
        let refused = batch(&[revert("shop"), other]).unwrap_err();
        assert!(matches!(refused, Refused::NotReady { .. }), "{refused}");
    }
    assert_eq!(batch(&[revert("shop"), flip("shop", "blue")]).unwrap(), "blue 100 %", "it is the way back");
}

#[test]
fn what_was_answered_over_another_protocol_says_nothing() {
    let state = checked(Least::Count(1));
    let green = |protocol| VersionSpec { protocol, ..pool("green", &[9101, 9102, 9103]) };
    let order = |protocol| {
        let batch = Command::Batch(vec![put("shop", green(protocol)), flip("shop", "green")]);
        try_with(&state, batch, known("green", &[9101, 9102, 9103], &[]), false)
    };
    assert!(order(Protocol::Http1).is_ok());
    let refused = order(Protocol::H2c).unwrap_err().to_string();
    assert!(
        refused.contains("0 of 3 endpoints healthy, 1 needed (127.0.0.1:9101: not checked yet"),
        "{refused}"
    );
}

#[test]
fn an_endpoint_that_is_drained_counts_for_nothing() {
    let state = after(&checked(Least::Count(1)), [drain_endpoint("shop", "green", 9101)]);
    let refused = try_with(&state, flip("shop", "green"), known("green", &[9101], &[]), false);
    assert!(matches!(refused, Err(Refused::NotReady { .. })), "{refused:?}");
}

/// `shop` supervised, with all of it on green (nothing of blue and green was checked then), or a twentieth.
fn tried(to: Command) -> (State, crate::table::Epoch) {
    let mut file = the_checked(Least::Share(BasisPoints::ALL));
    file[0].supervise = Some(Arc::default());
    let greens = known("green", &[9101, 9102, 9103], &[]);
    let (state, _) = try_with(&start(file), to, greens, false).unwrap();
    let stage = state.deployment(&service("shop")).unwrap().trial.as_ref().unwrap().stage;
    (state, stage)
}

#[test]
fn a_baseline_that_is_not_all_well_bars_no_way_back_to_it() {
    let half_well = || known("blue", &[9001], &[9002]);
    let canary = || weights("shop", &[("green", "5")], Some("blue"));
    for (to, act, now) in [
        (canary(), Act::Convict, "blue 100 %"),
        (flip("shop", "green"), Act::Convict, "blue 100 %"),
        (flip("shop", "green"), Act::Lean(BasisPoints::TENTH), "blue 90 %, green 10 %"),
    ] {
        let (state, stage) = tried(to);
        let (next, effects) = try_with(&state, supervise("shop", stage, act), half_well(), false).unwrap();
        assert_eq!(split(&next, "shop").to_string(), now);
        assert_eq!(effects.notes.len(), 1, "{:?}", effects.notes);
    }
    // That it answers is proven by then, whatever its checks say.
    let none_well = || known("blue", &[], &[9001, 9002]);
    let (state, stage) = tried(canary());
    let (next, _) = try_with(&state, supervise("shop", stage, Act::Convict), none_well(), false).unwrap();
    assert_eq!(split(&next, "shop").to_string(), "blue 100 %");
    // But nobody is sent where nobody is.
    let (state, stage) = tried(flip("shop", "green"));
    for act in [Act::Convict, Act::Lean(BasisPoints::TENTH)] {
        let refused = try_with(&state, supervise("shop", stage, act), none_well(), false).unwrap_err();
        assert_eq!(refused.token(), "not_ready");
    }
}

#[test]
fn supervision_gives_a_candidate_no_more_than_anybody_could_unless_the_baseline_is_not_ready_either() {
    let (state, stage) = tried(flip("shop", "green"));
    let act = |state: &State, act, health| try_with(state, supervise("shop", stage, act), health, false);
    let blues = || known("blue", &[9001, 9002], &[]);
    let both =
        |blues: Vec<EndpointHealth>, greens: Vec<EndpointHealth>| blues.into_iter().chain(greens).collect();
    let (leaning, _) = act(&state, Act::Lean(BasisPoints::TENTH), blues()).unwrap();
    let few = || known("green", &[9101], &[9102, 9103]);
    let refused = act(&leaning, Act::Restore, both(blues(), few())).unwrap_err();
    assert_eq!(refused.token(), "not_ready");
    let (next, effects) = act(&leaning, Act::Restore, both(known("blue", &[9001], &[9002]), few())).unwrap();
    assert_eq!((split(&next, "shop").to_string().as_str(), effects.notes.len()), ("green 100 %", 1));
}

#[test]
fn a_file_takes_nobody_from_where_a_rule_leads_to_who_is_not_ready() {
    let greens = || known("green", &[9101, 9102, 9103], &[]);
    let order = set_rules("shop", &["header x-beta=yes -> green"]);
    let (led, _) = try_with(&checked(Least::Count(1)), order, greens(), false).unwrap();
    let without_green = |blues: Vec<EndpointHealth>| {
        let mut file = the_checked(Least::Count(1));
        file[0].versions.retain(|of| of.name != version("green"));
        try_with(&led, configure(file), [greens(), blues].concat(), false)
    };
    let refused = without_green(known("blue", &[], &[9001, 9002])).unwrap_err();
    assert_eq!(refused.token(), "no_heir");
    assert!(
        refused.to_string().contains("any more, and a targeting rule leads there; `blue`, "),
        "{refused}"
    );
    assert!(refused.hint().contains("`switchback rules shop`"), "{}", refused.hint());
    let (next, effects) = without_green(known("blue", &[9001], &[9002])).unwrap();
    assert_eq!((split(&next, "shop").to_string(), rules(&next, "shop").len()), ("blue 100 %".into(), 0));
    assert_eq!(effects.notes.len(), 1, "{:?}", effects.notes);
}

#[test]
fn a_file_takes_no_traffic_from_who_answers_to_who_is_not_ready() {
    let state = after(&checked(Least::Count(0)), [flip("shop", "green")]);
    let without_green = || {
        let mut file = the_checked(Least::Count(1));
        file[0].versions.retain(|of| of.name != version("green"));
        configure(file)
    };
    let greens = || known("green", &[9101], &[9102, 9103]);
    let with = |endpoints: Vec<EndpointHealth>| try_with(&state, without_green(), endpoints, false);
    let refused = with([greens(), known("blue", &[], &[9001, 9002])].concat()).unwrap_err();
    assert_eq!(refused.token(), "no_heir");
    assert_eq!(
        refused.to_string(),
        "the file has no version `green` of service `shop` any more, and it carries 100 % of the traffic; `blue`, \
         which would get that, is not ready: 0 of 2 endpoints healthy, 1 needed (127.0.0.1:9001: status 503; \
         127.0.0.1:9002: status 503)"
    );
    let blue = |taken: Result<(State, Effects), Refused>| {
        assert_eq!(split(&taken.unwrap().0, "shop").to_string(), "blue 100 %");
    };
    blue(with([greens(), known("blue", &[9001], &[9002])].concat()));
    // Nobody loses anything.
    blue(with(known("green", &[], &[9101, 9102, 9103])));
    // At a start somebody has to serve, and nothing is known of anybody.
    let Command::Configure { services, .. } = without_green() else { unreachable!("a file") };
    let start = Command::Configure { services, records: records(&state) };
    blue(run(&State::at(state.table.epoch()), start));
}
