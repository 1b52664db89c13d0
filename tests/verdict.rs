//! What is told of a comparison: the figures are what users saw, to the last request, and people get them in a few lines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use lab::origin::{Peer, nobody};
use lab::{Client, Lab, Origin, Pulse, wait_until};
use serde_json::{Value, json};

/// `shop` with blue and green, which say their name and what their pulse says; supervision only tells.
fn shop(green: &Pulse) -> Lab {
    let origins = vec![Origin::pulsing("blue", &Pulse::well()), Origin::pulsing("green", green)];
    let [blue, green] = [&origins[0], &origins[1]].map(|origin| origin.address);
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nsupervise = {{ mode = \"alert\" }}\n\
         [services.shop.versions.blue]\nendpoints = [\"{blue}\"]\n\
         [services.shop.versions.green]\nendpoints = [\"{green}\"]\n"
    );
    Lab::configured(tempfile::tempdir().unwrap(), origins, &services)
}

fn verdict(lab: &Lab) -> Value {
    let (status, supervision) = lab.call("GET", "/v1/services/shop/verdict", &Value::Null);
    assert_eq!(status, 200, "{supervision}");
    supervision
}

/// So many requests, one after the other: how many were blue's, and green's.
fn ask(client: &mut Client, times: u64) -> [u64; 2] {
    let greens = (0..times).filter(|_| client.get("/").header("x-version") == Some("green")).count() as u64;
    [times - greens, greens]
}

#[test]
fn the_figures_are_what_users_saw() {
    let lab = shop(&Pulse::well());
    lab.weights(&json!({ "green": 3_000, "blue": 7_000 }));
    let mut client = Client::connect(lab.address());
    let [blue, green] = ask(&mut client, 400);
    let counted = |side: &str| verdict(&lab)["verdict"][side]["requests"].as_u64();
    wait_until("all are counted", || {
        (counted("baseline"), counted("candidate")) == (Some(blue), Some(green))
    });
    let supervision = verdict(&lab);
    let figures = &supervision["verdict"];
    assert_eq!((&figures["state"], &figures["target"]), (&json!("collecting"), &json!(3_000)));
    assert_eq!(figures["candidate"]["version"], "green");
    assert_eq!((&figures["baseline"]["failed"], &figures["candidate"]["failed"]), (&json!(0), &json!(0)));
    assert!(figures["candidate"]["seconds"]["p99"].as_f64().unwrap() < 1.0, "{figures}");
    assert_eq!(figures["endpoints"][0]["address"], lab.origin("green").address.to_string(), "{figures}");
    let said = supervision["said"].as_str().unwrap();
    let expected = format!("green 0 of {green} requests failed, blue 0 of {blue}.");
    assert!(said.starts_with("green is compared with blue: ") && said.contains(&expected), "{said}");
}

#[test]
fn status_shows_a_comparison_to_people_and_to_machines() {
    let green = Pulse::well();
    let lab = shop(&green);
    lab.weights(&json!({ "green": 5_000, "blue": 5_000 }));
    green.set(500);
    let mut client = Client::connect(lab.address());
    wait_until("green is found out", || {
        ask(&mut client, 10);
        verdict(&lab)["state"] == "breached"
    });
    let said = verdict(&lab)["said"].as_str().unwrap().to_owned();
    assert!(said.starts_with("would have reverted green -> blue after "), "{said}");
    let (code, text, _) = lab.cli(&["status", "shop"]);
    assert!(
        code == 0 && text.contains("  trial: green against blue, which only tells: breached for "),
        "{text}"
    );
    let evidence = text.lines().find(|line| line.contains("evidence ")).unwrap();
    assert!(evidence.ends_with(", 1e4 : 1 needed"), "{text}");
    let (code, json, _) = lab.cli(&["--json", "status", "shop"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["supervision"]["verdict"]["why"]), (0, &json!("error_rate")), "{json}");
    // Of all services only that there is one.
    let (_, text, _) = lab.cli(&["status"]);
    assert!(text.contains("  trial: green against blue, which only tells\n"), "{text}");
}

/// A request is asked of two endpoints of green when the first one takes longer than this.
const HEDGE_AFTER: Duration = Duration::from_millis(50);

/// All of `shop` is with green's two endpoints, of which the first in turn is `one`.
fn hedged(one: Origin, two: Origin) -> Lab {
    let endpoints = [one.address, two.address].map(|address| format!("\"{address}\"")).join(", ");
    let after = HEDGE_AFTER.as_millis();
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nbalance = \"round_robin\"\noutliers = false\n\
         hedge = {{ after = \"{after}ms\" }}\nretries = {{ attempts = 0, budget = \"100%\", min_per_second = 1_000 }}\n\
         supervise = {{ mode = \"alert\", warmup = {{ latency = \"0s\", per_endpoint = 0 }} }}\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n\
         [services.shop.versions.green]\nendpoints = [{endpoints}]\n",
        nobody()
    );
    let mut lab = Lab::configured(tempfile::tempdir().unwrap(), vec![one, two], &services);
    lab.restrict_to_one_worker();
    lab.flip("green");
    lab
}

#[test]
fn a_first_attempt_that_fails_counts_though_another_beside_it_is_answered() {
    let (fail, may_fail) = mpsc::channel::<()>();
    let may_fail = Mutex::new(may_fail);
    let one = Origin::scripted("one", move |proxy: &mut Peer| {
        proxy.head()?;
        may_fail.lock().unwrap().recv().unwrap();
        Ok(())
    });
    let (answer, may_answer) = mpsc::channel::<()>();
    let may_answer = Mutex::new(may_answer);
    let two = Origin::scripted("two", move |proxy: &mut Peer| {
        proxy.head()?;
        may_answer.lock().unwrap().recv().unwrap();
        proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo")
    });
    let at_fault = one.address.to_string();
    let lab = hedged(one, two);
    let mut user = lab.client();
    user.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let listed = || lab.call("GET", "/v1/services/shop/versions/green/drain", &json!(null)).1;
    wait_until("both are asked", || listed()["endpoints"].as_array().unwrap().len() == 2);
    fail.send(()).unwrap();
    wait_until("one is left", || listed()["endpoints"].as_array().unwrap().len() == 1);
    answer.send(()).unwrap();
    assert_eq!(user.answer().text(), "two", "its user does not see it");
    let figures = || verdict(&lab)["verdict"].clone();
    wait_until("it is counted", || figures()["candidate"]["requests"] == 1);
    let figures = figures();
    assert_eq!(figures["candidate"]["failed"], 1, "{figures}");
    let endpoints = figures["endpoints"].as_array().unwrap();
    let bad = endpoints.iter().find(|endpoint| endpoint["failed"] == 1).unwrap();
    assert_eq!(bad["address"], at_fault, "{figures}");
}

#[test]
fn a_request_is_as_slow_as_its_first_attempt_whoever_answers_it() {
    let one = Origin::scripted("one", |proxy: &mut Peer| {
        proxy.head()?;
        proxy.rest();
        Ok(())
    });
    let two = Origin::scripted("two", |proxy: &mut Peer| {
        proxy.head()?;
        proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo")
    });
    let lab = hedged(one, two);
    assert_eq!(lab.get("/").text(), "two");
    let figures = || verdict(&lab)["verdict"].clone();
    wait_until("it is counted", || figures()["candidate"]["requests"] == 1);
    let figures = figures();
    let took = figures["candidate"]["seconds"]["p75"].as_f64().expect("its speed is measured");
    assert!(took >= HEDGE_AFTER.as_secs_f64() * 0.9, "{figures}");
}
