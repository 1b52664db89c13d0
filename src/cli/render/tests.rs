//! The pictures, as people see them.

mod explained;
mod verdict;
mod way_back;

use std::collections::BTreeMap;

use insta::assert_snapshot;
use serde_json::{from_value, json};

use super::{change, history, safety, status, versions, waiting};
use crate::admin::api::{
    self, Actor, Change, ChangeAnswer, CheckAnswer, Ejection, Endpoint, EndpointHealth, HealthState, History,
    Holding, InFlight, Leaving, Listener, Move, Phase, PreviousSplit, Reached, Remaining, Route, Service,
    Standing, Version, text,
};
use crate::cli::Style;
use crate::cli::args::VersionOf;
use crate::cli::drain::State;
use crate::cli::status::Picture;

const NOW: u64 = 1_767_323_045_678;

fn weights(all: &[(&str, u16)]) -> BTreeMap<String, u16> {
    all.iter().map(|(version, points)| ((*version).to_owned(), *points)).collect()
}

fn standing(phase: Phase, all: &[(&str, u16)], previous: &[(&str, u16)], leaving: &[&str]) -> Standing {
    let previous = PreviousSplit {
        stable: "blue".to_owned(),
        weights: weights(previous),
        rules: Vec::new(),
        exclusive: None,
    };
    Standing {
        epoch: 42,
        phase,
        stable: all[0].0.to_owned(),
        candidate: all.get(1).map(|(version, _)| (*version).to_owned()),
        weights: weights(all),
        rules: Vec::new(),
        leaving: leaving.iter().map(|version| (*version).to_owned()).collect(),
        previous: (!previous.weights.is_empty()).then_some(previous),
        hold: None,
        holds: Vec::new(),
        supervision: None,
        ramp: None,
        ramped: None,
        retirement: None,
        retired: None,
    }
}

fn version(name: &str, weight: u16, in_flight: &[(&str, u64)], endpoints: &[&str]) -> Version {
    let by_kind: BTreeMap<_, _> =
        in_flight.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
    Version {
        name: name.to_owned(),
        weight,
        targeted: false,
        mirrored: false,
        protocol: api::Protocol::Http1,
        endpoints: endpoints
            .iter()
            .map(|at| Endpoint {
                address: (*at).to_owned(),
                draining: false,
                discovered: false,
                weight: 1,
                zone: None,
                health: None,
            })
            .collect(),
        in_flight: InFlight { total: by_kind.values().sum(), by_kind },
        also_used_by: Vec::new(),
    }
}

fn service(name: &str, standing: Standing, versions: Vec<Version>) -> Service {
    let route = Route { host: format!("{name}.example.com"), path: "/".to_owned(), headers: BTreeMap::new() };
    let (name, routes) = (name.to_owned(), vec![route]);
    Service {
        name,
        standing,
        routes,
        versions,
        sticky: None,
        shield: None,
        upgrades: Vec::new(),
        mirror: None,
        held_requests: None,
        changes: None,
    }
}

fn draining() -> Service {
    let standing = standing(Phase::Draining, &[("green", 10_000)], &[("blue", 10_000)], &["blue"]);
    let many = ["10.0.0.1:9001", "10.0.0.2:9001", "10.0.0.3:9001", "10.0.0.4:9001", "10.0.0.5:9001"];
    let blue = version("blue", 0, &[("request", 3), ("websocket", 1)], &many);
    service("shop", standing, vec![blue, version("green", 10_000, &[("request", 12)], &["127.0.0.1:9101"])])
}

fn canary() -> Service {
    let standing = standing(Phase::Canary, &[("v41", 9_975), ("v42", 25)], &[("v41", 10_000)], &[]);
    let versions = vec![
        version("v40", 0, &[], &["unix:/run/cart-v40.sock"]),
        version("v41", 9_975, &[], &["cart-41.internal:8080"]),
        version("v42", 25, &[], &["cart-42.internal:8080"]),
        version("v43", 0, &[], &[]),
    ];
    service("cart", standing, versions)
}

