//! A ramp: a flip in steps that the proxy takes by itself, each gated, through kill -9 and an upgrade; none skipped, none twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lab::history::Load;
use lab::origin::Then;
use lab::{Lab, Origin, Pulse, Users, wait_until};
use serde_json::{Value, json};

const RAMP: &str = "/v1/services/shop/ramp";

/// Up to green in three steps, each this long.
fn up(every: &str) -> Value {
    json!({ "to": "green", "steps": [100, 5_000, 10_000], "every": every, "reason": "v2" })
}

fn begin(lab: &Lab, body: &Value) -> Value {
    let (status, answer) = lab.call("POST", RAMP, body);
    assert_eq!(status, 200, "{answer}");
    answer
}

fn steer(lab: &Lab, verb: &str, body: &Value) -> (u16, Value) {
    lab.call("POST", &format!("/v1/services/shop/{verb}"), body)
}

fn token(problem: &Value) -> String {
    problem["type"].as_str().unwrap_or_default().rsplit(':').next().unwrap().to_owned()
}

/// All changes of `shop`, the oldest first: kind and green's weight.
fn history(lab: &Lab) -> Vec<(String, u64)> {
    let (_, history) = lab.call("GET", "/v1/changes?limit=100&service=shop", &Value::Null);
    let mut changes = history["changes"].as_array().unwrap().clone();
    changes.reverse();
    let one = |change: &Value| {
        let weight = change["services"]["shop"]["weights"]["green"].as_u64().unwrap_or_default();
        (change["kind"].as_str().unwrap().to_owned(), weight)
    };
    changes.iter().map(one).collect()
}

/// The weights of green that the changes of this kind have set.
fn steps(lab: &Lab) -> Vec<u64> {
    history(lab).into_iter().filter(|(kind, _)| kind == "ramp").map(|(_, weight)| weight).collect()
}

/// A command that is under way.
fn spawn(lab: &Lab, args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
    command.args(args).env("SWITCHBACK_SOCKET", lab.socket());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A command that ramps `shop` to green, once it follows the ramp.
fn followed(lab: &Lab, more: &[&str]) -> Child {
    let command = spawn(lab, &[&["ramp", "shop", "--to", "green"], more].concat());
    wait_until("it is followed", || {
        // SIGINT is caught once it is followed.
        let status = std::fs::read_to_string(format!("/proc/{}/status", command.id())).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        caught.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).is_some_and(|bits| bits & 2 != 0)
    });
    command
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(sent.unwrap().success(), "{name}");
}

