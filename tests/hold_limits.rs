//! What a service or a version is limited to holds when a hold ends, and refuses nobody for having waited, nor for coming
//! behind those who have.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::held::Later;
use lab::origin::Then;
use lab::{Answer, Gate, Lab, Origin, wait_until};
use serde_json::{Value, json};

fn all_answered(waiting: Vec<Later>) {
    for answer in waiting.into_iter().map(Later::answer) {
        assert_eq!(answer.said(), (200, ""));
    }
}

/// `shop` with one version on this origin.
fn shop(origin: Origin, settings: &str) -> Lab {
    Lab::pool(vec![origin], &[], "", settings)
}

/// So many requests that wait because `shop` is held.
fn herd(lab: &Lab, count: u32) -> Vec<Later> {
    let waiting = (0..count).map(|_| lab.get_later("/")).collect();
    lab.wait_held(count);
    waiting
}

/// Takes a moment for each request, and counts the most that it had at a time.
fn counting() -> (Origin, Arc<AtomicUsize>) {
    let (now, most) = (AtomicUsize::new(0), Arc::<AtomicUsize>::default());
    let told = Arc::clone(&most);
    let origin = Origin::behaving("blue", move |_, stream| {
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(5));
        now.fetch_sub(1, Ordering::SeqCst);
        stream.write_all(b"HTTP/1.1 200 OK\r\nx-version: blue\r\ncontent-length: 2\r\n\r\nok")?;
        Ok(Then::Keep)
    });
    (origin, told)
}

#[test]
fn who_has_waited_waits_for_room_too() {
    for limits in [
        "limits = { in_flight = 2 }",
        "circuit = { requests = 2, pending = 0, queue_timeout = \"1ms\" }",
        "circuit = { endpoint_requests = 2, pending = 0, queue_timeout = \"1ms\" }",
        "circuit = { connections = 2, pending = 0 }",
        "limits = { in_flight = 3 }\ncircuit = { requests = 2, pending = 0, queue_timeout = \"1ms\" }",
    ] {
        let (origin, most) = counting();
        let lab = shop(origin, limits);
        lab.hold(&json!({}));
        let waiting = herd(&lab, 30);
        lab.release();
        all_answered(waiting);
        assert_eq!((lab.origin("blue").served(), most.load(Ordering::SeqCst)), (30, 2), "{limits}");
        lab.wait_held(0);
    }
}

#[test]
fn a_rate_is_asked_when_a_request_comes_and_not_when_it_goes_on() {
    let lab = shop(Origin::start("blue"), "limits = { rate = \"1/h\", burst = 3 }");
    lab.hold(&json!({}));
    let waiting = herd(&lab, 3);
    assert_eq!(lab.get("/").said(), (429, "rate"), "also while the service is held");
    assert_eq!(lab.shop()["held_requests"], 3);
    lab.release();
    all_answered(waiting);
    assert_eq!(lab.get("/").said(), (429, "rate"));
}

#[test]
fn who_comes_while_others_still_wait_for_room_stands_behind_them() {
    let gate = Gate::default();
    let lab = shop(Origin::held("blue", &gate), "limits = { in_flight = 1 }");
    let mut waiting = vec![lab.get_later("/late")];
    wait_until("it is in flight", || lab.origin("blue").served() == 1);
    assert_eq!(lab.get("/").said(), (503, "concurrency"), "as ever");
    lab.hold(&json!({}));
    waiting.extend(herd(&lab, 2));
    lab.release();
    // On whichever worker.
    waiting.extend((0..8).map(|_| lab.get_later("/")));
    lab.wait_held(10);
    assert_eq!(lab.origin("blue").served(), 1);
    gate.open();
    all_answered(waiting);
    assert_eq!(lab.get("/").status, 200);
}

/// What leaves room for one request at a time, and what is said to who finds none.
const ONE: [(&str, &str); 2] = [
    ("limits = { in_flight = 1 }", "concurrency"),
    ("circuit = { requests = 1, pending = 100, queue_timeout = \"1m\" }", "circuit_open"),
];

