//! Another process takes the place of the proxy: nobody who connects, asks or listens notices; and if it cannot, the old
//! one goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test, and one that looks at the clock"
)]

mod lab;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::origin::Then;
use lab::preload::Preload;
use lab::websocket::{connect_to_who_speaks, echoed, echoes};
use lab::{Client, Gate, Lab, Origin, Proxy, Pulse, SmallDisk, gate, wait_until};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket};

/// A lab whose proxy is one process after another; all of them are gone when it is dropped.
struct Row {
    lab: Lab,
    /// The first process.
    first: Option<Proxy>,
    pids: Vec<u32>,
}

fn signal(name: &str, pid: u32) {
    let _ = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
}

/// The exit status of a command, and what it has said.
fn ended(command: Child) -> (i32, String, String) {
    let output = command.wait_with_output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code().unwrap_or(-1), out, err)
}

fn lives(pid: u32) -> bool {
    // A zombie is none that lives.
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

impl Row {
    fn of(mut lab: Lab) -> Self {
        let first = lab.proxy.take();
        let pids = vec![first.as_ref().unwrap().pid()];
        Self { lab, first, pids }
    }

    fn with(extra: &str) -> Self {
        Self::of(Lab::with(&["blue", "green"], extra))
    }

    fn held(extra: &str) -> (Self, Gate) {
        let gate = Gate::default();
        let origins = vec![Origin::held("blue", &gate), Origin::held("green", &gate)];
        (Self::of(Lab::on(origins, extra)), gate)
    }

    fn address(&self) -> SocketAddr {
        self.first.as_ref().unwrap().address
    }

    fn client(&self) -> Client {
        Client::connect(self.address())
    }

    fn log(&self) -> String {
        self.first.as_ref().unwrap().log()
    }

    fn try_upgrade(&mut self, body: &Value) -> (u16, Value) {
        let (status, answer) = self.lab.call("POST", "/v1/upgrade", body);
        if status == 200 {
            self.pids.push(u32::try_from(answer["pid"].as_u64().unwrap()).unwrap());
        }
        (status, answer)
    }

    fn upgrade(&mut self) -> Value {
        let (status, answer) = self.try_upgrade(&json!({}));
        assert_eq!(status, 200, "{answer}\n{}", self.log());
        answer
    }

    /// A command that is under way.
    fn begin(&self, args: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
        command.args(args).env("SWITCHBACK_SOCKET", self.lab.socket());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn status(&self) -> Value {
        self.lab.call("GET", "/v1/status", &Value::Null).1
    }

    /// Waits until only the newest process is left.
    fn wait_alone(&self) {
        let older = &self.pids[..self.pids.len() - 1];
        wait_until("the older processes end", || !older.iter().any(|pid| lives(*pid)));
    }

    fn drain(&self, version: &str) -> Value {
        self.lab.call("GET", &format!("/v1/services/shop/versions/{version}/drain"), &Value::Null).1
    }

    /// The log of all of them, once they have ended.
    fn end(mut self) -> String {
        signal("TERM", *self.pids.last().unwrap());
        let (_, log) = self.first.take().unwrap().wait();
        wait_until("all of them end", || !self.pids.iter().any(|pid| lives(*pid)));
        assert!(!log.contains("panicked"), "{log}");
        assert!(!self.lab.socket().exists(), "the admin socket goes with the last one");
        log
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        if thread::panicking()
            && let Some(first) = &self.first
        {
            eprintln!("the log:\n{}", first.log());
        }
        // The first is its own; the others are ours, by their numbers.
        self.pids.iter().skip(1).filter(|pid| lives(**pid)).for_each(|pid| signal("KILL", *pid));
    }
}

fn websocket(address: SocketAddr) -> WebSocket<TcpStream> {
    lab::websocket::connect(address, "/chat")
}

/// `shop` on `origins`, and everything below /chat to `talk`, whose version is a WebSocket's endpoint.
fn talking(talk: SocketAddr, extra: &str) -> Row {
    let origins = vec![Origin::start("blue"), Origin::start("green")];
    let services = format!(
        "{extra}\n[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n\
         versions.blue.endpoints = [\"{}\"]\nversions.green.endpoints = [\"{}\"]\n\
         [services.talk]\nroutes = [{{ path = \"/chat\" }}]\nstable = \"one\"\n\
         versions.one.endpoints = [\"{talk}\"]\nversions.two.endpoints = [\"{talk}\"]\n",
        origins[0].address, origins[1].address
    );
    Row::of(Lab::configured(tempfile::tempdir().unwrap(), origins, &services))
}

/// Clients that ask all the time; every request has to be answered with 200.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut threads = Vec::new();
        for kept in [true, true, true, false, false] {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            threads.push(thread::spawn(move || Self::ask(address, kept, &stop, &served)));
        }
        Self { stop, served, threads }
    }

    fn ask(address: SocketAddr, is_kept: bool, stop: &AtomicBool, served: &AtomicU64) -> Vec<String> {
        let (mut connection, mut bad) = (None, Vec::new());
        while !stop.load(Ordering::Relaxed) && bad.len() < 10 {
            let mut client: Client = connection.take().unwrap_or_else(|| Client::connect(address));
            match client.try_get("/") {
                Ok(answer) if answer.status == 200 && answer.is_whole => {
                    served.fetch_add(1, Ordering::Relaxed);
                    let closes = answer.header("connection") == Some("close");
                    connection = Some(client).filter(|_| is_kept && !closes);
                }
                Ok(answer) => bad.push(format!("{} {}", answer.status, answer.text())),
                Err(error) => bad.push(error.to_string()),
            }
        }
        bad
    }

    /// Waits for `more` answers.
    fn wait(&self, more: u64) {
        let until = self.served.load(Ordering::Relaxed) + more;
        wait_until("requests are answered", || self.served.load(Ordering::Relaxed) >= until);
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let bad: Vec<_> = self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert!(bad.is_empty(), "{bad:?}");
        self.served.load(Ordering::Relaxed)
    }
}

#[test]
fn the_last_of_a_row_resets_nobody_either() {
    let mut row = Row::with("");
    row.upgrade();
    let (address, pid, served) = (row.address(), *row.pids.last().unwrap(), AtomicU64::new(0));
    let refused: Vec<_> = thread::scope(|scope| {
        let count = || {
            served.fetch_add(1, Ordering::Relaxed);
        };
        let clients: Vec<_> =
            (0..8).map(|_| scope.spawn(move || Client::until_refused(address, count))).collect();
        wait_until("all of them ask", || served.load(Ordering::Relaxed) > 100);
        signal("TERM", pid);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(
        refused.iter().any(|took| *took > Duration::from_millis(900)),
        "the sockets are its own: {refused:?}"
    );
    row.end();
}

/// How many upgrades in a row; more by hand.
fn times(least: u64) -> u64 {
    std::env::var("UPGRADES").ok().and_then(|times| times.parse().ok()).unwrap_or(least)
}

#[test]
fn upgrades_under_load_lose_nothing_and_websockets_live_on() {
    let mut row = talking(echoes(), "[upgrade]\nspread = \"500ms\"\n");
    let load = Load::on(row.address());
    let (count, mut sockets) = (times(3), Vec::new());
    for round in 1..=count {
        load.wait(50);
        sockets.push((round, websocket(row.address())));
        // Each of them lives through several upgrades, and then makes room.
        sockets.retain_mut(|(since, socket)| {
            assert!(echoed(socket, "before"));
            let stays = round - *since < 3;
            if !stays {
                socket.close(None).unwrap();
            }
            stays
        });
        let done = row.upgrade();
        assert_eq!((&done["generation"], &done["epoch"]), (&json!(round + 1), &json!(1)), "{done}");
        for (_, socket) in &mut sockets {
            assert!(echoed(socket, "after"));
        }
    }
    load.wait(50);
    assert!(load.end() > 50 * count);
    let status = row.status();
    assert_eq!(status["generation"], count + 1);
    assert!(!status["predecessors"].as_array().unwrap().is_empty(), "{status}");
    for (_, socket) in &mut sockets {
        assert!(echoed(socket, "still there"));
        socket.close(None).unwrap();
    }
    drop(sockets);
    row.wait_alone();
    wait_until("nobody is left", || row.status()["predecessors"] == json!([]));
    row.end();
}

#[test]
fn http2_clients_are_told_and_lose_nothing() {
    let mut row = Row::with("");
    let address = row.address();
    let stop = Arc::<AtomicBool>::default();
    let asking = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                runtime.block_on(async {
                    let client = lab::Http2::to(address).await;
                    loop {
                        let get = lab::http2::request(http::Method::GET, "/");
                        // A connection that is told to end takes no more of them; what it took is answered.
                        let Ok(mut send) = client.send.clone().ready().await else { break };
                        let Ok((response, _)) = send.send_request(get, true) else { break };
                        match response.await {
                            Ok(response) => assert_eq!(response.status(), 200),
                            // It was on its way behind the answer to the last ping: not begun, and asked anew.
                            Err(why) if why.is_go_away() && why.reason() == Some(h2::Reason::NO_ERROR) => {
                                break;
                            }
                            Err(why) => panic!("{why}"),
                        }
                        asked += 1;
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                });
            }
            asked
        })
    };
    wait_until("requests arrive", || row.lab.origin("blue").served() > 20);
    row.upgrade();
    row.wait_alone();
    row.upgrade();
    row.wait_alone();
    stop.store(true, Ordering::Relaxed);
    assert!(asking.join().unwrap() > 20);
    row.end();
}

#[test]
fn the_sockets_are_the_same_and_so_is_everything_that_was_decided() {
    let dir = tempfile::tempdir().unwrap();
    let unix = dir.path().join("shop.sock");
    let extra =
        format!("[metrics]\nlisten = \"127.0.0.1:0\"\n[[listeners]]\nlisten = \"unix:{}\"\n", unix.display());
    let mut row = Row::with(&extra);
    let inode = |path: &PathBuf| fs::symlink_metadata(path).unwrap().ino();
    let (socket, before) = (row.lab.socket(), row.status());
    let inodes = (inode(&unix), inode(&socket));
    row.lab.flip("green");
    assert_eq!(row.lab.epoch(), 2);
    row.upgrade();
    row.wait_alone();
    let after = row.status();
    assert_eq!(after["listeners"], before["listeners"]);
    assert_ne!(after["pid"], before["pid"]);
    assert_eq!((inode(&unix), inode(&socket)), inodes, "nobody has taken them away");
    assert_eq!(row.client().get("/").version(), "green");
    assert_eq!(row.lab.flip("blue")["epoch"], 3);
    let (_, history) = row.lab.call("GET", "/v1/changes", &Value::Null);
    let epochs: Vec<_> = history["changes"].as_array().unwrap().iter().map(|c| c["epoch"].clone()).collect();
    assert_eq!(epochs, [json!(3), json!(2), json!(1)]);
    let mut stream = UnixStream::connect(&unix).unwrap();
    Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    row.end();
    assert!(!unix.exists(), "and they go with the last one");
}

