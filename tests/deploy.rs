//! `deploy`: a whole deployment in one command, and nothing moved when the new version does not become ready.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use lab::history::Load;
use lab::origin::Then;
use lab::{Gate, Lab, Origin, origin};
use serde_json::{Value, json};

fn deploy(lab: &Lab, version: &str, endpoint: &str, more: &[&str]) -> (i32, String) {
    let args = ["deploy", "shop", "--version", version, "--endpoint", endpoint];
    let (code, out, err) = lab.cli(&[&args[..], more].concat());
    (code, out + &err)
}

/// A deployment that goes on while something else is done.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    said: String,
}

impl Running {
    /// Begins one of `v42`, and returns once it waits for its endpoints.
    fn waiting(lab: &Lab, endpoints: &[SocketAddr], more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
        command
            .args(["deploy", "shop", "--version", "v42"])
            .args(more)
            .env("SWITCHBACK_SOCKET", lab.socket());
        command.args(endpoints.iter().flat_map(|endpoint| ["--endpoint".to_owned(), endpoint.to_string()]));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("waiting until v42 is ready") {
            assert_ne!(out.read_line(&mut said).unwrap(), 0, "it has ended: {said}");
        }
        Self { child, out, said }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Its exit status, and all that it has said.
    fn end(mut self) -> (i32, String) {
        self.out.read_to_string(&mut self.said).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut self.said).unwrap();
        (self.child.wait().unwrap().code().unwrap(), self.said)
    }
}

#[test]
fn what_can_never_be_done_is_wrong_usage_and_adds_nothing() {
    let (lab, green) = (Lab::start(&["blue"]), Origin::start("v42"));
    for wrong in
        ["--supervise 500ms", "--exclusive --supervise 0s", "--steps 50,10", "--steps 0,10", "--every 0s"]
    {
        let (code, said) =
            deploy(&lab, "v42", &green.address.to_string(), &wrong.split(' ').collect::<Vec<_>>());
        assert_eq!(code, 2, "{wrong}: {said}");
    }
    assert_eq!(lab.epoch(), 1);
}

/// Its machine has come up.
fn comes_up(name: &str, address: SocketAddr) -> Origin {
    Origin::at(&address.to_string(), name, |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nx-version: v42\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    })
}

fn pool(lab: &Lab, version: &str) -> Vec<String> {
    let shop = lab.shop();
    let version = shop["versions"].as_array().unwrap().iter().find(|known| known["name"] == version).cloned();
    let endpoints = version.unwrap()["endpoints"].as_array().unwrap().clone();
    endpoints.iter().map(|endpoint| endpoint["address"].as_str().unwrap().to_owned()).collect()
}

fn reasons(lab: &Lab) -> Vec<String> {
    let changes = lab.call("GET", "/v1/changes?limit=20", &Value::Null).1["changes"].clone();
    changes.as_array().unwrap().iter().map(|change| change["reason"].as_str().unwrap().to_owned()).collect()
}

