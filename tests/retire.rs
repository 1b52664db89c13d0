//! A retirement: who is on a version stays there until they are done, and nobody new comes; through kill -9, and whatever else happens.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method};
use lab::gate::Gate;
use lab::http2::{request, run};
use lab::websocket::{connect_to_who_speaks, echoed, echoes};
use lab::{Client, Http2, Lab, Origin, Pulse, wait_until};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

const RETIRE: &str = "/v1/services/shop/retire";
const MINT: &str = "sticky = { cookie = \"sb_id\", mint = true }";

/// The file of `shop` on blue and green, with `settings` of it.
fn file(settings: &str, endpoints: [SocketAddr; 2]) -> String {
    let mut text = format!("[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n{settings}\n");
    for (version, endpoint) in ["blue", "green"].iter().zip(endpoints) {
        writeln!(text, "[services.shop.versions.{version}]\nendpoints = [\"{endpoint}\"]").unwrap();
    }
    text
}

fn lab(settings: &str) -> Lab {
    let origins = ["blue", "green"].map(Origin::start);
    let text = file(settings, [origins[0].address, origins[1].address]);
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins.into(), &text);
    lab.weights(&json!({ "blue": 5_000, "green": 5_000 }));
    lab
}

fn retire(lab: &Lab, body: &Value) -> Value {
    let (status, answer) = lab.call("POST", RETIRE, body);
    assert_eq!(status, 200, "{answer}");
    answer
}

fn token(problem: &Value) -> &str {
    problem["type"].as_str().unwrap_or_default().rsplit(':').next().unwrap()
}

/// A new user: his cookie, and the version that he got.
fn new_user(client: &mut Client) -> (String, String) {
    let answer = client.get("/");
    let cookie = answer.header("set-cookie").expect("he is given one");
    (cookie.split(';').next().unwrap().to_owned(), answer.version().to_owned())
}

fn new_users(address: SocketAddr, count: usize) -> BTreeMap<String, String> {
    let mut client = Client::connect(address);
    (0..count).map(|_| new_user(&mut client)).collect()
}

/// Which version each of these users gets now.
fn again(address: SocketAddr, users: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut client = Client::connect(address);
    let mut version = |cookie: &String| {
        let answer =
            client.send(format!("GET / HTTP/1.1\r\nhost: shop.test\r\ncookie: {cookie}\r\n\r\n")).answer();
        assert_eq!((answer.status, answer.header("set-cookie")), (200, None));
        answer.version().to_owned()
    };
    users.keys().map(|cookie| (cookie.clone(), version(cookie))).collect()
}

fn drain(lab: &Lab, version: &str) -> Value {
    lab.call("GET", &format!("/v1/services/shop/versions/{version}/drain"), &Value::Null).1
}

#[test]
fn who_is_there_stays_and_nobody_new_comes() {
    let mut lab = lab(MINT);
    let known = new_users(lab.address(), 200);
    assert!(known.values().filter(|version| *version == "green").count() > 50);
    let answer = retire(&lab, &json!({ "quiet": "1h", "reason": "v2 is no good" }));
    let standing = &answer["services"]["shop"];
    assert_eq!((&standing["phase"], &standing["weights"]["green"]), (&json!("retiring"), &json!(5_000)));
    assert_eq!(standing["retirement"]["version"], "green", "{answer}");

    let look = |lab: &Lab, fresh: &mut BTreeMap<String, String>| {
        assert_eq!(again(lab.address(), &known), known, "nobody is moved");
        assert!(fresh.values().all(|version| version == "blue"), "{fresh:?}");
        assert_eq!(again(lab.address(), fresh), *fresh, "nor who has come since");
        fresh.extend(new_users(lab.address(), 100));
    };
    let mut fresh = new_users(lab.address(), 100);
    look(&lab, &mut fresh);
    run(async {
        let two = Http2::to(lab.address()).await;
        for _ in 0..20 {
            let answer = two.get("/").await;
            assert!(answer.version() == "blue" && answer.header("set-cookie").is_some());
        }
        for (cookie, version) in known.iter().take(20) {
            let mut asked = request(Method::GET, "/");
            asked.headers_mut().insert("cookie", HeaderValue::from_str(cookie).unwrap());
            assert_eq!(two.ask(asked).await.version(), version);
        }
    });
    lab.kill_and_restart();
    look(&lab, &mut fresh);
    let said = drain(&lab, "green");
    assert_eq!(
        (&said["drained"], &said["retiring"], &said["weight"]),
        (&json!(false), &json!(true), &json!(5_000))
    );
    let explained = |headers: Value| {
        let asked = json!({ "uri": "http://shop.test/", "headers": headers });
        lab.call("POST", "/v1/explain", &asked).1
    };
    let chances = explained(json!({}))["chances"].clone();
    assert_eq!(chances, json!([{ "version": "blue", "weight": 5_000, "probability": 1.0 }]));
    let on_green = known.iter().find(|(_, version)| *version == "green").unwrap().0;
    assert_eq!(explained(json!({ "cookie": on_green }))["version"], "green");

    // Its end moves those of green alone.
    let (status, answer) = lab.call("POST", "/v1/services/shop/abort", &Value::Null);
    assert_eq!((status, &answer["services"]["shop"]["retired"]["how"]), (200, &json!("aborted")), "{answer}");
    assert_eq!(again(lab.address(), &fresh), fresh);
    assert!(again(lab.address(), &known).values().all(|version| version == "blue"));
    wait_until("green is empty", || drain(&lab, "green")["drained"] == true);
}

