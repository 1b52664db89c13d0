//! Supervision: a candidate that is worse goes back by itself, within milliseconds, and one that is not stays; what hits both
//! versions alike reverts nothing (G9).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use lab::origin::{Seen, Then};
use lab::{Gate, Lab, Origin, Pulse, Users, wait_until};
use serde_json::{Value, json};

/// `shop` with blue and green, each as well as its pulse, and supervised by these rules.
fn shop(blue: &Pulse, green: &Pulse, rules: &str) -> Lab {
    supervised(vec![Origin::pulsing("blue", blue), Origin::pulsing("green", green)], rules)
}

/// The same with these two.
fn supervised(origins: Vec<Origin>, rules: &str) -> Lab {
    let [one, two] = [&origins[0], &origins[1]].map(|origin| origin.address);
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nsupervise = {rules}\n\
         [services.shop.versions.blue]\nendpoints = [\"{one}\"]\n\
         [services.shop.versions.green]\nendpoints = [\"{two}\"]\n"
    );
    Lab::configured(tempfile::tempdir().unwrap(), origins, &services)
}

fn last_change(lab: &Lab) -> Value {
    lab.call("GET", "/v1/changes?limit=1", &Value::Null).1["changes"][0].clone()
}

/// The revert that supervision has made.
fn reverted(lab: &Lab) -> Value {
    let change = last_change(lab);
    let (kind, actor) = (&change["kind"], &change["actor"]["kind"]);
    assert_eq!((kind, actor), (&json!("revert"), &json!("supervisor")), "{change}");
    change
}

