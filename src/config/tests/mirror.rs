//! `mirror`: which requests are copied, and to where.

use std::time::Duration;

use http::Method;

use super::*;
use crate::table::{Compare, MirrorRules};

/// What a file makes of this `mirror`, beside a version `green`.
fn text(mirror: &str) -> String {
    format!("{SMALL}\nmirror = {mirror}\nstable = \"blue\"\nversions.green.endpoints = [\"127.0.0.1:9101\"]")
}

fn rules(mirror: &str) -> Option<MirrorRules> {
    let service = load_text(&text(mirror)).services.remove(0);
    service.mirror.map(|rules| MirrorRules::clone(&rules))
}

#[test]
fn it_leads_to_a_version_or_nowhere() {
    assert_eq!((load_text(SMALL).services[0].mirror.is_none(), rules("false")), (true, None));
    let green = MirrorRules::to("green".parse().unwrap());
    assert_eq!(rules("{ to = \"green\" }"), Some(green.clone()));
    let all = "{ to = \"green\", share = \"0.5%\", methods = [\"GET\", \"POST\"], body = \"1KiB\", compare = \"body\", concurrency = 3, timeout = \"1s\" }";
    let expected = MirrorRules {
        share: "0.5".parse().unwrap(),
        methods: vec![Method::GET, Method::POST],
        body: 1024,
        compare: Compare::Body,
        concurrency: 3,
        timeout: Duration::from_secs(1),
        ..green
    };
    assert_eq!(rules(all), Some(expected));
}

#[test]
fn what_is_wrong_with_it_is_said() {
    let mut all = String::new();
    for mirror in [
        "true",
        "\"green\"",
        "{}",
        "{ to = \"gren\" }",
        "{ to = \"@candidate\" }",
        "{ to = \"green\", share = \"200%\" }",
        "{ to = \"green\", methods = [\"CONNECT\"] }",
        "{ to = \"green\", body = \"65KiB\" }",
        "{ to = \"green\", compare = \"headers\" }",
        "{ to = \"green\", concurrency = 0 }",
        "{ to = \"green\", timeout = \"61s\" }",
        "{ to = \"green\", statuses = [] }",
    ] {
        all.push_str(&format!("== {mirror}\n{}\n", check_text(&text(mirror))));
    }
    insta::assert_snapshot!(all);
}