fn held() -> Service {
    let hold = Holding { by: "operator".to_owned(), scope: "writes".to_owned(), timeout_ms: 1_500 };
    let mut service = draining();
    (service.standing.phase, service.held_requests) = (Phase::Holding, Some(12));
    (service.standing.hold, service.standing.holds) = (Some(hold.clone()), vec![hold]);
    service
}

/// Writes by an operator, and all requests by an exclusive flip.
fn held_twice() -> Service {
    let mut service = held();
    let hold = Holding { by: "exclusive".to_owned(), scope: "all".to_owned(), timeout_ms: 10_000 };
    service.standing.holds.push(hold);
    service
}

fn past(epoch: u64, service: &str, kind: &str, reason: &str, summary: &str) -> Change {
    Change {
        epoch,
        at: text::rfc3339(NOW - 72_000),
        kind: kind.to_owned(),
        actor: Actor { kind: "operator".to_owned(), name: "uid=0 gid=0 pid=4711".to_owned() },
        reason: reason.to_owned(),
        summary: summary.to_owned(),
        services: BTreeMap::from([(service.to_owned(), None)]),
    }
}

fn picture(services: Vec<Service>) -> Picture {
    let listener = Listener { listen: "0.0.0.0:8080".to_owned(), bound: "0.0.0.0:8080".to_owned() };
    let proxy = api::Status {
        version: "0.1.0".to_owned(),
        epoch: 42,
        uptime_seconds: 11_520,
        pid: 4242,
        workers: 2,
        cpus: Vec::new(),
        admin: None,
        listeners: vec![listener],
        ready: true,
        generation: 1,
        predecessors: Vec::new(),
    };
    let changes = vec![
        past(42, "shop", "flip", "v2 is out", "shop: green 100 %"),
        past(40, "cart", "weights", "", "cart: v41 99.75 %, v42 0.25 %"),
    ];
    Picture { proxy, warning: None, services, changes, supervision: None, at: NOW }
}

#[test]
fn status_shows_what_a_tired_operator_needs() {
    assert_snapshot!(status(&picture(vec![canary(), draining()]), Style::PLAIN));
}

#[test]
fn status_shows_a_hold() {
    assert_snapshot!(status(&picture(vec![held(), held_twice()]), Style::PLAIN));
}

#[test]
fn status_names_nothing_that_an_exclusive_flip_under_way_bars() {
    let (steps, waits) = (vec![100, 10_000], None);
    let ramp = api::Ramp {
        begun: 41,
        to: "green".to_owned(),
        steps,
        step: 1,
        every_ms: Some(60_000),
        frozen: false,
        until: None,
        left_ms: Some(9_000),
        waits,
    };
    let said = |ramp: Option<api::Ramp>| {
        let mut service = held_twice();
        (service.standing.candidate, service.standing.ramp) = (Some("blue".to_owned()), ramp);
        status(&picture(vec![service]), Style::PLAIN)
    };
    for text in [said(None), said(Some(ramp))] {
        let commands: Vec<_> = text.split("switchback ").skip(2).collect();
        assert!(
            matches!(commands[..], [release, revert] if release.starts_with("release shop)")
            && revert.starts_with("revert shop   (calls the exclusive flip off")),
            "{text}"
        );
    }
}

#[test]
fn a_hold_says_what_waits_and_for_how_long() {
    let services = BTreeMap::from([("shop".to_owned(), held().standing)]);
    let answer = ChangeAnswer {
        epoch: 42,
        changed: true,
        summary: String::new(),
        state: Reached::Fenced,
        dry_run: false,
        services,
        leaving: Vec::new(),
        out: Vec::new(),
        notes: Vec::new(),
        moves: vec![Move { service: "shop".into(), version: "green".into(), from: 0, to: 10_000 }],
        trials: BTreeMap::new(),
    };
    assert_eq!(super::held(&answer, Style::PLAIN), "shop: writes wait for at most 1.5 s (epoch 42)");
    assert_eq!(
        change(&answer, Style::PLAIN),
        "shop: green 100 %, was blue 100 %; writes wait still (epoch 42)"
    );
}