#[test]
fn nobody_overtakes_those_who_have_waited_on_whichever_worker_and_by_whichever_method() {
    for (limits, _) in ONE {
        let gate = Gate::default();
        let lab = shop(Origin::held("blue", &gate), limits);
        let mut waiting = vec![lab.get_later("/late")];
        lab.origin("blue").wait_served(1);
        lab.hold(&json!({}));
        waiting.extend((0..6).map(|_| lab.post_later("/waited")));
        lab.wait_held(6);
        lab.release();
        for count in 7..=18 {
            waiting.push(if count % 3 == 0 { lab.post_later("/new") } else { lab.get_later("/new") });
            lab.wait_held(count);
        }
        gate.open();
        all_answered(waiting);
        let order: Vec<_> = lab.origin("blue").seen().iter().map(|seen| seen.path().to_owned()).collect();
        let expected = [vec!["/late"], vec!["/waited"; 6], vec!["/new"; 12]].concat();
        assert_eq!(order, expected, "{limits}");
    }
}

#[test]
fn where_as_many_again_stand_behind_those_who_have_waited_who_comes_is_refused() {
    for (limits, reason) in ONE {
        let gate = Gate::default();
        let lab = shop(Origin::held("blue", &gate), &format!("{limits}\nhold = {{ requests = 2 }}"));
        let mut waiting = vec![lab.get_later("/late")];
        lab.origin("blue").wait_served(1);
        lab.hold(&json!({}));
        waiting.extend(herd(&lab, 2));
        lab.release();
        waiting.extend((0..2).map(|_| lab.get_later("/")));
        lab.wait_held(4);
        assert_eq!(lab.get("/").said(), (503, reason));
        gate.open();
        all_answered(waiting);
        assert_eq!(lab.get("/").status, 200);
    }
}

#[test]
fn who_waits_in_another_hold_waits_for_room_as_long_as_that_one_says() {
    for (limits, _) in ONE {
        for is_released_between in [false, true] {
            let gate = Gate::default();
            let lab = shop(Origin::held("blue", &gate), limits);
            let first = lab.get_later("/late");
            lab.origin("blue").wait_served(1);
            lab.hold(&json!({ "timeout": "1s" }));
            let mut waiting = herd(&lab, 3);
            if is_released_between {
                lab.release();
            }
            lab.hold(&json!({ "timeout": "1m" }));
            lab.release();
            // Longer than the first hold would have had them wait.
            thread::sleep(Duration::from_millis(2_500));
            assert!(!waiting.iter().any(Later::is_answered), "{limits}");
            gate.open();
            waiting.push(first);
            all_answered(waiting);
        }
    }
}

#[test]
fn a_client_that_leaves_an_upload_leaves_the_line_behind_a_hold() {
    for (limits, _) in ONE {
        let gate = Gate::default();
        let lab = shop(Origin::held("blue", &gate), limits);
        let first = lab.get_later("/late");
        lab.origin("blue").wait_served(1);
        lab.hold(&json!({ "timeout": "5m" }));
        let mut clients: Vec<_> = (0..3).map(|_| lab.client()).collect();
        for client in &mut clients {
            client
                .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n")
                .send(vec![b'x'; 100_000]);
        }
        lab.wait_held(3);
        lab.release();
        // The first of the line, and others.
        for left in [2, 1, 0] {
            drop(clients.remove(0));
            lab.wait_held(left);
        }
        gate.open();
        assert_eq!((first.answer().status, lab.get("/").status), (200, 200));
        assert_eq!(lab.origin("blue").served(), 2, "{limits}");
    }
}