#[test]
fn what_the_old_process_has_in_flight_counts_until_it_is_over() {
    let (mut row, gate) = Row::held("[upgrade]\nspread = \"200ms\"\n");
    let mut client = row.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    row.lab.origin("blue").wait_served(1);
    row.upgrade();
    let mut events = row.lab.events();
    let done = row.lab.flip("green");
    assert_eq!(done["epoch"], 2);
    let left = row.drain("blue");
    assert_eq!((&left["drained"], &left["remaining"][0]["count"]), (&json!(false), &json!(1)), "{left}");
    assert_eq!(left["endpoints"][0]["endpoint"], row.lab.origin("blue").address.to_string(), "{left}");
    let shop = row.lab.shop();
    let blue = shop["versions"].as_array().unwrap().iter().find(|version| version["name"] == "blue").unwrap();
    assert_eq!(blue["in_flight"]["total"], 1, "{shop}");
    let status = row.status();
    assert_eq!(status["predecessors"][0]["pid"], row.pids[0], "{status}");
    assert_eq!(status["predecessors"][0]["in_flight"], 1, "{status}");
    gate.open();
    let answer = client.answer();
    assert_eq!((answer.version(), answer.text().as_str(), answer.is_whole), ("blue", gate::HELD, true));
    let drained = events.drained("blue");
    assert_eq!(drained["service"], "shop", "{drained}");
    assert_eq!(row.drain("blue")["drained"], true);
    row.wait_alone();
    row.end();
}

#[test]
fn a_drain_that_was_open_stays_open() {
    let (mut row, gate) = Row::held("[upgrade]\nspread = \"200ms\"\n");
    let mut client = row.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    row.lab.origin("blue").wait_served(1);
    row.lab.flip("green");
    row.upgrade();
    row.upgrade();
    let left = row.drain("blue");
    assert_eq!(left["drained"], false, "{left}");
    wait_until("both are heard", || row.drain("blue")["remaining"][0]["count"] == 1);
    assert_eq!(row.drain("blue")["drained"], false);
    wait_until("it is leaving", || row.lab.shop()["leaving"] == json!(["blue"]));
    assert_eq!(row.lab.shop()["phase"], "draining");
    gate.open();
    assert!(client.answer().is_whole);
    wait_until("it is drained", || row.drain("blue")["drained"] == true);
    wait_until("it has left", || row.lab.shop()["phase"] == "steady");
    row.wait_alone();
    row.end();
}