#[test]
fn it_is_over_when_nobody_has_come_for_long_enough() {
    let lab = lab(MINT);
    let users = new_users(lab.address(), 20);
    let (cookie, _) = users.iter().find(|(_, version)| *version == "green").unwrap();
    let (one, mut events) = (BTreeMap::from([(cookie.clone(), "green".to_owned())]), lab.events());
    let retired = std::thread::scope(|scope| {
        let (socket, dir) = (lab.socket(), lab.dir.path());
        let command = scope.spawn(move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
            command.args(["retire", "shop", "--quiet", "600ms", "--reason", "no good"]);
            command.env("SWITCHBACK_SOCKET", socket).current_dir(dir).stdin(Stdio::null()).output().unwrap()
        });
        let begun = events.change();
        assert_eq!(
            (&begun["kind"], &begun["summary"]),
            (&json!("retire"), &json!("shop: green is retiring"))
        );
        let since = Instant::now();
        // For as long as he comes it goes on.
        while since.elapsed() < Duration::from_millis(1_500) {
            assert_eq!(again(lab.address(), &one), one);
        }
        let last = Instant::now();
        let over = events.change();
        assert_eq!(
            (&over["kind"], &over["summary"]),
            (&json!("retire"), &json!("shop: blue 100 %, green is retired"))
        );
        assert_eq!(over["reason"], "retired: nobody has come for 600ms (no good)");
        let quiet = last.elapsed();
        assert!(quiet >= Duration::from_millis(600) && quiet < Duration::from_secs(5), "{quiet:?}");
        command.join().unwrap()
    });
    let text = String::from_utf8(retired.stdout).unwrap();
    assert_eq!(retired.status.code(), Some(0), "{text}");
    assert!(text.starts_with("shop: blue 50 %, green 50 % (epoch 3)\n"), "{text}");
    assert!(
        text.contains(
            "nobody new comes to green; it is over when nobody has come for 0.6 s, at the latest at"
        ),
        "{text}"
    );
    assert_eq!(
        text.trim_end().lines().last(),
        Some("green is safe to stop: nothing is left on it"),
        "{text}"
    );
    events.drained("green");
    assert_eq!(again(lab.address(), &one).into_values().next().unwrap(), "blue");
    assert_eq!(lab.call("POST", "/v1/services/shop/revert", &Value::Null).0, 409, "it was a way back itself");
}

