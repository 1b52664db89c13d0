//! Supervision while something else goes wrong: the store refuses, another process takes over, the machine stands still, what
//! both versions need is gone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lab::origin::Then;
use lab::{Client, Gate, Lab, Origin, Proxy, Pulse, SmallDisk, Users, wait_until};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// `shop` with these origins of blue and green, supervised by these rules; `more` comes before it.
fn shop(blues: Vec<Origin>, greens: Vec<Origin>, rules: &str, more: &str) -> Lab {
    let list = |origins: &[Origin]| {
        origins.iter().map(|origin| format!("\"{}\"", origin.address)).collect::<Vec<_>>().join(", ")
    };
    let services = format!(
        "{more}\n[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nsupervise = {rules}\noutliers = false\n\
         [services.shop.versions.blue]\nendpoints = [{}]\n[services.shop.versions.green]\nendpoints = [{}]\n",
        list(&blues),
        list(&greens)
    );
    let origins = blues.into_iter().chain(greens).collect();
    Lab::configured(tempfile::tempdir().unwrap(), origins, &services)
}

/// One origin each.
fn pair(blue: &Pulse, green: &Pulse, rules: &str, more: &str) -> Lab {
    shop(vec![Origin::pulsing("blue", blue)], vec![Origin::pulsing("green", green)], rules, more)
}

/// At a request every eight milliseconds each, once blue has a history to be measured by.
fn users_with_history(lab: &Lab) -> Users {
    let users = Users::of(lab.address(), EACH);
    wait_until("blue has a history", || served(lab, "blue") > 500);
    users
}

const EACH: Duration = Duration::from_millis(8);

fn served(lab: &Lab, version: &str) -> u64 {
    lab.origins.iter().filter(|origin| origin.name == version).map(Origin::served).sum()
}

fn verdict(lab: &Lab) -> Value {
    let (status, verdict) = lab.call("GET", "/v1/services/shop/verdict", &Value::Null);
    assert_eq!(status, 200, "{verdict}");
    verdict
}

/// The changes after `epoch`, the newest first: what, and by whom.
fn since(lab: &Lab, epoch: u64) -> Vec<(String, String)> {
    let changes = lab.call("GET", "/v1/changes?limit=100", &Value::Null).1["changes"].clone();
    let later = changes.as_array().unwrap().iter().filter(|change| change["epoch"].as_u64().unwrap() > epoch);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    later.map(|change| (text(&change["kind"]), text(&change["actor"]["kind"]))).collect()
}

fn by_supervision(kinds: &[&str]) -> Vec<(String, String)> {
    kinds.iter().map(|kind| ((*kind).to_owned(), "supervisor".to_owned())).collect()
}

