//! A held service's requests wait, bounded, and none is refused: not by the hold, not by a bound, not by a restart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use lab::gate::Gate;
use lab::http2::{answer, request, run};
use lab::{Http2, Lab, Origin};
use serde_json::{Value, json};

const GET: &str = "GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n";

/// `shop` at `/` with `settings`, and `cart` at `/cart`, on one origin each.
fn shop_and_cart(settings: &str) -> Lab {
    let origins = vec![Origin::start("blue"), Origin::start("green"), Origin::start("v1")];
    let at = |index: usize| origins[index].address;
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n{settings}\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n\
         [services.shop.versions.green]\nendpoints = [\"{}\"]\n\
         [services.cart]\nroutes = [{{ path = \"/cart\" }}]\nstable = \"v1\"\n\
         [services.cart.versions.v1]\nendpoints = [\"{}\"]\n",
        at(0),
        at(1),
        at(2)
    );
    Lab::configured(tempfile::tempdir().unwrap(), origins, &services)
}

fn last_change(lab: &Lab) -> Value {
    lab.call("GET", "/v1/changes?limit=1&service=shop", &Value::Null).1["changes"][0].take()
}

#[test]
fn requests_of_a_held_service_wait_and_go_on_when_it_is_released() {
    let lab = Lab::start(&["blue", "green"]);
    let done = lab.hold(&json!({ "reason": "migrating" }));
    assert_eq!((&done["epoch"], &done["services"]["shop"]["phase"]), (&json!(2), &json!("holding")));
    let waiting: Vec<_> = (0..5).map(|_| lab.get_later("/")).collect();
    lab.wait_held(5);
    assert_eq!(lab.shop()["held_requests"], 5);
    assert_eq!((lab.origin("blue").served(), waiting.iter().any(lab::held::Later::is_answered)), (0, false));
    assert_eq!(lab.metric_sum("switchback_in_flight{"), 0.0, "in flight on no version");
    // Whatever else is changed meanwhile, it stays held.
    lab.flip("green");
    assert_eq!(lab.shop()["phase"], "holding");
    let done = lab.release();
    assert_eq!((&done["epoch"], &done["services"]["shop"]["hold"]), (&json!(4), &Value::Null));
    for waiting in waiting {
        let answer = waiting.answer();
        assert_eq!((answer.status, answer.version()), (200, "green"));
    }
    lab.wait_held(0);
    let (_, history) = lab.call("GET", "/v1/changes?limit=3", &Value::Null);
    let kinds: Vec<_> = (0..3).map(|index| history["changes"][index]["kind"].clone()).collect();
    assert_eq!(kinds, ["release", "flip", "hold"]);
    assert_eq!(history["changes"][2]["summary"], "shop: requests held for at most 10 s");
}

/// Answers connections one after the other, in the order in which they were made; gives their paths in that order.
fn in_order() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, paths) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
    let seen = Arc::clone(&paths);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let Some(line) = lines.next() else { continue };
            lines.find(String::is_empty);
            seen.lock().unwrap().push(line.split(' ').nth(1).unwrap().to_owned());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        }
    });
    (address, paths)
}

#[test]
fn they_go_on_in_the_order_in_which_they_came() {
    let (address, seen) = in_order();
    let mut lab = Lab::pool(vec![], &[address], "", "");
    // Each worker keeps the order of its own.
    lab.restrict_to_one_worker();
    lab.hold(&json!({}));
    let paths: Vec<_> = (0..40).map(|number| format!("/{number}")).collect();
    let mut waiting = Vec::new();
    for (path, count) in paths.iter().zip(1..) {
        waiting.push(lab.get_later(path));
        lab.wait_held(count);
    }
    lab.release();
    waiting.into_iter().for_each(|waiting| assert_eq!(waiting.answer().status, 200));
    assert_eq!(*seen.lock().unwrap(), paths);
}