#[test]
fn nobody_is_moved_to_who_is_not_ready() {
    let blue = Pulse::well();
    let lab = |sticky: &str| {
        let origins = vec![Origin::with_pulse("blue", &blue), Origin::start("green")];
        let settings =
            format!("health = {{ path = \"/healthz\", interval = \"100ms\", rise = 1, fall = 1 }}\n{sticky}");
        let text = file(&settings, [origins[0].address, origins[1].address]);
        let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &text);
        for name in ["blue", "green"] {
            lab.wait_health(lab.origin(name).address, "up");
        }
        lab.weights(&json!({ "blue": 5_000, "green": 5_000 }));
        lab
    };
    let (coins, stays) = (lab(""), lab(MINT));
    let users = new_users(stays.address(), 20);
    let (cookie, _) = users.iter().find(|(_, version)| *version == "green").unwrap();
    let one = BTreeMap::from([(cookie.clone(), "green".to_owned())]);
    blue.set(503);
    for lab in [&coins, &stays] {
        lab.wait_health(lab.origin("blue").address, "down");
    }
    let (status, problem) = coins.call("POST", RETIRE, &Value::Null);
    assert_eq!((status, token(&problem)), (409, "not_ready"), "{problem}");
    let (code, out, err) = coins.cli(&["retire", "shop", "--force"]);
    assert!(code == 0 && out.contains("forced to `blue` of `shop`: 0 of 1 endpoint healthy"), "{out}{err}");

    retire(&stays, &json!({ "quiet": "300ms" }));
    let waits = || stays.shop()["retirement"]["waits"].as_str().map(str::to_owned);
    wait_until("it should be over, and waits", || waits().is_some());
    assert!(
        waits().unwrap().starts_with("`blue` of `shop` is not ready for traffic: 0 of 1 endpoint healthy")
    );
    wait_until("somebody has come: there is time again", || {
        again(stays.address(), &one) == one && waits().is_none()
    });
    blue.set(200);
    wait_until("it is over", || stays.shop()["retired"]["how"] == "finished");
    assert_eq!(again(stays.address(), &one).into_values().next().unwrap(), "blue");
}

#[test]
fn what_is_in_flight_there_is_somebody() {
    let green = echoes();
    let origin = Origin::start("blue");
    let text = file(MINT, [origin.address, green]);
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &text);
    // Nine ids in ten are none for who is new.
    lab.weights(&json!({ "blue": 1_000, "green": 9_000 }));
    let mut socket = connect_to_who_speaks(lab.address());
    assert!(echoed(&mut socket, "before"), "it is on green");
    retire(&lab, &json!({ "quiet": "200ms" }));
    let fresh = new_users(lab.address(), 50);
    assert!(fresh.values().all(|version| version == "blue"));
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(1) {
        assert!(echoed(&mut socket, "meanwhile"));
    }
    assert_eq!(lab.shop()["phase"], "retiring");
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    wait_until("it is over", || lab.shop()["retired"]["how"] == "finished");
}

#[test]
fn who_waits_for_room_behind_a_hold_is_somebody() {
    let gate = Gate::default();
    let origins = ["blue", "green"].map(|version| Origin::held(version, &gate));
    let text =
        file(&format!("{MINT}\nlimits = {{ in_flight = 1 }}"), [origins[0].address, origins[1].address]);
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins.into(), &text);
    lab.weights(&json!({ "blue": 5_000, "green": 5_000 }));
    let users = new_users(lab.address(), 20);
    let ask = |version: &str, path: &str| {
        let (cookie, _) = users.iter().find(|(_, known)| *known == version).unwrap();
        let mut client = lab.client();
        client.send(format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\ncookie: {cookie}\r\n\r\n"));
        client
    };
    retire(&lab, &json!({ "quiet": "200ms" }));
    let mut first = ask("blue", "/late");
    lab.wait_for_metric(&["switchback_in_flight{", "\"blue\"", "kind=\"request\""], 1.0);
    assert_eq!(lab.call("POST", "/v1/services/shop/hold", &Value::Null).0, 200);
    let mut second = ask("green", "/");
    wait_until("it waits", || lab.shop()["held_requests"] == 1);
    assert_eq!(lab.call("POST", "/v1/services/shop/release", &Value::Null).0, 200);
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(1) {
        assert_eq!(lab.shop()["phase"], "retiring");
    }
    gate.open();
    assert_eq!((first.answer().version(), second.answer().version()), ("blue", "green"));
    wait_until("it is over", || lab.shop()["retired"]["how"] == "finished");
}

#[test]
fn who_waits_for_it_to_be_drained_waits_for_its_end() {
    let lab = lab(MINT);
    let on_green = new_users(lab.address(), 20).into_iter().find(|(_, version)| version == "green").unwrap();
    let drained = |body: &Value, timeout: &str| {
        lab.call("POST", &format!("{RETIRE}?wait=drained&timeout={timeout}"), body)
    };
    let (status, problem) = drained(&json!({ "quiet": "1h" }), "50ms");
    assert_eq!((status, token(&problem)), (504, "timed_out"), "{problem}");
    let one = BTreeMap::from([on_green]);
    assert_eq!(again(lab.address(), &one), one, "for who is on it still comes");
    let (status, answer) = drained(&json!({ "quiet": "300ms" }), "20s");
    assert_eq!(
        (status, &answer["state"], &answer["leaving"]),
        (200, &json!("drained"), &json!([])),
        "{answer}"
    );
    assert_eq!(answer["services"]["shop"]["retired"]["how"], "finished", "{answer}");
    assert_eq!(drain(&lab, "green")["drained"], true);
    assert_eq!(again(lab.address(), &one).into_values().next().unwrap(), "blue");
}

