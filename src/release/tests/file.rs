//! The file says what exists, the history says where the traffic goes.

use std::sync::Arc;

use super::world::*;
use crate::release::{Command, FileDigest, Refused, Scopes, State};
use crate::table::{Epoch, ServiceSpec};

fn shop() -> State {
    start(the_file())
}

/// The file, edited.
fn file_with(edit: impl FnOnce(&mut Vec<ServiceSpec>)) -> Command {
    let mut file = the_file();
    edit(&mut file);
    configure(file)
}

fn ports(state: &State, name: &str, of: &str) -> Option<Vec<String>> {
    let service = state.table.service(&service(name)).unwrap();
    service.version(&version(of)).map(|version| version.endpoints.iter().map(ToString::to_string).collect())
}

#[test]
fn the_first_file_makes_epoch_1() {
    let (state, effects) = run(&State::at(Epoch(0)), configure(the_file())).unwrap();
    assert_eq!(state.table.epoch(), Epoch(1));
    assert_eq!(effects.change.unwrap().summary, "cart: one 100 %; shop: blue 100 %");
}

#[test]
fn an_unchanged_file_changes_nothing_and_keeps_every_value() {
    let before = after(&shop(), [flip("shop", "green"), add_endpoint("cart", "two", 9302)]);
    let (next, effects) = run(&before, configure(the_file())).unwrap();
    assert_eq!(effects.change, None);
    assert_eq!(next.table.epoch(), before.table.epoch());
    let pairs = before.table.services().iter().zip(next.table.services());
    pairs.for_each(|(before, next)| assert!(Arc::ptr_eq(before, next)));
}

#[test]
fn a_file_that_was_edited_between_two_starts_is_a_change_and_one_of_an_upgrade_is_none() {
    let before = after(&shop(), [flip("shop", "green")]);
    let edited = || {
        let mut file = the_file();
        file[0].timeouts.connect *= 2;
        file
    };
    let start = |services, records| {
        run(&State::at(before.table.epoch()), Command::Configure { services, records }).unwrap()
    };
    assert_eq!(start(the_file(), records(&before)).1.change, None);
    assert_eq!(start(edited(), records(&before)).1.change.unwrap().summary, "shop: as the file says now");
    // What another build has kept of the file tells this one nothing.
    let mut of_before = records(&before);
    for standing in of_before.iter_mut().filter_map(|record| record.standing.as_mut()) {
        standing.file_digest = FileDigest { form: 0, hash: standing.file_digest.hash + 1 };
    }
    let (upgraded, effects) = start(the_file(), of_before.clone());
    assert_eq!((effects.change, &effects.restated), (None, &records(&before)));
    assert_eq!(records(&upgraded), records(&before));
    // From then on it is known again.
    assert!(run(&upgraded, configure(edited())).unwrap().1.change.is_some());
    assert!(start(edited(), effects.restated).1.change.is_some());
    assert_eq!(start(edited(), of_before).1.change, None);
    assert_eq!(start(the_file(), records(&before)).1.restated, []);
}

#[test]
fn a_drained_endpoint_stays_so_over_a_restart_until_it_is_put_again() {
    let drained = after(&shop(), [drain_endpoint("shop", "blue", 9001)]);
    let file = Command::Configure { services: the_file(), records: records(&drained) };
    let again = after(&State::at(Epoch(2)), [file]);
    let serving = |state: &State| {
        let service = state.table.service(&service("shop")).unwrap();
        service.version(&version("blue")).unwrap().serving().cloned().collect::<Vec<_>>()
    };
    assert_eq!(serving(&again), [endpoint(9002)]);
    assert_eq!(ports(&again, "shop", "blue").unwrap().len(), 2, "it stays in the pool");
    let back = after(&again, [add_endpoint("shop", "blue", 9001)]);
    assert_eq!(serving(&back), [endpoint(9001), endpoint(9002)], "in its place");
    assert!(back.deployments[1].edits.is_empty(), "as the file says");
}