#[test]
fn status_tells_who_is_not_well_and_why() {
    let mut service = draining();
    let answer =
        |said: &str, ago| CheckAnswer { well: false, said: said.into(), at: text::rfc3339(NOW - ago) };
    let health = |state, ago, said: Option<&str>| EndpointHealth {
        state,
        since: text::rfc3339(NOW - ago),
        last: None,
        last_failure: said.map(|said| answer(said, ago)),
        ejection: None,
    };
    let pool = &mut service.versions[0].endpoints;
    pool[0].health = Some(health(HealthState::Up, 99_000, Some("status 500")));
    pool[1].health = Some(health(HealthState::Down, 12_000, Some("status 503")));
    pool[2].health = Some(health(HealthState::Arriving, 2_000, None));
    let until = text::rfc3339(NOW + 25_400);
    let ejection = Ejection { cause: "errors".into(), said: "5 failures in a row".into(), until };
    pool[3].health =
        Some(EndpointHealth { ejection: Some(ejection), ..health(HealthState::Ejected, 4_000, None) });
    assert_snapshot!(status(&picture(vec![service]), Style::PLAIN));
}

#[test]
fn status_fits_a_narrow_terminal() {
    let text = status(&picture(vec![draining()]), Style { width: 60, ..Style::PLAIN });
    assert_snapshot!(text);
}

#[test]
fn status_in_colour() {
    assert_snapshot!(status(&picture(vec![draining()]), Style { colour: true, ..Style::PLAIN }));
}

#[test]
fn status_without_services() {
    assert_snapshot!(status(&picture(Vec::new()), Style::PLAIN));
}

#[test]
fn the_versions_of_a_service() {
    assert_snapshot!(versions(&canary(), Style::PLAIN));
}

fn answer(services: &[(&str, Standing)]) -> ChangeAnswer {
    let services: BTreeMap<_, _> =
        services.iter().map(|(name, at)| ((*name).to_owned(), at.clone())).collect();
    let leaving = services.iter().flat_map(|(service, at)| {
        at.leaving.iter().map(|version| Leaving { service: service.clone(), version: version.clone() })
    });
    ChangeAnswer {
        epoch: 42,
        changed: true,
        summary: String::new(),
        state: Reached::Fenced,
        dry_run: false,
        leaving: leaving.collect(),
        out: Vec::new(),
        services: services.clone(),
        notes: Vec::new(),
        moves: Vec::new(),
        trials: BTreeMap::new(),
    }
}