fn ended(child: Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

#[test]
fn it_goes_up_by_itself_and_no_request_fails() {
    let lab = Lab::start(&["blue", "green"]);
    let (load, mut events) = (Load::start(lab.address(), 4, &[("shop", "/")]), lab.events());
    let begun = Instant::now();
    let answer = begin(&lab, &up("300ms"));
    let standing = &answer["services"]["shop"];
    assert_eq!(
        (&standing["phase"], &standing["weights"]["green"]),
        (&json!("ramping"), &json!(100)),
        "{answer}"
    );
    assert_eq!(
        (&standing["ramp"]["step"], &standing["ramp"]["every_ms"]),
        (&json!(1), &json!(300)),
        "{answer}"
    );
    let finished = events.wait_for(|event| event["type"] == "ramp" && event["state"] == "finished");
    assert!(
        begun.elapsed() >= Duration::from_millis(600),
        "no step comes before its time: {:?}",
        begun.elapsed()
    );
    let told = events.past.iter().filter(|event| event["type"] == "ramp");
    let told: Vec<_> =
        told.map(|event| (event["state"].as_str().unwrap(), event["ramp"]["step"].as_u64())).collect();
    assert_eq!(told, [("ramping", Some(1)), ("ramping", Some(2)), ("finished", None)]);
    assert_eq!((&finished["ended"]["reached"], &finished["ended"]["to"]), (&json!(10_000), &json!("green")));
    assert_eq!((load.stop().failures, lab.get("/").version()), (vec![], "green"));
    assert_eq!(steps(&lab), [100, 5_000, 10_000]);
    let (_, last) = lab.call("GET", "/v1/changes?limit=1", &Value::Null);
    let change = &last["changes"][0];
    assert_eq!(
        (&change["actor"]["kind"], &change["reason"]),
        (&json!("controller"), &json!("ramp, step 3 of 3 (v2)"))
    );
    lab.wait_for_metric(&["switchback_changes_total", r#"kind="ramp""#, r#"actor="controller""#], 3.0);
    // All of it is one step back.
    assert_eq!(steer(&lab, "revert", &Value::Null).0, 200);
    assert_eq!(lab.weight("blue"), 10_000);
}

#[test]
fn its_end_can_be_waited_for_however_it_comes() {
    let lab = Lab::start(&["blue", "green"]);
    let wait = |timeout: &str| format!("{RAMP}?wait=finished&timeout={timeout}");
    let (status, answer) = lab.call("POST", &wait("20s"), &up("50ms"));
    assert_eq!((status, &answer["state"]), (200, &json!("finished")), "{answer}");
    assert_eq!(answer["services"]["shop"]["weights"], json!({ "green": 10_000 }), "{answer}");
    let back = json!({ "to": "blue", "steps": [5_000, 10_000], "every": "1h" });
    let (status, problem) = lab.call("POST", &wait("100ms"), &back);
    assert_eq!((status, token(&problem)), (504, "timed_out".to_owned()), "{problem}");
    assert_eq!((lab.weight("blue"), &lab.shop()["phase"]), (5_000, &json!("ramping")), "it goes on");
    assert_eq!(steer(&lab, "abort", &Value::Null).0, 200);
    for (verb, body, expected) in [
        ("abort", json!(null), "aborted"),
        ("revert", json!(null), "aborted"),
        ("flip", json!({ "to": "green" }), "superseded"),
    ] {
        let epoch = lab.epoch();
        let waiting = lab.call_later("POST", &wait("20s"), &[], &back);
        wait_until("it has begun", || lab.epoch() > epoch);
        assert_eq!(steer(&lab, verb, &body).0, 200, "{verb}");
        let answer = waiting.answer();
        assert_eq!(
            (answer.status, token(&answer.json())),
            (409, expected.to_owned()),
            "{verb}: {}",
            answer.json()
        );
        assert_eq!((lab.weight("green"), &lab.shop()["ramped"]["how"]), (10_000, &json!(expected)), "{verb}");
    }
    // One step alone.
    let (status, answer) = lab.call("POST", &wait("20s"), &json!({ "to": "blue", "steps": ["12.5%"] }));
    assert_eq!((status, lab.weight("blue")), (200, 1_250), "{answer}");
}

#[test]
fn it_is_steered() {
    let lab = Lab::start(&["blue", "green"]);
    for verb in ["promote", "abort", "freeze", "resume"] {
        let (status, problem) = steer(&lab, verb, &Value::Null);
        assert_eq!((status, token(&problem)), (409, "no_ramp".to_owned()), "{verb}: {problem}");
        assert!(problem["hint"].as_str().unwrap().contains("switchback ramp shop"), "{problem}");
    }
    // Without a time each step waits for somebody.
    begin(&lab, &json!({ "to": "green" }));
    assert!(lab.shop()["ramp"]["waits"].as_str().unwrap().contains("promote"), "{}", lab.shop());
    for expected in [500, 2_500, 5_000] {
        assert_eq!(steer(&lab, "promote", &Value::Null).0, 200);
        assert_eq!(lab.weight("green"), expected);
    }
    assert_eq!(steer(&lab, "promote", &json!({ "full": true })).0, 200);
    assert_eq!((lab.weight("green"), &lab.shop()["ramped"]["how"]), (10_000, &json!("finished")));
    assert_eq!(steer(&lab, "revert", &Value::Null).0, 200);
    // What is left of a step is kept.
    begin(&lab, &up("1h"));
    let (status, answer) = steer(&lab, "freeze", &json!({ "reason": "lunch" }));
    assert_eq!((status, &answer["services"]["shop"]["phase"]), (200, &json!("frozen")), "{answer}");
    let left = |lab: &Lab| lab.shop()["ramp"]["left_ms"].as_u64().unwrap();
    let frozen = left(&lab);
    assert!((3_500_000..=3_600_000).contains(&frozen), "{frozen}");
    assert_eq!(left(&lab), frozen);
    let epoch = lab.epoch();
    assert_eq!((steer(&lab, "freeze", &Value::Null).0, lab.epoch()), (200, epoch), "it is so already");
    assert_eq!(steer(&lab, "resume", &Value::Null).0, 200);
    assert!(left(&lab) <= frozen && lab.shop()["phase"] == "ramping");
    let kinds: Vec<_> = history(&lab).into_iter().rev().take(3).map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["resume", "freeze", "ramp"]);
}

#[test]
fn kill_9_in_the_middle_neither_skips_a_step_nor_takes_one_twice() {
    let mut lab = Lab::start(&["blue", "green"]);
    let all = [100, 200, 300, 400, 500, 10_000];
    begin(&lab, &json!({ "to": "green", "steps": all, "every": "150ms" }));
    for _ in 0..3 {
        let epoch = lab.epoch();
        wait_until("it goes on", || lab.epoch() > epoch || lab.shop()["ramp"].is_null());
        lab.kill_and_restart();
    }
    wait_until("it is finished", || lab.shop()["ramped"]["how"] == "finished");
    assert_eq!(steps(&lab), all);
    // One that is frozen stays so, with what was left.
    assert_eq!(steer(&lab, "revert", &Value::Null).0, 200);
    begin(&lab, &up("1h"));
    assert_eq!(steer(&lab, "freeze", &Value::Null).0, 200);
    let frozen = lab.shop()["ramp"].clone();
    lab.kill_and_restart();
    assert_eq!((&lab.shop()["ramp"], &lab.shop()["phase"]), (&frozen, &json!("frozen")));
    assert_eq!(steer(&lab, "resume", &Value::Null).0, 200);
    let left = lab.shop()["ramp"]["left_ms"].as_u64().unwrap();
    lab.kill_and_restart();
    assert!(lab.shop()["ramp"]["left_ms"].as_u64().unwrap() <= left, "a restart gives no time");
    assert!(lab.shop()["ramp"]["left_ms"].as_u64().unwrap() > 3_000_000, "and takes none");
    assert_eq!((steer(&lab, "abort", &Value::Null).0, lab.weight("blue")), (200, 10_000));
}

#[test]
fn the_file_read_again_leaves_it_alone_and_one_that_drops_its_version_ends_it() {
    let lab = Lab::start(&["blue", "green"]);
    let mut events = lab.events();
    begin(&lab, &up("1h"));
    let [blue, green] = ["blue", "green"].map(|name| lab.origin(name).address);
    let both = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nlimits.in_flight = 100\n\
         [services.shop.versions.blue]\nendpoints = [\"{blue}\"]\n"
    );
    lab.write_config(&format!("{both}[services.shop.versions.green]\nendpoints = [\"{green}\"]\n"));
    events.wait_for(|event| event["type"] == "changed" && event["change"]["kind"] == "configure");
    assert_eq!((lab.weight("green"), &lab.shop()["ramp"]["step"]), (100, &json!(1)));
    lab.write_config(&both);
    let over = events.wait_for(|event| event["type"] == "ramp" && event["state"] == "superseded");
    assert_eq!(over["ended"]["reached"], 100, "{over}");
    assert_eq!((lab.weight("blue"), &lab.shop()["phase"]), (10_000, &json!("steady")));
}

#[test]
fn a_step_waits_until_the_version_is_ready_and_says_so() {
    let green = Pulse::well();
    let lab = Lab::checked(&green);
    let at = lab.origin("green").address;
    lab.wait_health(at, "up");
    let mut events = lab.events();
    begin(&lab, &up("200ms"));
    green.set(503);
    lab.wait_health(at, "down");
    let waiting = events.wait_for(|event| event["type"] == "ramp" && event["state"] == "waiting");
    assert!(waiting["ramp"]["waits"].as_str().unwrap().contains("not ready"), "{waiting}");
    let step = waiting["ramp"]["step"].as_u64().unwrap();
    let shop = lab.shop();
    assert_eq!((&shop["ramp"]["left_ms"], shop["ramp"]["step"].as_u64()), (&json!(0), Some(step)), "{shop}");
    let (_, out, _) = lab.cli(&["status", "shop"]);
    assert!(out.contains("ramp: to green, step") && out.contains("is not ready for traffic"), "{out}");
    green.set(200);
    events.wait_for(|event| event["type"] == "ramp" && event["state"] == "finished");
    assert_eq!(steps(&lab), [100, 5_000, 10_000]);
}

#[test]
fn supervision_takes_a_ramp_back_and_the_command_says_so() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = Lab::on(vec![Origin::pulsing("blue", &blue), Origin::pulsing("green", &green)], "");
    let users = Users::of(lab.address(), Duration::from_millis(8));
    wait_until("blue has a history", || lab.origin("blue").served() > 500);
    let every = ["--steps", "20,50,100", "--every", "1h"];
    let args = [&["ramp", "shop", "--to", "green", "--supervise", "10m"], &every[..]].concat();
    let command = spawn(&lab, &args);
    wait_until("it has begun", || lab.weight("green") == 2_000);
    green.set(500);
    let (code, said) = ended(command);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("supervision has taken the traffic back from green"), "{said}");
    assert!(said.trim_end().ends_with("blue carries the traffic: do not stop it"), "{said}");
    assert_eq!((lab.weight("blue"), &lab.shop()["ramped"]["how"]), (10_000, &json!("reverted")));
    drop(users);
}

