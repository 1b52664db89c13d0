//! Where copies go: to a version without traffic, until it has had some.

use std::sync::Arc;

use super::world::*;
use crate::release::{Command, Scopes, State};
use crate::table::{HoldScope, MirrorRules, ServiceSpec};

/// The file, in which requests of `shop` are copied to `to`.
fn file(to: Option<&str>) -> Vec<ServiceSpec> {
    let mut file = the_file();
    file[0].mirror = to.map(|to| Arc::new(MirrorRules::to(version(to))));
    file
}

fn refused(state: &State, command: Command) -> &'static str {
    let why = run(state, command).unwrap_err();
    assert!(why.hint().contains("`mirror` of `shop`"));
    why.token()
}

/// Where copies may come, and where they do.
fn mirror(state: &State) -> (Option<String>, Option<String>) {
    let shop = state.table.service(&service("shop")).unwrap();
    let to = |mirror: &Arc<MirrorRules>| mirror.to.to_string();
    let deployment = state.deployment(&service("shop")).unwrap();
    for version in shop.versions.iter().map(|spec| &spec.name) {
        assert_eq!(deployment.mirrors_to(shop, version), shop.mirrors_to(version), "{version}");
    }
    (shop.mirror().map(to), shop.mirroring().map(to))
}

fn on(to: &str) -> (Option<String>, Option<String>) {
    (Some(to.to_owned()), Some(to.to_owned()))
}

const OVER: (Option<String>, Option<String>) = (None, None);

#[test]
fn it_is_over_once_its_version_has_traffic_whatever_gives_it_some() {
    let begun = start(file(Some("green")));
    assert_eq!(mirror(&begun), on("green"));
    for given in [
        flip("shop", "green"),
        weights("shop", &[("green", "1")], Some("@stable")),
        set_rules("shop", &["header x-beta=yes -> green"]),
        begin_ramp("shop", "green", &["1", "100"]),
        switch("shop", "green"),
    ] {
        let (next, effects) = run(&begun, given).unwrap();
        assert_eq!(mirror(&next), OVER);
        assert!(
            effects.notes.iter().any(|note| note.contains("mirror of `shop` to `green` is over")),
            "{effects:?}"
        );
        let back = after(&next, [flip("shop", "blue")]);
        assert_eq!(mirror(&back), OVER, "nothing comes to a version that traffic has left");
        let undone =
            Command::Undo { to: begun.table.epoch(), records: records(&begun), scopes: Scopes::all() };
        assert_eq!(mirror(&after(&next, [undone])), OVER);
        // The file is read again, and the process starts again.
        assert_eq!(mirror(&after(&back, [configure(file(Some("green")))])), OVER);
        let records = records(&back);
        let again = Command::Configure { services: file(Some("green")), records };
        assert_eq!(mirror(&after(&State::at(back.table.epoch()), [again])), OVER);
        // What is set anew begins anew.
        let anew = after(&back, [configure(file(None)), configure(file(Some("green")))]);
        assert_eq!(mirror(&anew), on("green"));
    }
}

#[test]
fn to_the_version_that_carries_the_service_there_is_none_before_or_after() {
    let begun = start(file(Some("blue")));
    assert_eq!(mirror(&begun), OVER);
    assert_eq!(mirror(&after(&begun, [flip("shop", "green")])), OVER, "blue is to become empty");
}

#[test]
fn an_exclusive_flip_ends_it_wherever_it_leads_and_a_hold_keeps_it_waiting() {
    let begun = after(&start(file(Some("hollow"))), [add_endpoint("shop", "hollow", 9401)]);
    let held = after(&begun, [hold("shop", HoldScope::Writes)]);
    assert_eq!(mirror(&held), (Some("hollow".to_owned()), None));
    assert_eq!(mirror(&after(&held, [release("shop")])), on("hollow"));
    assert_eq!(mirror(&after(&begun, [flip("shop", "green")])), on("hollow"));
    assert_eq!(mirror(&after(&begun, [switch("shop", "green")])), OVER);
}

#[test]
fn what_copies_come_to_is_not_taken_away_nor_left_empty() {
    let begun = start(file(Some("green")));
    for command in [
        remove("shop", "green"),
        put("shop", pool("green", &[])),
        drain_endpoint("shop", "green", 9101),
        remove_endpoint("shop", "green", 9101),
    ] {
        assert_eq!(refused(&begun, command.clone()), "mirrored");
        let over = after(&begun, [flip("shop", "green"), flip("shop", "blue")]);
        run(&over, command).unwrap();
    }
    after(&begun, [add_endpoint("shop", "green", 9102), drain_endpoint("shop", "green", 9101)]);
}