fn gauge(lab: &Lab, name: &str, more: &str) -> f64 {
    let pair = format!(r#"{name}{{service="shop",candidate="green",baseline="blue""#);
    lab.metric(&[&pair, more]).unwrap()
}

/// The store of a running proxy, taken away.
struct Away {
    from: PathBuf,
    to: PathBuf,
}

impl Away {
    fn take(lab: &Lab) -> Self {
        let from = lab.dir.path().join("state/switchback.db");
        let to = from.with_extension("away");
        fs::rename(&from, &to).unwrap();
        Self { from, to }
    }

    fn put_back(self) {
        fs::rename(self.to, self.from).unwrap();
    }
}

#[test]
fn what_the_store_refuses_has_not_happened_and_is_done_once_it_takes_it() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = pair(&blue, &green, "true", "");
    let _users = users_with_history(&lab);
    lab.weights(&json!({ "green": 2_000, "blue": 8_000 }));
    let (epoch, mut events) = (lab.epoch(), lab.events());
    let store = Away::take(&lab);
    green.set(500);
    let told = events.wait_for(|event| event["type"] == "verdict" && !event["hindrance"].is_null());
    assert!(told["hindrance"].as_str().unwrap().contains("switchback.db is gone"), "{told}");
    wait_until("it is proven", || verdict(&lab)["state"] == "breached");
    let proven = verdict(&lab);
    assert!(proven["said"].as_str().unwrap().starts_with("reverts green -> blue after "), "{proven}");
    assert!(proven["hindrance"].as_str().unwrap().contains("switchback.db is gone"), "{proven}");
    assert_eq!((&proven["ended"], lab.weight("green"), lab.epoch()), (&Value::Null, 2_000, epoch));
    assert_eq!(gauge(&lab, "switchback_supervision_hindered", ""), 1.0);
    assert_eq!(gauge(&lab, "switchback_supervision_reverts_total", r#"reason="error_rate""#), 0.0);
    let (_, status, _) = lab.cli(&["status", "shop"]);
    assert!(status.contains("hindered: nothing has changed: the state store failed"), "{status}");
    let (refused, answer) = lab.call("POST", "/v1/services/shop/revert", &json!({}));
    assert_eq!((refused, lab.epoch()), (503, epoch), "an operator's change is refused as well: {answer}");
    store.put_back();
    wait_until("it went back", || lab.weight("blue") == 10_000);
    assert_eq!(since(&lab, epoch), by_supervision(&["revert"]));
    let ended = verdict(&lab)["ended"].clone();
    assert!(ended["said"].as_str().unwrap().starts_with("reverted green -> blue after "), "{ended}");
    wait_until("it is counted", || {
        gauge(&lab, "switchback_supervision_reverts_total", r#"reason="error_rate""#) == 1.0
    });
    assert_eq!(gauge(&lab, "switchback_supervision_hindered", ""), 0.0);
    let told = lab.proxy().log().matches("supervision cannot do what it wants").count();
    assert_eq!(told, 1, "it is told once, however often it is tried");
}

/// Changes another service until that is refused: what was left of the disk is used up.
fn use_up(lab: &Lab) {
    let is_refused = (1..5_000).any(|points| {
        let weights = json!({ "blue": 10_000 - points, "green": points });
        lab.call("PUT", "/v1/services/other/weights", &weights).0 == 503
    });
    assert!(is_refused, "a full disk takes any number of changes");
}

#[test]
fn a_full_disk_keeps_nobody_with_a_bad_version_for_longer_than_it_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::at(&dir.path().join("state")) else {
        println!("skipped: lacks the right to mount a tmpfs (run as root)");
        return;
    };
    let green = Pulse::well();
    let origins = vec![Origin::pulsing("blue", &Pulse::well()), Origin::pulsing("green", &green)];
    let service = |name: &str, path: &str, rules: &str| {
        format!(
            "[services.{name}]\nroutes = [{{ path = \"{path}\" }}]\nstable = \"blue\"\n{rules}outliers = false\n\
             versions.blue.endpoints = [\"{}\"]\nversions.green.endpoints = [\"{}\"]\n",
            origins[0].address, origins[1].address
        )
    };
    let services = service("shop", "/", "supervise = true\n") + &service("other", "/other", "");
    let lab = Lab::configured(dir, origins, &services);
    let users = users_with_history(&lab);
    lab.flip("green");
    wait_until("green has it", || served(&lab, "green") > 50);
    let ballast = disk.fill();
    use_up(&lab);
    let (epoch, mut events) = (lab.epoch(), lab.events());
    green.set(500);
    let told = events.wait_for(|event| event["type"] == "verdict" && !event["hindrance"].is_null());
    assert!(told["hindrance"].as_str().unwrap().contains("full: make room on the disk"), "{told}");
    assert_eq!((lab.weight("green"), lab.epoch()), (10_000, epoch));
    fs::remove_file(ballast).unwrap();
    wait_until("it went back", || lab.weight("blue") == 10_000);
    assert_eq!(
        since(&lab, epoch),
        by_supervision(&["revert", "weights"]),
        "it leant back, and then that was proven"
    );
    drop((users, lab));
    drop(disk);
}

#[test]
fn a_suspicion_that_is_over_leaves_nothing_in_the_way() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = pair(&blue, &green, "{ suspect_hold = \"1s\" }", "");
    let _users = users_with_history(&lab);
    lab.flip("green");
    wait_until("green has it", || served(&lab, "green") > 50);
    let (epoch, mut events) = (lab.epoch(), lab.events());
    let store = Away::take(&lab);
    blue.set(500);
    green.set(500);
    events.wait_for(|event| event["type"] == "verdict" && !event["hindrance"].is_null());
    assert_eq!((verdict(&lab)["state"].clone(), lab.weight("green")), (json!("suspect"), 10_000));
    green.set(200);
    blue.set(200);
    wait_until("it is suspect no more", || verdict(&lab)["state"] != "suspect");
    wait_until("nothing is wanted", || verdict(&lab)["hindrance"].is_null());
    store.put_back();
    assert_eq!((since(&lab, epoch), lab.weight("green")), (Vec::new(), 10_000));
}

#[test]
fn a_bad_endpoint_that_the_store_does_not_let_go_is_drained_later_and_its_version_stays() {
    let (well, bad) = (Pulse::well(), Pulse::well());
    let greens = [&bad, &well, &well].map(|pulse| Origin::pulsing("green", pulse));
    let address = greens[0].address.to_string();
    let lab = shop(vec![Origin::pulsing("blue", &well)], greens.into(), "{ suspect_hold = \"1s\" }", "");
    let _users = users_with_history(&lab);
    lab.weights(&json!({ "green": 5_000, "blue": 5_000 }));
    let (epoch, mut events) = (lab.epoch(), lab.events());
    let store = Away::take(&lab);
    bad.set(500);
    events.wait_for(|event| event["type"] == "verdict" && !event["hindrance"].is_null());
    // Far more than would prove it once more.
    let before = lab.origins[1].served();
    wait_until("it goes on", || lab.origins[1].served() > before + 200);
    store.put_back();
    wait_until("it is drained", || lab.endpoint(&address)["draining"] == true);
    wait_until("green has its part again", || {
        lab.weight("green") == 5_000 && verdict(&lab)["state"] != "suspect"
    });
    let all = since(&lab, epoch);
    assert!(!all.iter().any(|(kind, _)| kind == "revert"), "{all:?}");
    assert_eq!(gauge(&lab, "switchback_supervision_endpoint_ejections_total", ""), 1.0);
}

/// The proxy as one process after another; all of them are gone when it is dropped.
struct Row {
    lab: Lab,
    first: Option<Proxy>,
    newest: u32,
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

impl Row {
    fn of(mut lab: Lab) -> Self {
        let first = lab.proxy.take();
        let newest = first.as_ref().unwrap().pid();
        Self { lab, first, newest }
    }

    fn address(&self) -> SocketAddr {
        self.first.as_ref().unwrap().address
    }

    fn upgrade(&mut self) -> (u16, Value) {
        let (status, answer) = self.lab.call("POST", "/v1/upgrade", &json!({}));
        if status == 200 {
            self.newest = u32::try_from(answer["pid"].as_u64().unwrap()).unwrap();
        }
        (status, answer)
    }

    /// Ends the newest one, and waits for the first.
    fn end(mut self) {
        signal("TERM", self.newest);
        let (_, log) = self.first.take().unwrap().wait();
        assert!(!log.contains("panicked"), "{log}");
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        if thread::panicking()
            && let Some(first) = &self.first
        {
            eprintln!("the log:\n{}", first.log());
        }
        // It may have ended.
        let _ = Command::new("kill").args(["-KILL", &self.newest.to_string()]).output();
    }
}

const UPGRADE: &str = "[upgrade]\nspread = \"200ms\"\n";

#[test]
fn a_trial_that_leans_goes_on_in_the_process_that_takes_over() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = pair(&blue, &green, "{ suspect_hold = \"10m\" }", UPGRADE);
    let users = users_with_history(&lab);
    lab.flip("green");
    wait_until("green has it", || served(&lab, "green") > 20);
    let stage = verdict(&lab)["trial"]["stage"].clone();
    // What both need is gone.
    blue.set(500);
    green.set(500);
    wait_until("most of the traffic is with blue", || lab.weight("green") == 1_000);
    let epoch = lab.epoch();
    drop(users);
    let mut row = Row::of(lab);
    let (status, answer) = row.upgrade();
    assert_eq!(status, 200, "{answer}");
    let taken = verdict(&row.lab);
    assert_eq!((&taken["trial"]["stage"], &taken["trial"]["leaning"]), (&stage, &json!(true)), "{taken}");
    assert_eq!((&taken["state"], row.lab.epoch()), (&json!("suspect"), epoch), "{taken}");
    let users = Users::of(row.address(), EACH);
    let before = served(&row.lab, "blue");
    wait_until("both are asked", || served(&row.lab, "blue") > before + 300);
    assert_eq!(
        (row.lab.weight("green"), row.lab.epoch()),
        (1_000, epoch),
        "nothing is proven, nor taken back"
    );
    blue.set(200);
    wait_until("it went back", || row.lab.weight("blue") == 10_000);
    assert_eq!(since(&row.lab, epoch), by_supervision(&["revert"]), "once");
    assert_eq!(verdict(&row.lab)["ended"]["stage"], stage);
    drop(users);
    row.end();
}

#[test]
fn who_turns_bad_while_another_process_takes_over_goes_back_once() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = pair(&blue, &green, "true", UPGRADE);
    drop(users_with_history(&lab));
    let mut row = Row::of(lab);
    for round in 0..3 {
        green.set(200);
        row.lab.weights(&json!({ "green": 3_000, "blue": 7_000 }));
        let (epoch, users) = (row.lab.epoch(), Users::of(row.address(), EACH));
        let before = served(&row.lab, "green");
        wait_until("both are asked", || served(&row.lab, "green") > before + 100);
        green.set(500);
        let (status, answer) = row.upgrade();
        assert_eq!(status, 200, "{answer}");
        wait_until("it went back", || row.lab.weight("blue") == 10_000);
        // Nothing comes after it.
        let before = served(&row.lab, "blue");
        wait_until("blue serves", || served(&row.lab, "blue") > before + 100);
        let all = since(&row.lab, epoch);
        let reverts = all.iter().filter(|(kind, _)| kind == "revert").count();
        assert_eq!((reverts, &*all[0].0, row.lab.weight("blue")), (1, "revert", 10_000), "{round}: {all:?}");
        drop(users);
    }
    row.end();
}