fn flip(lab: &Lab, to: &str, more: &Value) -> (u16, Value) {
    let mut body = json!({ "to": to, "reason": "a test" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    lab.call("POST", "/v1/services/shop/flip", &body)
}

const EACH: Duration = Duration::from_millis(8);

#[test]
fn a_bad_version_goes_back_by_itself_after_a_flip() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = shop(&blue, &green, "true");
    let users = with_history(&lab);
    green.set(500);
    let begun = Instant::now();
    let (status, answer) = flip(&lab, "green", &json!({}));
    assert_eq!(status, 200, "{answer}");
    wait_until("it went back", || lab.weight("blue") == 10_000);
    let took = begun.elapsed();
    reverted(&lab);
    println!("took {took:?}, {} failed", users.failed());
    assert!(users.failed() < 100, "{} users met a failure", users.failed());
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_version_that_accepts_and_never_answers_goes_back_long_before_its_time_outs() {
    let (blue, gate) = (Pulse::well(), Gate::default());
    let silent = gate.clone();
    let origins = vec![
        Origin::pulsing("blue", &blue),
        Origin::behaving("green", move |_, _| {
            silent.wait();
            Ok(Then::Close)
        }),
    ];
    let lab = supervised(origins, "{ warmup = { latency = \"100ms\" } }");
    let users = with_history(&lab);
    // New ones all the time: those who wait ask nothing more.
    let begun = Instant::now();
    assert_eq!(flip(&lab, "green", &json!({})).0, 200);
    let waiting: Vec<_> = (0..40).map(|_| lab.get_later("/")).collect();
    wait_until("it leans back", || lab.weight("green") < 10_000);
    let mut more = Vec::new();
    wait_until("it went back", || {
        more.push(lab.get_later("/"));
        lab.weight("blue") == 10_000
    });
    assert!(begun.elapsed() < Duration::from_secs(20), "the response time-out is 60 s");
    let change = reverted(&lab);
    // Without a coin nothing is proven: not by those who were out before.
    assert!(!change["reason"].as_str().unwrap().contains("blue had no requests"), "{change}");
    gate.open();
    waiting.into_iter().chain(more).for_each(|one| drop(one.answer()));
    drop(users);
}

#[test]
fn how_fast_the_old_version_was_is_known_where_nobody_watched_it() {
    let blue = Pulse::well();
    let slow = |_: &Seen, stream: &mut TcpStream| {
        // What it does wrong.
        thread::sleep(Duration::from_millis(100));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    };
    let lab = Lab::on(vec![Origin::pulsing("blue", &blue), Origin::behaving("green", slow)], "");
    let users = with_history(&lab);
    assert_eq!(flip(&lab, "green", &json!({ "supervise": "25s" })).0, 200);
    wait_until("it went back", || lab.weight("blue") == 10_000);
    reverted(&lab);
    assert_eq!(users.failed(), 0);
}

/// Until blue has a history to be measured by.
fn with_history(lab: &Lab) -> Users {
    let users = Users::of(lab.address(), EACH);
    wait_until("blue has a history", || lab.origin("blue").served() > 500);
    users
}

fn verdict(lab: &Lab) -> Value {
    let (status, verdict) = lab.call("GET", "/v1/services/shop/verdict", &Value::Null);
    assert_eq!(status, 200, "{verdict}");
    verdict
}

#[test]
fn a_bad_canary_goes_back_before_many_have_met_it() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = shop(&blue, &green, "true");
    let users = with_history(&lab);
    green.set(500);
    lab.weights(&json!({ "green": 500, "blue": 9_500 }));
    wait_until("it went back", || lab.weight("blue") == 10_000);
    let change = reverted(&lab);
    assert!(change["reason"].as_str().unwrap().contains("error_rate"), "{change}");
    let pair = r#"{service="shop",candidate="green",baseline="blue","#;
    let count = |name: &str, more: &str| lab.metric(&[&format!("{name}{pair}"), more]).unwrap();
    assert!(count("switchback_supervision_reverts_total", r#"reason="error_rate""#) > 0.5, "it is counted");
    let failed = r#"version="green",outcome="failed""#;
    assert!(count("switchback_supervision_requests_total", failed) > 2.5, "and so is what it did");
    // Seven or so prove it; what was in flight when it did comes on top.
    assert!(users.failed() < 40, "{} users met a failure", users.failed());
}

#[test]
fn what_hits_both_versions_alike_reverts_nothing() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = shop(&blue, &green, "true");
    let _users = with_history(&lab);
    lab.weights(&json!({ "green": 5_000, "blue": 5_000 }));
    // A dependency of both is gone.
    blue.set(503);
    green.set(503);
    wait_until("green is suspect", || verdict(&lab)["state"] == "suspect");
    wait_until("most traffic is kept away from it", || lab.weight("green") == 1_000);
    let served = lab.origin("green").served();
    wait_until("there was more than enough to judge by", || lab.origin("green").served() > served + 100);
    let verdict = verdict(&lab);
    assert_eq!((&verdict["state"], &verdict["ended"]), (&json!("suspect"), &Value::Null), "{verdict}");
    assert_eq!(lab.weight("green"), 1_000);
}

#[test]
fn a_good_version_stays_and_its_trial_is_over_in_time() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = shop(&blue, &green, "false");
    let users = with_history(&lab);
    let (status, answer) = lab.call(
        "POST",
        "/v1/services/shop/flip?wait=finished&timeout=20s",
        &json!({ "to": "green", "supervise": "2s" }),
    );
    assert_eq!((status, &answer["state"]), (200, &json!("finished")), "{answer}");
    assert_eq!(answer["trials"]["shop"]["how"], "finished", "{answer}");
    assert_eq!((lab.weight("green"), users.failed()), (10_000, 0));
    assert_eq!(verdict(&lab)["state"], "none");
    assert_eq!(last_change(&lab)["kind"], "supervision");
}

#[test]
fn a_trial_is_not_finished_when_somebody_moves_the_traffic() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = shop(&blue, &green, "false");
    let flip = || {
        let before = lab.epoch();
        let path = "/v1/services/shop/flip?wait=finished&timeout=30s";
        let waiting = lab.call_later("POST", path, &[], &json!({ "to": "green", "supervise": "1h" }));
        wait_until("green has the traffic", || lab.epoch() > before);
        waiting
    };
    let waiting = flip();
    assert_eq!(lab.call("POST", "/v1/services/shop/revert", &Value::Null).0, 200);
    let answer = waiting.answer();
    assert!(answer.status == 409 && answer.text().contains(":superseded"), "{}", answer.text());
    assert_eq!(answer.json()["change"]["trials"]["shop"]["how"], "superseded");
    // Who only ends the comparison leaves the traffic where it is.
    let waiting = flip();
    let (status, ended) =
        lab.call("POST", "/v1/services/shop/flip", &json!({ "to": "green", "supervise": false }));
    assert_eq!(status, 200, "{ended}");
    let answer = waiting.answer();
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("finished")));
}

