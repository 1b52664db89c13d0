//! Large bodies pass through pipes in the kernel: byte by byte what was sent, with every limit and ending that copied ones have,
//! and no pipe is left behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lab::origin::{Peer, Then};
use lab::{Client, Gate, Lab, Origin, PATIENCE, wait_until};
use serde_json::{Value, json};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// How many pipes a worker has at most, and how many of them it keeps.
const MOST: usize = 128;
const KEPT: usize = 16;

/// More than the kernels hold between two sides of which one does not read.
const MUCH: usize = 64 * MIB;

/// Around what is worth a pipe, what is read at once and what a pipe holds, and odd ones.
const SIZES: [usize; 16] = [
    0,
    1,
    32 * KIB - 1,
    32 * KIB,
    32 * KIB + 1,
    48 * KIB + 5,
    64 * KIB - 1,
    64 * KIB,
    64 * KIB + 1,
    96 * KIB + 13,
    256 * KIB - 1,
    256 * KIB,
    256 * KIB + 1,
    300_001,
    MIB + 7,
    5 * MIB + 3,
];

/// Bytes of which no part is like another.
fn body(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    let mut body = Vec::with_capacity(length + 8);
    while body.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        body.extend_from_slice(&state.to_le_bytes());
    }
    body.truncate(length);
    body
}

/// Answers `GET /LENGTH` with as many bytes, and everything else with what it got.
fn echoes() -> Origin {
    Origin::behaving("blue", |seen, stream| {
        let length = seen.path().trim_start_matches('/').parse().unwrap_or(0);
        let is_get = seen.line.starts_with("GET");
        let answer = if is_get { body(length) } else { seen.body.clone() };
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len())?;
        stream.write_all(&answer)?;
        Ok(Then::Keep)
    })
}

fn on_one_worker(mut lab: Lab) -> Lab {
    lab.restrict_to_one_worker();
    lab
}

fn lab(origin: Origin) -> Lab {
    on_one_worker(Lab::on(vec![origin], ""))
}

/// Ends of pipes that the proxy has.
fn pipe_ends(lab: &Lab) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", lab.proxy().pid())).unwrap();
    let targets = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("pipe:")).count()
}

/// Waits until the proxy has no more pipes than those that it keeps, of as many as were used at once; `before` any were needed.
fn none_is_left(lab: &Lab, before: usize, at_once: usize) {
    wait_until("pipes are closed", || pipe_ends(lab) <= before + 2 * at_once.min(KEPT));
}

fn ask(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\n\r\n")
}

fn post(length: usize) -> String {
    format!("POST / HTTP/1.1\r\nhost: shop.test\r\ncontent-length: {length}\r\n\r\n")
}

/// Sends on another thread, so that the answer can be read meanwhile.
fn send_later(client: &Client, bytes: Vec<u8>) -> thread::JoinHandle<std::io::Result<()>> {
    let mut sender = client.sender();
    thread::spawn(move || sender.write_all(&bytes))
}

#[test]
fn bodies_of_every_size_arrive_as_they_were_sent_over_one_connection() {
    let lab = lab(echoes());
    let before = pipe_ends(&lab);
    let mut client = lab.client();
    for size in SIZES {
        let got = client.get(&format!("/{size}"));
        assert!(got.is_whole && got.body == body(size), "an answer of {size}");
        let sending = send_later(&client, [post(size).into_bytes(), body(size)].concat());
        let echoed = client.answer();
        sending.join().unwrap().unwrap();
        assert!(echoed.is_whole && echoed.body == body(size), "there and back: {size}");
    }
    assert_eq!(lab.origins[0].connections(), 1, "the connection to the endpoint is kept");
    assert!(pipe_ends(&lab) > before, "pipes were used");
    none_is_left(&lab, before, 1);
}

