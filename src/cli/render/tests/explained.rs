//! Why a request goes where it goes, as people see it.

use std::collections::BTreeMap;

use insta::assert_snapshot;

use crate::admin::api::{self, Chance, Explained, Reason, Route};
use crate::cli::Style;
use crate::cli::render::explained;

#[test]
fn explanations() {
    let route = Route { host: "shop.example.com".into(), path: "/".into(), headers: BTreeMap::new() };
    let chance = |version: &str, weight| Chance {
        version: version.into(),
        weight,
        probability: f64::from(weight) / 10_000.0,
    };
    let coin = Explained {
        epoch: 42,
        service: Some("shop".into()),
        route: Some(route),
        reason: Reason::Coin,
        version: None,
        chances: vec![chance("blue", 9_500), chance("green", 500)],
        rule: None,
        by_client: Vec::new(),
        pinned: None,
        taken_out: Vec::new(),
        sticky: None,
        shielded_by: None,
        upgrades: Vec::new(),
        copied: None,
    };
    let single = Explained { reason: Reason::Single, version: Some("blue".into()), ..coin.clone() };
    let none = Explained {
        service: None,
        route: None,
        reason: Reason::NoRoute,
        chances: Vec::new(),
        ..coin.clone()
    };
    let by = |mint| Some(api::Sticky { by: "cookie".into(), name: Some("sb_id".into()), mint });
    let known = Explained {
        reason: Reason::Sticky,
        version: Some("green".into()),
        chances: vec![chance("green", 500)],
        sticky: by(false),
        ..coin.clone()
    };
    let unknown = Explained { sticky: by(false), ..coin.clone() };
    let minted = Explained { reason: Reason::Minted, sticky: by(true), ..coin.clone() };
    let decided = api::Decided { number: 2, text: "header x-beta=yes -> green".into() };
    let by_rule = Explained {
        reason: Reason::Rule,
        version: Some("green".into()),
        chances: vec![chance("green", 500)],
        rule: Some(decided),
        ..coin.clone()
    };
    let network = |number, network| api::Decided { number, text: format!("client {network} -> green") };
    let unsure = Explained {
        by_client: vec![network(1, "10.0.0.0/8"), network(3, "::1/128")],
        taken_out: vec!["x_beta".into()],
        ..single.clone()
    };
    let pinned = |release: &str, fate| Some(api::Pinned { release: release.into(), version: None, fate });
    let followed = Explained {
        reason: Reason::Pinned,
        version: Some("green".into()),
        chances: vec![chance("green", 500)],
        pinned: pinned("green/cart:v7", api::Fate::Followed),
        ..coin.clone()
    };
    let fates = [
        api::Fate::Rule,
        api::Fate::Untrusted,
        api::Fate::NoVersion,
        api::Fate::Idle,
        api::Fate::Suspected,
        api::Fate::Retiring,
    ];
    let passed_over = fates.map(|fate| Explained { pinned: pinned("v42", fate), ..single.clone() });
    let all: Vec<_> = [coin, single, none, known, unknown, minted, by_rule, unsure, followed]
        .into_iter()
        .chain(passed_over)
        .map(|one| explained("http://shop.example.com/cart", &one, Style::PLAIN))
        .collect();
    assert_snapshot!(all.join("\n--\n"));
}