#[test]
fn what_drains_is_not_put_back_by_a_file_that_says_something_else_of_its_version() {
    let drained = after(&shop(), [drain_endpoint("shop", "blue", 9001)]);
    let pool_of = |ports: &[u16]| {
        let pool = ports.iter().copied().map(endpoint).collect();
        file_with(|file| {
            file[0].versions.iter_mut().find(|of| of.name == version("blue")).unwrap().endpoints = pool
        })
    };
    let serving = |state: &State| {
        let service = state.table.service(&service("shop")).unwrap();
        service.version(&version("blue")).unwrap().serving().cloned().collect::<Vec<_>>()
    };
    let (more, effects) = run(&drained, pool_of(&[9001, 9002, 9003])).unwrap();
    let dropped = "the file's `blue` of `shop` changed; the API's edits of it are dropped";
    assert_eq!(effects.notes, [format!("{dropped}, but for what drains")]);
    assert_eq!(serving(&more), [endpoint(9002), endpoint(9003)]);
    let file = Command::Configure { services: the_file(), records: records(&more) };
    assert_eq!(
        serving(&after(&State::at(Epoch(9)), [file])),
        [endpoint(9002)],
        "another file after a restart"
    );
    let back = after(&more, [add_endpoint("shop", "blue", 9001)]);
    assert!(back.deployments[1].edits.is_empty(), "as the file says");
    // Somebody has to serve.
    let (alone, effects) = run(&more, pool_of(&[9001])).unwrap();
    assert_eq!((serving(&alone), effects.notes), (vec![endpoint(9001)], vec![dropped.to_owned()]));
}

#[test]
fn a_version_that_leaves_the_file_gives_its_weight_to_stable() {
    let canary = after(&shop(), [weights("shop", &[("green", "5")], Some("@stable"))]);
    let (next, effects) =
        run(&canary, file_with(|file| file[0].versions.retain(|v| v.name != version("green")))).unwrap();
    assert_eq!(split(&next, "shop").to_string(), "blue 100 %");
    assert_eq!(effects.left, [(service("shop"), version("green"))]);
    assert_eq!(effects.notes, ["version `green` of `shop` carried traffic and is gone: now blue 100 %"]);
    assert_eq!(effects.change.unwrap().summary, "shop: green removed, blue 100 %");
}

#[test]
fn a_file_that_leaves_a_version_with_traffic_without_endpoints_changes_nothing_while_it_serves() {
    let mut empty = the_file();
    empty[0].versions[1] = pool("green", &[]);
    for (command, why) in [
        (weights("shop", &[("green", "5")], Some("@stable")), "it carries 5 % of the traffic"),
        (set_rules("shop", &["header x-beta=yes -> green"]), "a targeting rule leads there"),
    ] {
        let canary = after(&shop(), [command]);
        let refused = run(&canary, configure(empty.clone())).unwrap_err();
        assert_eq!(refused.token(), "left_empty");
        let told = format!("the file leaves version `green` of service `shop` without endpoints, and {why}");
        assert_eq!(refused.to_string(), told);
        assert!(refused.hint().starts_with("give it endpoints again, or "), "{}", refused.hint());
        let start = Command::Configure { services: empty.clone(), records: records(&canary) };
        let (started, effects) = run(&State::at(canary.table.epoch()), start).unwrap();
        assert_eq!(split(&started, "shop").to_string(), "blue 100 %", "somebody has to serve");
        assert_eq!((rules(&started, "shop").len(), effects.notes.len()), (0, 1), "{:?}", effects.notes);
    }
}

#[test]
fn when_stable_itself_leaves_the_file_the_one_that_served_beside_it_inherits() {
    let v3 = |file: &mut Vec<ServiceSpec>| file[0].versions.insert(0, pool("v3", &[9401]));
    let canary =
        after(&shop(), [file_with(|file| v3(file)), weights("shop", &[("green", "5")], Some("@stable"))]);
    let without_blue = file_with(|file| {
        v3(file);
        file[0].versions.retain(|version| version.name.as_str() != "blue");
        (file[0].stable, file[0].weights) = (version("hollow"), vec![(version("hollow"), 10_000)]);
    });
    let next = after(&canary, [without_blue]);
    assert_eq!(
        (split(&next, "shop").to_string(), stable(&next, "shop")),
        ("green 100 %".into(), "green".into())
    );
}