#[test]
fn its_time_is_over_by_the_calendar_after_a_crash_and_by_the_clock_else() {
    let mut lab = lab(MINT);
    let users = new_users(lab.address(), 20);
    retire(&lab, &json!({ "for": "2s" }));
    let since = Instant::now();
    lab.kill_and_restart();
    assert_eq!(again(lab.address(), &users), users);
    wait_until("it is over", || {
        // Who comes does not prolong it.
        again(lab.address(), &users);
        lab.shop()["retired"]["how"] == "finished"
    });
    assert!(since.elapsed() > Duration::from_millis(1_500), "{:?}", since.elapsed());
    let (_, history) = lab.call("GET", "/v1/changes?limit=1", &Value::Null);
    assert_eq!(history["changes"][0]["reason"], "retired: its time is over", "{history}");
}

#[test]
fn where_nobody_stays_what_is_in_flight_is_left_alone() {
    let settings = "drain = { patience = \"0s\", spread = \"0s\", deadline = \"10s\" }";
    let (green, origin) = (echoes(), Origin::start("blue"));
    let text = file(settings, [origin.address, green]);
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &text);
    lab.weights(&json!({ "blue": 5_000, "green": 5_000 }));
    let mut socket = connect_to_who_speaks(lab.address());
    assert!(echoed(&mut socket, "before"));
    let since = Instant::now();
    let answer = retire(&lab, &json!({ "for": "1s" }));
    let standing = &answer["services"]["shop"];
    assert_eq!(
        (&standing["weights"], &standing["retired"]["how"]),
        (&json!({ "blue": 10_000 }), &json!("finished"))
    );
    assert_eq!((&standing["leaving"], &standing["previous"]), (&json!(["green"]), &Value::Null), "{answer}");
    for _ in 0..20 {
        assert_eq!(lab.get("/").version(), "blue");
    }
    assert!(echoed(&mut socket, "after"));
    let (status, problem) = lab.call("POST", &format!("{RETIRE}?wait=drained&timeout=50ms"), &Value::Null);
    assert_eq!((status, token(&problem)), (409, "nothing_to_retire"));
    // Only then it is seen out as the service's drain says.
    let told = loop {
        match socket.read().unwrap() {
            Message::Close(_) => break since.elapsed(),
            other => drop(other),
        }
    };
    assert!(told >= Duration::from_secs(1), "{told:?}");
    while socket.read().is_ok() {}
    let (code, out, _) = lab.cli(&["drain", "shop/green", "--wait"]);
    assert_eq!(
        (code, out.trim_end().lines().last()),
        (0, Some("green is safe to stop: nothing is left on it"))
    );
}