#[test]
fn a_pipelining_client_gets_its_answers_in_order() {
    let lab = Lab::start(&["blue"]);
    let mut client = lab.client();
    assert_eq!(client.get("/before").status, 200);
    lab.hold(&json!({}));
    client.send("GET /one HTTP/1.1\r\nhost: a\r\n\r\nGET /two HTTP/1.1\r\nhost: a\r\n\r\n");
    lab.wait_held(1);
    lab.release();
    assert_eq!(
        [client.answer().text(), client.answer().text()],
        ["blue GET /one HTTP/1.1\n", "blue GET /two HTTP/1.1\n"]
    );
    assert_eq!(client.get("/after").status, 200);
}

#[test]
fn streams_of_http2_wait_each_for_its_own_service() {
    let lab = shop_and_cart("");
    lab.hold(&json!({}));
    run(async {
        let client = Http2::to(lab.address()).await;
        let held = async { (client.get("/").await.status, lab.shop()["phase"].clone()) };
        let release = async {
            lab::http2::wait_until("it waits", || lab.shop()["held_requests"] == 1).await;
            assert_eq!(client.get("/cart").await.version(), "v1", "another stream of the same connection");
            lab.release();
        };
        let ((status, phase), ()) = tokio::join!(held, release);
        assert_eq!((status, phase), (200, json!("steady")));
    });
}

#[test]
fn another_service_is_served_and_changed_as_always() {
    let lab = shop_and_cart("");
    lab.hold(&json!({}));
    let waiting = lab.get_later("/");
    lab.wait_held(1);
    for _ in 0..20 {
        assert_eq!(lab.get("/cart").version(), "v1");
    }
    let (status, _) =
        lab.call("PUT", "/v1/services/cart/versions/v2", &json!({ "endpoints": ["127.0.0.1:1"] }));
    assert_eq!((status, waiting.is_answered()), (200, false));
    lab.release();
    assert_eq!(waiting.answer().status, 200);
}

#[test]
fn a_hold_ends_at_its_time_and_says_so() {
    let lab = Lab::start(&["blue"]);
    let since = Instant::now();
    lab.hold(&json!({ "timeout": "300ms" }));
    assert_eq!(lab.get("/").version(), "blue");
    assert!(since.elapsed() >= Duration::from_millis(300));
    lab.wait_holding(false);
    let change = last_change(&lab);
    assert_eq!((&change["kind"], &change["actor"]["kind"]), (&json!("release"), &json!("supervisor")));
    assert_eq!(change["reason"], "the hold has ended: its time of 0.3 s was over");
}

#[test]
fn too_many_requests_end_the_hold_and_none_is_refused() {
    let lab = shop_and_cart("hold = { requests = 3, timeout = \"5m\" }");
    lab.hold(&json!({}));
    let mut waiting: Vec<_> = (0..3).map(|_| lab.get_later("/")).collect();
    lab.wait_held(3);
    waiting.push(lab.get_later("/"));
    for waiting in waiting {
        assert_eq!(waiting.answer().version(), "blue");
    }
    lab.wait_holding(false);
    assert_eq!(last_change(&lab)["reason"], "the hold has ended: more than 3 requests waited");
}

#[test]
fn who_waits_already_counts_when_the_hold_is_asked_for_again() {
    let lab = shop_and_cart("hold = { requests = 3, timeout = \"5m\" }");
    let mut waiting = Vec::new();
    for count in 1..=3 {
        lab.hold(&json!({}));
        waiting.push(lab.get_later("/"));
        lab.wait_held(count);
    }
    lab.hold(&json!({}));
    waiting.push(lab.get_later("/"));
    for waiting in waiting {
        assert_eq!(waiting.answer().version(), "blue");
    }
    lab.wait_holding(false);
    assert_eq!(last_change(&lab)["reason"], "the hold has ended: more than 3 requests waited");
}