#[test]
fn a_limit_that_is_raised_lets_those_who_wait_go_on() {
    let gate = Gate::default();
    let lab = shop(Origin::held("blue", &gate), "limits = { in_flight = 1 }");
    let first = lab.get_later("/late");
    wait_until("it is in flight", || lab.origin("blue").served() == 1);
    lab.hold(&json!({}));
    let waiting = herd(&lab, 4);
    lab.release();
    let text = std::fs::read_to_string(lab.config()).unwrap();
    let (_, services) = text.split_once("[services.shop]").unwrap();
    lab.write_config(&format!("[services.shop]{}", services.replace("in_flight = 1", "in_flight = 2")));
    all_answered(waiting);
    assert!(!first.is_answered());
    gate.open();
    assert_eq!(first.answer().status, 200);
}

#[test]
fn who_finds_no_room_for_as_long_again_is_refused_as_ever() {
    for (limits, reason) in [
        ("limits = { in_flight = 1 }", "concurrency"),
        ("circuit = { requests = 1, pending = 0, queue_timeout = \"1ms\" }", "circuit_open"),
    ] {
        let gate = Gate::default();
        let lab = shop(Origin::held("blue", &gate), limits);
        let first = lab.get_later("/late");
        wait_until("it is in flight", || lab.origin("blue").served() == 1);
        lab.hold(&json!({ "timeout": "1s" }));
        let waiting = herd(&lab, 10);
        lab.release();
        let since = Instant::now();
        for answer in waiting.into_iter().map(Later::answer) {
            assert_eq!(answer.said(), (503, reason));
        }
        let took = since.elapsed();
        assert!(took > Duration::from_millis(900) && took < Duration::from_secs(3), "{took:?}");
        assert_eq!(lab.get("/").said(), (503, reason));
        gate.open();
        assert_eq!(first.answer().status, 200);
    }
}

/// `shop` under supervision: blue answers `/late` when the first gate is open, green anything when the second one is.
fn supervised(circuit: &str, gates: &[Gate; 2]) -> Lab {
    let slow = gates[1].clone();
    let green = Origin::behaving("green", move |_, stream| {
        slow.wait();
        stream.write_all(b"HTTP/1.1 200 OK\r\nx-version: green\r\ncontent-length: 2\r\n\r\nok")?;
        Ok(Then::Keep)
    });
    let origins = vec![Origin::held("blue", &gates[0]), green];
    let [blue, green] = [&origins[0], &origins[1]].map(|origin| origin.address);
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\noutliers = false\n{circuit}\n\
         [services.shop.versions.blue]\nendpoints = [\"{blue}\"]\n\
         [services.shop.versions.green]\nendpoints = [\"{green}\"]\n"
    );
    Lab::configured(tempfile::tempdir().unwrap(), origins, &services)
}

/// Moves `shop` to green exclusively, under supervision, with so many requests that wait meanwhile.
fn flipped(lab: &Lab, blue: &Gate, count: u32, hold: &str) -> Vec<Later> {
    for _ in 0..50 {
        assert_eq!(lab.get("/").status, 200);
    }
    let late = lab.get_later("/late");
    wait_until("it is in flight", || lab.origin("blue").served() == 51);
    let flip = lab.flip_later("green", &json!({ "supervise": "60s", "hold_timeout": hold }));
    lab.wait_holding(true);
    let waiting = herd(lab, count);
    blue.open();
    assert_eq!((late.answer().status, flip.answer().status), (200, 200));
    waiting
}

fn of_green(lab: &Lab) -> Value {
    lab.call("GET", "/v1/services/shop/verdict", &Value::Null).1["verdict"]["candidate"].take()
}

#[test]
fn those_who_waited_are_no_evidence_against_the_version_that_they_waited_for() {
    let gates = <[Gate; 2]>::default();
    gates[1].open();
    let lab = supervised("circuit = { requests = 1, pending = 0 }", &gates);
    all_answered(flipped(&lab, &gates[0], 40, "10s"));
    wait_until("all are counted", || of_green(&lab)["requests"] == 40);
    assert_eq!((&of_green(&lab)["failed"], lab.weight("green")), (&json!(0), 10_000));
}