#[test]
fn bodies_pass_through_unix_sockets_too() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("http.sock").display().to_string();
    let origin = echoes();
    let services = format!(
        "[[listeners]]\nlisten = \"unix:{socket}\"\n\
         [services.outer]\nroutes = [{{ host = \"outer.test\", rewrite_host = \"inner.test\" }}]\nstable = \"v1\"\n\
         [services.outer.versions.v1]\nendpoints = [\"unix:{socket}\"]\n\
         [services.inner]\nroutes = [{{ host = \"inner.test\" }}]\nstable = \"v1\"\n\
         [services.inner.versions.v1]\nendpoints = [\"{}\"]\n",
        origin.address
    );
    let lab = on_one_worker(Lab::configured(dir, vec![origin], &services));
    let before = pipe_ends(&lab);
    let mut client = lab.client();
    for size in SIZES {
        let head = format!("POST / HTTP/1.1\r\nhost: outer.test\r\ncontent-length: {size}\r\n\r\n");
        let sending = send_later(&client, [head.into_bytes(), body(size)].concat());
        let echoed = client.answer();
        sending.join().unwrap().unwrap();
        assert!(echoed.is_whole && echoed.body == body(size), "through both: {size}");
    }
    let mut client = UnixStream::connect(&socket).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
        .write_all(format!("GET /{MIB} HTTP/1.1\r\nhost: inner.test\r\nconnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(got.ends_with(&body(MIB)));
    assert!(pipe_ends(&lab) > before, "pipes were used");
}

#[test]
fn many_bodies_at_once_are_not_mixed_up() {
    let lab = lab(echoes());
    let before = pipe_ends(&lab);
    let asking = |seed: usize| {
        let mut client = lab.client();
        move || {
            for round in 0..6 {
                let size = 40_000 + (seed * 7 + round * 13) * 9_973;
                assert!(client.get(&format!("/{size}")).body == body(size), "an answer of {size}");
                let sending = send_later(&client, [post(size).into_bytes(), body(size)].concat());
                assert!(client.answer().body == body(size), "there and back: {size}");
                sending.join().unwrap().unwrap();
            }
        }
    };
    let threads: Vec<_> = (0..24).map(|seed| thread::spawn(asking(seed))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    none_is_left(&lab, before, 24);
}

#[test]
fn bytes_that_come_one_by_one_and_in_odd_parts_arrive() {
    let origin = Origin::scripted("blue", |proxy: &mut Peer| {
        while proxy.head().is_ok() {
            let answer = body(200_003);
            proxy.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len()))?;
            let (first, rest) = answer.split_at(50);
            first.iter().try_for_each(|byte| proxy.send([*byte]))?;
            rest.chunks(9_001).try_for_each(|part| proxy.send(part))?;
        }
        Ok(())
    });
    let lab = lab(origin);
    let mut client = lab.client();
    for _ in 0..5 {
        assert!(client.get("/").body == body(200_003));
    }
}

#[test]
fn a_client_that_pauses_gets_all_of_it_and_holds_a_pipe_meanwhile() {
    let lab = lab(echoes());
    let before = pipe_ends(&lab);
    let mut client = lab.client();
    client.send(ask(&format!("/{MUCH}")));
    wait_until("it is behind", || pipe_ends(&lab) >= before + 2);
    assert_eq!(lab.get("/100000").body, body(100_000), "others are served");
    assert!(client.answer().body == body(MUCH));
    assert!(client.get("/100000").body == body(100_000), "and it goes on");
    none_is_left(&lab, before, 2);
}

#[test]
fn clients_that_leave_in_the_middle_leave_no_pipe() {
    let lab = lab(echoes());
    let before = pipe_ends(&lab);
    for left in 1..=12 {
        let mut client = lab.client();
        client.send(ask(&format!("/{MUCH}")));
        assert!(client.line().contains("200"));
        wait_until("it is behind", || pipe_ends(&lab) >= before + 2);
        drop(client);
        lab.wait_for_metric(
            &["switchback_client_requests_total{", "version=\"blue\"", "reason=\"client_gone\""],
            f64::from(left),
        );
    }
    none_is_left(&lab, before, 1);
    assert!(lab.get("/1000000").body == body(1_000_000), "what was left over is nobody's");
}

#[test]
fn an_endpoint_that_leaves_in_the_middle_of_its_answer_breaks_it_off() {
    let origin = Origin::behaving("blue", |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")?;
        stream.write_all(&body(700_001))?;
        Ok(Then::Close)
    });
    let lab = lab(origin);
    let before = pipe_ends(&lab);
    for broken in 1..=8 {
        let mut client = lab.client();
        let got = client.get("/");
        assert!(!got.is_whole && got.body == body(700_001), "{} bytes came", got.body.len());
        assert!(client.rest().is_empty());
        lab.wait_for_metric(
            &["switchback_upstream_requests_total{", "reason=\"body_truncated\""],
            f64::from(broken),
        );
    }
    none_is_left(&lab, before, 1);
}