#[test]
fn too_large_heads_end_the_hold_and_none_is_refused() {
    let lab = shop_and_cart("hold = { bytes = \"16KiB\", timeout = \"5m\" }");
    lab.hold(&json!({}));
    let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx-large: {}\r\n\r\n", "x".repeat(9_000));
    let first = lab.ask_later(&large);
    lab.wait_held(1);
    assert_eq!(lab.ask_later(&large).answer().version(), "blue");
    assert_eq!(first.answer().version(), "blue");
    lab.wait_holding(false);
    let reason = last_change(&lab)["reason"].clone();
    assert_eq!(reason, "the hold has ended: the requests that waited had more than 16384 bytes");
}

#[test]
fn a_client_that_leaves_is_let_go() {
    let lab = Lab::start(&["blue"]);
    lab.hold(&json!({}));
    let mut clients: Vec<_> = (0..3).map(|_| lab.client()).collect();
    for client in &mut clients {
        client.send(GET);
    }
    lab.wait_held(3);
    // Also the first of its line.
    drop(clients.remove(0));
    lab.wait_held(2);
    run(async {
        let client = Http2::to(lab.address()).await;
        let (response, mut send) = client.start(request(Method::POST, "/"), false).await;
        lab::http2::wait_until("it waits", || lab.shop()["held_requests"] == 3).await;
        send.send_reset(h2::Reason::CANCEL);
        assert!(answer(response).await.is_err());
        lab::http2::wait_until("it is let go", || lab.shop()["held_requests"] == 2).await;
        let (response, _) = client.start(request(Method::GET, "/"), true).await;
        lab::http2::wait_until("it waits", || lab.shop()["held_requests"] == 3).await;
        drop((response, client));
        lab::http2::wait_until("it is let go", || lab.shop()["held_requests"] == 2).await;
    });
    let gone = ["switchback_client_requests_total{service=\"shop\",version=\"\"", "reason=\"client_gone\""];
    lab.wait_for_metric(&gone, 3.0);
    lab.release();
    clients.iter_mut().for_each(|client| assert_eq!(client.answer().status, 200));
    assert_eq!(lab.origin("blue").served(), 2);
}

#[test]
fn a_client_that_leaves_an_upload_is_let_go_though_nothing_of_it_is_read() {
    let lab = Lab::start(&["blue"]);
    lab.hold(&json!({ "timeout": "5m" }));
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n";
    let mut clients: Vec<_> = (0..3).map(|_| lab.client()).collect();
    for client in &mut clients {
        client.send(head).send(vec![b'x'; 100_000]);
    }
    lab.wait_held(3);
    // The first of its line, and others.
    for left in [2, 1, 0] {
        drop(clients.remove(0));
        lab.wait_held(left);
    }
    let gone = ["switchback_client_requests_total{service=\"shop\",version=\"\"", "reason=\"client_gone\""];
    lab.wait_for_metric(&gone, 3.0);
    lab.release();
    assert_eq!((lab.origin("blue").connections(), lab.get("/").status), (0, 200));
}

/// More than all buffers between a client and an origin can take.
const UPLOAD: usize = 64 << 20;

#[test]
fn an_upload_that_is_held_is_not_read() {
    let lab = Lab::start(&["blue"]);
    lab.hold(&json!({ "timeout": "5m" }));
    let before = lab.proxy().memory();
    let mut client = lab.client();
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {UPLOAD}\r\n\r\n"));
    let mut sender = client.sender();
    sender.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let chunk = vec![b'x'; 64 << 10];
    let mut sent = 0;
    while sent < UPLOAD {
        match sender.write(&chunk[..chunk.len().min(UPLOAD - sent)]) {
            Ok(written) => sent += written,
            Err(_) => break,
        }
    }
    assert!(sent < UPLOAD / 2, "{sent} bytes were taken");
    let more = lab.proxy().memory().saturating_sub(before);
    assert!(more < 8 << 20, "{more} bytes more");
    lab.wait_held(1);
    sender.set_write_timeout(None).unwrap();
    let rest = thread::spawn(move || sender.write_all(&vec![b'x'; UPLOAD - sent]));
    lab.release();
    assert_eq!(client.answer().status, 200);
    rest.join().unwrap().unwrap();
    assert_eq!(lab.origin("blue").only().body.len(), UPLOAD);
}