#[test]
fn while_supervision_leans_back_no_step_is_taken() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = Lab::on(vec![Origin::pulsing("blue", &blue), Origin::pulsing("green", &green)], "");
    let users = Users::of(lab.address(), Duration::from_millis(8));
    wait_until("blue has a history", || lab.origin("blue").served() > 500);
    let mut events = lab.events();
    // What hits both alike is no proof: most traffic leans back, and the ramp with it.
    blue.set(503);
    green.set(503);
    begin(&lab, &json!({ "to": "green", "steps": [5_000, 9_000, 10_000], "every": "3s", "supervise": true }));
    events.wait_for(|event| event["type"] == "ramp" && event["state"] == "suspended");
    let shop = lab.shop();
    assert!(shop["ramp"]["waits"].as_str().unwrap().contains("supervision"), "{shop}");
    let (status, problem) = steer(&lab, "promote", &Value::Null);
    assert_eq!((status, token(&problem)), (409, "suspect".to_owned()), "{problem}");
    assert_eq!((lab.weight("green"), &shop["ramp"]["step"]), (1_000, &json!(1)), "{shop}");
    assert_eq!((steer(&lab, "abort", &Value::Null).0, lab.weight("blue")), (200, 10_000));
    drop(users);
}

#[test]
fn a_suspicion_at_a_small_step_holds_up_promote_and_outlives_kill_9() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let origins = vec![Origin::pulsing("blue", &blue), Origin::pulsing("green", &green)];
    let mut lab = Lab::on(origins, "");
    let users = Users::of(lab.address(), Duration::from_millis(8));
    wait_until("blue has a history", || lab.origin("blue").served() > 500);
    let mut events = lab.events();
    // What hits both alike is no proof.
    blue.set(503);
    green.set(503);
    begin(&lab, &json!({ "to": "green", "steps": [500, 5_000, 10_000], "every": "3s", "supervise": true }));
    let suspect = events.wait_for(|event| {
        event["change"]["summary"].as_str().is_some_and(|summary| summary == "shop: green is suspect")
    });
    assert_eq!(suspect["change"]["services"]["shop"]["weights"]["green"], 500, "{suspect}");
    let (status, problem) = steer(&lab, "promote", &Value::Null);
    assert_eq!((status, token(&problem)), (409, "suspect".to_owned()), "{problem}");
    let told = events.wait_for(|event| event["type"] == "ramp" && event["state"] == "suspended");
    assert_eq!(told["ramp"]["waits"], "supervision suspects `green`", "{told}");
    let (_, frozen) = steer(&lab, "freeze", &Value::Null);
    let waits = &frozen["services"]["shop"]["ramp"]["waits"];
    assert_eq!(waits, "it is frozen, and supervision suspects `green`", "{frozen}");
    assert_eq!(steer(&lab, "resume", &Value::Null).0, 200);
    drop((users, events));
    // Nobody asks any more: what was found before stands.
    lab.kill_and_restart();
    let waits = |lab: &Lab| lab.shop()["ramp"]["waits"].as_str().unwrap_or_default().to_owned();
    assert_eq!(waits(&lab), "supervision suspects `green`");
    let (status, problem) = steer(&lab, "promote", &Value::Null);
    assert_eq!((status, token(&problem)), (409, "suspect".to_owned()), "{problem}");
    assert_eq!((lab.weight("green"), &lab.shop()["ramp"]["step"]), (500, &json!(1)));
    assert_eq!((steer(&lab, "abort", &Value::Null).0, lab.weight("blue")), (200, 10_000));
}

