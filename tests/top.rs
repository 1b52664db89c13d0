//! `top`: rates of what goes on, told apart by service and version.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lab::{Lab, Origin, Pulse};
use serde_json::{Value, json};

/// What `top` tells with these arguments while two clients ask all the time.
fn under_load(lab: &Lab, arguments: &[&str]) -> (i32, String, String) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = lab.client();
                while !stop.load(Ordering::SeqCst) {
                    client.get("/");
                }
            });
        }
        let before = lab.origin("green").served();
        lab.origin("green").wait_served(before + 1);
        let told = lab.cli(arguments);
        stop.store(true, Ordering::SeqCst);
        told
    })
}

fn half_bad() -> Lab {
    let (well, bad) = (Pulse::well(), Pulse::well());
    bad.set(500);
    let origins = vec![Origin::pulsing("blue", &well), Origin::pulsing("green", &bad)];
    let lab = Lab::on(origins, "");
    assert_eq!(
        lab.call("PUT", "/v1/services/shop/weights", &json!({ "blue": 5_000, "green": 5_000 })).0,
        200
    );
    lab
}

#[test]
fn each_version_is_told_by_what_it_does_and_the_service_by_what_its_users_see() {
    let lab = half_bad();
    let (exit, text, said) = under_load(&lab, &["top", "shop", "-n", "1", "--every", "500ms", "--json"]);
    assert_eq!(exit, 0, "{said}");
    let picture: Value = serde_json::from_str(&text).unwrap();
    let shop = &picture["services"][0];
    assert_eq!((&shop["service"], &shop["phase"]), (&json!("shop"), &json!("canary")));
    assert!(picture["seconds"].as_f64().unwrap() >= 0.5, "{picture}");
    let rate = |of: &Value| of["requests_per_second"].as_f64().unwrap();
    let version = |name: &str| {
        let versions = shop["versions"].as_array().unwrap();
        versions.iter().find(|version| version["version"] == name).unwrap().clone()
    };
    let (blue, green) = (version("blue"), version("green"));
    assert_eq!((&blue["error_ratio"], &green["error_ratio"]), (&json!(0.0), &json!(1.0)), "{picture}");
    assert_eq!((&blue["weight"], &green["weight"]), (&json!(5_000), &json!(5_000)));
    let seen = shop["error_ratio"].as_f64().unwrap();
    assert!(seen > 0.0 && seen < 1.0, "{picture}");
    // They were counted one after the other, by a thread beside those who serve.
    let sum = rate(&blue) + rate(&green);
    assert!(rate(&blue) > 0.0 && rate(&green) > 0.0 && (rate(shop) / sum - 1.0).abs() < 0.1, "{picture}");
    assert!(shop["p50_ms"].as_f64().unwrap() <= shop["p99_ms"].as_f64().unwrap(), "{picture}");
}

#[test]
fn people_get_a_table_and_a_pause_shows_as_nothing() {
    let lab = half_bad();
    let (exit, text, said) = under_load(&lab, &["top", "--count", "2", "--every", "200ms"]);
    assert_eq!(exit, 0, "{said}");
    let titles = text.lines().filter(|line| line.starts_with("SERVICE VERSION")).count();
    assert_eq!(titles, 2, "{text}");
    assert!(text.contains("100.00 %") && text.contains("shop  canary"), "{text}");
    let (_, text, _) = lab.cli(&["top", "--count", "1", "--every", "100ms"]);
    assert!(text.starts_with("0.0 requests/s"), "{text}");
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let lab = Lab::with(&["blue", "green"], "");
    let (exit, _, said) = lab.cli(&["top", "cart", "-n", "1", "--every", "100ms"]);
    assert_eq!(exit, 1);
    assert!(said.contains("no service `cart`"), "{said}");
    let (exit, _, said) = lab.cli(&["top", "--every", "1ms"]);
    assert_eq!(exit, 2);
    assert!(said.contains("expected 100ms or more"), "{said}");
}

#[test]
fn it_goes_on_over_a_restart_of_the_proxy() {
    let mut lab = half_bad();
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
    command.args(["top", "-n", "3", "--every", "300ms", "--json"]).env("SWITCHBACK_SOCKET", lab.socket());
    let mut top = command.stdout(Stdio::piped()).spawn().unwrap();
    (0..100).for_each(|_| assert!(matches!(lab.get("/").status, 200 | 500)));
    let mut out = BufReader::new(top.stdout.take().unwrap());
    let mut text = String::new();
    out.read_line(&mut text).unwrap();
    lab.kill_and_restart();
    (0..10).for_each(|_| assert!(matches!(lab.get("/").status, 200 | 500)));
    out.read_to_string(&mut text).unwrap();
    assert_eq!(top.wait().unwrap().code(), Some(0));
    let pictures: Vec<Value> =
        serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(pictures.len(), 3, "documents and nothing else: {text}");
    let ended = |picture: &Value| {
        picture["services"][0]["requests_per_second"].as_f64().unwrap() * picture["seconds"].as_f64().unwrap()
    };
    let after: f64 = pictures[1..].iter().map(ended).sum();
    assert!((0.0..10.5).contains(&after), "it counts from 0 again: {pictures:?}");
}