#[test]
fn the_end_of_every_drain_around_a_hand_over_is_told_once() {
    const SERVICES: usize = 150;
    let gates: Arc<Vec<Gate>> = Arc::new((0..SERVICES).map(|_| Gate::default()).collect());
    let held = Arc::clone(&gates);
    let blue = Origin::behaving("blue", move |seen, stream| {
        held[seen.path()[2..].parse::<usize>().unwrap()].wait();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let receiver = Origin::behaving("receiver", |_, stream| {
        write!(stream, "HTTP/1.1 204 No Content\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let origins = vec![blue, Origin::start("green"), receiver];
    let [blue, green, receiver] = [0, 1, 2].map(|index| origins[index].address);
    let mut text = format!("[upgrade]\nspread = \"100ms\"\n[[webhooks]]\nurl = \"http://{receiver}/\"\n");
    for index in 0..SERVICES {
        text += &format!(
            "[services.s{index}]\nroutes = [{{ path = \"/s{index}\" }}]\nstable = \"blue\"\n\
             versions.blue.endpoints = [\"{blue}\"]\nversions.green.endpoints = [\"{green}\"]\n"
        );
    }
    let mut row = Row::of(Lab::configured(tempfile::tempdir().unwrap(), origins, &text));
    let mut clients: Vec<_> = (0..SERVICES).map(|_| row.client()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /s{index} HTTP/1.1\r\nhost: shop.test\r\n\r\n"));
    }
    row.lab.origin("blue").wait_served(SERVICES as u64);
    let flips: Vec<_> = (0..SERVICES)
        .map(|index| json!({ "service": format!("s{index}"), "flip": { "to": "green" } }))
        .collect();
    assert_eq!(row.lab.call("POST", "/v1/changes", &json!({ "changes": flips })).0, 200);
    let (status, answer) = thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("the new process serves", || row.log().contains("generation=2"));
            for (gate, client) in gates.iter().zip(&mut clients) {
                gate.open();
                assert_eq!(client.answer().status, 200);
            }
        });
        row.lab.call("POST", "/v1/upgrade", &json!({}))
    });
    assert_eq!(status, 200, "{answer}");
    row.pids.push(u32::try_from(answer["pid"].as_u64().unwrap()).unwrap());
    let told = || {
        let events = row.lab.origin("receiver").seen();
        let events = events.iter().map(|seen| serde_json::from_slice::<Value>(&seen.body).unwrap());
        let drained = events.filter(|event| event["type"].as_str().unwrap().ends_with(".drained"));
        drained.map(|event| event["data"]["service"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    wait_until("all are told", || told().iter().collect::<BTreeSet<_>>().len() == SERVICES);
    row.wait_alone();
    assert_eq!(told().len(), SERVICES, "each once");
    row.end();
}

#[test]
fn the_end_of_a_drain_is_told_when_the_old_process_dies_as_soon_as_it_has_handed_over() {
    for _ in 0..5 {
        let receiver = Origin::behaving("receiver", |_, stream| {
            write!(stream, "HTTP/1.1 204 No Content\r\n\r\n")?;
            Ok(Then::Keep)
        });
        let (mut row, _gate) = Row::held(&format!("[[webhooks]]\nurl = \"http://{}/\"\n", receiver.address));
        let mut client = row.client();
        client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
        row.lab.origin("blue").wait_served(1);
        row.lab.flip("green");
        row.upgrade();
        signal("KILL", row.pids[0]);
        let is_drained = |event: &Value| event["type"].as_str().unwrap().ends_with(".drained");
        wait_until("it is told", || {
            let seen = receiver.seen();
            seen.iter().any(|seen| is_drained(&serde_json::from_slice::<Value>(&seen.body).unwrap()))
        });
        row.end();
    }
}

#[test]
fn a_rollout_goes_on_when_an_old_process_that_did_not_answer_does_again() {
    let mut row = Row::with("[upgrade]\nspread = \"5s\"\n");
    let [old, new] = ["old", "new"].map(Origin::start);
    let endpoint = |origin: &Origin| format!("/v1/services/shop/versions/blue/endpoints/{}", origin.address);
    assert_eq!(row.lab.call("PUT", &endpoint(&old), &Value::Null).0, 200);
    let mut kept = row.client();
    kept.get("/");
    row.upgrade();
    // Until then it has the admin socket.
    row.first.as_ref().unwrap().wait_for_log("handed over");
    signal("STOP", row.pids[0]);
    let replace = json!([{ "out": old.address.to_string(), "into": new.address.to_string() }]);
    let path = "/v1/services/shop/rollout";
    assert_eq!(row.lab.call("POST", path, &json!({ "replace": replace })).0, 202);
    let rollout = || row.lab.call("GET", path, &Value::Null).1;
    wait_until("the change is waited for no more", || rollout()["steps"][0]["state"] != "pending");
    assert_eq!(
        (&rollout()["state"], &rollout()["steps"][0]["state"]),
        (&json!("running"), &json!("draining"))
    );
    signal("CONT", row.pids[0]);
    wait_until("it is over", || rollout()["state"] != "running");
    assert_eq!(rollout()["state"], "done", "{}", rollout());
    assert_eq!(row.lab.call("GET", &format!("{}/drain", endpoint(&old)), &Value::Null).1["in_pool"], false);
    drop(kept);
    row.wait_alone();
    row.end();
}

/// A WebSocket on `one`, over a process that has handed over, and that version is left.
fn left_behind(patience: &str) -> (Row, WebSocket<TcpStream>) {
    let mut row = talking(echoes(), "[upgrade]\nspread = \"200ms\"\n");
    let text = fs::read_to_string(row.lab.config()).unwrap();
    let rules = format!(
        "[services.talk]\ndrain = {{ patience = \"{patience}\", spread = \"100ms\", deadline = \"5m\" }}"
    );
    fs::write(row.lab.config(), text.replace("[services.talk]", &rules)).unwrap();
    row.upgrade();
    let mut socket = websocket(row.address());
    assert!(echoed(&mut socket, "before"));
    row.upgrade();
    let flip = json!({ "to": "two" });
    let (status, answer) = row.lab.call("POST", "/v1/services/talk/flip", &flip);
    assert_eq!(status, 200, "{answer}");
    (row, socket)
}

#[test]
fn what_is_left_behind_ends_in_its_own_words() {
    let (row, mut socket) = left_behind("100ms");
    let Message::Close(Some(close)) = socket.read().unwrap() else { panic!("no reason") };
    assert_eq!(u16::from(close.code), 1012, "{close:?}");
    let _ = socket.flush();
    drop(socket);
    let drained = || row.lab.call("GET", "/v1/services/talk/versions/one/drain", &Value::Null).1;
    wait_until("it is drained", || drained()["drained"] == true);
    row.wait_alone();
    row.end();
}

#[test]
fn a_revert_spares_what_is_left_behind() {
    let (row, mut socket) = left_behind("4s");
    let (status, answer) = row.lab.call("POST", "/v1/services/talk/revert", &json!({}));
    assert_eq!(status, 200, "{answer}");
    // Longer than it would have had.
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        assert!(echoed(&mut socket, "still there"));
        thread::sleep(Duration::from_millis(50));
    }
    socket.close(None).unwrap();
    drop(socket);
    row.wait_alone();
    row.end();
}

#[test]
fn what_a_dead_process_had_is_gone() {
    let (mut row, _gate) = Row::held("[upgrade]\nspread = \"200ms\"\n");
    let mut client = row.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    row.lab.origin("blue").wait_served(1);
    row.upgrade();
    row.lab.flip("green");
    assert_eq!(row.drain("blue")["drained"], false);
    signal("KILL", row.pids[0]);
    wait_until("its work is gone", || row.drain("blue")["drained"] == true);
    assert!(!client.answer().is_whole);
    row.end();
}

#[test]
fn a_change_right_after_an_upgrade_is_acknowledged_when_nothing_goes_the_old_way() {
    let mut row = Row::with("[upgrade]\nspread = \"1s\"\n");
    let mut kept = row.client();
    assert_eq!(kept.get("/").version(), "blue");
    row.upgrade();
    // It may ask once more, over the old process and by its table: before the change is acknowledged.
    row.lab.flip("green");
    if let Ok(answer) = kept.try_get("/") {
        panic!("answered by {} after the change was acknowledged", answer.version());
    }
    assert_eq!(row.client().get("/").version(), "green");
    row.wait_alone();
    row.end();
}

#[test]
fn the_program_is_the_one_that_is_installed_now() {
    let dir = tempfile::tempdir().unwrap();
    let (real, installed) = (env!("CARGO_BIN_EXE_switchback"), dir.path().join("switchback"));
    std::os::unix::fs::symlink(real, &installed).unwrap();
    let mut lab = Lab::with(&["blue"], "");
    assert!(lab.proxy.take().unwrap().stop().0.success());
    lab.proxy = Some(Proxy::start_program(&installed, &lab.config(), &lab.socket(), 2).unwrap());
    let mut row = Row::of(lab);
    fs::remove_file(&installed).unwrap();
    fs::write(&installed, format!("#!/bin/sh\necho 'a newer one' >&2\nexec '{real}' \"$@\"\n")).unwrap();
    fs::set_permissions(&installed, fs::Permissions::from_mode(0o755)).unwrap();
    row.upgrade();
    row.wait_alone();
    assert!(row.end().contains("a newer one"));
}

#[test]
fn a_program_whose_file_is_gone_can_be_followed_by_another() {
    let dir = tempfile::tempdir().unwrap();
    let installed = dir.path().join("switchback");
    fs::copy(env!("CARGO_BIN_EXE_switchback"), &installed).unwrap();
    let mut lab = Lab::with(&["blue"], "");
    assert!(lab.proxy.take().unwrap().stop().0.success());
    lab.proxy = Some(Proxy::start_program(&installed, &lab.config(), &lab.socket(), 2).unwrap());
    let mut row = Row::of(lab);
    fs::remove_file(&installed).unwrap();
    let (status, answer) = row.try_upgrade(&json!({}));
    assert_eq!(status, 422, "{answer}");
    assert!(
        answer["detail"].as_str().unwrap().contains(&format!("cannot start {}", installed.display())),
        "{answer}"
    );
    let (status, answer) = row.try_upgrade(&json!({ "binary": env!("CARGO_BIN_EXE_switchback") }));
    assert_eq!(status, 200, "{answer}");
    row.wait_alone();
    row.end();
}

/// A program that is started in the new version's place.
fn program(row: &Row, text: &str) -> Value {
    let path = row.lab.dir.path().join(format!("program-{}", text.len()));
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    json!({ "binary": path, "timeout": "4s" })
}

fn assert_goes_on(row: &mut Row, epoch: u64) {
    assert_eq!(row.client().get("/").status, 200);
    let to = if epoch.is_multiple_of(2) { "green" } else { "blue" };
    assert_eq!(row.lab.flip(to)["epoch"], epoch);
    assert_eq!((&row.status()["generation"], &row.status()["pid"]), (&json!(1), &json!(row.pids[0])));
}

#[test]
fn a_new_process_that_fails_leaves_the_old_one_as_it_was_and_its_last_words_are_told() {
    let mut row = Row::with("");
    let speaks = "#!/bin/sh\necho 'error while loading shared libraries: libfoo.so' >&2\nexit 127\n";
    for (index, (body, status, words)) in [
        (program(&row, "#!/bin/sh\nexit 3\n"), 422, "exit status: 3"),
        (program(&row, speaks), 422, "libfoo.so"),
        (program(&row, "#!/bin/sh\nkill -9 $$\n"), 422, "signal: 9"),
        (program(&row, "#!/bin/sh\nexec sleep 60\n"), 504, "not ready in time"),
        (json!({ "binary": "/nowhere/switchback" }), 422, "cannot start /nowhere/switchback"),
        (json!({ "binary": row.lab.config() }), 422, "cannot start"),
        (json!({ "binary": "switchback" }), 400, "no absolute path"),
    ]
    .into_iter()
    .enumerate()
    {
        let (got, answer) = row.try_upgrade(&body);
        assert_eq!(got, status, "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains(words), "{answer}");
        assert_goes_on(&mut row, index as u64 + 2);
    }
    // The next one can do it.
    row.upgrade();
    row.wait_alone();
    row.end();
}

#[test]
fn a_configuration_that_is_wrong_is_told_with_its_place() {
    let mut row = Row::with("");
    row.lab.write_config("[limits]\nidle = \"soon\"\n");
    let (status, answer) = row.try_upgrade(&json!({}));
    assert_eq!(status, 422, "{answer}");
    let detail = answer["detail"].as_str().unwrap();
    assert!(detail.contains("switchback.toml:") && detail.contains("soon"), "{detail}");
    assert_goes_on(&mut row, 2);
    let (code, _, said) = row.lab.cli(&["upgrade"]);
    assert_eq!(code, 1);
    assert!(said.contains("the upgrade is not made") && said.contains("soon"), "{said}");
    row.end();
}

/// A process that gets the store, does `then`, and never serves.
fn takes_the_store_and(row: &Row, then: &str) -> Value {
    let text = format!(
        "#!/usr/bin/env python3\nimport json, os, socket, time\n\
         line = socket.socket(fileno=3).makefile('rw')\nassert 'hello' in json.loads(line.readline())\n\
         line.write('\"prepared\"\\n'); line.flush()\nassert 'yours' in json.loads(line.readline())\n{then}\n"
    );
    program(row, &text)
}

#[test]
fn a_process_that_dies_with_the_store_gives_it_back() {
    let mut row = Row::with("");
    for (index, (then, words)) in [
        ("os.kill(os.getpid(), 9)", "signal: 9"),
        ("line.write('{\"failed\":{\"reason\":\"no luck\"}}\\n'); line.flush()", "no luck"),
        ("time.sleep(60)", "not ready in time"),
    ]
    .into_iter()
    .enumerate()
    {
        let body = takes_the_store_and(&row, then);
        let (_, answer) = row.try_upgrade(&body);
        assert!(answer["detail"].as_str().unwrap().contains(words), "{answer}");
        assert_goes_on(&mut row, index as u64 + 2);
    }
    row.end();
}

#[test]
fn a_file_that_changes_while_the_store_is_away_is_followed_once_it_is_back() {
    let mut row = Row::with("");
    let [state, away] = ["state", "away"].map(|name| row.lab.dir.path().join(name));
    let then = format!("os.rename({state:?}, {away:?}); open({state:?}, 'w'); os.kill(os.getpid(), 9)");
    let body = takes_the_store_and(&row, &then);
    assert_eq!(row.try_upgrade(&body).0, 422);
    let text = fs::read_to_string(row.lab.config()).unwrap();
    let beside = row.lab.dir.path().join("beside.toml");
    let cart =
        "[services.cart]\nroutes = [{ path = \"/cart\" }]\nversions.v1.endpoints = [\"127.0.0.1:9\"]\n";
    fs::write(&beside, text + cart).unwrap();
    fs::rename(&beside, row.lab.config()).unwrap();
    row.first.as_ref().unwrap().wait_for_log("nothing has changed: another process is about to take");
    fs::remove_file(&state).unwrap();
    fs::rename(&away, &state).unwrap();
    wait_until("it is followed", || row.lab.call("GET", "/v1/services/cart", &Value::Null).0 == 200);
    row.end();
}

/// It would be at the first epoch, and undo all that was decided.
#[test]
fn nobody_takes_over_without_the_store() {
    let mut row = Row::with("");
    let state = row.lab.dir.path().join("state");
    let away = state.with_extension("away");
    fs::rename(&state, &away).unwrap();
    let (status, answer) = row.try_upgrade(&json!({}));
    assert_eq!(status, 409, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("is gone"), "{answer}");
    fs::rename(&away, &state).unwrap();
    assert_goes_on(&mut row, 2);
    row.end();
}

#[test]
fn whoever_changes_something_meanwhile_waits_and_is_served() {
    let mut row = Row::with("");
    let body = takes_the_store_and(&row, "open('has-it', 'w').close(); time.sleep(60)");
    let body = json!({ "binary": body["binary"], "timeout": "3s" });
    let (dir, socket) = (row.lab.dir.path().to_owned(), row.lab.socket());
    let flip = thread::spawn(move || {
        wait_until("it has the store", || PathBuf::from("has-it").exists() || dir.join("has-it").exists());
        let body = json!({ "to": "green" }).to_string();
        let answer = lab::admin::call(&socket, "POST", "/v1/services/shop/flip", &[], &body).unwrap();
        (answer.status, answer.json())
    });
    let script = row.lab.dir.path().join("has-it");
    let text = fs::read_to_string(body["binary"].as_str().unwrap()).unwrap();
    fs::write(body["binary"].as_str().unwrap(), text.replace("has-it", script.to_str().unwrap())).unwrap();
    assert_eq!(row.try_upgrade(&body).0, 504);
    let (status, answer) = flip.join().unwrap();
    assert_eq!((status, &answer["epoch"]), (200, &json!(2)), "{answer}");
    row.end();
}

#[test]
fn a_change_that_the_failed_process_has_made_is_followed() {
    let mut row = Row::with("");
    // It changes where the traffic goes, as a file that differs would make it, and dies before it serves.
    let database = row.lab.dir.path().join("state/switchback.db");
    let change = format!(
        "import sqlite3\ndb = sqlite3.connect('{}')\n\
         db.execute(\"insert into changes select epoch + 1, at_ms, kind, actor_kind, actor_name, reason, summary from changes order by epoch desc limit 1\")\n\
         db.commit(); db.close(); os.kill(os.getpid(), 9)",
        database.display()
    );
    let body = takes_the_store_and(&row, &change);
    assert_eq!(row.try_upgrade(&body).0, 422);
    assert_eq!(row.lab.flip("green")["epoch"], 3, "2 was used");
    assert_eq!(row.client().get("/").version(), "green");
    row.end();
}

#[test]
fn another_number_of_workers_loses_no_connection() {
    let mut row = Row::with("");
    for workers in [5, 1, 3] {
        let text = format!(
            "#!/bin/sh\nexec '{}' run --workers {workers} --config '{}'\n",
            env!("CARGO_BIN_EXE_switchback"),
            row.lab.config().display()
        );
        let mut body = program(&row, &text);
        body["timeout"] = json!("30s");
        let load = Load::on(row.address());
        load.wait(20);
        let (status, answer) = row.try_upgrade(&body);
        assert_eq!(status, 200, "{answer}");
        row.wait_alone();
        load.wait(50);
        load.end();
        assert_eq!(row.status()["workers"], workers);
        // Each of them comes by, also to the sockets of workers that are no more.
        for _ in 0..40 {
            assert_eq!(row.client().get("/").status, 200);
        }
    }
    row.end();
}

#[test]
fn too_many_processes_that_still_have_work_are_a_reason_to_refuse() {
    let mut row = talking(echoes(), "[upgrade]\npredecessors = 2\nspread = \"200ms\"\n");
    let mut sockets = Vec::new();
    for _ in 0..2 {
        sockets.push(websocket(row.address()));
        row.upgrade();
    }
    sockets.push(websocket(row.address()));
    let (status, answer) = row.try_upgrade(&json!({}));
    assert_eq!(
        (status, &answer["type"]),
        (409, &json!("urn:switchback:problem:upgrade_refused")),
        "{answer}"
    );
    assert!(answer["detail"].as_str().unwrap().contains("2 older processes still have work"), "{answer}");
    assert!(sockets.iter_mut().all(|socket| echoed(socket, "hello")));
    sockets.remove(0).close(None).unwrap();
    wait_until("the oldest has ended", || !lives(row.pids[0]));
    wait_until("that is known", || row.status()["predecessors"].as_array().unwrap().len() == 1);
    row.upgrade();
    assert!(sockets.iter_mut().all(|socket| echoed(socket, "hello")));
    drop(sockets);
    row.wait_alone();
    row.end();
}

#[test]
fn an_old_process_that_is_told_to_end_counts_until_it_has() {
    let (mut row, gate) = Row::held("[upgrade]\nspread = \"200ms\"\n");
    let mut client = row.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    row.lab.origin("blue").wait_served(1);
    row.upgrade();
    signal("TERM", row.pids[0]);
    row.first.as_ref().unwrap().wait_for_log("winding down");
    row.lab.flip("green");
    assert_eq!(row.drain("blue")["drained"], false);
    assert_eq!(row.status()["predecessors"][0]["pid"], row.pids[0]);
    gate.open();
    assert!(client.answer().is_whole);
    wait_until("it is drained", || row.drain("blue")["drained"] == true);
    row.wait_alone();
    row.end();
}

#[test]
fn an_old_process_that_has_lost_the_new_one_begins_nothing_more() {
    let (mut row, gate) = Row::held("[upgrade]\nspread = \"5s\"\n");
    let [mut busy, mut idle] = [(); 2].map(|()| row.client());
    assert_eq!(idle.get("/").version(), "blue");
    busy.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    row.lab.origin("blue").wait_served(2);
    row.upgrade();
    signal("KILL", row.pids[1]);
    row.first.as_ref().unwrap().wait_for_log("nothing more is begun");
    let listed = PathBuf::from(format!("/proc/{}", row.pids[1]));
    wait_until("the dead one is out of the system's list", || !listed.exists());
    // Whoever is started now may have said that blue gets nothing more.
    assert!(idle.try_get("/").map_or(true, |answer| answer.status == 503));
    assert_eq!(row.lab.origin("blue").served(), 2);
    let anew = row.lab.spawn(2);
    row.lab.flip("green");
    assert_eq!(row.drain("blue")["drained"], false, "the oldest process has work there");
    let told = row.status()["predecessors"][0].take();
    let unknown = json!({ "generation": null, "version": null, "connections": null, "in_flight": null });
    assert_eq!(told["pid"], row.pids[0]);
    assert!(unknown.as_object().unwrap().iter().all(|(name, null)| told[name] == *null), "{told}");
    let (_, said, _) = row.lab.cli(&["status"]);
    assert!(said.contains("work that this one cannot see"), "{said}");
    gate.open();
    assert!(busy.answer().is_whole, "what was in flight is finished");
    wait_until("it is drained", || row.drain("blue")["drained"] == true);
    assert!(anew.stop().0.success());
    signal("TERM", row.pids[0]);
    let (_, log) = row.first.take().unwrap().wait();
    assert!(!log.contains("panicked"), "{log}");
}

/// What it shows of a version that was left before agrees with what `drain` answers.
#[test]
fn nothing_is_safe_to_stop_while_nobody_knows_what_an_older_process_has() {
    let (mut row, gate) = Row::held("[upgrade]\nspread = \"100ms\"\n");
    let mut client = row.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    row.lab.origin("blue").wait_served(1);
    row.lab.flip("green");
    row.upgrade();
    signal("KILL", row.pids[1]);
    row.first.as_ref().unwrap().wait_for_log("nothing more is begun");
    wait_until("the new one is gone", || !lives(row.pids[1]));
    let anew = row.lab.spawn(2);
    let stands = |row: &Row| {
        let shop = row.lab.shop();
        (
            shop["phase"].as_str().unwrap().to_owned(),
            shop["leaving"].clone(),
            row.drain("blue")["drained"].clone(),
        )
    };
    assert_eq!(stands(&row), ("draining".to_owned(), json!(["blue"]), json!(false)));
    let (_, said, _) = row.lab.cli(&["status"]);
    assert!(said.contains("stop: blue is still draining: do not stop it yet"), "{said}");
    gate.open();
    assert!(client.answer().is_whole);
    wait_until("the older one ends", || !lives(row.pids[0]));
    wait_until("that is known", || stands(&row) == ("steady".to_owned(), json!([]), json!(true)));
    let (_, said, _) = row.lab.cli(&["status"]);
    assert!(said.contains("stop: blue is safe to stop"), "{said}");
    assert!(anew.stop().0.success());
}

/// The lock by which it is known needs no room.
#[test]
fn an_older_process_is_known_of_where_the_disk_is_full() {
    let (mut row, gate) = Row::held("[upgrade]\nspread = \"100ms\"\n");
    assert!(row.first.take().unwrap().stop().0.success());
    let Some(disk) = SmallDisk::at(&row.lab.dir.path().join("state")) else {
        eprintln!("skipped: lacks the right to mount a tmpfs (run as root)");
        return;
    };
    let first = row.lab.spawn(2);
    (row.pids, row.first) = (vec![first.pid()], Some(first));
    let mut client = row.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    row.lab.origin("blue").wait_served(1);
    row.lab.flip("green");
    disk.fill();
    row.upgrade();
    signal("KILL", row.pids[1]);
    row.first.as_ref().unwrap().wait_for_log("nothing more is begun");
    wait_until("the new one is gone", || !lives(row.pids[1]));
    let anew = row.lab.spawn(2);
    assert_eq!(row.drain("blue")["drained"], false);
    gate.open();
    assert!(client.answer().is_whole);
    wait_until("the older one ends, and that is known", || row.drain("blue")["drained"] == true);
    assert!(anew.stop().0.success());
    wait_until("it ends", || !lives(row.pids[0]));
}

#[test]
fn who_waits_for_a_drain_is_told_that_another_process_knows() {
    let (mut row, gate) = Row::held("[upgrade]\nspread = \"200ms\"\n");
    let mut client = row.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    row.lab.origin("blue").wait_served(1);
    let path = "/v1/services/shop/flip?wait=drained&timeout=30s";
    let waiting = row.lab.call_later("POST", path, &[], &json!({ "to": "green" }));
    wait_until("blue is left", || row.lab.epoch() == 2);
    row.upgrade();
    let answer = waiting.answer();
    let problem: Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!(
        (answer.status, &problem["type"]),
        (504, &json!("urn:switchback:problem:left_behind")),
        "{problem}"
    );
    assert_eq!(problem["change"]["epoch"], 2, "{problem}");
    gate.open();
    assert!(client.answer().is_whole);
    row.wait_alone();
    row.end();
}

#[test]
fn who_waits_for_a_verdict_or_for_health_is_told_that_another_process_knows() {
    let [blue, green] = ["blue", "green"].map(Origin::start);
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nhealth = {{ path = \"/healthz\" }}\n\
         versions.blue.endpoints = [\"{}\"]\nversions.green.endpoints = [\"{}\"]\n",
        blue.address, green.address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![blue, green], &services);
    let (mut row, unwell) = (Row::of(lab), Origin::with_pulse("v3", &Pulse::of(503)));
    let supervised = json!({ "to": "green", "supervise": "1h", "force": true });
    let comes = json!({ "endpoints": [unwell.address.to_string()] });
    let calls = [
        ("POST", "/v1/services/shop/flip?wait=finished&timeout=30s", supervised),
        ("PUT", "/v1/services/shop/versions/v3?wait=healthy&timeout=30s", comes),
    ];
    let waiting = calls.into_iter().zip(2..).map(|((method, path, body), epoch)| {
        let waiting = row.lab.call_later(method, path, &[], &body);
        wait_until("the change is made", || row.lab.epoch() == epoch);
        (waiting, epoch)
    });
    let waiting: Vec<_> = waiting.collect();
    row.upgrade();
    for (waiting, epoch) in waiting {
        let problem = waiting.answer().json();
        assert_eq!(problem["type"], "urn:switchback:problem:left_behind", "{problem}");
        assert_eq!(problem["change"]["epoch"], epoch, "{problem}");
    }
    row.wait_alone();
    row.end();
}

#[test]
fn a_command_for_machines_waits_on_with_the_new_process() {
    let (mut row, gate) = Row::held("[upgrade]\nspread = \"100ms\"\n");
    let mut client = row.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    row.lab.origin("blue").wait_served(1);
    let (drained, supervised) = (&["--to", "green"][..], &["--to", "blue", "--supervise", "2s"][..]);
    for (words, epoch, state) in [(drained, 2, "drained"), (supervised, 3, "finished")] {
        let lab = &row.lab;
        let ((code, out, err), answer) = thread::scope(|scope| {
            let words = [&["--json", "flip", "shop", "--timeout", "20s"][..], words].concat();
            let command = scope.spawn(move || lab.cli(&words));
            wait_until("it is flipped", || lab.epoch() == epoch);
            let (_, answer) = lab.call("POST", "/v1/upgrade", &json!({}));
            gate.open();
            (command.join().unwrap(), answer)
        });
        row.pids.push(u32::try_from(answer["pid"].as_u64().unwrap()).unwrap());
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        let told: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&told["state"], &told["epoch"]), (&json!(state), &json!(epoch)), "{told}");
    }
    assert!(client.answer().is_whole);
    row.wait_alone();
    row.end();
}

#[test]
fn a_change_waits_for_what_the_old_process_has_of_a_version_that_was_left_before() {
    let (mut row, gate) = Row::held("[upgrade]\nspread = \"100ms\"\n");
    let mut client = row.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    row.lab.origin("blue").wait_served(1);
    row.lab.flip("green");
    row.upgrade();
    let shop = "/v1/services/shop";
    let (status, late) =
        row.lab.call("POST", &format!("{shop}/flip?wait=drained&timeout=50ms"), &json!({ "to": "green" }));
    assert_eq!((status, &late["left"][0]["version"]), (504, &json!("blue")), "{late}");
    let wait = format!("{shop}/versions/blue?wait=drained&timeout=30s");
    let removed = row.lab.call_later("DELETE", &wait, &[], &Value::Null);
    wait_until("it is removed", || row.lab.epoch() == 3);
    gate.open();
    assert!(client.answer().is_whole);
    let answer = removed.answer();
    assert!(answer.status == 200 && answer.text().contains("\"drained\""), "{}", answer.text());
    row.wait_alone();
    row.end();
}

#[test]
fn who_waits_for_what_the_old_process_has_hears_that_the_version_is_back() {
    let (mut row, gate) = Row::held("[upgrade]\nspread = \"100ms\"\n");
    let mut client = row.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    row.lab.origin("blue").wait_served(1);
    row.upgrade();
    let wait = "/v1/services/shop/flip?wait=drained&timeout=30s";
    let flipped = row.lab.call_later("POST", wait, &[], &json!({ "to": "green" }));
    wait_until("it is flipped", || row.lab.epoch() == 2);
    wait_until("blue drains", || row.lab.shop()["leaving"] == json!(["blue"]));
    assert_eq!(row.lab.call("POST", "/v1/services/shop/revert", &json!({})).0, 200);
    let answer = flipped.answer();
    assert!(answer.status == 409 && answer.text().contains("returned"), "{}", answer.text());
    gate.open();
    assert!(client.answer().is_whole);
    row.wait_alone();
    row.end();
}

#[test]
fn nothing_is_drained_before_the_old_process_has_said_what_it_has() {
    let (mut row, gate) = Row::held("[upgrade]\nspread = \"500ms\"\n");
    let mut client = row.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    row.lab.origin("blue").wait_served(1);
    row.lab.flip("green");
    let spare = format!("/v1/services/shop/versions/blue/endpoints/{}/drain", row.lab.origin("blue").address);
    let drained = |path: &str| row.lab.call("GET", path, &Value::Null).1["drained"] == true;
    let [all, one] = ["/v1/drain", &spare];
    assert!(!drained(all) && !drained(one));
    let (status, answer) = row.lab.call("POST", "/v1/upgrade", &json!({}));
    assert_eq!(status, 200, "{answer}");
    for _ in 0..50 {
        assert!(!drained(all) && !drained(one));
    }
    gate.open();
    assert!(client.answer().is_whole);
    wait_until("it is drained", || drained(all) && drained(one));
    row.pids.push(u32::try_from(answer["pid"].as_u64().unwrap()).unwrap());
    row.wait_alone();
    row.end();
}

#[test]
fn the_deadline_ends_what_does_not_end() {
    let mut row = talking(echoes(), "[upgrade]\nspread = \"0s\"\ndeadline = \"500ms\"\n");
    let mut socket = websocket(row.address());
    let since = Instant::now();
    row.upgrade();
    assert!(echoed(&mut socket, "hello"));
    while socket.read().is_ok() {}
    assert!(since.elapsed() >= Duration::from_millis(400), "{:?}", since.elapsed());
    row.wait_alone();
    row.end();
}

#[test]
fn the_old_process_ends_with_the_new_one_when_that_is_told_to() {
    let mut row = talking(echoes(), "[shutdown]\ndeadline = \"300ms\"\n");
    let mut socket = websocket(row.address());
    row.upgrade();
    assert!(echoed(&mut socket, "hello"));
    let log = row.end();
    assert!(log.contains("the deadline has come"), "{log}");
}

#[test]
fn the_command_says_who_serves_now() {
    let mut row = Row::with("");
    let (code, said, error) = row.lab.cli(&["upgrade"]);
    assert_eq!(code, 0, "{error}");
    let pid = u32::try_from(row.status()["pid"].as_u64().unwrap()).unwrap();
    row.pids.push(pid);
    assert!(said.contains(&format!("serves as process {pid}")) && said.contains("generation 2"), "{said}");
    row.wait_alone();
    let (_, said, _) = row.lab.cli(&["status"]);
    assert!(said.contains("generation 2"), "{said}");
    row.end();
}

#[test]
fn what_is_held_is_not_handed_over() {
    let mut row = Row::with("[upgrade]\nspread = \"200ms\"\n");
    let held = row.lab.call("POST", "/v1/services/shop/hold", &json!({ "timeout": "1m" }));
    assert_eq!(held.0, 200, "{}", held.1);
    let (status, answer) = row.try_upgrade(&json!({}));
    assert_eq!(
        (status, &answer["type"]),
        (409, &json!("urn:switchback:problem:upgrade_refused")),
        "{answer}"
    );
    assert!(answer["detail"].as_str().unwrap().contains("held"), "{answer}");
    assert_eq!(row.lab.call("POST", "/v1/services/shop/release", &json!({})).0, 200);
    row.upgrade();
    assert_eq!(row.client().get("/").status, 200);
    row.wait_alone();
    row.end();
}

#[test]
fn who_still_waits_behind_a_hold_is_not_left_to_the_old_table() {
    let gate = Gate::default();
    let lab = Lab::pool(
        vec![Origin::held("blue", &gate)],
        &[],
        "[upgrade]\nspread = \"200ms\"\n",
        "limits = { in_flight = 1 }",
    );
    let mut waiting = vec![lab.get_later("/late")];
    lab.origin("blue").wait_served(1);
    lab.hold(&json!({ "timeout": "1m" }));
    waiting.extend((0..3).map(|_| lab.get_later("/")));
    lab.wait_held(3);
    lab.release();
    let mut row = Row::of(lab);
    let (status, answer) = row.try_upgrade(&json!({}));
    assert_eq!(
        (status, &answer["type"]),
        (409, &json!("urn:switchback:problem:upgrade_refused")),
        "{answer}"
    );
    assert!(answer["detail"].as_str().unwrap().contains("`shop` that were held still wait"), "{answer}");
    gate.open();
    waiting.into_iter().for_each(|waiting| assert_eq!(waiting.answer().status, 200));
    row.upgrade();
    assert_eq!(row.client().get("/").status, 200);
    row.wait_alone();
    row.end();
}

#[test]
fn an_exclusive_flip_waits_for_no_work_that_it_cannot_see() {
    let (mut row, gate) = Row::held("[upgrade]\nspread = \"200ms\"\n");
    let mut client = row.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    row.lab.origin("blue").wait_served(1);
    row.upgrade();
    let body = json!({ "to": "green", "exclusive": true });
    let (status, answer) = row.lab.call("POST", "/v1/services/shop/flip", &body);
    assert_eq!((status, &answer["type"]), (409, &json!("urn:switchback:problem:work_elsewhere")), "{answer}");
    gate.open();
    assert!(client.answer().is_whole);
    row.wait_alone();
    wait_until("that is known", || row.status()["predecessors"] == json!([]));
    let (status, answer) = row.lab.call("POST", "/v1/services/shop/flip", &body);
    assert_eq!(status, 200, "{answer}");
    row.end();
}

/// What is asked of it but its health is counted, and answered with `status`; its checks are answered `late`, with `health`.
fn counting(name: &str, health: u16, late: Duration, status: u16, asked: &Arc<AtomicU64>) -> Origin {
    let asked = Arc::clone(asked);
    Origin::behaving(name, move |seen, stream| {
        let status = if seen.path() == "/healthz" {
            thread::sleep(late);
            health
        } else {
            asked.fetch_add(1, Ordering::SeqCst);
            status
        };
        write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok")?;
        Ok(Then::Keep)
    })
}

#[test]
fn who_is_down_or_ejected_gets_no_requests_of_the_new_process_either() {
    let counts: [Arc<AtomicU64>; 3] = Default::default();
    let late = Duration::from_millis(700);
    let origins = vec![
        counting("blue", 200, Duration::ZERO, 200, &counts[0]),
        // Its check takes its time: who starts without knowing sends it requests meanwhile.
        counting("blue", 503, late, 500, &counts[1]),
        counting("blue", 200, Duration::ZERO, 503, &counts[2]),
    ];
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let settings = "health = { path = \"/healthz\", interval = \"1s\", timeout = \"1s\" }\n\
                    outliers = { base_ejection = \"300s\" }";
    let mut row = Row::of(Lab::pool(origins, &[], "", settings));
    row.lab.wait_health(addresses[1], "down");
    let mut client = row.client();
    wait_until("one is ejected", || {
        let _ = client.get("/");
        row.lab.endpoint(addresses[2])["health"]["state"] == "ejected"
    });
    let ejection = row.lab.endpoint(addresses[2])["health"]["ejection"].take();
    let seen = || [1, 2].map(|index: usize| counts[index].load(Ordering::SeqCst));
    let before = seen();
    let load = Load::on(row.address());
    load.wait(50);
    row.upgrade();
    let health = |index: usize| row.lab.endpoint(addresses[index])["health"].take();
    assert_eq!([health(1)["state"].take(), health(2)["state"].take()], ["down", "ejected"]);
    assert_eq!(health(2)["ejection"], ejection);
    assert_eq!(health(1)["last_failure"]["said"], "status 503");
    load.wait(500);
    load.end();
    assert_eq!(seen(), before, "neither got anything");
    row.end();
}

#[test]
fn who_has_handed_over_looks_at_nobody_any_more() {
    let talk = echoes();
    let looks = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&looks);
    let origin = Origin::behaving("blue", move |seen, stream| {
        counted.fetch_add(u64::from(seen.path() == "/healthz"), Ordering::SeqCst);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
        Ok(Then::Keep)
    });
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nhealth = {{ path = \"/healthz\", interval = \"100ms\" }}\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n\
         [services.talk]\nroutes = [{{ path = \"/chat\" }}]\n[services.talk.versions.one]\nendpoints = [\"{talk}\"]\n",
        origin.address
    );
    let mut row = Row::of(Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &services));
    let mut socket = websocket(row.address());
    row.upgrade();
    wait_until("the old one is quiet", || row.status()["predecessors"][0]["quiet"] == true);
    let look = || looks.load(Ordering::SeqCst);
    let (new, before) = (row.pids[1], look());
    wait_until("the new one looks", || look() > before + 2);
    // Only the old one runs, and it has nothing to look at.
    signal("STOP", new);
    let stopped = || fs::read_to_string(format!("/proc/{new}/stat")).unwrap().contains(") T ");
    wait_until("the new one stands still", stopped);
    // What was on its way has arrived after a moment.
    thread::sleep(Duration::from_millis(200));
    let before = look();
    thread::sleep(Duration::from_secs(1));
    let after = look();
    signal("CONT", new);
    assert_eq!(after, before, "looks of one that has handed over");
    assert!(lives(row.pids[0]));
    assert!(echoed(&mut socket, "still there"));
    socket.close(None).unwrap();
    drop(socket);
    row.wait_alone();
    row.end();
}

/// Who has taken the sockets and fails then has to leave their files: the old one is reached by them.
#[test]
fn a_new_process_that_fails_late_takes_no_socket_away() {
    let dir = tempfile::tempdir().unwrap();
    let unix = dir.path().join("shop.sock");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut row = Row::with(&format!("[[listeners]]\nlisten = \"unix:{}\"\n", unix.display()));
    let text = fs::read_to_string(row.lab.config()).unwrap();
    let metrics =
        format!("[metrics]\nlisten = \"{}\"\n[state]\ndir = \"/dev/null/", taken.local_addr().unwrap());
    for wrong in [metrics.clone(), metrics.replace(&taken.local_addr().unwrap().to_string(), "127.0.0.1:0")] {
        fs::write(row.lab.config(), text.replace("[state]\ndir = \"", &wrong)).unwrap();
        let (status, answer) = row.try_upgrade(&json!({}));
        assert_eq!(status, 422, "{answer}");
        assert!(unix.exists() && row.lab.socket().exists(), "{answer}");
    }
    fs::write(row.lab.config(), text).unwrap();
    assert_goes_on(&mut row, 2);
    row.upgrade();
    row.wait_alone();
    row.end();
    assert!(!unix.exists(), "and they go with the last one");
}

#[test]
fn an_old_process_whose_successor_was_told_to_end_begins_nothing_more() {
    let mut row = Row::with("[upgrade]\nspread = \"5s\"\n[shutdown]\nspread = \"0s\"\n");
    let mut kept: Vec<_> = (0..5).map(|_| row.client()).collect();
    assert!(kept.iter_mut().all(|client| client.get("/").version() == "blue"));
    row.upgrade();
    signal("TERM", row.pids[1]);
    wait_until("the new one ends", || !lives(row.pids[1]));
    let anew = row.lab.spawn(2);
    row.lab.flip("green");
    let asked = row.lab.origin("blue").served();
    for client in &mut kept {
        assert!(client.try_get("/").map_or(true, |answer| answer.status == 503));
    }
    assert_eq!(row.lab.origin("blue").served(), asked, "after the flip was acknowledged");
    assert!(anew.stop().0.success());
    wait_until("the first ends", || !lives(row.pids[0]));
}

/// Where the state is kept is for the next start; an upgrade that fails is none.
#[test]
fn the_store_that_comes_back_is_the_one_that_was_lent() {
    let mut row = Row::with("");
    row.lab.flip("green");
    let text = fs::read_to_string(row.lab.config()).unwrap();
    let beside = row.lab.dir.path().join("beside.toml");
    fs::write(&beside, text.replace("/state\"", "/another\"")).unwrap();
    fs::rename(&beside, row.lab.config()).unwrap();
    row.first.as_ref().unwrap().wait_for_log("take effect at the next start");
    // The present program would begin with nothing.
    let (status, answer) = row.try_upgrade(&json!({}));
    assert_eq!(status, 422, "{answer}");
    assert!(answer.to_string().contains("what was decided would be forgotten"), "{answer}");
    let body = takes_the_store_and(&row, "os.kill(os.getpid(), 9)");
    assert_eq!(row.try_upgrade(&body).0, 422);
    assert_eq!((row.client().get("/").version(), row.lab.epoch()), ("green", 2));
    assert_eq!(row.lab.flip("blue")["epoch"], 3);
    assert!(!row.lab.dir.path().join("another").exists());
    row.end();
}

/// The kernel ends the largest first, and nothing is left to try it again; and it tells of the end before all is closed.
#[test]
fn a_new_process_serves_where_the_old_one_is_killed_while_it_prepares_itself() {
    let mut row = Row::with("");
    row.lab.flip("green");
    let [started, killed] = ["started", "killed"].map(|name| row.lab.dir.path().join(name));
    let body = program(
        &row,
        &format!(
            "#!/bin/sh\necho $$ > '{0}.new'\nmv '{0}.new' '{0}'\nwhile [ ! -e '{1}' ]; do sleep 0.01; done\nexec '{2}' \"$@\"\n",
            started.display(),
            killed.display(),
            env!("CARGO_BIN_EXE_switchback")
        ),
    );
    let binary = body["binary"].as_str().unwrap();
    let asked = row.begin(&["upgrade", "--binary", binary, "--timeout", "30s"]);
    wait_until("it is started", || started.exists());
    row.pids.push(fs::read_to_string(started).unwrap().trim().parse().unwrap());
    signal("KILL", row.pids[0]);
    let (code, _, said) = ended(asked);
    let told = "nobody says whether the upgrade is made (`switchback status` shows which process serves): ";
    assert!(code == 1 && said.contains(told), "{code}: {said}");
    // For as long as the kernel closes what it had.
    let lock = fs::File::open(row.lab.dir.path().join("state/switchback.lock")).unwrap();
    lock.lock().unwrap();
    fs::write(killed, "").unwrap();
    row.first.as_ref().unwrap().wait_for_log("serving in its place");
    drop(lock);
    wait_until("the new one serves", || row.status()["pid"] == row.pids[1]);
    assert_eq!(row.client().get("/").version(), "green");
    assert_eq!(row.lab.flip("blue")["epoch"], 3);
    signal("TERM", row.pids[1]);
    wait_until("it ends", || !lives(row.pids[1]));
    assert!(!row.lab.socket().exists());
}

/// What the old process has in flight is tried again, or let out of a queue.
#[test]
fn the_old_process_sends_nothing_to_an_endpoint_that_is_drained_in_the_new_one() {
    let queue = "circuit = { requests = 1, queue_timeout = \"30s\" }";
    for (settings, requests) in [("", 1), (queue, 2)] {
        let gate = Gate::default();
        let opened = gate.clone();
        let fails = Origin::behaving("fails", move |_, _| {
            opened.wait();
            Ok(Then::Close)
        });
        let origins = vec![fails, Origin::start("spare")];
        let mut row = Row::of(Lab::pool(origins, &[], "[upgrade]\nspread = \"100ms\"\n", settings));
        let spare = row.lab.origin("spare").address;
        let spare = format!("/v1/services/shop/versions/blue/endpoints/{spare}");
        let drain = format!("{spare}/drain?wait=drained&timeout=30s");
        // Nobody goes there at first, and then everybody might.
        assert_eq!(row.lab.call("POST", &drain, &Value::Null).0, 200);
        let mut clients: Vec<_> = (0..requests).map(|_| row.client()).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n");
        }
        row.lab.wait_for_metric(
            &["switchback_in_flight{", "kind=\"request\"", "version=\"blue\""],
            f64::from(requests),
        );
        row.lab.origin("fails").wait_served(1);
        assert_eq!(row.lab.call("PUT", &spare, &json!({})).0, 200);
        row.upgrade();
        let (status, answer) = row.lab.call("POST", &drain, &Value::Null);
        assert_eq!((status, &answer["state"]), (200, &json!("drained")), "{answer}");
        gate.open();
        let answered: Vec<_> = clients.iter_mut().map(|client| client.answer().status).collect();
        assert!(answered.iter().all(|status| *status == 502), "{settings}: {answered:?}");
        assert_eq!(row.lab.origin("spare").served(), 0, "{settings}");
        row.wait_alone();
        row.end();
    }
}

#[test]
fn what_lasts_in_the_old_process_on_an_endpoint_that_is_drained_in_the_new_one_is_seen_out() {
    let talk = echoes();
    let mut row = talking(talk, "[upgrade]\nspread = \"100ms\"\n");
    let text = fs::read_to_string(row.lab.config()).unwrap();
    let rules = "[services.talk]\ndrain = { patience = \"100ms\", spread = \"100ms\", deadline = \"5m\" }";
    fs::write(row.lab.config(), text.replace("[services.talk]", rules)).unwrap();
    row.upgrade();
    let mut socket = websocket(row.address());
    assert!(echoed(&mut socket, "before"));
    row.upgrade();
    let path = |at: SocketAddr| format!("/v1/services/talk/versions/one/endpoints/{at}");
    // The last one of a version that has traffic stays.
    assert_eq!(row.lab.call("PUT", &path(echoes()), &json!({})).0, 200);
    let drain = format!("{}/drain", path(talk));
    assert_eq!(row.lab.call("POST", &drain, &Value::Null).0, 200);
    let Message::Close(Some(close)) = socket.read().unwrap() else { panic!("no reason") };
    assert_eq!(u16::from(close.code), 1012, "{close:?}");
    let _ = socket.flush();
    drop(socket);
    wait_until("it is drained", || row.lab.call("GET", &drain, &Value::Null).1["drained"] == true);
    row.wait_alone();
    row.end();
}

/// One that stands still does not know yet that it was left alone.
#[test]
fn no_change_is_acknowledged_before_an_old_process_that_nobody_hears_begins_nothing_more() {
    let mut row = Row::with("[upgrade]\nspread = \"5s\"\n");
    let mut kept = row.client();
    assert_eq!(kept.get("/").version(), "blue");
    row.upgrade();
    // Until then it has the admin socket.
    row.first.as_ref().unwrap().wait_for_log("handed over");
    signal("STOP", row.pids[0]);
    signal("KILL", row.pids[1]);
    wait_until("the new one is gone", || !lives(row.pids[1]));
    let anew = row.lab.spawn(2);
    // `None` once it has ended.
    let quiet = || row.status().pointer("/predecessors/0/quiet").and_then(Value::as_bool);
    assert_eq!(quiet(), Some(false));
    // A plan is acknowledged by nobody.
    let plan = row.lab.call("POST", "/v1/services/shop/flip?dry_run=true", &json!({ "to": "green" }));
    assert_eq!((plan.0, &plan.1["changed"], quiet()), (200, &json!(true), Some(false)), "{}", plan.1);
    signal("CONT", row.pids[0]);
    wait_until("it begins nothing more", || quiet() != Some(false));
    row.lab.flip("green");
    assert!(kept.try_get("/").map_or(true, |answer| answer.status == 503));
    assert_eq!(row.lab.origin("blue").served(), 1);
    assert!(anew.stop().0.success());
    wait_until("the first ends", || !lives(row.pids[0]));
}

#[test]
fn a_file_is_in_force_as_a_whole_where_an_old_process_does_not_say_that_it_begins_nothing_more() {
    let mut row = Row::with("[upgrade]\nspread = \"5s\"\n");
    let mut kept = row.client();
    assert_eq!(kept.get("/").version(), "blue");
    row.upgrade();
    // Until then it has the admin socket.
    row.first.as_ref().unwrap().wait_for_log("handed over");
    signal("STOP", row.pids[0]);
    let (text, unix) = (fs::read_to_string(row.lab.config()).unwrap(), row.lab.dir.path().join("shop.sock"));
    let more = format!(
        "[services.cart]\nroutes = [{{ path = \"/cart\" }}]\nversions.v1.endpoints = [\"127.0.0.1:9\"]\n\
         [[listeners]]\nlisten = \"unix:{}\"\n",
        unix.display()
    );
    let beside = row.lab.dir.path().join("beside.toml");
    fs::write(&beside, text + &more).unwrap();
    fs::rename(&beside, row.lab.config()).unwrap();
    wait_until("the services are in force", || {
        row.lab.call("GET", "/v1/services/cart", &Value::Null).0 == 200
    });
    wait_until("so is the listener", || row.status()["listeners"].as_array().unwrap().len() == 2);
    signal("CONT", row.pids[0]);
    row.first.as_ref().unwrap().wait_for_log("configuration read");
    assert!(!row.log().contains("the configuration is not used"), "{}", row.log());
    drop(kept);
    row.wait_alone();
    row.end();
}

#[test]
fn an_old_process_is_known_before_the_new_one_has_the_store() {
    let mut row = Row::with("");
    let (state, seen) = (row.lab.dir.path().join("state"), row.lab.dir.path().join("seen"));
    let list = format!(
        "open('{}', 'w').write(' '.join(os.listdir('{}'))); os._exit(3)",
        seen.display(),
        state.display()
    );
    let body = takes_the_store_and(&row, &list);
    assert_eq!(row.try_upgrade(&body).0, 422);
    let lock = format!("older-{}.lock", row.pids[0]);
    let seen = fs::read_to_string(seen).unwrap();
    assert!(seen.contains(&lock), "{seen}");
    assert!(!state.join(lock).exists(), "it is none after all");
    assert_goes_on(&mut row, 2);
    row.end();
}

#[test]
fn who_asks_for_another_process_while_the_proxy_stops_is_told_so() {
    let (mut row, gate) = Row::held("");
    let mut client = row.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    row.lab.origin("blue").wait_served(1);
    signal("TERM", row.pids[0]);
    row.first.as_ref().unwrap().wait_for_log("winding down");
    let (status, answer) = row.try_upgrade(&json!({}));
    assert_eq!(status, 409, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("the proxy stops"), "{answer}");
    gate.open();
    assert!(client.answer().is_whole);
    row.end();
}

/// What it has begun is its own to finish.
#[test]
fn a_new_process_that_may_serve_already_is_told_to_end_and_not_killed() {
    let mut row = Row::with("");
    let file = |name: &str| row.lab.dir.path().join(name);
    let [has_it, go, told] = ["has-it", "go", "told"].map(file);
    let then = format!(
        "import signal\ndef end(*_):\n  open('{told}', 'w'); os._exit(0)\nsignal.signal(signal.SIGTERM, end)\n\
         open('{has_it}', 'w')\nwhile not os.path.exists('{go}'): time.sleep(.01)\n\
         line.write(json.dumps({{'ready': {{'pid': os.getpid(), 'generation': 2, 'version': 'x', 'epoch': 1}}}}) + '\\n')\n\
         line.flush(); time.sleep(60)",
        told = told.display(),
        has_it = has_it.display(),
        go = go.display()
    );
    let body = takes_the_store_and(&row, &then);
    let body = json!({ "binary": body["binary"], "timeout": "30s" });
    let asked = row.lab.call_later("POST", "/v1/upgrade", &[], &body);
    wait_until("it has the store", || has_it.exists());
    signal("TERM", row.pids[0]);
    let first = row.first.take().unwrap();
    first.wait_for_log("told to stop while another process takes over");
    fs::write(go, "").unwrap();
    assert_eq!(asked.answer().status, 200);
    wait_until("it is told", || told.exists());
    let (status, log) = first.wait();
    assert!(status.success() && !log.contains("panicked"), "{log}");
}

#[test]
fn targeting_rules_hold_in_the_new_process() {
    let mut row = Row::with("[upgrade]\nspread = \"100ms\"\n");
    let rules = json!([{ "headers": { "x-beta": "yes" }, "to": "green" }]);
    let (status, answer) = row.lab.call("PUT", "/v1/services/shop/rules", &rules);
    assert_eq!(status, 200, "{answer}");
    row.upgrade();
    let ask = |row: &Row, beta: &str| {
        let asked = format!("GET / HTTP/1.1\r\nhost: shop.test\r\nx-beta: {beta}\r\n\r\n");
        row.client().send(asked).answer().version().to_owned()
    };
    row.wait_alone();
    assert_eq!([ask(&row, "yes"), ask(&row, "no")], ["green", "blue"]);
    assert_eq!((&row.lab.shop()["rules"], &row.drain("green")["drained"]), (&rules, &json!(false)));
    // What it has from the old one it can take away, and only then is nothing left there.
    assert_eq!(row.lab.cli(&["rules", "shop", "--clear"]).0, 0);
    assert_eq!((ask(&row, "yes").as_str(), &row.drain("green")["drained"]), ("blue", &json!(true)));
    row.end();
}

#[test]
fn a_ramp_goes_on_in_the_new_process() {
    let mut row = Row::with("");
    let steps = [100, 200, 300, 400, 10_000];
    let body = json!({ "to": "green", "steps": steps, "every": "1s" });
    let (status, answer) = row.lab.call("POST", "/v1/services/shop/ramp", &body);
    assert_eq!(status, 200, "{answer}");
    row.upgrade();
    assert_eq!(row.lab.shop()["ramp"]["begun"], answer["epoch"], "{}", row.lab.shop());
    wait_until("it is finished", || row.lab.shop()["ramped"]["how"] == "finished");
    let (_, history) = row.lab.call("GET", "/v1/changes?limit=100&service=shop", &Value::Null);
    let changes = history["changes"].as_array().unwrap().iter().rev();
    let ramp = changes.filter(|change| change["kind"] == "ramp");
    let weights: Vec<_> =
        ramp.map(|change| change["services"]["shop"]["weights"]["green"].as_u64().unwrap()).collect();
    assert_eq!(weights, steps);
    row.wait_alone();
    row.end();
}

/// One call, one document: a machine's command goes on with the new process.
#[test]
fn a_command_that_waits_with_one_call_hears_of_the_end_from_the_new_process() {
    let (mut row, gate) = Row::held("[upgrade]\nspread = \"100ms\"\n");
    let state = |out: &str| serde_json::from_str::<Value>(out).unwrap()["state"].clone();
    let ramp = row.begin(&["ramp", "shop", "--to", "green", "--steps", "1,100", "--every", "1h", "--json"]);
    wait_until("it has begun", || row.lab.epoch() == 2);
    row.upgrade();
    assert_eq!(row.lab.cli(&["promote", "shop"]).0, 0);
    let (code, out, err) = ended(ramp);
    assert_eq!((code, state(&out)), (0, json!("finished")), "{out}{err}");

    let mut client = row.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    row.lab.origin("green").wait_served(1);
    let flip = row.begin(&["flip", "shop", "--to", "blue", "--json"]);
    wait_until("green is left", || row.lab.epoch() == 4);
    row.upgrade();
    gate.open();
    assert!(client.answer().is_whole);
    let (code, out, err) = ended(flip);
    assert_eq!((code, state(&out), row.lab.epoch()), (0, json!("drained"), 4), "{out}{err}");
    row.wait_alone();
    row.end();
}

#[test]
fn users_stay_with_their_versions() {
    let origins = ["blue", "green"].map(Origin::start);
    let text = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nsticky = {{ header = \"x-user\" }}\nstable = \"blue\"\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n[services.shop.versions.green]\nendpoints = [\"{}\"]\n",
        origins[0].address, origins[1].address
    );
    let mut row = Row::of(Lab::configured(tempfile::tempdir().unwrap(), origins.into(), &text));
    row.lab.weights(&json!({ "green": 5_000, "blue": 5_000 }));
    let versions = |row: &Row| -> Vec<String> {
        let version = |user: u32| {
            let request = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-user: {user}\r\n\r\n");
            row.client().send(request).answer().version().to_owned()
        };
        (0..100).map(version).collect()
    };
    let before = versions(&row);
    assert!(before.contains(&"green".to_owned()) && before.contains(&"blue".to_owned()));
    row.upgrade();
    row.wait_alone();
    assert_eq!(versions(&row), before);
}

/// `shop` with these settings, half on green, where a WebSocket is.
fn on_green(settings: &str) -> (Row, WebSocket<TcpStream>) {
    let (blue, green) = (Origin::start("blue"), echoes());
    let text = format!(
        "[upgrade]\nspread = \"100ms\"\n[services.shop]\nroutes = [{{ path = \"/\" }}]\n{settings}\nstable = \"blue\"\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n[services.shop.versions.green]\nendpoints = [\"{green}\"]\n",
        blue.address
    );
    let row = Row::of(Lab::configured(tempfile::tempdir().unwrap(), vec![blue], &text));
    row.lab.weights(&json!({ "green": 5_000, "blue": 5_000 }));
    let mut socket = connect_to_who_speaks(row.address());
    assert!(echoed(&mut socket, "before"), "it is on green");
    (row, socket)
}

#[test]
fn what_is_left_behind_is_left_alone_for_as_long_as_it_is_said() {
    let rules = "drain = { patience = \"0s\", spread = \"0s\", deadline = \"5m\" }";
    let (mut row, mut socket) = on_green(rules);
    row.upgrade();
    let since = Instant::now();
    let (status, answer) = row.lab.call("POST", "/v1/services/shop/retire", &json!({ "for": "2s" }));
    assert_eq!((status, &answer["services"]["shop"]["leaving"]), (200, &json!(["green"])), "{answer}");
    assert!(echoed(&mut socket, "with the old process"));
    let Message::Close(Some(close)) = socket.read().unwrap() else { panic!("no reason") };
    assert_eq!(u16::from(close.code), 1012, "{close:?}");
    assert!(since.elapsed() >= Duration::from_secs(2), "{:?}", since.elapsed());
    let _ = socket.flush();
    drop(socket);
    wait_until("it is drained", || row.drain("green")["drained"] == true);
    row.wait_alone();
    row.end();
}

#[test]
fn what_is_left_behind_is_left_alone_over_further_upgrades_too() {
    for retired_first in [true, false] {
        let rules = "drain = { patience = \"0s\", spread = \"0s\", deadline = \"5m\" }";
        let (mut row, mut socket) = on_green(rules);
        let mut since = Instant::now();
        for retires in [retired_first, !retired_first] {
            if retires {
                since = Instant::now();
                let (status, answer) =
                    row.lab.call("POST", "/v1/services/shop/retire", &json!({ "for": "6s" }));
                assert_eq!(status, 200, "{answer}");
            }
            row.upgrade();
        }
        let Message::Close(Some(close)) = socket.read().unwrap() else { panic!("no reason") };
        assert_eq!(u16::from(close.code), 1012, "{close:?}");
        assert!(since.elapsed() >= Duration::from_secs(6), "{:?}", since.elapsed());
        let _ = socket.flush();
        drop(socket);
        row.wait_alone();
        row.end();
    }
}

#[test]
fn what_is_retired_while_a_further_process_prepares_itself_is_left_alone_too() {
    let (mut row, mut socket) = on_green("drain = { patience = \"0s\", spread = \"0s\", deadline = \"5m\" }");
    row.upgrade();
    wait_until("the old one is quiet", || row.status()["predecessors"][0]["quiet"] == true);
    let [there, go] = ["there", "go"].map(|name| row.lab.dir.path().join(name));
    let body = waits(&row, &there, &go);
    let admin = row.lab.socket();
    let retired = thread::spawn(move || {
        wait_until("it is there", || there.exists());
        let (since, body) = (Instant::now(), json!({ "for": "6s" }).to_string());
        let answer = lab::admin::call(&admin, "POST", "/v1/services/shop/retire", &[], &body).unwrap();
        fs::write(go, "").unwrap();
        (since, answer.status)
    });
    let (status, answer) = row.try_upgrade(&body);
    let (since, retired) = retired.join().unwrap();
    assert_eq!((status, retired), (200, 200), "{answer}");
    assert!(matches!(socket.read().unwrap(), Message::Close(Some(_))));
    assert!(since.elapsed() >= Duration::from_secs(6), "{:?}", since.elapsed());
    let _ = socket.flush();
    drop(socket);
    row.wait_alone();
    row.end();
}

#[test]
fn a_retirement_goes_on_in_the_new_process() {
    let (mut row, mut socket) = on_green("sticky = { cookie = \"sb_id\", mint = true }");
    let (status, answer) = row.lab.call("POST", "/v1/services/shop/retire", &json!({ "quiet": "300ms" }));
    assert_eq!(status, 200, "{answer}");
    row.upgrade();
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        assert!(echoed(&mut socket, "meanwhile"), "with the old process");
        let new = row.client().send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").answer();
        assert_eq!(new.version(), "blue");
    }
    assert_eq!(row.lab.shop()["retirement"]["begun"], answer["epoch"], "who is there is not over");
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    wait_until("it is over", || row.lab.shop()["retired"]["how"] == "finished");
    row.wait_alone();
    row.end();
}

/// Somebody looks into it with a debugger, or the kernel writes down its memory.
#[test]
fn an_old_process_that_stands_still_does_not_keep_the_new_one_from_ending() {
    let mut row =
        talking(echoes(), "[upgrade]\nspread = \"100ms\"\n[shutdown]\nspread = \"0s\"\ndeadline = \"1s\"\n");
    let mut socket = websocket(row.address());
    row.upgrade();
    assert!(echoed(&mut socket, "hello"));
    wait_until("the old one is quiet", || row.status()["predecessors"][0]["quiet"] == true);
    signal("STOP", row.pids[0]);
    signal("TERM", row.pids[1]);
    wait_until("the new one ends", || !lives(row.pids[1]));
    signal("CONT", row.pids[0]);
    drop(socket);
    row.wait_alone();
    assert!(row.first.take().unwrap().wait().0.success());
}

/// A program that is started in the new version's place, and becomes it once `go` is there; then `there` is.
fn waits(row: &Row, there: &Path, go: &Path) -> Value {
    let text = format!(
        "#!/bin/sh\n: > {there:?}\nuntil [ -e {go:?} ]; do sleep 0.02; done\nexec {} \"$@\"\n",
        env!("CARGO_BIN_EXE_switchback")
    );
    let mut body = program(row, &text);
    body["timeout"] = json!("30s");
    body
}

#[test]
fn a_change_is_acknowledged_while_a_further_process_prepares_itself() {
    let mut row = Row::with("[upgrade]\nspread = \"1s\"\n");
    let mut kept = row.client();
    assert_eq!(kept.get("/").version(), "blue");
    row.upgrade();
    let [there, go] = ["there", "go"].map(|name| row.lab.dir.path().join(name));
    let body = waits(&row, &there, &go);
    let asked = row.lab.call_later("POST", "/v1/upgrade", &[], &body);
    wait_until("it is there", || there.exists());
    assert_eq!(row.status()["predecessors"][0]["quiet"], false, "too late to see anything");
    row.lab.flip("green");
    fs::write(&go, "").unwrap();
    let answer = asked.answer();
    assert_eq!(answer.status, 200, "{}", answer.text());
    row.pids.push(u32::try_from(answer.json()["pid"].as_u64().unwrap()).unwrap());
    assert_eq!(row.client().get("/").version(), "green");
    row.wait_alone();
    row.end();
}

/// Syncs wait while the file is there that says so.
const SLOW_SYNC: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int synced(long call, int file) {
    while (!access(getenv("SLOW_SYNC"), F_OK)) usleep(1000);
    return syscall(call, file);
}

int fsync(int file) { return synced(SYS_fsync, file); }
int fdatasync(int file) { return synced(SYS_fdatasync, file); }
"#;

/// One whose store takes as long as the file is there that is returned.
fn slow(extra: &str) -> (Row, PathBuf) {
    let mut lab = Lab::with(&["blue", "green"], extra);
    let library = Preload::compile(lab.dir.path(), SLOW_SYNC);
    let slow = lab.dir.path().join("slow");
    assert!(lab.proxy.take().unwrap().stop().0.success());
    let before = ["env", &library.variable(), &format!("SLOW_SYNC={}", slow.display())];
    let proxy = Proxy::start_as(&before, &["--workers", "2"], &lab.config(), &lab.socket());
    lab.proxy = Some(proxy.unwrap_or_else(|log| panic!("the proxy did not start:\n{log}")));
    (Row::of(lab), slow)
}

const SOME: &str = r#"{ "blue": 9000, "green": 1000 }"#;

#[test]
fn a_log_that_is_moved_away_during_an_upgrade_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let (mut row, slow) = slow(&format!("[access_log]\ntarget = \"file\"\npath = {log:?}\n"));
    let move_away = |row: &Row| {
        fs::rename(&log, log.with_extension("1")).unwrap();
        signal("USR1", row.pids[0]);
    };
    let is_written = |row: &Row| {
        assert_eq!(row.client().get("/").status, 200);
        wait_until("it is written where it is looked for", || {
            fs::metadata(&log).is_ok_and(|log| log.len() > 0)
        });
    };
    let [there, go] = ["there", "go"].map(|name| dir.path().join(name));
    let mut body = waits(&row, &there, &go);
    body["timeout"] = json!("1s");
    let asked = row.lab.call_later("POST", "/v1/upgrade", &[], &body);
    wait_until("it is there", || there.exists());
    move_away(&row);
    assert_eq!(asked.answer().status, 504);
    is_written(&row);

    // The new process has opened it when it is moved.
    fs::write(&slow, "").unwrap();
    let change =
        row.lab.call_later("PUT", "/v1/services/shop/weights", &[], &serde_json::from_str(SOME).unwrap());
    let asked = row.lab.call_later("POST", "/v1/upgrade", &[], &json!({}));
    let trace = row.lab.dir.path().join(format!("state/older-{}.lock", row.pids[0]));
    wait_until("it is prepared", || trace.exists());
    move_away(&row);
    fs::remove_file(&slow).unwrap();
    assert_eq!(change.answer().status, 200);
    let answer = asked.answer();
    assert_eq!(answer.status, 200, "{}", answer.text());
    row.pids.push(u32::try_from(answer.json()["pid"].as_u64().unwrap()).unwrap());
    is_written(&row);
    row.wait_alone();
    row.end();
}