/// `shop` with checks, on blue, whose checks and answers are as its pulse says, and green, whose answers alone are.
fn judged(blue: &Pulse, green: &Pulse) -> Lab {
    let pulse = green.clone();
    let green = Origin::behaving("green", move |seen, stream| {
        let status = if seen.path() == "/healthz" { 200 } else { pulse.status() };
        write!(stream, "HTTP/1.1 {status} X\r\nx-version: green\r\ncontent-length: 2\r\n\r\nok")?;
        Ok(Then::Keep)
    });
    let origins = vec![Origin::pulsing("blue", blue), green];
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nsupervise = true\n\
         health = {{ path = \"/healthz\", interval = \"100ms\", rise = 1, fall = 1 }}\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n[services.shop.versions.green]\nendpoints = [\"{}\"]\n",
        origins[0].address, origins[1].address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &services);
    for name in ["blue", "green"] {
        lab.wait_health(lab.origin(name).address, "up");
    }
    lab
}

#[test]
fn a_suspicion_from_which_supervision_cannot_lean_back_holds_up_promote_and_is_told() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = judged(&blue, &green);
    let users = Users::of(lab.address(), Duration::from_millis(8));
    wait_until("blue has a history", || lab.origin("blue").served() > 500);
    begin(&lab, &json!({ "to": "green", "steps": [5_000, 8_000, 10_000] }));
    // What hits both alike is no proof, and no endpoint of blue is well.
    blue.set(503);
    lab.wait_health(lab.origin("blue").address, "down");
    green.set(503);
    let verdict = || lab.call("GET", "/v1/services/shop/verdict", &Value::Null).1;
    wait_until("traffic cannot lean back", || {
        verdict()["state"] == "suspect" && !verdict()["hindrance"].is_null()
    });
    let (status, problem) = steer(&lab, "promote", &Value::Null);
    assert_eq!((status, token(&problem)), (409, "suspect".to_owned()), "{problem}");
    let shop = lab.shop();
    assert_eq!((lab.weight("green"), &shop["ramp"]["step"]), (5_000, &json!(1)), "{shop}");
    assert_eq!(shop["ramp"]["waits"], "supervision suspects `green`", "{shop}");
    assert_eq!((steer(&lab, "abort", &Value::Null).0, lab.weight("blue")), (200, 10_000));
    drop(users);
}