#[test]
fn a_service_that_leaves_the_file_is_dropped_once() {
    let (next, effects) = run(&shop(), file_with(|file| drop(file.remove(0)))).unwrap();
    assert!(next.table.service(&service("shop")).is_none());
    assert_eq!(effects.notes, ["service `shop` is no longer in the file; dropped"]);
    let dropped = effects.change.unwrap().services;
    assert!(dropped.iter().any(|record| record.service == service("shop") && record.standing.is_none()));
    let records = dropped.into_iter().chain(records(&next)).collect();
    let services = the_file().split_off(1);
    let restarted = run(&State::at(next.table.epoch()), Command::Configure { services, records }).unwrap();
    assert_eq!(restarted.1.change, None, "a restart does not drop it again");
}

#[test]
fn the_files_weights_are_only_its_first_ones() {
    let flipped = after(&shop(), [flip("shop", "green")]);
    let halves = vec![(version("blue"), 5_000), (version("green"), 5_000)];
    let (next, effects) = run(&flipped, file_with(|file| file[0].weights = halves)).unwrap();
    assert_eq!(split(&next, "shop").to_string(), "green 100 %");
    assert_eq!(
        effects.notes,
        ["the file's weights of `shop` are only its first ones; it stays at green 100 %"]
    );
}

#[test]
fn first_weights_that_leave_the_named_stable_out_make_the_heaviest_stable() {
    let mut file = the_file();
    file[0].weights = vec![(version("green"), 10_000)];
    assert_eq!(stable(&start(file), "shop"), "green");
}

#[test]
fn an_edit_lasts_until_the_file_says_something_else_about_that_version() {
    let edited = after(&shop(), [add_endpoint("shop", "green", 9102), put("shop", pool("v3", &[9401]))]);
    let touched_elsewhere = file_with(|file| file[0].versions[0] = pool("blue", &[9009]));
    let still = after(&edited, [touched_elsewhere]);
    assert_eq!(ports(&still, "shop", "green").unwrap(), ["127.0.0.1:9101", "127.0.0.1:9102"]);
    assert_eq!(ports(&still, "shop", "blue").unwrap(), ["127.0.0.1:9009"]);
    assert!(ports(&still, "shop", "v3").is_some(), "what the API added stays");

    let (over, effects) =
        run(&still, file_with(|file| file[0].versions[1] = pool("green", &[9109]))).unwrap();
    assert_eq!(ports(&over, "shop", "green").unwrap(), ["127.0.0.1:9109"]);
    assert_eq!(effects.notes, ["the file's `green` of `shop` changed; the API's edits of it are dropped"]);
    assert!(ports(&over, "shop", "v3").is_some());
}

#[test]
fn a_version_removed_by_the_api_stays_away_until_the_file_redefines_it() {
    let removed = after(&shop(), [remove("shop", "green"), configure(the_file())]);
    assert_eq!(ports(&removed, "shop", "green"), None);
    let back = after(&removed, [file_with(|file| file[0].versions[1] = pool("green", &[9109]))]);
    assert_eq!(ports(&back, "shop", "green").unwrap(), ["127.0.0.1:9109"]);
}

#[test]
fn putting_a_version_back_as_the_file_has_it_leaves_no_edit() {
    let there_and_back =
        after(&shop(), [put("shop", pool("green", &[9109])), put("shop", pool("green", &[9101]))]);
    assert!(there_and_back.deployment(&service("shop")).unwrap().edits.is_empty());
}