#[test]
fn an_upload_that_breaks_off_is_not_passed_off_as_whole() {
    let (tell, told) = mpsc::channel();
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        proxy.head()?;
        tell.send(proxy.rest()).unwrap();
        Ok(())
    });
    let lab = lab(origin);
    let before = pipe_ends(&lab);
    for broken in 1..=8 {
        let mut client = lab.client();
        client.send(post(MIB)).send(&body(MIB)[..700_001]);
        drop(client);
        let got = told.recv_timeout(PATIENCE).unwrap();
        assert!(got == body(MIB)[..got.len()] && got.len() <= 700_001, "{} bytes", got.len());
        lab.wait_for_metric(
            &["switchback_client_requests_total{", "version=\"blue\"", "reason=\"client_gone\""],
            f64::from(broken),
        );
    }
    none_is_left(&lab, before, 1);
}

#[test]
fn an_endpoint_that_leaves_in_the_middle_of_an_upload_leaves_no_pipe() {
    let origin = Origin::scripted("blue", |proxy: &mut Peer| {
        proxy.head()?;
        proxy.bytes(100_000).map(drop)
    });
    let lab = lab(origin);
    let before = pipe_ends(&lab);
    for _ in 0..8 {
        let mut client = lab.client();
        client.send(post(MUCH));
        let sending = send_later(&client, body(MUCH));
        assert_eq!(client.answer().status, 502);
        drop(client);
        let _ = sending.join().unwrap();
    }
    none_is_left(&lab, before, 1);
}

#[test]
fn an_answer_to_head_has_no_body_and_the_next_request_has() {
    let origin = Origin::behaving("blue", |seen, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 300001\r\n\r\n")?;
        if !seen.line.starts_with("HEAD") {
            stream.write_all(&body(300_001))?;
        }
        Ok(Then::Keep)
    });
    let lab = lab(origin);
    let mut client = lab.client();
    for _ in 0..3 {
        client.send("HEAD / HTTP/1.1\r\nhost: shop.test\r\n\r\n");
        assert_eq!(client.head_answer().header("content-length"), Some("300001"));
        assert!(client.get("/").body == body(300_001));
    }
    assert_eq!(lab.origins[0].connections(), 1);
}

#[test]
fn requests_behind_an_upload_are_the_next_ones() {
    let lab = lab(echoes());
    let mut client = lab.client();
    for size in [65_537, 300_001, MIB] {
        // In one piece: of what is read, the end of the body and the next head may come together.
        let all = [post(size).into_bytes(), body(size), ask("/70001").into_bytes(), ask("/5").into_bytes()];
        let sending = send_later(&client, all.concat());
        assert!(client.answer().body == body(size));
        assert!(client.answer().body == body(70_001));
        assert_eq!(client.answer().body, body(5));
        sending.join().unwrap().unwrap();
    }
}

#[test]
fn what_comes_behind_an_answer_is_not_the_next_one() {
    let origin = Origin::behaving("blue", |_, stream| {
        let answer = [b"HTTP/1.1 200 OK\r\ncontent-length: 300001\r\n\r\n", &body(300_001)[..], b"and more"];
        stream.write_all(&answer.concat())?;
        Ok(Then::Keep)
    });
    let lab = lab(origin);
    let mut client = lab.client();
    for requests in 1..=4 {
        assert!(client.get("/").body == body(300_001));
        assert_eq!(lab.origins[0].connections(), requests, "a connection with bytes left over is used again");
    }
}

#[test]
fn an_upload_waits_for_its_endpoint_to_say_continue() {
    let lab = lab(echoes());
    let mut client = lab.client();
    for _ in 0..2 {
        client.send(format!(
            "POST / HTTP/1.1\r\nhost: shop.test\r\nexpect: 100-continue\r\ncontent-length: {MIB}\r\n\r\n"
        ));
        assert_eq!((client.line(), client.line()), ("HTTP/1.1 100 Continue".into(), String::new()));
        let sending = send_later(&client, body(MIB));
        assert!(client.answer().body == body(MIB));
        sending.join().unwrap().unwrap();
    }
}