#[test]
fn what_waits_or_pauses_is_not_handed_over_and_goes_on() {
    let gate = Gate::default();
    let blues = vec![Origin::held("blue", &gate), Origin::held("blue", &gate)];
    let lab = shop(blues, vec![Origin::pulsing("green", &Pulse::well())], "false", UPGRADE);
    let mut row = Row::of(lab);
    let begun = row.lab.call(
        "POST",
        "/v1/services/shop/rollout",
        &json!({ "from": "blue", "to": "blue", "confirm": true }),
    );
    assert_eq!(begun.0, 202, "{}", begun.1);
    let rollout = |row: &Row| row.lab.call("GET", "/v1/services/shop/rollout", &Value::Null).1;
    wait_until("it waits for a word", || rollout(&row)["steps"][0]["awaits_confirmation"] == true);
    let (status, answer) = row.upgrade();
    assert_eq!(
        (status, &answer["type"]),
        (409, &json!("urn:switchback:problem:upgrade_refused")),
        "{answer}"
    );
    assert!(answer["detail"].as_str().unwrap().contains("a rollout is under way"), "{answer}");
    assert_eq!(rollout(&row)["state"], "running", "it waits as before");
    let ended = row.lab.call("DELETE", "/v1/services/shop/rollout?mode=reverse", &Value::Null);
    assert_eq!(ended.0, 202, "{}", ended.1);
    wait_until("it has ended", || rollout(&row)["state"] == "reversed");

    let mut client = Client::connect(row.address());
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    wait_until("blue has it", || served(&row.lab, "blue") == 1);
    let flip = row.lab.flip_later("green", &json!({}));
    wait_until("it is held", || !row.lab.shop()["hold"].is_null());
    let (status, answer) = row.upgrade();
    assert_eq!(
        (status, &answer["type"]),
        (409, &json!("urn:switchback:problem:upgrade_refused")),
        "{answer}"
    );
    gate.open();
    assert_eq!((client.answer().status, flip.answer().status), (200, 200));
    assert_eq!(row.lab.weight("green"), 10_000);
    let (status, answer) = row.upgrade();
    assert_eq!(status, 200, "{answer}");
    assert_eq!((row.lab.weight("green"), row.lab.shop()["hold"].is_null()), (10_000, true));
    drop(client);
    row.end();
}