#[test]
fn a_way_back_over_an_emptied_version_survives_a_restart_and_says_what_to_do() {
    let flipped = after(&shop(), [flip("shop", "green")]);
    let (flipped, effects) = run(&flipped, put("shop", pool("blue", &[]))).unwrap();
    assert_eq!(effects.notes, ["`shop` cannot be reverted while no endpoint of `blue` serves"]);
    let restart = Command::Configure { services: the_file(), records: records(&flipped) };
    let (restarted, effects) = run(&State::at(flipped.table.epoch()), restart).unwrap();
    assert_eq!(effects.change, None);
    let refused = run(&restarted, revert("shop")).unwrap_err();
    assert_eq!(refused, Refused::EmptyVersion { service: service("shop"), version: version("blue") });
    let filled = after(&restarted, [add_endpoint("shop", "blue", 9001), revert("shop")]);
    assert_eq!(split(&filled, "shop").to_string(), "blue 100 %");
}

#[test]
fn a_way_back_over_a_removed_version_is_gone_and_that_is_said() {
    let flipped = after(&shop(), [flip("shop", "green")]);
    let (next, effects) = run(&flipped, remove("shop", "blue")).unwrap();
    assert_eq!(effects.notes.len(), 1, "{:?}", effects.notes);
    assert_eq!(
        run(&next, revert("shop")).unwrap_err(),
        Refused::NothingToRevert { service: service("shop") }
    );
}

#[test]
fn an_undo_that_moves_no_traffic_leaves_the_way_back_alone() {
    let flipped = after(&shop(), [flip("shop", "green")]);
    let then = records(&flipped);
    let edited = after(&flipped, [add_endpoint("shop", "green", 9102)]);
    let undone =
        after(&edited, [Command::Undo { to: flipped.table.epoch(), records: then, scopes: Scopes::all() }]);
    assert_eq!(ports(&undone, "shop", "green").unwrap(), ["127.0.0.1:9101"]);
    assert_eq!(split(&after(&undone, [revert("shop")]), "shop").to_string(), "blue 100 %");
}

#[test]
fn an_undo_says_what_the_file_has_dropped_since() {
    let then = after(&shop(), [flip("cart", "two")]);
    let dropped = after(&then, [file_with(|file| file.retain(|spec| spec.name != service("cart")))]);
    let undo = Command::Undo { to: then.table.epoch(), records: records(&then), scopes: Scopes::all() };
    let (_, effects) = run(&dropped, undo).unwrap();
    assert_eq!(effects.change, None);
    assert_eq!(effects.notes, ["`cart` is no longer in the file; it does not come back"]);
}

#[test]
fn an_undo_says_nothing_of_services_that_may_not_be_looked_at() {
    let scopes = Scopes::of(vec!["operate:shop".parse().unwrap()]);
    let then = after(&shop(), [flip("cart", "two")]);
    let dropped = after(&then, [file_with(|file| file.retain(|spec| spec.name != service("cart")))]);
    let undo = Command::Undo { to: then.table.epoch(), records: records(&then), scopes: scopes.clone() };
    assert!(run(&dropped, undo).unwrap().1.notes.is_empty());
    // And it did not exist then.
    let again = after(&dropped, [file_with(|_| ())]);
    let undo = |scopes| Command::Undo { to: dropped.table.epoch(), records: records(&dropped), scopes };
    let notes = |scopes| run(&again, undo(scopes)).unwrap().1.notes;
    assert_eq!((notes(Scopes::all()).len(), notes(scopes).len()), (1, 0));
}

#[test]
fn a_batch_there_and_back_is_no_change() {
    let flipped = after(&shop(), [flip("shop", "green")]);
    let batch = Command::Batch(vec![flip("shop", "blue"), flip("shop", "green")]);
    assert_eq!(run(&flipped, batch).unwrap().1.change, None);
}

#[test]
fn a_file_in_which_two_services_claim_one_route_changes_nothing() {
    let refused = run(&shop(), file_with(|file| file[1].routes = file[0].routes.clone())).unwrap_err();
    let says = "services `cart` and `shop` both have the route shop.example.com/";
    assert_eq!((refused.token(), refused.to_string().as_str()), ("route_taken", says));
}