#[test]
fn what_a_change_did() {
    let flipped = draining().standing;
    let step = |service: &str, version: &str, from, to| {
        let (service, version) = (service.to_owned(), version.to_owned());
        Move { service, version, from, to }
    };
    let moves = vec![step("shop", "blue", 10_000, 0), step("shop", "green", 0, 10_000)];
    let one = ChangeAnswer { moves: moves.clone(), ..answer(&[("shop", flipped.clone())]) };
    let both = answer(&[("shop", flipped.clone()), ("cart", canary().standing)]);
    let two = ChangeAnswer { moves: [moves.clone(), vec![step("cart", "green", 0, 500)]].concat(), ..both };
    let none = ChangeAnswer { changed: false, moves: Vec::new(), ..one.clone() };
    let notes = vec!["`old` did not exist at epoch 7".to_owned()];
    let summary = "shop: green 100 %".to_owned();
    let plan = ChangeAnswer { dry_run: true, summary, moves, notes: notes.clone(), ..one.clone() };
    let summary = "shop: green 10.0.0.1:80 draining".to_owned();
    let of_a_pool = ChangeAnswer { dry_run: true, summary, moves: Vec::new(), ..one.clone() };
    let in_vain = ChangeAnswer { changed: false, notes, ..answer(&[]) };
    let told = |answer: &ChangeAnswer| {
        let lines = [Some(change(answer, Style::PLAIN)), super::way_back(answer)];
        lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!([one, two, none, plan, of_a_pool, in_vain].map(|answer| told(&answer)).join("\n--\n"));
}

#[test]
fn a_rule_has_the_number_of_the_list_that_was_set_also_while_some_are_passed_over() {
    let [to_green, to_blue] = ["green", "blue"].map(|to| json!({ "host": "a.test", "to": to }));
    let mut leaning = standing(Phase::Canary, &[("blue", 9_500), ("green", 500)], &[], &[]);
    leaning.rules = from_value(json!([to_blue])).unwrap();
    leaning.supervision = from_value(json!({
        "stage": 42, "baseline": "blue", "candidate": "green", "weights": { "blue": 5_000, "green": 5_000 },
        "rules": [to_green, to_blue], "leaning": true, "acts": true,
    }))
    .unwrap();
    let lines: Vec<_> = change::numbered(&leaning).collect();
    assert_eq!(lines, ["rule 1: host a.test -> green (passed over)", "rule 2: host a.test -> blue"]);
}

#[test]
fn the_last_line_says_what_is_safe_to_stop() {
    let of = |service: &str, version: &str| VersionOf { service: service.into(), version: version.into() };
    let left = |kind: &str, count| Remaining { kind: kind.into(), count, oldest_seconds: None };
    let (three, more) = (vec![left("request", 3)], vec![left("request", 1), left("sse", 2)]);
    let cases = [
        vec![(of("shop", "blue"), State::Empty)],
        vec![(of("shop", "blue"), State::Left(three.clone()))],
        vec![(of("shop", "blue"), State::Left(more.clone()))],
        vec![(of("shop", "blue"), State::Left(Vec::new()))],
        vec![(of("shop", "blue"), State::Carries(500))],
        vec![(of("shop", "blue"), State::Empty), (of("cart", "v1"), State::Empty)],
        vec![(of("shop", "blue"), State::Empty), (of("cart", "v1"), State::Left(three))],
    ];
    let mut lines: Vec<_> = cases.iter().map(|states| safety(states, Style::PLAIN)).collect();
    lines.push(waiting(&cases[6], Style::PLAIN));
    lines.push(super::carriers(&answer(&[("shop", draining().standing)])));
    lines.push(super::carriers(&answer(&[("cart", canary().standing)])));
    lines.push(super::carriers(&answer(&[("cart", canary().standing), ("shop", draining().standing)])));
    assert_snapshot!(lines.join("\n"));
}

#[test]
fn history_is_a_table() {
    let changes = vec![
        past(42, "shop", "flip", "v2 is out", "shop: green 100 %"),
        past(41, "shop", "configure", "evil \x1b[2J\nreason", "shop: blue 100 %"),
        past(
            9,
            "cart",
            "batch",
            "",
            "a long summary of many services that does not fit on one line of a terminal at all",
        ),
    ];
    assert_snapshot!(history(&History { changes, next_before: Some(9) }, Style::PLAIN));
    assert_eq!(history(&History { changes: Vec::new(), next_before: None }, Style::PLAIN), "no changes");
}

#[test]
fn of_a_rollout_that_ends_early_nothing_is_said_to_be_dealt_with() {
    let step = |awaits| json!({ "out": "10.0.0.1:80", "into": "10.0.0.1:80", "state": "safe", "awaits_confirmation": awaits });
    let waits: api::Rollout = from_value(json!({
        "service": "shop", "from": "blue", "to": "blue", "state": "running", "steps": [step(true)], "batch": 1,
        "surge": false, "min_serving": 1, "serving": 2, "least_serving": 1, "began": text::rfc3339(NOW),
    }))
    .unwrap();
    let news = |now: &api::Rollout| super::rollout::news(Some(&waits), now, Style::PLAIN);
    let told = api::Rollout { steps: vec![from_value(step(false)).unwrap()], ..waits.clone() };
    assert_eq!(news(&told), ["1/1: 10.0.0.1:80 is dealt with"]);
    assert!(news(&api::Rollout { why: Some("its hook has failed".to_owned()), ..told }).is_empty());
}