fn versions(lab: &Lab) -> Vec<String> {
    let shop = lab.shop();
    shop["versions"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_new_version_gets_the_traffic_and_the_old_one_is_said_to_be_safe() {
    for way in [&[][..], &["--exclusive"], &["--rolling"]] {
        let lab = Lab::start(&["blue"]);
        let new = Origin::start("v42");
        let load = Load::start(lab.address(), 4, &[("shop", "/")]);
        let (code, said) = deploy(&lab, "v42", &new.address.to_string(), way);
        assert_eq!(code, 0, "{way:?}: {said}");
        assert!(said.trim_end().lines().last().unwrap().contains("safe to stop"), "{way:?}: {said}");
        assert_eq!(load.stop().failures, [] as [&str; 0], "{way:?}");
        assert_eq!(lab.get("/").version(), "v42");
        let drain = lab.call("GET", "/v1/services/shop/versions/blue/drain", &Value::Null).1;
        assert_eq!(drain["drained"], true, "{drain}");
        // Once more is the same deployment.
        let epoch = lab.epoch();
        let (code, said) = deploy(&lab, "v42", &new.address.to_string(), way);
        assert_eq!((code, lab.epoch()), (0, epoch), "{way:?}: {said}");
    }
}

#[test]
fn a_version_that_does_not_become_ready_moves_nothing_and_goes_again() {
    let lab = Lab::start(&["blue"]);
    let dead = origin::nobody().to_string();
    let (code, said) = deploy(&lab, "v43", &dead, &["--timeout", "300ms"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains(&dead) && said.contains("nothing was moved"), "{said}");
    assert_eq!(
        (versions(&lab), lab.get("/").version().to_owned()),
        (vec!["blue".to_owned()], "blue".to_owned())
    );
}

#[test]
fn a_label_stands_for_one_release() {
    let lab = Lab::start(&["blue"]);
    let (code, said) = deploy(&lab, "blue", &origin::nobody().to_string(), &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("hint: give a new release a new label"), "{said}");
    let weights = |shop: &Value| shop["versions"][0]["weight"].clone();
    assert_eq!(weights(&lab.shop()), json!(10_000));
}

#[test]
fn a_label_that_is_there_is_what_it_was_when_its_new_pool_does_not_become_ready() {
    let lab = Lab::start(&["blue", "green"]);
    let (old, other) = (lab.origin("green").address, origin::nobody());
    let path = format!("/v1/services/shop/versions/green/endpoints/{old}");
    assert_eq!(lab.call("PUT", &path, &json!({ "weight": 3, "zone": "a" })).0, 200);
    let path = format!("/v1/services/shop/versions/green/endpoints/{other}");
    assert_eq!(lab.call("PUT", &path, &Value::Null).0, 200);
    assert_eq!(lab.call("POST", &format!("{path}/drain"), &Value::Null).0, 200);
    let green = || {
        let shop = lab.shop();
        (shop["versions"][1]["endpoints"].clone(), shop["versions"][1]["protocol"].clone())
    };
    let before = green();
    let dead = origin::nobody().to_string();
    let (code, said) = deploy(&lab, "green", &dead, &["--timeout", "300ms", "--protocol", "h2c"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("green is replaced"), "{said}");
    assert!(said.contains("nothing was moved, and it is what it was before"), "{said}");
    assert_eq!(green(), before);
}

/// Those who are there by the rule have requests under way.
#[test]
fn a_label_that_a_rule_leads_to_is_left_as_it_is() {
    let lab = Lab::start(&["blue", "green"]);
    let protocol = || lab.shop()["versions"][1]["protocol"].clone();
    let aim = || {
        let rules = json!([{ "headers": { "x-beta": "yes" }, "to": "green" }]);
        assert_eq!(lab.call("PUT", "/v1/services/shop/rules", &rules).0, 200);
        lab.epoch()
    };
    aim();
    let green = lab.origin("green").address.to_string();
    let (code, said) = deploy(&lab, "green", &green, &["--protocol", "h2c"]);
    assert_eq!((code, protocol(), lab.weight("green")), (0, json!("http1"), 10_000), "{said}");
    // It is waited for as any other.
    lab.flip("blue");
    let dead = origin::nobody().to_string();
    let put = lab.call("PUT", "/v1/services/shop/versions/green", &json!({ "endpoints": [dead] }));
    assert_eq!(put.0, 200, "{}", put.1);
    let epoch = aim();
    let (code, said) = deploy(&lab, "green", &dead, &["--timeout", "300ms", "--protocol", "h2c"]);
    assert_eq!((code, protocol(), lab.epoch()), (3, json!("http1"), epoch), "{said}");
    assert!(said.contains("green is left as it is: it was there already"), "{said}");
}

#[test]
fn a_rolling_deployment_that_is_refused_leaves_everything_as_it_was() {
    let lab = Lab::start(&["blue"]);
    let shared = lab.origin("blue").address.to_string();
    let (code, said) = deploy(&lab, "v2", &shared, &["--rolling"]);
    assert_eq!((code, versions(&lab)), (1, vec!["blue".to_owned()]), "{said}");
    assert!(
        said.contains("; nothing was moved, and it is removed again\nhint: without `--rolling` "),
        "{said}"
    );
}

#[test]
fn a_rolling_deployment_takes_back_what_takes_longer_than_it_may() {
    let gate = Gate::default();
    let lab = Lab::on(vec![Origin::held("blue", &gate)], "");
    let asked = lab.ask_later("GET /late HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n");
    lab.origin("blue").wait_served(1);
    let new = Origin::start("v2");
    let (code, said) = deploy(&lab, "v2", &new.address.to_string(), &["--rolling", "--timeout", "500ms"]);
    assert_eq!((code, lab.shop()["weights"].clone()), (3, json!({ "blue": 10_000 })), "{said}");
    assert!(said.contains("did not become empty in time"), "{said}");
    gate.open();
    asked.answer();
}

/// It may be `stable` by then, beside one that has more.
#[test]
fn a_version_that_has_a_part_of_the_traffic_gets_the_rest_the_way_it_is_asked_for() {
    let lab = Lab::start(&["blue", "green"]);
    let green = lab.origin("green").address.to_string();
    lab.flip("green");
    let part = json!({ "blue": 8_000, "green": 2_000 });
    lab.weights(&part);
    assert_eq!(lab.shop()["stable"], "green");
    let (code, said) = deploy(&lab, "green", &green, &["--steps", "25,100", "--every", "1h", "--async"]);
    assert_eq!((code, lab.weight("green")), (0, 2_500), "{said}");
    lab.weights(&part);
    let (code, said) = deploy(&lab, "green", &green, &["--rolling"]);
    assert_eq!((code, lab.weight("green")), (0, 10_000), "{said}");
    assert!(said.contains("1 endpoint from blue to green"), "{said}");
}

#[test]
fn the_old_version_may_take_as_long_after_a_ramp_as_after_a_flip() {
    for (format, words) in
        [(&[][..], "timed out after 1 s; the change itself is made"), (&["--json"], "problem:timed_out\"")]
    {
        let gate = Gate::default();
        let lab = Lab::on(vec![Origin::held("blue", &gate)], "");
        let asked = lab.ask_later("GET /late HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n");
        lab.origin("blue").wait_served(1);
        let new = Origin::start("v42");
        let ramp = ["--steps", "50,100", "--every", "50ms", "--timeout", "1s"];
        // The first one begins the ramp, the second one finds its last step reached.
        for _ in 0..2 {
            let (code, said) = deploy(&lab, "v42", &new.address.to_string(), &[&ramp[..], format].concat());
            assert_eq!((code, lab.weight("v42")), (3, 10_000), "{said}");
            assert!(said.contains(words), "{said}");
        }
        gate.open();
        asked.answer();
    }
}

/// Whoever stops the old version goes by it.
#[test]
fn a_machine_that_follows_a_ramp_hears_of_its_end_when_the_old_version_is_empty() {
    let gate = Gate::default();
    let lab = Lab::on(vec![Origin::held("blue", &gate)], "");
    let asked = lab.ask_later("GET /late HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n");
    lab.origin("blue").wait_served(1);
    let new = Origin::start("v42");
    let follow = |more: &[&str]| {
        // Begun, and followed by a second command.
        let ramp = ["--steps", "50,100", "--every", "500ms"];
        let begun = deploy(&lab, "v42", &new.address.to_string(), &[&ramp[..], &["--async"]].concat());
        assert_eq!(begun.0, 0, "{}", begun.1);
        assert_eq!(lab.weight("v42"), 5_000, "it is under way");
        let (code, said) = deploy(&lab, "v42", &new.address.to_string(), &[&ramp[..], more].concat());
        (code, serde_json::from_str::<Value>(&said).unwrap())
    };
    let (code, problem) = follow(&["--json", "--timeout", "1s"]);
    assert_eq!((code, &problem["status"]), (3, &json!(504)), "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("blue still has 1 request in flight"), "{problem}");
    assert_eq!(problem["change"]["services"]["shop"]["leaving"], json!(["blue"]), "{problem}");
    gate.open();
    asked.answer();
    lab.flip("blue");
    let (code, answer) = follow(&["--json"]);
    assert_eq!((code, &answer["state"], &answer["leaving"]), (0, &json!("finished"), &json!([])), "{answer}");
}

/// A job that was retried: both are the same deployment, and only one of them can begin its rollout.
#[test]
fn who_is_refused_leaves_alone_what_another_one_deploys() {
    let gate = Gate::default();
    let lab = Lab::pool(["old0", "old1"].map(|name| Origin::held(name, &gate)).into(), &[], "", "");
    // The rollout stays with whom it begins.
    let mut asked = Vec::new();
    while lab.origin("old0").served() == 0 {
        asked.push(lab.ask_later("GET /late HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n"));
        let served = || lab.origin("old0").served() + lab.origin("old1").served();
        lab::wait_until("it is asked", || served() == asked.len() as u64);
    }
    let before = json!({ "endpoints": [origin::nobody().to_string()] });
    assert_eq!(lab.call("PUT", "/v1/services/shop/versions/v42", &before).0, 200);
    let new = [origin::nobody(), origin::nobody()];
    let mut both = [(); 2].map(|()| Running::waiting(&lab, &new, &["--rolling"]));
    let _machines = new.map(|address| comes_up("v42", address));
    lab::wait_until("one is refused", || both.iter_mut().any(Running::has_ended));
    gate.open();
    asked.into_iter().for_each(|asked| drop(asked.answer()));
    let mut ends = both.map(Running::end);
    ends.sort();
    let [(done, _), (refused, said)] = &ends;
    assert_eq!(
        (done, refused, lab.shop()["weights"].clone()),
        (&0, &1, json!({ "v42": 10_000 })),
        "{ends:?}"
    );
    assert!(said.contains("a rollout of `shop` is under way; "), "{said}");
    assert!(said.contains("; v42 is left as it is: "), "{said}");
    assert_eq!(pool(&lab, "v42"), new.map(|address| address.to_string()));
    assert!(!reasons(&lab).iter().any(|reason| reason.contains("v42 did not")), "{:?}", reasons(&lab));
}

#[test]
fn who_gives_up_leaves_alone_what_a_rollout_is_about() {
    let lab = Lab::start(&["blue"]);
    let new = origin::nobody();
    let late = Running::waiting(&lab, &[new], &["--timeout", "1s"]);
    let begin = json!({ "from": "blue", "to": "v42", "surge": true });
    assert_eq!(lab.call("POST", "/v1/services/shop/rollout", &begin).0, 202);
    let (code, said) = late.end();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("; v42 is left as it is: a rollout of it is under way\n"), "{said}");
    let _machine = comes_up("v42", new);
    lab::wait_until("it has the traffic", || lab.shop()["weights"] == json!({ "v42": 10_000 }));
}

#[test]
fn who_gives_up_first_takes_nothing_from_who_waits_for_longer() {
    for ([first, second], fate) in [
        (["1s", "1m"], "; nothing was moved, and it is removed again\n"),
        (["1m", "1s"], "; v42 is left as it is: it was there already\n"),
    ] {
        let lab = Lab::start(&["blue"]);
        let new = origin::nobody();
        let mut both = [first, second].map(|timeout| Running::waiting(&lab, &[new], &["--timeout", timeout]));
        if first == "1m" {
            both.reverse();
        }
        let [short, long] = both;
        let (code, said) = short.end();
        assert!(code == 3 && said.contains(fate), "{said}");
        let _machine = comes_up("v42", new);
        let (code, said) = long.end();
        assert_eq!((code, lab.shop()["weights"].clone()), (0, json!({ "v42": 10_000 })), "{said}");
    }
}

#[test]
fn whose_version_somebody_else_changes_says_so_and_moves_nothing() {
    let lab = Lab::start(&["blue"]);
    let [new, other] = [origin::nobody(), origin::nobody()];
    let _machine = comes_up("other", other);
    let waiting = Running::waiting(&lab, &[new], &[]);
    let theirs = json!({ "endpoints": [other.to_string()] });
    assert_eq!(lab.call("PUT", "/v1/services/shop/versions/v42", &theirs).0, 200);
    let (code, said) = waiting.end();
    assert!(code == 1 && said.contains("somebody else has changed `v42` of `shop` meanwhile"), "{said}");
    assert_eq!((pool(&lab, "v42"), lab.get("/").version()), (vec![other.to_string()], "blue"));
}

/// A canary of blue and green, in which a ramp, a retirement and a rollout can begin.
fn canary() -> Lab {
    let origins = ["blue", "green"].map(Origin::start);
    let sticky = "sticky = { cookie = \"sb_id\", mint = true }";
    let text = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n{sticky}\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n[services.shop.versions.green]\nendpoints = [\"{}\"]\n",
        origins[0].address, origins[1].address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins.into(), &text);
    lab.weights(&json!({ "blue": 9_000, "green": 1_000 }));
    lab
}

#[test]
fn who_waits_for_its_version_leaves_alone_what_somebody_else_begins_meanwhile() {
    let ramp = json!({ "to": "green", "every": "1h" });
    let rollout = json!({ "from": "blue", "to": "green", "surge": true, "confirm": true });
    for (verb, body, why) in [
        ("ramp", ramp, "a ramp to `green` is under way\nhint: "),
        ("retire", json!({}), "`green` is retiring\nhint: "),
        ("rollout", rollout, "a rollout is under way; nothing was moved, and it is removed again\nhint: "),
    ] {
        let (lab, new) = (canary(), origin::nobody());
        let waiting = Running::waiting(&lab, &[new], &[]);
        let (status, begun) = lab.call("POST", &format!("/v1/services/shop/{verb}"), &body);
        assert!(status == 200 || status == 202, "{begun}");
        let _machine = comes_up("v42", new);
        let (code, said) = waiting.end();
        assert!(
            code == 1 && said.contains("cannot deploy `v42` of `shop`: ") && said.contains(why),
            "{said}"
        );
        assert!(said.contains("nothing was moved, and it is removed again"), "{said}");
        assert_eq!(versions(&lab), ["blue", "green"], "{verb}");
        let goes_on = match verb {
            "ramp" => lab.shop()["ramp"]["to"] == "green",
            "retire" => lab.shop()["retirement"]["version"] == "green",
            _ => lab.call("GET", "/v1/services/shop/rollout", &Value::Null).1["state"] == "running",
        };
        assert!(goes_on, "{verb}: {}", lab.shop());
    }
}

/// A job that was retried, and both waited.
#[test]
fn who_waits_for_its_version_follows_the_ramp_that_the_same_command_has_begun() {
    let (lab, new) = (Lab::start(&["blue"]), origin::nobody());
    let both = [(); 2].map(|()| Running::waiting(&lab, &[new], &["--steps", "50,100", "--every", "500ms"]));
    let _machine = comes_up("v42", new);
    for (code, said) in both.map(Running::end) {
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("the ramp to v42 is finished, at 100 %"), "{said}");
    }
}

#[test]
fn it_does_not_wait_for_the_old_version_when_it_is_not_to() {
    let gate = Gate::default();
    let lab = Lab::on(vec![Origin::held("blue", &gate)], "");
    let asked = lab.ask_later("GET /late HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n");
    lab.origin("blue").wait_served(1);
    for (version, way) in [("v2", &["--async"][..]), ("v3", &["--rolling", "--async"])] {
        let new = Origin::start(version);
        let (code, said) = deploy(&lab, version, &new.address.to_string(), way);
        assert_eq!(code, 0, "{said}");
        lab::wait_until("it has the traffic", || lab.shop()["weights"] == json!({ version: 10_000 }));
    }
    let drain = lab.call("GET", "/v1/services/shop/versions/blue/drain", &Value::Null).1;
    assert_eq!(drain["drained"], false, "{drain}");
    gate.open();
    asked.answer();
}