#[test]
fn an_upload_over_http2_is_held_within_its_window() {
    let lab = Lab::start(&["blue"]);
    lab.hold(&json!({ "timeout": "5m" }));
    run(async {
        let client = Http2::to(lab.address()).await;
        let (response, send) = client.start(request(Method::POST, "/"), false).await;
        let body = Bytes::from(vec![7; 4 << 20]);
        let mut upload = Box::pin(lab::http2::upload(send, body, None));
        let held = lab::http2::wait_until("it waits", || lab.shop()["held_requests"] == 1);
        tokio::select! {
            biased;
            _ = &mut upload => panic!("4 MiB were taken"),
            () = held => {}
        }
        let (sent, answered, ()) = tokio::join!(upload, answer(response), async { drop(lab.release()) });
        sent.unwrap();
        assert_eq!(answered.unwrap().status, 200);
    });
    assert_eq!(lab.origin("blue").only().body.len(), 4 << 20);
}

#[test]
fn health_checks_are_answered_meanwhile() {
    let lab = shop_and_cart("hold = { answer = [\"/up\", \"/ready\"] }");
    assert_eq!(lab.get("/up").version(), "blue");
    lab.hold(&json!({}));
    let answer = lab.get("/up");
    assert_eq!((answer.status, answer.header("switchback-reason")), (200, Some("held")));
    assert_eq!(lab.client().send("HEAD /ready HTTP/1.1\r\nhost: a\r\n\r\n").head_answer().status, 200);
    let waiting = [lab.get_later("/up/"), lab.get_later("/"), lab.post_later("/up")];
    lab.wait_held(3);
    assert_eq!(lab.metric(&["switchback_route_answers_total", "\"held\""]), Some(2.0));
    lab.release();
    assert!(waiting.into_iter().all(|waiting| waiting.answer().version() == "blue"));
    assert_eq!(lab.get("/up").version(), "blue");
}