/// Everything to green, and blue is empty at that moment.
fn flip_exclusively(lab: &Lab) -> u64 {
    let (status, answer) =
        lab.call("POST", "/v1/services/shop/flip", &json!({ "to": "green", "exclusive": true }));
    assert_eq!(status, 200, "{answer}");
    answer["epoch"].as_u64().unwrap()
}

#[test]
fn an_outage_of_both_after_an_exclusive_flip_is_one_way_back_and_no_more() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = pair(&blue, &green, "true", "");
    let _users = users_with_history(&lab);
    let epoch = flip_exclusively(&lab);
    wait_until("green has it", || served(&lab, "green") > 50);
    blue.set(503);
    green.set(503);
    wait_until("it went back", || lab.weight("blue") == 10_000);
    let before = served(&lab, "blue");
    wait_until("blue has failed for long", || served(&lab, "blue") > before + 500);
    assert_eq!(since(&lab, epoch), by_supervision(&["revert", "hold"]), "one way back");
    let now = verdict(&lab);
    assert_eq!((&now["state"], &now["ended"]["how"]), (&json!("none"), &json!("reverted")), "{now}");
    let said = now["ended"]["said"].as_str().unwrap();
    assert!(said.contains("blue did not serve beside it: an outage of both looks the same."), "{said}");
    green.set(200);
    blue.set(200);
    assert_eq!(lab.weight("blue"), 10_000, "who flips again is the operator");
}