#[test]
fn nobody_is_compared_who_did_not_ask_for_it() {
    let (blue, green) = (Pulse::well(), Pulse::of(500));
    let lab = shop(&blue, &green, "false");
    let _users = with_history(&lab);
    lab.flip("green");
    let served = lab.origin("green").served();
    wait_until("everybody meets it", || lab.origin("green").served() > served + 200);
    assert_eq!((lab.weight("green"), &verdict(&lab)["state"]), (10_000, &json!("none")));
}

#[test]
fn where_it_may_only_tell_it_moves_nothing() {
    let (blue, green) = (Pulse::well(), Pulse::of(500));
    let lab = shop(&blue, &green, "{ mode = \"alert\" }");
    let _users = with_history(&lab);
    let mut events = lab.events();
    lab.weights(&json!({ "green": 2_000, "blue": 8_000 }));
    let told = events.wait_for(|event| event["type"] == "verdict" && event["state"] == "breached");
    assert_eq!((&told["baseline"], &told["candidate"]), (&json!("blue"), &json!("green")), "{told}");
    assert_eq!(lab.weight("green"), 2_000);
    assert_eq!(last_change(&lab)["actor"]["kind"], "controller");
}

#[test]
fn the_command_line_waits_for_the_verdict_and_its_exit_status_tells() {
    let (blue, green) = (Pulse::well(), Pulse::of(500));
    let lab = shop(&blue, &green, "false");
    let _users = with_history(&lab);
    let (code, out, err) = lab.cli(&["flip", "shop", "--to", "green", "--supervise", "1m"]);
    assert_eq!(code, 4, "{out}{err}");
    let last = out.lines().last().unwrap();
    assert_eq!(last, "blue carries the traffic as before: do not stop it", "{out}");
    assert!(out.contains("green is compared with blue until"), "{out}");
    let (code, out, err) = lab.cli(&["--json", "flip", "shop", "--to", "green", "--supervise", "1m"]);
    assert_eq!(code, 4, "{out}{err}");
    green.set(200);
    let (code, out, err) = lab.cli(&["flip", "shop", "--to", "green", "--supervise", "1s"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.lines().last().unwrap().contains("blue is safe to stop"), "{out}");
}

#[test]
fn the_command_line_waits_for_the_verdict_where_the_service_says_that_there_is_one() {
    let (blue, green) = (Pulse::well(), Pulse::of(500));
    let lab = shop(&blue, &green, "true");
    let _users = with_history(&lab);
    for words in [&["flip", "shop", "--to", "green"][..], &["flip", "shop", "--to", "green", "--json"]] {
        let (code, out, err) = lab.cli(words);
        assert_eq!(code, 4, "{words:?}: {out}{err}");
    }
    // That lasts until the next change: there is no end to wait for.
    for words in [&["weights", "shop", "green=5"][..], &["flip", "shop", "--to", "green", "--async"]] {
        let (code, out, err) = lab.cli(words);
        assert_eq!(code, 0, "{words:?}: {out}{err}");
        assert_eq!(out.lines().last(), Some("traffic may go back to blue by itself: do not stop it"));
    }
}

#[test]
fn a_trial_outlives_the_process_and_begins_to_collect_anew() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let mut lab = shop(&blue, &green, "true");
    drop(with_history(&lab));
    lab.weights(&json!({ "green": 1_000, "blue": 9_000 }));
    let before = verdict(&lab)["trial"].clone();
    lab.kill_and_restart();
    let trial = verdict(&lab)["trial"].clone();
    assert_eq!(trial, before, "the trial is the store's to remember");
    let _users = Users::of(lab.address(), EACH);
    green.set(500);
    wait_until("it went back", || lab.weight("blue") == 10_000);
    assert_eq!(last_change(&lab)["actor"]["kind"], "supervisor");
}