#[test]
fn a_store_that_was_not_lent_before_the_time_was_over_is_not_waited_for() {
    let (mut row, slow) = slow("");
    row.lab.hold(&json!({ "timeout": "60s" }));
    fs::write(&slow, "").unwrap();
    let change =
        row.lab.call_later("PUT", "/v1/services/shop/weights", &[], &serde_json::from_str(SOME).unwrap());
    let (status, answer) = row.try_upgrade(&json!({ "timeout": "1s" }));
    assert_eq!(status, 504, "{answer}");
    fs::remove_file(&slow).unwrap();
    assert_eq!(change.answer().status, 200);
    assert_eq!(row.lab.call("POST", "/v1/services/shop/release", &Value::Null).0, 200);
    wait_until("another process can take over", || {
        let (status, answer) = row.try_upgrade(&json!({}));
        assert!(status == 200 || answer["detail"].as_str().unwrap().contains("not back yet"), "{answer}");
        status == 200
    });
    row.wait_alone();
    row.end();
}

/// The process that is asked hears nothing of the first one any more, once the third one does.
#[test]
fn no_change_is_acknowledged_because_a_further_process_takes_over() {
    let (mut row, slow) = slow("[upgrade]\nspread = \"5s\"\n");
    let mut kept: Vec<_> = (0..20).map(|_| row.client()).collect();
    assert!(kept.iter_mut().all(|client| client.get("/").version() == "blue"));
    row.upgrade();
    fs::write(&slow, "").unwrap();
    let change = row.lab.call_later("POST", "/v1/services/shop/flip", &[], &json!({ "to": "green" }));
    let asked = row.lab.call_later("POST", "/v1/upgrade", &[], &json!({}));
    let trace = row.lab.dir.path().join(format!("state/older-{}.lock", row.pids[1]));
    wait_until("it is prepared", || trace.exists());
    fs::remove_file(&slow).unwrap();
    let answer = asked.answer();
    assert_eq!(answer.status, 200, "{}", answer.text());
    row.pids.push(u32::try_from(answer.json()["pid"].as_u64().unwrap()).unwrap());
    let answer = change.answer();
    let told = answer.json();
    assert_eq!((answer.status, &told["type"]), (504, &json!("urn:switchback:problem:left_behind")), "{told}");
    assert!(told["detail"].as_str().unwrap().starts_with("the change is made"), "{told}");
    assert_eq!(row.lab.flip("green")["changed"], false, "it was made, and is fenced now");
    for client in &mut kept {
        if let Ok(answer) = client.try_get("/") {
            assert_ne!(answer.version(), "blue", "after the change was acknowledged");
        }
    }
    drop(kept);
    row.wait_alone();
    row.end();
}

