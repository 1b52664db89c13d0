//! Endpoints that are found: what becomes of the traffic before there are any, and what commands do to them.

use super::world::*;
use crate::release::{Command, Refused, Scopes, State};
use crate::table::{EndpointAddr, EndpointWeight, Epoch, ServiceSpec, TraitsEdit};

/// `shop` with blue, that has these ports in the file and is discovered, and green.
fn file(blue: &[u16]) -> Vec<ServiceSpec> {
    let mut shop = spec("shop", "blue", &[("blue", blue), ("green", &[9101])]);
    shop.discovering = vec![version("blue")];
    vec![shop]
}

/// The same without discovery.
fn plain(blue: &[u16]) -> Vec<ServiceSpec> {
    vec![spec("shop", "blue", &[("blue", blue), ("green", &[9101])])]
}

fn found(ports: &[u16]) -> Command {
    let endpoints = Some(ports.iter().copied().map(endpoint).collect());
    Command::Discover { service: service("shop"), version: version("blue"), endpoints }
}

fn blue(state: &State) -> Vec<EndpointAddr> {
    state.table.service(&service("shop")).unwrap().version(&version("blue")).unwrap().endpoints.to_vec()
}

fn endpoints(ports: &[u16]) -> Vec<EndpointAddr> {
    ports.iter().copied().map(endpoint).collect()
}

fn restarted(state: &State, services: Vec<ServiceSpec>) -> State {
    let (next, effects) =
        run(&State::at(Epoch(5)), Command::Configure { services, records: records(state) }).unwrap();
    assert!(effects.notes.is_empty(), "{:?}", effects.notes);
    next
}

#[test]
fn a_version_of_which_nothing_is_found_yet_keeps_its_weight() {
    let first = start(file(&[]));
    let mut commented = file(&[]);
    commented[0].timeouts.total = Some(std::time::Duration::from_secs(9));
    for next in [
        after(&first, [configure(commented)]),
        restarted(&first, file(&[])),
        restarted(&start(plain(&[9001])), file(&[])),
    ] {
        assert_eq!(split(&next, "shop").to_string(), "blue 100 %");
        assert_eq!(blue(&after(&next, [found(&[9002])])), endpoints(&[9002]));
    }
    // A way back is not forgotten either.
    let flipped = after(&start(file(&[])), [found(&[9001]), flip("shop", "green"), flip("shop", "blue")]);
    let next = after(&restarted(&flipped, file(&[])), [revert("shop")]);
    assert_eq!(split(&next, "shop").to_string(), "green 100 %");
}

#[test]
fn a_version_that_is_discovered_from_now_on_keeps_its_endpoints_until_something_is_found() {
    let before = after(&start(plain(&[9001, 9002, 9003])), [drain_endpoint("shop", "blue", 9003)]);
    let (next, effects) = run(&before, configure(file(&[]))).unwrap();
    assert_eq!(
        (split(&next, "shop").to_string(), blue(&next)),
        ("blue 100 %".into(), endpoints(&[9001, 9002]))
    );
    assert_eq!(effects.left, []);
    assert_eq!(blue(&restarted(&next, file(&[]))), endpoints(&[9001, 9002]));
    assert_eq!(blue(&after(&next, [found(&[9002])])), endpoints(&[9002]));
    // Some of them still in the file.
    let next = after(&before, [configure(file(&[9002]))]);
    assert_eq!(blue(&next), endpoints(&[9002, 9001]));
    // What leaves the file later is gone, unless it were the last.
    let fewer = after(&start(file(&[9001, 9002])), [configure(file(&[9001]))]);
    assert_eq!(blue(&fewer), endpoints(&[9001]));
    assert_eq!(blue(&after(&fewer, [configure(file(&[]))])), endpoints(&[9001]));
}

#[test]
fn nobody_is_sent_to_a_version_of_which_nothing_is_found() {
    let mut file = plain(&[9001]);
    file[0].discovering = vec![version("green")];
    file[0].versions[1] = pool("green", &[]);
    let state = start(file);
    let empty = Refused::EmptyVersion { service: service("shop"), version: version("green") };
    assert_eq!(run(&state, flip("shop", "green")).unwrap_err(), empty);
    let on_green = after(&state, [put("shop", pool("green", &[9101])), flip("shop", "green")]);
    let back = after(&on_green, [flip("shop", "blue"), put("shop", pool("green", &[]))]);
    let records = records(&on_green)
        .into_iter()
        .map(|mut record| {
            record.standing.as_mut().unwrap().edits.clear();
            record
        })
        .collect();
    let undo = Command::Undo { to: on_green.table.epoch(), records, scopes: Scopes::all() };
    let gone =
        Refused::Gone { to: on_green.table.epoch(), service: service("shop"), version: version("green") };
    assert_eq!(run(&back, undo).unwrap_err(), gone);
}