#[test]
fn the_command_follows_it_to_its_end_and_its_status_says_which() {
    let lab = Lab::start(&["blue", "green"]);
    fn ramp<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["ramp", "shop", "--to", "green", "--steps", "1,50,100"], more].concat()
    }
    let (code, out, err) = lab.cli(&ramp(&["--every", "100ms", "--reason", "v2 is out"]));
    assert_eq!(code, 0, "{out}{err}");
    let expected = [
        "shop: blue 99 %, green 1 %, was blue 100 % (epoch 2)",
        "ramp to green: 1 % now, then 50 %, 100 %, each after 0.1 s",
        "the way back: switchback abort shop",
        "shop: the ramp to green is finished, at 100 % (epoch 4)",
        "the way back: switchback revert shop",
    ];
    expected.iter().for_each(|line| assert!(out.lines().any(|said| said == *line), "{line}: {out}"));
    assert_eq!(out.trim_end().lines().last(), Some("blue is safe to stop: nothing is left on it"), "{out}");
    let (code, _, err) = lab.cli(&["abort", "shop"]);
    assert_eq!(code, 1);
    assert!(err.contains("`switchback revert shop` takes back what one that is over has moved"), "{err}");
    assert_eq!(lab.cli(&["revert", "shop"]).0, 0);

    let (code, out, _) = lab.cli(&ramp(&["--every", "1h", "--timeout", "300ms"]));
    assert_eq!(code, 3, "{out}");
    assert!(
        out.contains("timed out; the ramp goes on by itself: `switchback status shop` shows it"),
        "{out}"
    );
    let (code, out, _) = lab.cli(&["freeze", "shop"]);
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains("ramp to green: step 1 of 3 (1 %), ") && out.contains("(on: switchback resume shop)"),
        "{out}"
    );
    assert!(lab.cli(&["status"]).1.contains("shop · frozen · "), "{}", lab.cli(&["status"]).1);
    assert_eq!(lab.cli(&["resume", "shop"]).0, 0);
    let (code, out, _) = lab.cli(&["promote", "shop"]);
    assert_eq!((code, lab.weight("green")), (0, 5_000), "{out}");
    assert!(out.contains("the way back: switchback abort shop"), "{out}");
    let (code, out, _) = lab.cli(&["abort", "shop"]);
    assert_eq!((code, lab.weight("blue")), (0, 10_000), "{out}");
    assert!(out.trim_end().ends_with("green is safe to stop: nothing is left on it"), "{out}");
    let (code, _, err) = lab.cli(&["abort", "shop"]);
    assert_eq!(code, 1);
    assert!(err.contains("cannot abort a ramp of `shop`: no ramp of `shop` is under way\nhint: "), "{err}");

    let (code, out, _) = lab.cli(&ramp(&["--every", "1h", "--async"]));
    assert_eq!((code, lab.weight("green")), (0, 100), "{out}");
    assert!(out.trim_end().ends_with("blue and green carry traffic: stop neither"), "{out}");
    lab.cli(&["abort", "shop"]);

    for (verb, how) in
        [(&["abort", "shop"][..], "taken back"), (&["flip", "shop", "--to", "green"], "by another change")]
    {
        let command = spawn(&lab, &ramp(&["--every", "1h"]));
        wait_until("it has begun", || lab.weight("green") == 100);
        assert_eq!(lab.cli(verb).0, 0);
        let (code, said) = ended(command);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(how) && said.contains("by operator"), "{said}");
    }
    lab.cli(&["revert", "shop"]);
    let (code, out, err) = lab.cli(&[&ramp(&["--every", "50ms"])[..], &["--json"]].concat());
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["state"]), (0, &json!("finished")), "{out}{err}");
}

#[test]
fn ctrl_c_leaves_it_running_and_says_so() {
    let lab = Lab::start(&["blue", "green"]);
    let command = followed(&lab, &["--every", "1h"]);
    signal(&command, "INT");
    let (code, said) = ended(command);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("interrupted; the ramp goes on by itself"), "{said}");
    assert_eq!((lab.weight("green"), &lab.shop()["phase"]), (100, &json!("ramping")));
}