#[test]
fn reads_flow_while_writes_are_held() {
    let lab = shop_and_cart("hold = { answer = [\"/up\"] }");
    lab.hold(&json!({ "scope": "writes" }));
    let websocket = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let waiting = [
        lab.post_later("/"),
        lab.ask_later("DELETE / HTTP/1.1\r\nhost: a\r\n\r\n"),
        lab.ask_later("TRACE / HTTP/1.1\r\nhost: a\r\n\r\n"),
        lab.ask_later(websocket),
    ];
    lab.wait_held(4);
    for line in ["GET / ", "OPTIONS / ", "GET /up "] {
        let answer = lab.client().send(format!("{line}HTTP/1.1\r\nhost: a\r\n\r\n")).answer();
        assert_eq!((answer.version(), answer.header("switchback-reason")), ("blue", None), "{line}");
    }
    assert_eq!(lab.client().send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").head_answer().status, 200);
    assert_eq!(waiting.iter().filter(|waiting| waiting.is_answered()).count(), 0);
    lab.release();
    assert!(waiting.into_iter().all(|waiting| waiting.answer().version() == "blue"));
}

#[test]
fn reads_that_wait_go_on_when_only_writes_are_held_from_now_on() {
    let mut lab = Lab::start(&["blue"]);
    // The reads stand behind the write.
    lab.restrict_to_one_worker();
    lab.hold(&json!({ "timeout": "5m" }));
    let write = lab.post_later("/");
    lab.wait_held(1);
    let reads = [lab.get_later("/"), lab.get_later("/")];
    lab.wait_held(3);
    lab.hold(&json!({ "scope": "writes" }));
    assert!(reads.into_iter().all(|read| read.answer().version() == "blue"));
    lab.wait_held(1);
    assert!(!write.is_answered());
    lab.release();
    assert_eq!(write.answer().version(), "blue");
}

#[test]
fn a_hold_outlives_a_reload_and_an_undo_but_not_the_process() {
    let mut lab = Lab::start(&["blue", "green"]);
    lab.flip("green");
    lab.hold(&json!({}));
    let mut events = lab.events();
    lab.write_config(&format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\ntimeouts = {{ connect = \"1s\" }}\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n[services.shop.versions.green]\nendpoints = [\"{}\"]\n",
        lab.origin("blue").address,
        lab.origin("green").address
    ));
    events.wait_for(|event| event["change"]["kind"] == "configure");
    let waiting = lab.get_later("/");
    lab.wait_held(1);
    let (status, _) = lab.call("POST", "/v1/undo", &json!({ "to_epoch": 1 }));
    assert_eq!((status, &lab.shop()["phase"]), (200, &json!("holding")));
    lab.release();
    assert_eq!(waiting.answer().version(), "blue");
    lab.hold(&json!({}));
    lab.kill_and_restart();
    assert_eq!(lab.shop()["phase"], "steady");
    assert_eq!(lab.get("/").version(), "blue");
}

#[test]
fn a_service_that_is_dropped_while_held_lets_go() {
    let lab = shop_and_cart("");
    lab.hold(&json!({}));
    let waiting = lab.get_later("/");
    lab.wait_held(1);
    lab.write_config(&format!(
        "[services.cart]\nroutes = [{{ path = \"/\" }}]\nstable = \"v1\"\n[services.cart.versions.v1]\nendpoints = [\"{}\"]\n",
        lab.origin("v1").address
    ));
    assert_eq!(waiting.answer().version(), "v1", "routed again");
}

#[test]
fn a_stopping_proxy_holds_nobody_back() {
    let gate = Gate::default();
    let mut lab = Lab::on(vec![Origin::held("blue", &gate)], "");
    lab.hold(&json!({ "timeout": "10m" }));
    let waiting = lab.get_later("/");
    lab.wait_held(1);
    let proxy = lab.proxy.take().unwrap();
    let (status, log) = proxy.stop();
    assert!(status.success(), "{log}");
    assert_eq!(waiting.answer().version(), "blue");
}

#[test]
fn what_is_asked_wrongly_is_told() {
    let lab = Lab::start(&["blue"]);
    for (body, field) in [
        (json!({ "scope": "reads" }), "scope"),
        (json!({ "timeout": "11m" }), "timeout"),
        (json!({ "timeout": "0s" }), "timeout"),
        (json!({ "until": "noon" }), "until"),
    ] {
        let (status, answer) = lab.call("POST", "/v1/services/shop/hold", &body);
        assert_eq!((status, &answer["field"]), (400, &json!(field)), "{answer}");
    }
    let stale = lab.call_with("POST", "/v1/services/shop/hold", &[("if-match", "\"7\"")], &json!({}));
    assert_eq!(stale.status, 412);
    let (_, plan) = lab.call("POST", "/v1/services/shop/hold?dry_run=true", &json!({}));
    assert_eq!((&plan["dry_run"], &plan["services"]["shop"]["hold"]["scope"]), (&json!(true), &json!("all")));
    assert_eq!((lab.epoch(), lab.get("/").status), (1, 200));
    assert_eq!(lab.release()["changed"], false);
}

#[test]
fn the_command_line_holds_and_releases() {
    let lab = Lab::start(&["blue"]);
    let (code, said, _) = lab.cli(&["hold", "shop", "--writes", "--timeout", "30s", "--reason", "migrating"]);
    assert_eq!(
        (code, said.trim()),
        (0, "shop: writes wait for at most 30 s (epoch 2)\non with it: switchback release shop")
    );
    let waiting = lab.post_later("/");
    lab.wait_held(1);
    let (_, status, _) = lab.cli(&["status", "shop"]);
    assert!(status.contains("held: writes, 1 waiting   (on: switchback release shop)"), "{status}");
    let (code, said, _) = lab.cli(&["release", "shop"]);
    assert_eq!((code, said.lines().last()), (0, Some("requests of shop go on")));
    assert_eq!(waiting.answer().status, 200);
}