#[test]
fn an_upload_goes_on_when_its_endpoint_does_not_say_continue() {
    let origin = Origin::scripted("blue", |proxy: &mut Peer| {
        proxy.head()?;
        let whole = proxy.bytes(MIB)? == body(MIB);
        proxy.send(format!("HTTP/1.1 {} Seen\r\ncontent-length: 0\r\n\r\n", if whole { 200 } else { 500 }))
    });
    let lab = lab(origin);
    let mut client = lab.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nhost: shop.test\r\nexpect: 100-continue\r\ncontent-length: {MIB}\r\n\r\n"
    ));
    assert_eq!((client.line(), client.line()), ("HTTP/1.1 100 Continue".into(), String::new()));
    assert_eq!(client.send(body(MIB)).answer().status, 200);
}

#[test]
fn bytes_are_counted_for_the_access_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let origin = echoes();
    let text = format!(
        "[access_log]\ntarget = \"file\"\npath = \"{}\"\n[services.shop]\nroutes = [{{}}]\nstable = \"blue\"\n\
         versions.blue.endpoints = [\"{}\"]\n",
        log.display(),
        origin.address
    );
    let lab = Lab::configured(dir, vec![origin], &text);
    let mut client = lab.client();
    for size in SIZES {
        let sending = send_later(&client, [post(size).into_bytes(), body(size)].concat());
        assert_eq!(client.answer().body.len(), size);
        sending.join().unwrap().unwrap();
    }
    let lines = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("lines are written", || lines().lines().count() >= SIZES.len());
    for (line, size) in lines().lines().zip(SIZES) {
        let line: Value = serde_json::from_str(line).unwrap();
        let counts = (&line["request_bytes"], &line["response_bytes"], &line["outcome"]);
        assert_eq!(counts, (&json!(size), &json!(size), &json!("ok")));
    }
}

/// Sends the first 500,000 of its million bytes, and the rest when the gate is open.
fn pauses(name: &str, gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::behaving(name, move |_, stream| {
        let answer = body(MIB);
        stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {MIB}\r\n\r\n").as_bytes())?;
        stream.write_all(&answer[..500_000])?;
        gate.wait();
        stream.write_all(&answer[500_000..])?;
        Ok(Then::Keep)
    })
}

/// Whether `blue` is empty, and how many are left there.
fn drain(lab: &Lab) -> (bool, u64) {
    let (_, drain) = lab.call("GET", "/v1/services/shop/versions/blue/drain", &Value::Null);
    let remaining = drain["remaining"].as_array().unwrap().iter();
    (drain["drained"] == true, remaining.map(|left| left["count"].as_u64().unwrap()).sum())
}

#[test]
fn an_answer_in_the_middle_of_a_flip_counts_until_its_last_byte() {
    let gate = Gate::default();
    let lab = on_one_worker(Lab::on(vec![pauses("blue", &gate), Origin::start("green")], ""));
    let before = pipe_ends(&lab);
    let mut client = lab.client();
    client.send(ask("/"));
    while client.line() != "" {}
    assert!(client.bytes(500_000) == body(MIB)[..500_000]);
    lab.flip("green");
    assert_eq!(drain(&lab), (false, 1));
    assert_eq!(
        pipe_ends(&lab),
        before + 2,
        "who waits for bytes holds no pipe: the one that was used is kept"
    );
    gate.open();
    assert!(client.bytes(MIB - 500_000) == body(MIB)[500_000..]);
    wait_until("blue is empty", || drain(&lab) == (true, 0));
    assert_eq!(client.get("/").version(), "green");
}

#[test]
fn an_answer_is_cut_at_the_drains_deadline() {
    let origins = vec![pauses("blue", &Gate::default()), Origin::start("green")];
    let dir = tempfile::tempdir().unwrap();
    let services = format!(
        "[services.shop]\nroutes = [{{}}]\nstable = \"blue\"\n\
         drain = {{ patience = \"100ms\", spread = \"100ms\", deadline = \"300ms\" }}\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n[services.shop.versions.green]\nendpoints = [\"{}\"]\n",
        origins[0].address, origins[1].address
    );
    let lab = on_one_worker(Lab::configured(dir, origins, &services));
    let before = pipe_ends(&lab);
    let mut client = lab.client();
    client.send(ask("/"));
    while client.line() != "" {}
    client.bytes(500_000);
    lab.flip("green");
    assert!(client.rest().is_empty(), "it breaks off");
    wait_until("blue is empty", || drain(&lab) == (true, 0));
    lab.wait_for_metric(&["switchback_upstream_requests_total{", "reason=\"drain_deadline\""], 1.0);
    none_is_left(&lab, before, 1);
}