#[test]
fn whose_service_is_gone_hears_that_the_ramp_is_over() {
    let lab = Lab::start(&["blue", "green"]);
    let command = followed(&lab, &["--every", "1h"]);
    lab.write_config(&format!(
        "[services.cart]\nroutes = [{{ path = \"/\" }}]\n[services.cart.versions.v1]\nendpoints = [\"{}\"]\n",
        lab.origin("blue").address
    ));
    let (code, said) = ended(command);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the ramp of `shop` is over: no service `shop`\nhint: "), "{said}");
    assert!(!said.contains("goes on"), "{said}");
}

#[test]
fn who_looks_only_when_the_traffic_is_elsewhere_hears_of_no_end() {
    let lab = Lab::start(&["blue", "green"]);
    for verb in [&["flip", "shop", "--to", "blue"][..], &["revert", "shop"]] {
        let command = followed(&lab, &["--every", "1h"]);
        signal(&command, "STOP");
        assert_eq!(lab.cli(&["promote", "shop", "--full"]).0, 0);
        assert_eq!(lab.cli(verb).0, 0);
        signal(&command, "CONT");
        let (code, said) = ended(command);
        assert_eq!(code, 1, "{said}");
        let expected = "shop: the ramp to green had finished, at 100 % (epoch ";
        assert!(said.contains(expected) && said.contains(&format!(", {} by operator ", verb[0])), "{said}");
        assert!(said.trim_end().ends_with("blue carries the traffic: do not stop it"), "{said}");
    }
}

#[test]
fn who_looks_only_when_supervision_has_reverted_hears_that() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = Lab::on(vec![Origin::pulsing("blue", &blue), Origin::pulsing("green", &green)], "");
    let users = Users::of(lab.address(), Duration::from_millis(8));
    wait_until("blue has a history", || lab.origin("blue").served() > 500);
    let command = followed(&lab, &["--steps", "50,100", "--every", "1h", "--supervise", "10m"]);
    signal(&command, "STOP");
    assert_eq!(steer(&lab, "promote", &Value::Null).0, 200);
    green.set(500);
    wait_until("it is taken back", || lab.shop()["supervision"].is_null() && lab.weight("blue") == 10_000);
    signal(&command, "CONT");
    let (code, said) = ended(command);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains(", revert by supervisor "), "{said}");
    assert!(said.trim_end().ends_with("blue carries the traffic: do not stop it"), "{said}");
    drop(users);
}

#[test]
fn one_that_is_over_with_its_first_step_goes_nowhere_by_itself() {
    let lab = Lab::start(&["blue", "green"]);
    lab.weights(&json!({ "green": 5_000, "blue": 5_000 }));
    let (code, out, err) = lab.cli(&["ramp", "shop", "--to", "green", "--every", "2m", "--async"]);
    assert_eq!((code, lab.weight("green")), (0, 10_000), "{out}{err}");
    assert!(out.contains("shop: the ramp to green is finished, at 100 % (epoch "), "{out}");
    assert!(out.contains("the way back: switchback revert shop") && !out.contains("by itself"), "{out}");
    assert_eq!(out.trim_end().lines().last(), Some("blue is safe to stop: nothing is left on it"), "{out}");
}

#[test]
fn what_cannot_be_says_what_to_do() {
    let lab = Lab::start(&["blue", "green"]);
    let epoch = lab.epoch();
    let bad = [
        (json!({ "to": "green", "steps": [] }), 422, "bad_steps", "steps"),
        (json!({ "to": "green", "steps": [500, 100] }), 422, "bad_steps", "steps"),
        (json!({ "to": "green", "steps": [500, 500] }), 422, "bad_steps", "steps"),
        (json!({ "to": "green", "steps": [0, 100] }), 422, "bad_steps", "steps"),
        (json!({ "to": "green", "steps": [100, 10_001] }), 422, "bad_steps", "steps[1]"),
        (json!({ "to": "green", "steps": ["5", "101%"] }), 422, "bad_steps", "steps[1]"),
        (json!({ "to": "green", "steps": [1.5] }), 422, "bad_steps", "steps[0]"),
        (json!({ "to": "green", "every": "0s" }), 400, "bad_value", "every"),
        (json!({ "to": "green", "every": "soon" }), 400, "bad_value", "every"),
        (json!({ "to": "green", "supervise": "1ms" }), 400, "bad_value", "supervise"),
        (json!({ "to": "purple" }), 422, "unknown_version", "to"),
        (json!({ "to": "blue" }), 409, "nothing_to_ramp", "to"),
        (json!({ "to": "green", "step": [1] }), 400, "bad_json", "step"),
        (json!({}), 400, "bad_json", "to"),
    ];
    for (body, status, token, field) in bad {
        let (got, problem) = lab.call("POST", RAMP, &body);
        assert_eq!(
            (got, self::token(&problem), &problem["field"]),
            (status, token.to_owned(), &json!(field)),
            "{body}: {problem}"
        );
    }
    assert_eq!(lab.call("POST", "/v1/services/stop/ramp", &up("1h")).0, 404);
    let edit = json!({ "changes": [{ "service": "shop", "ramp": up("1h") }] });
    assert_eq!(lab.call("POST", "/v1/changes", &edit).0, 400);
    assert_eq!(lab.epoch(), epoch);
    // Usage.
    for steps in ["5,x", "5,101", ""] {
        assert_eq!(lab.cli(&["ramp", "shop", "--to", "green", "--steps", steps]).0, 2, "{steps}");
    }
    let (code, _, err) = lab.cli(&["ramp", "shop", "--to", "green", "--steps", "50,5"]);
    assert_eq!(code, 2);
    assert!(err.contains("steps rise: 5 % does not come after 50 %"), "{err}");
    // One at a time.
    begin(&lab, &up("1h"));
    let (status, problem) = lab.call("POST", RAMP, &json!({ "to": "blue" }));
    assert_eq!((status, token(&problem)), (409, "ramping".to_owned()), "{problem}");
    let rollout = json!({ "from": "blue", "to": "green" });
    let (status, problem) = lab.call("POST", "/v1/services/shop/rollout", &rollout);
    assert_eq!((status, token(&problem)), (422, "ramping".to_owned()), "{problem}");
    let (code, _, err) = lab.cli(&["deploy", "shop", "--version", "v3", "--endpoint", "127.0.0.1:9"]);
    assert_eq!(code, 1);
    assert!(err.contains("a ramp to `green` is under way"), "{err}");
}