#[test]
fn a_machine_that_stood_still_reverts_nothing_and_loses_nothing() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = pair(&blue, &green, "true", "");
    let _users = users_with_history(&lab);
    lab.weights(&json!({ "green": 5_000, "blue": 5_000 }));
    let (epoch, stage) = (lab.epoch(), verdict(&lab)["trial"]["stage"].clone());
    wait_until("both are asked", || served(&lab, "green") > 300);
    let pid = lab.proxy().pid();
    signal("STOP", pid);
    // How long it stands still is what is tried.
    thread::sleep(Duration::from_secs(5));
    signal("CONT", pid);
    let before = served(&lab, "green");
    wait_until("it goes on", || served(&lab, "green") > before + 300);
    let now = verdict(&lab);
    assert_eq!(
        (&now["trial"]["stage"], lab.epoch(), since(&lab, epoch)),
        (&stage, epoch, Vec::new()),
        "{now}"
    );
    assert!(["collecting", "healthy"].contains(&now["state"].as_str().unwrap()), "{now}");
}

/// Answers with what the pulse says, and has WebSockets on which nothing is said but this.
fn saying(name: &str, pulse: &Pulse, words: &'static [u8]) -> Origin {
    let (version, pulse) = (name.to_owned(), pulse.clone());
    Origin::behaving(name, move |seen, stream| {
        if let Some(key) = seen.header("sec-websocket-key") {
            let accept = derive_accept_key(key.as_bytes());
            write!(
                stream,
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
            )?;
            stream.write_all(words)?;
            io::copy(stream, &mut io::sink())?;
            return Ok(Then::Close);
        }
        let status = pulse.status();
        write!(stream, "HTTP/1.1 {status} X\r\nx-version: {version}\r\ncontent-length: 2\r\n\r\nok")?;
        Ok(Then::Keep)
    })
}

#[test]
fn a_websocket_that_never_says_anything_does_not_bar_the_exclusive_way_back() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = shop(vec![saying("blue", &blue, b"")], vec![saying("green", &green, b"")], "true", "");
    let _users = users_with_history(&lab);
    let epoch = flip_exclusively(&lab);
    wait_until("green has it", || served(&lab, "green") > 50);
    // It does not even read what it is told.
    let socket = lab::websocket::connect(lab.address(), "/");
    green.set(500);
    wait_until("it went back", || lab.weight("blue") == 10_000);
    assert_eq!(since(&lab, epoch), by_supervision(&["revert", "hold"]), "at once: requests waited once");
    drop(socket);
}

#[test]
fn what_barred_the_exclusive_way_back_is_waited_for_no_longer_than_it_is_there() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    // Half a message: there is no word for its end.
    let greens = vec![saying("green", &green, b"\x81\x05h")];
    let lab = shop(vec![Origin::pulsing("blue", &blue)], greens, "true\nhold = { timeout = \"300ms\" }", "");
    let _users = users_with_history(&lab);
    let epoch = flip_exclusively(&lab);
    wait_until("green has it", || served(&lab, "green") > 50);
    let socket = lab::websocket::connect(lab.address(), "/");
    green.set(500);
    let tried = |times| since(&lab, epoch).iter().filter(|(kind, _)| kind == "release").count() == times;
    wait_until("it was tried in vain", || tried(1));
    let hindrance = verdict(&lab)["hindrance"].clone();
    assert!(hindrance.as_str().unwrap().contains("in the way: 1 websocket on `green`"), "{hindrance}");
    assert_eq!(gauge(&lab, "switchback_supervision_hindered", ""), 1.0);
    wait_until("it was tried twice", || tried(2));
    let begun = Instant::now();
    drop(socket);
    wait_until("it went back", || lab.weight("blue") == 10_000);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(15), "as if it were still there: {took:?}");
}