#[test]
fn an_endpoint_that_pauses_too_long_ends_its_answer() {
    let origin = pauses("blue", &Gate::default());
    let lab = on_one_worker(Lab::pool(vec![origin], &[], "", "timeouts = { progress = \"300ms\" }"));
    let before = pipe_ends(&lab);
    let got = lab.get("/");
    assert!(!got.is_whole && got.body == body(MIB)[..500_000]);
    lab.wait_for_metric(&["switchback_upstream_requests_total{", "reason=\"body_stalled\""], 1.0);
    none_is_left(&lab, before, 1);
}

/// In parts, with pauses between them: longer in all than one pause may be.
fn drip(stream: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
    bytes.chunks(50_000).try_for_each(|part| {
        thread::sleep(Duration::from_millis(50));
        stream.write_all(part)
    })
}

#[test]
fn who_pauses_again_and_again_but_never_for_long_has_the_time() {
    let origin = Origin::behaving("blue", |seen, stream| {
        assert!(seen.line.starts_with("GET") || seen.body == body(MIB));
        stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {MIB}\r\n\r\n").as_bytes())?;
        drip(stream, &body(MIB))?;
        Ok(Then::Keep)
    });
    let lab = on_one_worker(Lab::pool(vec![origin], &[], "", "timeouts = { progress = \"1s\" }"));
    let mut client = lab.client();
    assert!(client.get("/").body == body(MIB));
    client.send(post(MIB));
    drip(&mut client.sender(), &body(MIB)).unwrap();
    assert!(client.answer().body == body(MIB));
}

#[test]
fn a_client_that_takes_nothing_or_sends_nothing_is_given_up_with_its_pipe() {
    let limits = "[limits]\nwrite_stall = \"300ms\"";
    let lab = on_one_worker(Lab::pool(vec![echoes()], &[], limits, "timeouts = { progress = \"300ms\" }"));
    let before = pipe_ends(&lab);
    let counted = |reason: &str| {
        lab.wait_for_metric(&["switchback_client_requests_total{", "version=\"blue\"", reason], 1.0);
    };
    let mut takes_nothing = lab.client();
    takes_nothing.send(ask(&format!("/{MUCH}")));
    counted("reason=\"client_stalled\"");
    let mut sends_nothing = lab.client();
    sends_nothing.send(post(MIB)).send(&body(MIB)[..500_000]);
    assert_eq!(sends_nothing.answer().status, 408);
    counted("reason=\"request_timeout\"");
    none_is_left(&lab, before, 1);
}

#[test]
fn an_endpoint_that_does_not_read_holds_the_upload_back() {
    let gate = Gate::default();
    let opening = gate.clone();
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        proxy.head()?;
        gate.wait();
        let got = proxy.bytes(MUCH)?;
        proxy.send(format!(
            "HTTP/1.1 {} Seen\r\ncontent-length: 0\r\n\r\n",
            if got == body(MUCH) { 200 } else { 500 }
        ))?;
        assert!(proxy.is_closed());
        Ok(())
    });
    let lab = lab(origin);
    let before = pipe_ends(&lab);
    let mut client = lab.client();
    client.send(post(MUCH));
    let sending = send_later(&client, body(MUCH));
    wait_until("a pipe is full", || pipe_ends(&lab) >= before + 2);
    opening.open();
    assert_eq!(client.answer().status, 200);
    sending.join().unwrap().unwrap();
    none_is_left(&lab, before, 1);
}

#[test]
fn where_there_is_no_pipe_left_bodies_are_copied() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("http.sock").display().to_string();
    let origin = echoes();
    // Over Unix sockets, which hold little.
    let services = format!(
        "[[listeners]]\nlisten = \"unix:{socket}\"\n[services.shop]\nroutes = [{{}}]\nstable = \"blue\"\n\
         versions.blue.endpoints = [\"{}\"]\n",
        origin.address
    );
    let lab = on_one_worker(Lab::configured(dir, vec![origin], &services));
    let before = pipe_ends(&lab);
    let closing = format!("GET /{MIB} HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n");
    let takes_nothing = |_| {
        let mut client = UnixStream::connect(&socket).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(closing.as_bytes()).unwrap();
        client
    };
    let waiting: Vec<_> = (0..MOST + 8).map(takes_nothing).collect();
    wait_until("all pipes are held", || pipe_ends(&lab) == before + 2 * MOST);
    assert!(lab.get(&format!("/{MIB}")).body == body(MIB), "others are served");
    let echoed = lab.client().post("/", &body(100_000));
    assert!(echoed.body == body(100_000), "in both directions");
    assert_eq!(pipe_ends(&lab), before + 2 * MOST, "without more of them");
    let whole = body(MIB);
    for mut client in waiting {
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got.ends_with(&whole));
    }
    none_is_left(&lab, before, MOST);
}