#[test]
fn it_is_a_change_as_any() {
    let lab = lab(MINT);
    let epoch = lab.epoch();
    let (status, plan) = lab.call("POST", &format!("{RETIRE}?dry_run=true"), &Value::Null);
    assert_eq!(
        (status, &plan["dry_run"], &plan["summary"]),
        (200, &json!(true), &json!("shop: green is retiring"))
    );
    let notes = plan["notes"].to_string();
    assert!(plan["moves"].is_null() && notes.contains("0 % of its users would change versions"), "{plan}");
    assert_eq!((lab.epoch(), lab.shop()["phase"].as_str()), (epoch, Some("canary")));
    let stale = lab.call_with("POST", RETIRE, &[("if-match", "\"1\"")], &Value::Null);
    assert_eq!(stale.status, 412);
    for (body, code, status) in [
        (json!({ "quiet": "soon" }), "bad_value", 400),
        (json!({ "for": "0s" }), "bad_value", 400),
        (json!({ "until": "1h" }), "bad_json", 400),
    ] {
        let (got, problem) = lab.call("POST", RETIRE, &body);
        assert_eq!((got, token(&problem)), (status, code), "{problem}");
    }
    let key = [("idempotency-key", "k1")];
    let first = lab.call_with("POST", RETIRE, &key, &Value::Null).json();
    let second = lab.call_with("POST", RETIRE, &key, &Value::Null);
    assert_eq!((second.json(), second.header("idempotent-replayed")), (first, Some("true")));
    assert_eq!(lab.epoch(), epoch + 1);
    for verb in ["promote", "freeze", "resume"] {
        let (status, problem) = lab.call("POST", &format!("/v1/services/shop/{verb}"), &Value::Null);
        assert_eq!((status, token(&problem)), (409, "retiring"), "{problem}");
    }
    let (status, problem) = lab.call("POST", "/v1/services/shop/ramp", &json!({ "to": "green" }));
    assert_eq!((status, token(&problem)), (409, "retiring"), "{problem}");
    let rollout = json!({ "from": "blue", "to": "green" });
    let (status, problem) = lab.call("POST", "/v1/services/shop/rollout", &rollout);
    assert_eq!((status, token(&problem)), (422, "retiring"), "{problem}");
    lab.wait_for_metric(&["switchback_split_weight_ratio", r#"version="green""#], 0.5);
    lab.wait_for_metric(&["switchback_changes_total", r#"kind="retire""#], 1.0);

    let (code, out, err) = lab.cli(&["status", "shop"]);
    let said = "retiring: nobody new comes to green; it is over when nobody has come for 30 min (0 s so far), at the latest in 23 h 59 min";
    assert!(code == 0 && out.contains(said), "{out}{err}");
    assert!(
        out.contains("shop · retiring ·") && out.contains("back: switchback abort shop   (to blue 100 %)"),
        "{out}"
    );
    let (code, out, _) = lab.cli(&["drain", "shop/green"]);
    assert_eq!(
        (code, out.trim_end()),
        (1, "green is retiring: who is on it may still come, do not stop it yet")
    );
    let (code, out, _) = lab.cli(&["retire", "shop", "--timeout", "100ms"]);
    let last = Some("green is retiring: who is on it may still come, do not stop it yet");
    assert_eq!((code, out.trim_end().lines().last()), (3, last), "{out}");
    let (code, out, _) = lab.cli(&["retire", "shop", "--for", "48h", "--async"]);
    assert_eq!((code, out.trim_end().lines().last()), (0, last), "{out}");
    let (status, problem) = lab.call("POST", &format!("{RETIRE}?wait=finished&timeout=50ms"), &Value::Null);
    assert_eq!((status, token(&problem)), (504, "timed_out"), "{problem}");

    let undo = || {
        let undone = lab.call("POST", "/v1/undo", &json!({ "to_epoch": epoch })).1;
        assert_eq!(undone["services"]["shop"]["phase"], "canary", "{undone}");
    };
    undo();
    // Who waits hears that it was ended otherwise.
    let waiting = lab.call_later("POST", &format!("{RETIRE}?wait=finished"), &[], &Value::Null);
    wait_until("it is retiring", || lab.shop()["phase"] == "retiring");
    undo();
    let answer = waiting.answer();
    assert_eq!((answer.status, token(&answer.json())), (409, "superseded"), "{}", answer.text());
    let fresh = new_users(lab.address(), 50);
    assert!(fresh.values().any(|version| version == "green"), "everybody comes again");
    let (code, out, _) = lab.cli(&["retire", "shop", "--quiet", "50ms", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["state"]), (0, &json!("finished")), "{out}");
    assert_eq!(answer["services"]["shop"]["weights"], json!({ "blue": 10_000 }), "{out}");
}

#[test]
fn who_is_new_must_be_told_from_who_is_not() {
    let lab = lab("sticky = { header = \"x-user\" }");
    let (code, _, err) = lab.cli(&["retire", "shop"]);
    assert_eq!(code, 1);
    let why = "cannot retire a version of `shop`: `green` of `shop` cannot be retired: its users stay by the header x-user, which does not tell who is new from who was there";
    assert!(err.starts_with(why), "{err}");
    assert!(err.contains("hint: `switchback flip shop --to blue` sends everybody back at once"), "{err}");
    // The file can bring an end to it.
    let minted = |settings: &str| {
        lab.write_config(&file(settings, [lab.origins[0].address, lab.origins[1].address]));
    };
    minted(MINT);
    wait_until("the file is in force", || lab.shop()["sticky"]["mint"] == true);
    retire(&lab, &Value::Null);
    minted("");
    wait_until("the file is in force", || lab.shop()["sticky"].is_null());
    let shop = lab.shop();
    assert_eq!(
        (&shop["weights"], &shop["retired"]["how"]),
        (&json!({ "blue": 10_000 }), &json!("superseded")),
        "{shop}"
    );
}
