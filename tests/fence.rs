//! G1 and G2: once a change is acknowledged nothing is served by what was before, and no request is lost to it.
//!
//! `SWITCHBACK_FLIPS=10000 cargo test --release --test fence -- --nocapture` is the full run, with its figures.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::time::{Duration, Instant};

use lab::history::{Change, History, Load, Request, Traffic};
use lab::{Lab, Origin};
use serde_json::{Value, json};

const EPOCHS: &str = "[proxy]\nepoch_header = true\n";
/// What may not be missed even on a machine that does other things as well; the promise is told by the printed figures.
const FENCE_ON_A_BUSY_MACHINE: Duration = Duration::from_millis(50);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

/// Two services over the same two origins: `/shop` and `/cart`.
fn two_services() -> Lab {
    let origins = vec![Origin::start("blue"), Origin::start("green")];
    let service = |name: &str| {
        format!(
            "[services.{name}]\nroutes = [{{ path = \"/{name}\" }}]\nstable = \"blue\"\n\
             [services.{name}.versions.blue]\nendpoints = [\"{}\"]\n\
             [services.{name}.versions.green]\nendpoints = [\"{}\"]\n",
            origins[0].address, origins[1].address
        )
    };
    let services = format!("{EPOCHS}{}{}", service("shop"), service("cart"));
    Lab::configured(tempfile::tempdir().unwrap(), origins, &services)
}