#[test]
fn without_file_descriptors_for_pipes_bodies_are_copied() {
    let mut lab = lab(echoes());
    // A file that is read again just then cannot be opened; it stays as it was.
    lab.expected_errors.push("the configuration is not used");
    let before = pipe_ends(&lab);
    let mut client = lab.client();
    // Both of its connections are open from here on.
    assert_eq!(client.get("/5").body, body(5));
    let pid = lab.proxy().pid().to_string();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let highest = open.filter_map(|fd| fd.ok()?.file_name().to_str()?.parse::<u64>().ok()).max().unwrap();
    let limit = |most: u64| {
        let limit = format!("--nofile={most}:20000");
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    };
    limit(highest + 1);
    for size in SIZES {
        assert!(client.get(&format!("/{size}")).body == body(size), "an answer of {size}");
        let sending = send_later(&client, [post(size).into_bytes(), body(size)].concat());
        assert!(client.answer().body == body(size), "there and back: {size}");
        sending.join().unwrap().unwrap();
    }
    limit(20_000);
    wait_until("there are pipes again", || {
        assert!(client.get("/1000000").body == body(1_000_000));
        pipe_ends(&lab) > before
    });
}

/// How long the threads of the proxy have run in all (proc(5), `schedstat`).
fn ran(lab: &Lab) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", lab.proxy().pid())).unwrap();
    let said = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok());
    let ran = said.map(|said| said.split(' ').next().unwrap().parse::<u64>().unwrap());
    Duration::from_nanos(ran.sum())
}

#[test]
fn who_is_waited_for_costs_nothing() {
    let gate = Gate::default();
    let opening = gate.clone();
    let (tell, told) = mpsc::channel();
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        match proxy.head()?.path() {
            "/answers-half" => {
                proxy.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {MIB}\r\n\r\n"))?;
                proxy.send(&body(MIB)[..500_000])?;
                gate.wait();
            }
            "/answers-much" => {
                proxy.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {MUCH}\r\n\r\n"))?;
                proxy.send(body(MUCH))?;
            }
            "/reads-nothing" => gate.wait(),
            _ => {
                proxy.bytes(500_000)?;
                tell.send(()).unwrap();
                gate.wait();
            }
        }
        Ok(())
    });
    let lab = lab(origin);
    let before = pipe_ends(&lab);
    let posts = |path: &str, sent: usize| {
        let mut client = lab.client();
        client.send(format!("POST {path} HTTP/1.1\r\nhost: shop.test\r\ncontent-length: {MUCH}\r\n\r\n"));
        let sending = send_later(&client, body(sent));
        (client, sending)
    };
    let mut takes_nothing = lab.client();
    takes_nothing.send(ask("/answers-much"));
    let mut waits = lab.client();
    waits.send(ask("/answers-half"));
    while waits.line() != "" {}
    waits.bytes(500_000);
    let (pauses, sending) = posts("/reads", 500_000);
    told.recv_timeout(PATIENCE).unwrap();
    let (fills, filling) = posts("/reads-nothing", MUCH);
    wait_until("two pipes are full", || pipe_ends(&lab) >= before + 4);
    // What the sockets still take is taken in this time, which is far from any limit.
    let mut last = ran(&lab);
    let is_quiet = (0..80).any(|_| {
        thread::sleep(Duration::from_millis(100));
        let now = ran(&lab);
        now - std::mem::replace(&mut last, now) < Duration::from_millis(10)
    });
    assert!(is_quiet, "it never comes to rest");
    let since = ran(&lab);
    thread::sleep(Duration::from_secs(1));
    let spent = ran(&lab) - since;
    assert!(spent < Duration::from_millis(100), "in a second in which nobody moves it ran for {spent:?}");
    assert_eq!(pipe_ends(&lab), before + 4, "all of them are still waited for");
    drop((takes_nothing, waits, pauses, fills));
    opening.open();
    sending.join().unwrap().unwrap();
    // Its proxy is told in the middle of it that nobody listens.
    let _ = filling.join().unwrap();
}