#[test]
fn the_same_call_again_is_told_by_a_later_process_too_how_the_trial_ended() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let mut lab = shop(&blue, &green, "false");
    let users = with_history(&lab);
    let call = |lab: &Lab, supervise: &str| {
        let path = "/v1/services/shop/flip?wait=finished&timeout=1m";
        let (key, body) =
            ([("idempotency-key", supervise)], json!({ "to": "green", "supervise": supervise }));
        let answer = lab.call_with("POST", path, &key, &body);
        (answer.status, answer.json())
    };
    let (status, answer) = call(&lab, "1s");
    assert_eq!((status, &answer["trials"]["shop"]["how"]), (200, &json!("finished")), "{answer}");
    let finished = (status, answer["trials"].clone(), answer["state"].clone());
    lab.flip("blue");
    green.set(500);
    let (status, problem) = call(&lab, "10m");
    assert_eq!((status, &problem["title"]), (409, &json!("reverted")), "{problem}");
    let reverted = (status, problem["detail"].clone());
    drop(users);
    lab.kill_and_restart();
    let (status, problem) = call(&lab, "10m");
    assert_eq!((status, problem["detail"].clone()), reverted, "{problem}");
    green.set(200);
    lab.flip("green");
    let (status, answer) = call(&lab, "1s");
    assert_eq!((status, answer["trials"].clone(), answer["state"].clone()), finished, "{answer}");
}

#[test]
fn the_same_ramp_again_is_told_by_a_later_process_too_that_it_was_taken_back() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let mut lab = shop(&blue, &green, "false");
    let users = with_history(&lab);
    green.set(500);
    let call = |lab: &Lab| {
        let path = "/v1/services/shop/ramp?wait=finished&timeout=1m";
        let body = json!({ "to": "green", "steps": [10_000], "supervise": "10m" });
        let answer = lab.call_with("POST", path, &[("idempotency-key", "1")], &body);
        (answer.status, answer.json()["title"].clone(), answer.json()["detail"].clone())
    };
    let reverted = call(&lab);
    assert_eq!((reverted.0, &reverted.1), (409, &json!("reverted")), "{reverted:?}");
    drop(users);
    lab.kill_and_restart();
    assert_eq!(call(&lab), reverted);
}

#[test]
fn a_suspicion_that_proves_wrong_is_taken_back() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = shop(&blue, &green, "{ suspect_hold = \"1s\" }");
    let _users = with_history(&lab);
    let epoch = flip(&lab, "green", &json!({})).1["epoch"].clone();
    let mut events = lab.events();
    // It is a hiccup, and both have it.
    blue.set(500);
    green.set(500);
    events.wait_for(|event| event["type"] == "verdict" && event["state"] == "suspect");
    wait_until("most of the traffic is with blue", || lab.weight("green") == 1_000);
    green.set(200);
    blue.set(200);
    events.wait_for(|event| {
        event["type"] == "verdict" && event["before"] == "suspect" && event["state"] != "breached"
    });
    wait_until("green has everything again", || lab.weight("green") == 10_000);
    assert_eq!(verdict(&lab)["trial"]["stage"], epoch, "it is the same trial");
}

/// A pool of origins that say their version; those of green answer with what the pulse says.
fn rolling(green: &Pulse) -> Lab {
    rolling_by(green, "true").1
}

/// The same, supervised by these rules; with the pulse of blue.
fn rolling_by(green: &Pulse, rules: &str) -> (Pulse, Lab) {
    let well = Pulse::well();
    let all =
        |name: &'static str, pulse: &Pulse| (0..3).map(|_| Origin::pulsing(name, pulse)).collect::<Vec<_>>();
    let (blues, greens) = (all("blue", &well), all("green", green));
    let list = |origins: &[Origin]| {
        origins.iter().map(|origin| format!("\"{}\"", origin.address)).collect::<Vec<_>>().join(", ")
    };
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nsupervise = {rules}\noutliers = false\n\
         [services.shop.versions.blue]\nendpoints = [{}]\n[services.shop.versions.green]\nendpoints = [{}]\n",
        list(&blues),
        list(&greens)
    );
    let all = blues.into_iter().chain(greens).collect();
    (well, Lab::configured(tempfile::tempdir().unwrap(), all, &services))
}

fn serving(lab: &Lab, version: &str) -> usize {
    let shop = lab.shop();
    let versions = shop["versions"].as_array().unwrap();
    let version = versions.iter().find(|known| known["name"] == version).unwrap();
    version["endpoints"].as_array().unwrap().iter().filter(|endpoint| endpoint["draining"] == false).count()
}