/// The history's beginning: what is in force before the first request.
fn beginning(lab: &Lab, serves: &[(&'static str, &str)]) -> Change {
    let serves = serves.iter().map(|(service, version)| (*service, vec![(*version).to_owned()])).collect();
    Change { call: Instant::now(), ack: Instant::now(), epoch: lab.epoch(), serves }
}

/// Makes a change, with its instants.
fn change(
    lab: &Lab,
    (method, path): (&str, &str),
    body: &Value,
    serves: Vec<(&'static str, Vec<String>)>,
) -> Change {
    let call = Instant::now();
    let (status, answer) = lab.call(method, path, body);
    let ack = Instant::now();
    assert_eq!(status, 200, "{answer}");
    Change { call, ack, epoch: answer["epoch"].as_u64().unwrap(), serves }
}

fn flip(lab: &Lab, to: &str) -> Change {
    let serves = vec![("shop", vec![to.to_owned()])];
    change(lab, ("POST", "/v1/services/shop/flip"), &json!({ "to": to }), serves)
}

/// The history, once nothing in it is wrong.
fn sound(changes: Vec<Change>, Traffic { requests, failures }: Traffic) -> History {
    assert_eq!(failures, [] as [&str; 0], "of {} requests", requests.len());
    let history = History { requests, changes };
    let violations = history.violations();
    let first = &violations[..violations.len().min(5)];
    assert!(violations.is_empty(), "{} violations, such as\n{}", violations.len(), first.join("\n"));
    history
}

/// `of` is ascending.
fn percentile(of: &[Duration], part: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = ((of.len() as f64 * part).ceil() as usize).clamp(1, of.len()) - 1;
    of[index]
}

/// The bucket of the fence's histogram in which the 99th percentile lies, by its upper bound.
fn fence_p99(lab: &Lab) -> Duration {
    let text = lab.call_with("GET", "/metrics", &[], &Value::Null).text();
    let count = lab.metric(&["switchback_flip_fence_seconds_count{", "\"shop\""]).unwrap();
    let buckets =
        text.lines().filter(|line| line.starts_with("switchback_flip_fence_seconds_bucket{service=\"shop\""));
    let bucket = |line: &str| {
        let bound = line.split("le=\"").nth(1)?.split('"').next()?.parse::<f64>().ok()?;
        let below: f64 = line.rsplit(' ').next()?.parse().ok()?;
        (below >= count * 0.99).then_some(bound)
    };
    let bound = buckets.filter_map(bucket).next().unwrap();
    if bound.is_finite() { Duration::from_secs_f64(bound) } else { Duration::MAX }
}

#[test]
fn flips_under_load_lose_nothing_and_hold_from_their_acknowledgement_on() {
    let flips = number("SWITCHBACK_FLIPS", 1_000);
    let lab = Lab::with(&["blue", "green"], EPOCHS);
    let mut changes = vec![beginning(&lab, &[("shop", "blue")])];
    let load = Load::start(lab.address(), 4, &[("shop", "/")]);
    let since = Instant::now();
    for to in ["green", "blue"].into_iter().cycle().take(usize::try_from(flips).unwrap()) {
        changes.push(flip(&lab, to));
    }
    let seconds = since.elapsed().as_secs_f64();
    load.wait_for_more(2);
    let history = sound(changes, load.stop());
    let (times, fence) = (history.ack_times(), fence_p99(&lab));
    println!(
        "{flips} flips in {seconds:.1} s under {} requests on 4 connections ({:?}): 0 failed, 0 stale; \
         acknowledged p50 {:.2?} p99 {:.2?} max {:.2?}; fence p99 <= {fence:?}",
        history.requests.len(),
        history.by_version(),
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        times[times.len() - 1],
    );
    assert!(history.by_version().len() == 2, "both versions served");
    let counted = || lab.metric_sum("switchback_client_requests_total{");
    lab::wait_until("every request is counted, once", || counted() == history.requests.len() as f64);
    assert!(fence <= FENCE_ON_A_BUSY_MACHINE, "{fence:?}");
}

#[test]
fn weights_hold_from_their_acknowledgement_on() {
    let lab = Lab::with(&["blue", "green"], EPOCHS);
    let mut changes = vec![beginning(&lab, &[("shop", "blue")])];
    let load = Load::start(lab.address(), 4, &[("shop", "/")]);
    for green in [100, 10_000, 5_000, 0, 10_000, 1, 0].into_iter().cycle().take(200) {
        let weights = json!({ "blue": 10_000 - green, "green": green });
        let carries = |points: i32, version: &str| (points > 0).then(|| version.to_owned());
        let serves =
            [carries(10_000 - green, "blue"), carries(green, "green")].into_iter().flatten().collect();
        changes.push(change(&lab, ("PUT", "/v1/services/shop/weights"), &weights, vec![("shop", serves)]));
    }
    load.wait_for_more(2);
    sound(changes, load.stop());
}

#[test]
fn a_change_over_two_services_is_one_epoch_for_both() {
    let lab = two_services();
    let mut changes = vec![beginning(&lab, &[("shop", "blue"), ("cart", "blue")])];
    let load = Load::start(lab.address(), 4, &[("shop", "/shop"), ("cart", "/cart")]);
    for to in ["green", "blue"].into_iter().cycle().take(200) {
        let edit = |service: &str| json!({ "service": service, "flip": { "to": to } });
        let batch = json!({ "changes": [edit("shop"), edit("cart")] });
        let serves = ["shop", "cart"].map(|service| (service, vec![to.to_owned()])).to_vec();
        changes.push(change(&lab, ("POST", "/v1/changes"), &batch, serves));
    }
    load.wait_for_more(2);
    let history = sound(changes, load.stop());
    let epochs: Vec<_> = history.changes.iter().map(|change| change.epoch).collect();
    assert!(epochs.windows(2).all(|pair| pair[1] == pair[0] + 1), "one epoch a batch: {epochs:?}");
}

#[test]
fn reloads_under_load_lose_nothing() {
    let lab = Lab::with(&["blue", "green"], EPOCHS);
    let services = |cart: usize| {
        let endpoint = |name: &str| lab.origin(name).address;
        format!(
            "{EPOCHS}[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n\
             [services.shop.versions.blue]\nendpoints = [\"{0}\"]\n\
             [services.shop.versions.green]\nendpoints = [\"{1}\"]\n\
             [services.cart-{cart}]\nroutes = [{{ path = \"/cart\" }}]\n\
             [services.cart-{cart}.versions.v1]\nendpoints = [\"{0}\"]\n",
            endpoint("blue"),
            endpoint("green")
        )
    };
    let mut changes = vec![beginning(&lab, &[("shop", "blue")])];
    let mut events = lab.events();
    let load = Load::start(lab.address(), 4, &[("shop", "/")]);
    for (round, to) in ["green", "blue"].into_iter().cycle().take(20).enumerate() {
        let call = Instant::now();
        lab.write_config(&services(round));
        // Every other one at once, the others as the watch notices them.
        if round % 2 == 0 {
            lab.proxy().signal("HUP");
        }
        let told = events.wait_for(|event| event["change"]["kind"] == "configure");
        let epoch = told["change"]["epoch"].as_u64().unwrap();
        changes.push(Change { call, ack: Instant::now(), epoch, serves: Vec::new() });
        changes.push(flip(&lab, to));
    }
    load.wait_for_more(2);
    sound(changes, load.stop());
}

/// A history in which everything is as it must be: three flips, and requests before, within and after each.
fn sound_history() -> History {
    let zero = Instant::now();
    let at = |micros: u64| zero + Duration::from_micros(micros);
    let change = |from: u64, epoch: u64, to: &str| Change {
        call: at(from),
        ack: at(from + 20),
        epoch,
        serves: vec![("shop", vec![to.to_owned()])],
    };
    let request = |client: usize, from: u64, epoch: u64, version: &str| Request {
        client,
        service: "shop",
        start: at(from),
        end: at(from + 10),
        version: version.into(),
        epoch,
    };
    let changes = vec![change(0, 7, "blue"), change(100, 8, "green"), change(200, 9, "blue")];
    let requests = vec![
        request(0, 50, 7, "blue"),
        request(0, 101, 8, "green"),
        request(0, 150, 8, "green"),
        request(1, 115, 7, "blue"),
        request(1, 201, 8, "green"),
        request(1, 230, 9, "blue"),
    ];
    History { requests, changes }
}

fn caught(doctor: impl FnOnce(&mut History), words: &str) {
    let mut history = sound_history();
    doctor(&mut history);
    let violations = history.violations();
    assert!(violations.iter().any(|violation| violation.contains(words)), "{words}: {violations:#?}");
}

#[test]
fn the_checker_accepts_what_is_right_and_catches_what_is_not() {
    assert_eq!(sound_history().violations(), [] as [&str; 0]);
    // Served by the older epoch, although it started after the acknowledgement.
    caught(
        |history| {
            (history.requests[2].epoch, history.requests[2].version) = (7, "blue".into());
        },
        "epoch 8 was acknowledged before it started",
    );
    // The right epoch, the wrong version.
    caught(|history| history.requests[5].version = "green".into(), "only Some([\"blue\"]) served");
    // An epoch from the future.
    caught(|history| history.requests[0].epoch = 8, "was not asked for yet");
    // Back to an older epoch on one connection, before the newer one was acknowledged.
    caught(
        |history| {
            (history.requests[3].epoch, history.requests[3].version) = (8, "green".into());
            (history.requests[4].epoch, history.requests[4].version) = (7, "blue".into());
        },
        "on this connection was at epoch 8",
    );
    // An epoch that is used twice.
    caught(|history| history.changes[2].epoch = 8, "out of order");
}
