//! What is told of a comparison: the figures are what users saw, to the last request, and people get them in a few lines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::io::Write;

use lab::origin::Then;
use lab::{Client, Lab, Origin, Pulse, wait_until};
use serde_json::{Value, json};

/// `shop` with blue and green, which say their name and what their pulse says; supervision only tells.
fn shop(green: &Pulse) -> Lab {
    let origin = |name: &'static str, pulse: &Pulse| {
        let pulse = pulse.clone();
        Origin::behaving(name, move |_, stream| {
            let status = pulse.status();
            write!(stream, "HTTP/1.1 {status} X\r\nx-version: {name}\r\ncontent-length: 2\r\n\r\nok")?;
            Ok(Then::Keep)
        })
    };
    let origins = vec![origin("blue", &Pulse::well()), origin("green", green)];
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