/// Who has connected before may be heard after that.
#[test]
fn nobody_who_is_heard_late_is_told_that_what_an_older_process_has_is_drained() {
    let (mut row, gate) = Row::held("[upgrade]\nspread = \"50ms\"\n");
    let mut client = row.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    row.lab.origin("blue").wait_served(1);
    row.upgrade();
    row.lab.flip("green");
    let address = row.lab.origin("blue").address;
    let paths =
        ["/v1/drain".to_owned(), format!("/v1/services/shop/versions/blue/endpoints/{address}/drain")];
    let over = Arc::new(AtomicBool::new(false));
    let asking = {
        let (socket, over) = (row.lab.socket(), Arc::clone(&over));
        thread::spawn(move || {
            let mut late = Vec::new();
            while !over.load(Ordering::SeqCst) {
                for path in &paths {
                    // Nobody is there for a moment: then others are.
                    let Ok(mut stream) = UnixStream::connect(&socket) else { continue };
                    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
                    late.push(thread::spawn(move || {
                        thread::sleep(Duration::from_millis(100));
                        let mut answer = String::new();
                        // It may be closed before it is heard.
                        let _ = stream.write_all(head.as_bytes());
                        let _ = stream.read_to_string(&mut answer);
                        answer
                    }));
                }
                thread::sleep(Duration::from_millis(4));
            }
            late.into_iter().map(|late| late.join().unwrap()).collect::<Vec<_>>()
        })
    };
    for _ in 0..3 {
        row.upgrade();
    }
    over.store(true, Ordering::SeqCst);
    let answers = asking.join().unwrap();
    assert!(answers.len() > 20, "{}", answers.len());
    let said = answers.iter().find(|answer| answer.contains("\"drained\":true"));
    assert_eq!(said, None, "of {}", answers.len());
    gate.open();
    assert!(client.answer().is_whole);
    row.wait_alone();
    row.end();
}