#[test]
fn an_endpoint_that_is_found_and_in_the_file_too_cannot_be_taken_away() {
    let state = after(&start(file(&[9001, 9002])), [found(&[9002, 9003])]);
    for port in [9002, 9003] {
        let refused = run(&state, remove_endpoint("shop", "blue", port)).unwrap_err();
        assert_eq!(refused.token(), "discovered", "{port}: it would go on serving");
    }
    let next = after(&state, [remove_endpoint("shop", "blue", 9001)]);
    assert_eq!(blue(&next), endpoints(&[9002, 9003]));
}

#[test]
fn an_endpoint_that_was_found_and_is_put_stays_when_it_is_found_no_more() {
    let state = after(&start(file(&[])), [found(&[9001, 9002, 9003])]);
    let (next, effects) = run(&state, add_endpoint("shop", "blue", 9002)).unwrap();
    assert!(effects.change.is_some());
    assert_eq!(run(&next, add_endpoint("shop", "blue", 9002)).unwrap().1.change, None);
    // To end a drain is not to put: it stays as it came.
    let next = after(&next, [drain_endpoint("shop", "blue", 9003), add_endpoint("shop", "blue", 9003)]);
    let next = after(&next, [found(&[9001])]);
    assert_eq!(blue(&next), endpoints(&[9002, 9001]));
    assert_eq!(blue(&after(&next, [remove_endpoint("shop", "blue", 9002)])), endpoints(&[9001]));
}

#[test]
fn the_end_of_a_drain_puts_nothing_in_the_pool() {
    let state = after(
        &start(file(&[9001])),
        [found(&[9002, 9003]), drain_endpoint("shop", "blue", 9001), drain_endpoint("shop", "blue", 9003)],
    );
    let gone = after(&state, [found(&[9002])]);
    let next = after(&gone, [end_drain("shop", "blue", 9003), end_drain("shop", "blue", 9001)]);
    assert_eq!(blue(&next), endpoints(&[9001, 9002]), "nobody is put there who is not found");
    let serving = |state: &State| {
        let shop = state.table.service(&service("shop")).unwrap();
        shop.version(&version("blue")).unwrap().serving().cloned().collect::<Vec<_>>()
    };
    assert_eq!(serving(&after(&next, [found(&[9003])])), endpoints(&[9001, 9003]));
    assert_eq!(serving(&after(&gone, [found(&[9002, 9003])])), endpoints(&[9002]), "else they stay drained");
    assert_eq!(run(&next, end_drain("shop", "blue", 9003)).unwrap().1.change, None);
}

#[test]
fn who_drained_when_it_was_found_last_serves_where_nobody_else_is_found() {
    let state = after(&start(file(&[])), [found(&[9001, 9002]), drain_endpoint("shop", "blue", 9001)]);
    let refused = run(&state, found(&[9001])).unwrap_err();
    assert_eq!(refused.token(), "empty_version", "it was there all the time");
    let (next, effects) = run(&after(&state, [found(&[9002])]), found(&[9001])).unwrap();
    let serving = |state: &State| {
        let service = state.table.service(&service("shop")).unwrap();
        service.version(&version("blue")).unwrap().serving().cloned().collect::<Vec<_>>()
    };
    assert_eq!((blue(&next), serving(&next)), (endpoints(&[9001]), endpoints(&[9001])));
    let summary = effects.change.unwrap().summary;
    assert_eq!(summary, "shop: blue +127.0.0.1:9001 -127.0.0.1:9002 127.0.0.1:9001 serving again");
    assert_eq!(next.deployments[0].edits.len(), 0, "as the file says");
}

#[test]
fn a_version_that_is_put_keeps_what_is_said_of_endpoints_that_were_found() {
    let heavy = TraitsEdit { weight: EndpointWeight::new(5).ok(), ..TraitsEdit::default() };
    let state = after(&start(file(&[])), [found(&[9001, 9002])]);
    let state =
        after(&state, [put_endpoint_with("shop", "blue", 9002, heavy), drain_endpoint("shop", "blue", 9001)]);
    for own in [&[9003_u16][..], &[]] {
        let next = after(&state, [put("shop", pool("blue", own))]);
        let service = next.table.service(&service("shop")).unwrap();
        let blue = service.version(&version("blue")).unwrap();
        assert_eq!(*blue.draining, [endpoint(9001)], "{own:?}");
        assert_eq!(blue.traits.of(&endpoint(9002)).weight.number(), 5, "{own:?}");
    }
    let all_drained =
        after(&state, [put("shop", pool("blue", &[9003])), drain_endpoint("shop", "blue", 9002)]);
    let refused = run(&all_drained, put("shop", pool("blue", &[]))).unwrap_err();
    assert_eq!(refused.token(), "version_in_use", "nobody would be left");
}