#[test]
fn a_rolling_upgrade_stops_and_goes_all_the_way_back_when_supervision_says_so() {
    let green = Pulse::well();
    let lab = rolling(&green);
    let users = with_history(&lab);
    let begin = json!({ "from": "blue", "to": "green", "batch": 1, "settle": "1s", "surge": true });
    let (status, told) = lab.call("POST", "/v1/services/shop/rollout", &begin);
    assert_eq!(status, 202, "{told}");
    let rollout = || lab.call("GET", "/v1/services/shop/rollout", &Value::Null).1;
    wait_until("the first one is done", || rollout()["steps"][0]["state"] == "done");
    green.set(500);
    wait_until("it has ended", || !["running", "reversing"].contains(&rollout()["state"].as_str().unwrap()));
    let told = rollout();
    assert_eq!(told["state"], "reversed", "{told}");
    assert!(told["why"].as_str().unwrap().contains("supervision has taken the traffic back"), "{told}");
    assert_eq!((lab.weight("blue"), serving(&lab, "blue")), (10_000, 3), "{told}");
    assert!(users.failed() < 150, "{} users met a failure", users.failed());
}

#[test]
fn a_rolling_upgrade_goes_back_when_the_new_version_goes_bad_once_all_of_the_old_one_drains() {
    let green = Pulse::well();
    let lab = rolling(&green);
    let _users = with_history(&lab);
    let begin = json!({ "from": "blue", "to": "green", "batch": 3, "settle": "10m", "surge": true });
    assert_eq!(lab.call("POST", "/v1/services/shop/rollout", &begin).0, 202);
    let rollout = || lab.call("GET", "/v1/services/shop/rollout", &Value::Null).1;
    wait_until("the last one is done", || rollout()["steps"][2]["state"] == "done");
    assert_eq!((lab.weight("green"), serving(&lab, "blue")), (10_000, 0));
    green.set(500);
    wait_until("it has ended", || !["running", "reversing"].contains(&rollout()["state"].as_str().unwrap()));
    let told = rollout();
    assert_eq!(told["state"], "reversed", "{told}");
    assert!(told["why"].as_str().unwrap().contains("supervision has taken the traffic back"), "{told}");
    assert_eq!((lab.weight("blue"), serving(&lab, "blue")), (10_000, 3), "{told}");
}

#[test]
fn a_rolling_upgrade_that_waits_in_doubt_at_its_end_goes_back_when_it_is_told_to() {
    const SETTLE: Duration = Duration::from_secs(1);
    let green = Pulse::well();
    let (blue, lab) = rolling_by(&green, "{ suspect_hold = \"10m\" }");
    let _users = with_history(&lab);
    let settle = format!("{}ms", SETTLE.as_millis());
    let begin = json!({ "from": "blue", "to": "green", "batch": 3, "settle": settle, "surge": true });
    assert_eq!(lab.call("POST", "/v1/services/shop/rollout", &begin).0, 202);
    let rollout = || lab.call("GET", "/v1/services/shop/rollout", &Value::Null).1;
    wait_until("the last one is done", || rollout()["steps"][2]["state"] == "done");
    let since = Instant::now();
    // What is wrong with both proves nothing.
    blue.set(500);
    green.set(500);
    wait_until("it is suspect", || verdict(&lab)["state"] == "suspect");
    wait_until("it would be over", || since.elapsed() > SETTLE + SETTLE / 2);
    assert_eq!(rollout()["state"], "running", "{}", verdict(&lab));
    assert_eq!(rollout()["hindrance"], "supervision suspects `green`");
    let (exit, out, err) = lab.cli(&["rollout", "shop", "--reverse"]);
    assert_eq!((exit, &rollout()["state"]), (0, &json!("reversed")), "{out}{err}");
    assert_eq!((lab.weight("blue"), serving(&lab, "blue")), (10_000, 3), "{out}");
}

#[test]
fn a_rolling_upgrade_goes_on_whatever_is_found_by_who_may_only_tell() {
    let (_, lab) = rolling_by(&Pulse::of(500), "{ mode = \"alert\" }");
    let _users = with_history(&lab);
    let begin = json!({ "from": "blue", "to": "green", "batch": 2, "settle": "2s", "surge": true });
    assert_eq!(lab.call("POST", "/v1/services/shop/rollout", &begin).0, 202);
    let rollout = || lab.call("GET", "/v1/services/shop/rollout", &Value::Null).1;
    wait_until("it is proven", || verdict(&lab)["state"] == "breached");
    assert_eq!(rollout()["steps"][2]["state"], "pending");
    wait_until("it has ended", || rollout()["state"] != "running");
    assert_eq!((&rollout()["state"], lab.weight("green")), (&json!("done"), 10_000), "{}", rollout());
}