#[test]
fn what_a_hold_has_piled_up_and_a_circuit_refuses_is_not_counted() {
    let gates = <[Gate; 2]>::default();
    let lab = supervised("circuit = { requests = 1, pending = 0 }", &gates);
    let waiting = flipped(&lab, &gates[0], 40, "3s");
    let is_open = |answer: &Answer| answer.said() == (503, "circuit_open");
    wait_until("all but one are refused", || waiting.iter().filter(|one| one.is_answered()).count() == 39);
    gates[1].open();
    let answers: Vec<_> = waiting.into_iter().map(Later::answer).collect();
    assert_eq!(answers.iter().filter(|answer| is_open(answer)).count(), 39);
    assert_eq!(lab.get("/").version(), "green");
    wait_until("the two are counted that it had", || of_green(&lab)["requests"] == 2);
    assert_eq!((&of_green(&lab)["failed"], lab.weight("green")), (&json!(0), 10_000));
}

/// Services of these names, each with one route, with these `limits` and this endpoint.
fn services(all: &[(&str, &str)], limits: &str, endpoint: SocketAddr) -> String {
    let service = |(name, path): &(&str, &str)| {
        format!(
            "[services.{name}]\nroutes = [{{ path = \"{path}\" }}]\nstable = \"blue\"\n{limits}\n\
             [services.{name}.versions.blue]\nendpoints = [\"{endpoint}\"]\n"
        )
    };
    all.iter().map(service).collect()
}

fn lab_of(origin: Origin, all: &[(&str, &str)], limits: &str) -> Lab {
    let text = services(all, limits, origin.address);
    Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &text)
}

#[test]
fn who_waits_in_a_hold_is_not_refused_where_a_reload_leads_him() {
    for limits in [
        "limits = { in_flight = 1, rate = \"1/h\", burst = 12 }",
        "limits = { rate = \"1/h\", burst = 12 }\ncircuit = { requests = 1, pending = 0, queue_timeout = \"1ms\" }",
    ] {
        let (origin, most) = counting();
        let lab = lab_of(origin, &[("shop", "/"), ("store", "/store/")], limits);
        assert_eq!(lab.get("/store/").status, 200);
        lab.hold(&json!({}));
        let waiting = herd(&lab, 12);
        let text = services(&[("shop", "/own/"), ("store", "/")], limits, lab.origin("blue").address);
        lab.write_config(&text);
        // Nor is the rate asked again, of which there is not enough left.
        all_answered(waiting);
        assert_eq!((lab.origin("blue").served(), most.load(Ordering::SeqCst)), (13, 1), "{limits}");
        assert_eq!(lab.shop()["phase"], "holding");
    }
}

#[test]
fn who_waits_for_room_goes_on_where_a_reload_leads_him_when_the_service_is_gone() {
    for (limits, _) in ONE {
        let gate = Gate::default();
        let lab = lab_of(Origin::held("blue", &gate), &[("shop", "/"), ("store", "/store/")], limits);
        let mut late = vec![lab.get_later("/late")];
        lab.origin("blue").wait_served(1);
        lab.hold(&json!({}));
        let mut waiting = herd(&lab, 5);
        lab.release();
        lab.wait_held(5);
        lab.write_config(&services(&[("store", "/")], limits, lab.origin("blue").address));
        // One of them may have been counted in before, and wait for the version's room.
        wait_until("they go on", || waiting.iter().filter(|waiting| waiting.is_answered()).count() >= 4);
        gate.open();
        late.append(&mut waiting);
        all_answered(late);
    }
}

#[test]
fn who_waits_in_a_hold_goes_on_when_a_new_service_takes_his_path() {
    let lab = lab_of(Origin::start("blue"), &[("shop", "/")], "");
    lab.hold(&json!({}));
    let mut waiting = herd(&lab, 2);
    waiting.push(lab.get_later("/pay/"));
    lab.wait_held(3);
    let text = services(&[("shop", "/"), ("pay", "/pay/")], "", lab.origin("blue").address);
    lab.write_config(&text);
    assert_eq!(waiting.pop().unwrap().answer().status, 200);
    lab.wait_held(2);
    lab.release();
    all_answered(waiting);
}