#[test]
fn a_plan_moves_nothing_and_an_order_is_made_once_and_for_what_was_seen() {
    let lab = Lab::start(&["blue", "green"]);
    let epoch = lab.epoch();
    let (status, plan) = lab.call("POST", &format!("{RAMP}?dry_run=true"), &up("2m"));
    assert_eq!((status, &plan["dry_run"]), (200, &json!(true)), "{plan}");
    assert_eq!(plan["services"]["shop"]["ramp"]["steps"], json!([100, 5_000, 10_000]), "{plan}");
    let (_, out, _) = lab.cli(&["ramp", "shop", "--to", "green", "--every", "2m", "--dry-run"]);
    assert!(out.contains("ramp to green: 1 % now, then 5 %, 25 %, 50 %, 100 %, each after 120 s"), "{out}");
    assert!(out.trim_end().ends_with("nothing was changed: this was a dry run"), "{out}");
    assert_eq!((lab.epoch(), &lab.shop()["ramp"]), (epoch, &Value::Null));
    let stale = [("if-match", "\"77\"")];
    assert_eq!(lab.call_with("POST", RAMP, &stale, &up("1h")).status, 412);
    let key = [("idempotency-key", "once")];
    let first = lab.call_with("POST", RAMP, &key, &up("1h"));
    let again = lab.call_with("POST", RAMP, &key, &up("1h"));
    assert_eq!((first.status, again.status, first.body == again.body), (200, 200, true));
    assert_eq!((again.header("idempotent-replayed"), lab.epoch()), (Some("true"), epoch + 1));
    let key = [("idempotency-key", "twice")];
    let promote = || lab.call_with("POST", "/v1/services/shop/promote", &key, &Value::Null).status;
    assert_eq!((promote(), promote(), lab.weight("green")), (200, 200, 5_000));
}

#[test]
fn asked_for_again_it_is_finished_only_while_the_traffic_is_where_its_last_step_left_it() {
    let lab = Lab::start(&["blue", "green"]);
    for (key, steps, elsewhere) in
        [("all", [5_000, 10_000], "returned"), ("half", [100, 5_000], "superseded")]
    {
        let body = json!({ "to": "green", "steps": steps, "every": "50ms" });
        let ramp = || {
            let path = format!("{RAMP}?wait=finished&timeout=20s");
            let answer = lab.call_with("POST", &path, &[("idempotency-key", key)], &body);
            (answer.status, answer.json())
        };
        for time in ["once", "again"] {
            let (status, answer) = ramp();
            assert_eq!((status, &answer["state"]), (200, &json!("finished")), "{key} {time}: {answer}");
        }
        lab.flip("blue");
        let (status, problem) = ramp();
        assert_eq!((status, token(&problem)), (409, elsewhere.to_owned()), "{key}: {problem}");
    }
    // Of two that are over the last one alone is kept.
    begin(&lab, &json!({ "to": "green", "steps": [200] }));
    let path = format!("{RAMP}?wait=finished&timeout=20s");
    let body = json!({ "to": "green", "steps": [100, 5_000], "every": "50ms" });
    let answer = lab.call_with("POST", &path, &[("idempotency-key", "half")], &body);
    let problem = answer.json();
    assert_eq!((answer.status, token(&problem)), (409, "superseded".to_owned()), "{problem}");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .starts_with("the ramp of `shop` is over, and no longer the last one"),
        "{problem}"
    );
}

