//! How the candidates of a service are compared: what may be said of it, and what not.

use std::time::Duration;

use super::*;
use crate::table::{BasisPoints, Slowness, SuperviseMode, SuperviseRules, Tolerance};

/// What a file makes of this `supervise`.
fn rules(supervise: &str) -> Option<SuperviseRules> {
    let service = load_text(&format!("{SMALL}\nsupervise = {supervise}")).services.remove(0);
    service.supervise.map(|rules| SuperviseRules::clone(&rules))
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn yes_and_no_are_enough() {
    assert_eq!(load_text(SMALL).services[0].supervise, None);
    let usual = SuperviseRules::default();
    assert_eq!(usual.mode, SuperviseMode::On);
    assert_eq!(rules("true").unwrap(), usual);
    assert_eq!(rules("{}").unwrap(), usual);
    let off = SuperviseRules { mode: SuperviseMode::Off, ..usual };
    assert_eq!(rules("false").unwrap(), off);
    assert_eq!(rules("{ mode = \"off\" }").unwrap(), off);
}

#[test]
fn all_of_it_can_be_said() {
    let said = rules(
        r#"{
        mode = "alert", alpha = 0.00001, suspect_weight = 2.5, suspect_hold = "1s", probe = false, keep_old = "1h",
        bad_budget = 20, warmup = { latency = "0s", per_endpoint = 0 }, sticky_quiet = "5s",
        tolerate = { errors = "2x + 0.5%", client_errors = " 1.25x+3% ", latency = "12.5% or 1ms" },
    }"#,
    );
    let expected = SuperviseRules {
        mode: SuperviseMode::Alert,
        alpha: 10_000,
        errors: Tolerance { ratio: 2_000, excess: 5_000 },
        client_errors: Tolerance { ratio: 1_250, excess: 30_000 },
        latency: Slowness { part: 125, least: ms(1) },
        suspect_weight: BasisPoints::new(250).unwrap(),
        suspect_hold: ms(1_000),
        probe: false,
        keep_old: Duration::from_hours(1),
        bad_budget: 20,
        warmup: (ms(0), 0),
        sticky_quiet: ms(5_000),
    };
    assert_eq!(said.unwrap(), expected);
}

#[test]
fn what_is_not_said_is_as_usual() {
    let usual = SuperviseRules::default();
    let one = rules("{ tolerate = { latency = \"50% or 20ms\" }, warmup = { per_endpoint = 5 } }").unwrap();
    let latency = Slowness { part: 500, least: ms(20) };
    assert_eq!(one, SuperviseRules { latency, warmup: (usual.warmup.0, 5), ..usual });
}

#[test]
fn the_least_and_the_most_are_allowed() {
    let alpha = |text: &str| rules(&format!("{{ alpha = {text} }}")).unwrap().alpha;
    assert_eq!([alpha("0.000000001"), alpha("1e-4"), alpha("\"0.1\"")], [1, 100_000, 100_000_000]);
    let share =
        |text: &str| rules(&format!("{{ suspect_weight = {text} }}")).unwrap().suspect_weight.points();
    assert_eq!([share("\"0.01%\""), share("10"), share("\"50%\"")], [1, 1_000, 5_000]);
    let errors = |text: &str| rules(&format!("{{ tolerate.errors = \"{text}\" }}")).unwrap().errors;
    assert_eq!(errors("1x + 0.001%"), Tolerance { ratio: 1_000, excess: 10 });
    assert_eq!(errors("100x + 50%"), Tolerance { ratio: 100_000, excess: 500_000 });
    let times = rules("{ suspect_hold = \"100ms\", keep_old = \"1s\", bad_budget = 1_000_000_000 }").unwrap();
    assert_eq!((times.suspect_hold, times.keep_old, times.bad_budget), (ms(100), ms(1_000), 1_000_000_000));
}

#[test]
fn what_cannot_be_said_of_supervision_is_refused() {
    let services: String = [
        "\"on\"",
        "{ mode = \"onn\", alpha = 0, suspect_weight = 0, suspect_hold = \"99ms\", probe = \"no\", keep_old = \"999ms\", bad_budget = -1, warmup = \"10s\" }",
        "{ mode = true, alpha = 0.11, suspect_weight = \"50.01%\", suspect_hold = 30, keep_old = \"ten\", bad_budget = 1.5, warmup = { latency = 10, per_endpoint = 100_001 } }",
        "{ alpha = \"nan\", suspect_weight = \"much\", tolerate = \"2x\", keep = \"10m\" }",
        "{ tolerate = { errors = \"0.9x + 1%\", client_errors = \"1.5x\", latency = \"5ms\" } }",
        "{ tolerate = { errors = \"1.5x + 0%\", client_errors = \"1.5 + 2%\", latency = \"25% or 5\" } }",
        "{ tolerate = { errors = 1.5, client_errors = \"101x + 2%\", latency = \"-1% or 5ms\", late = 1 } }",
        "{ tolerate = { errors = \"NaNx + 1%\", client_errors = \"1.5x + inf%\" }, warmup = { endpoint = 20 } }",
    ]
    .iter()
    .enumerate()
    .map(|(index, supervise)| {
        format!("[services.s{index}]\nroutes = [{{ path = \"/{index}\" }}]\nversions.v1.endpoints = [\"a:1\"]\nsupervise = {supervise}\n")
    })
    .collect();
    insta::assert_snapshot!(check_service(&services));
}