#[test]
fn what_a_rolling_upgrade_has_replaced_is_not_safe_to_stop_while_it_may_get_traffic_back() {
    let lab = rolling(&Pulse::well());
    let (exit, out, err) = lab.cli(&["rollout", "shop", "--to", "green", "--surge"]);
    assert_eq!(exit, 1, "{out}{err}");
    let last = out.lines().last().unwrap();
    assert!(last.starts_with("shop: done, "), "{out}");
    let (exit, drain, _) = lab.cli(&["drain", "shop/blue"]);
    assert!(exit == 1 && last.ends_with(&format!("; {}", drain.trim_end())), "{drain}{out}");
    let rollout = || lab.call("GET", "/v1/services/shop/rollout", &Value::Null).1;
    assert_eq!(rollout()["measure"]["candidate"], "green", "{}", rollout());
    let weights = "/v1/services/shop/weights?supervise=false";
    assert_eq!(lab.call("PUT", weights, &json!({ "green": 10_000 })).0, 200);
    let (exit, out, _) = lab.cli(&["rollout", "shop", "--status"]);
    assert!(exit == 0 && out.trim_end().ends_with(" are safe to stop"), "{out}");
}

#[test]
fn where_it_may_only_tell_its_time_is_over_too() {
    let (blue, green) = (Pulse::well(), Pulse::of(500));
    let lab = shop(&blue, &green, "{ mode = \"alert\" }");
    let _users = with_history(&lab);
    lab.weights(&json!({ "green": 2_000, "blue": 8_000 }));
    let (code, out, err) = lab.cli(&["weights", "shop", "green=10", "--supervise", "2s"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("would have reverted green -> blue"), "{out}");
    assert_eq!((lab.weight("green"), &verdict(&lab)["state"]), (1_000, &json!("none")));
}

/// All is green's, which is suspect by something that both had; nine of ten are with blue.
fn doubted(lab: &Lab, blue: &Pulse, green: &Pulse) {
    flip(lab, "green", &json!({}));
    blue.set(500);
    green.set(500);
    wait_until("most of the traffic is with blue", || lab.weight("green") == 1_000);
}

#[test]
fn who_was_suspect_before_a_restart_is_so_after_it() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let mut lab = shop(&blue, &green, "true");
    let users = with_history(&lab);
    doubted(&lab, &blue, &green);
    drop(users);
    lab.kill_and_restart();
    blue.set(200);
    let _users = Users::of(lab.address(), EACH);
    wait_until("it went back", || lab.weight("blue") == 10_000);
    let changes = lab.call("GET", "/v1/changes?limit=3", &Value::Null).1["changes"].clone();
    let kinds = [0, 1, 2].map(|back| &changes[back]["kind"]);
    assert_eq!(kinds, ["revert", "weights", "flip"], "nobody was sent to green in between: {changes}");
}

#[test]
fn nobody_is_kept_with_a_baseline_that_does_not_answer() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let mut lab = shop(&blue, &green, "{ suspect_hold = \"10m\" }");
    let users = with_history(&lab);
    flip(&lab, "green", &json!({}));
    wait_until("green has it", || lab.origin("green").served() > 20);
    // It was not to be stopped yet.
    drop(lab.origins.remove(0));
    green.set(500);
    wait_until("green is suspect", || verdict(&lab)["state"] == "suspect");
    green.set(200);
    let failed = users.failed();
    wait_until("supervision has leaned back and given that up", || {
        let changes = lab.call("GET", "/v1/changes?limit=2", &Value::Null).1["changes"].clone();
        [0, 1].iter().all(|back: &usize| changes[*back]["actor"]["kind"] == "supervisor")
    });
    assert_eq!(lab.weight("green"), 10_000);
    assert!(users.failed() - failed < 100, "{} more users met a failure", users.failed() - failed);
    let verdict = verdict(&lab);
    assert_eq!(verdict["state"], "suspect", "{verdict}");
    assert!(verdict["hindrance"].as_str().unwrap().contains("`blue` answers nothing"), "{verdict}");
}