#[test]
fn a_hold_is_independent_and_an_exclusive_flip_ends_it() {
    let lab = Lab::start(&["blue", "green"]);
    assert_eq!(steer(&lab, "hold", &json!({ "timeout": "1m" })).0, 200);
    begin(&lab, &up("100ms"));
    wait_until("it goes on", || lab.weight("green") == 10_000);
    assert_eq!(lab.shop()["phase"], "holding");
    assert_eq!(steer(&lab, "release", &Value::Null).0, 200);
    begin(&lab, &json!({ "to": "blue", "every": "1h" }));
    let (status, answer) = steer(&lab, "flip", &json!({ "to": "green", "exclusive": true }));
    assert_eq!((status, &lab.shop()["ramped"]["how"]), (200, &json!("superseded")), "{answer}");
}

#[test]
fn a_deployment_can_go_up_in_steps() {
    let lab = Lab::start(&["blue"]);
    let new = Origin::start("v42");
    let at = new.address.to_string();
    let args =
        ["deploy", "shop", "--version", "v42", "--endpoint", &at, "--steps", "1,25,100", "--every", "100ms"];
    let (code, out, err) = lab.cli(&args);
    assert_eq!((code, lab.get("/").version()), (0, "v42"), "{out}{err}");
    assert!(out.trim_end().ends_with("blue is safe to stop: nothing is left on it"), "{out}");
    let ramp = ["ramp", "ramp", "ramp"].map(str::to_owned);
    assert!(history(&lab).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>().ends_with(&ramp));
    let epoch = lab.epoch();
    assert_eq!((lab.cli(&args).0, lab.epoch()), (0, epoch), "once more is the same deployment");
    let rolling = [&args[..], &["--rolling"]].concat();
    assert_eq!(lab.cli(&rolling).0, 2);
}

#[test]
fn a_deployment_that_has_come_to_its_last_step_is_the_same_once_more() {
    let lab = Lab::start(&["blue"]);
    let new = Origin::start("v42");
    let at = new.address.to_string();
    let deploy = |more: &[&str]| {
        let args = ["deploy", "shop", "--version", "v42", "--endpoint", &at, "--every", "100ms"];
        lab.cli(&[&args, more].concat())
    };
    let (code, out, err) = deploy(&["--steps", "1,5"]);
    assert_eq!((code, lab.weight("v42")), (0, 500), "{out}{err}");
    let epoch = lab.epoch();
    for more in [&["--steps", "1,5"][..], &["--steps", "1,5", "--async"], &["--steps", "2"]] {
        let (code, out, err) = deploy(more);
        assert_eq!((code, lab.epoch()), (0, epoch), "{out}{err}");
        assert!(out.contains("shop: nothing to do, it is blue 95 %, v42 5 % already"), "{out}");
        assert_eq!(out.trim_end().lines().last(), Some("blue and v42 carry traffic: stop neither"), "{out}");
    }
    let (code, out, err) = deploy(&["--steps", "1,5", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["changed"]), (0, &json!(false)), "{out}{err}");
    // What was begun with the last step goes on.
    let compared = ["--steps", "10", "--supervise", "10m", "--async"];
    for _ in 0..2 {
        let (code, out, err) = deploy(&compared);
        assert_eq!((code, lab.weight("v42")), (0, 1_000), "{out}{err}");
        assert!(out.contains("v42 is compared with blue until 20"), "{out}");
    }
}

#[test]
fn a_deployment_that_goes_up_in_steps_is_left_and_found_again_by_its_plan() {
    let lab = Lab::start(&["blue"]);
    let new = Origin::start("v42");
    let at = new.address.to_string();
    let deploy = |plan: &[&str]| {
        let args = ["deploy", "shop", "--version", "v42", "--endpoint", &at];
        let (code, out, err) = lab.cli(&[&args, plan, &["--async"]].concat());
        (code, out + &err)
    };
    for every in ["1h", "60m"] {
        let (code, said) = deploy(&["--every", every]);
        assert_eq!((code, lab.weight("v42")), (0, 100), "{said}");
        assert!(said.contains("the ramp goes on by itself"), "{said}");
        assert!(said.trim_end().ends_with("blue and v42 carry traffic: stop neither"), "{said}");
    }
    for other in
        [&["--every", "1s"][..], &["--steps", "1,100", "--every", "1h"], &["--steps", "1,5,25,50,100"]]
    {
        let (code, said) = deploy(other);
        assert_eq!(code, 1, "{said}");
        let expected = "cannot deploy `v42` of `shop`: its ramp is under way by another plan: 1 %, 5 %, 25 %, 50 %, 100 %, \
                        each after 3600 s\nhint: ";
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!((lab.weight("v42"), &lab.shop()["ramp"]["every_ms"]), (100, &json!(3_600_000)));
}
