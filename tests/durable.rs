//! G6 and G7: an acknowledged change survives kill -9, one that was not is whole or absent, and a store that fails
//! refuses the change, says why, and leaves the traffic alone.
//!
//! `SWITCHBACK_KILLS=200 cargo test --release --test durable -- --nocapture` is the full run, with its figures.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lab::history::Load;
use lab::preload::Preload;
use lab::{Lab, Origin, Proxy, SmallDisk, admin};
use serde_json::{Value, json};

/// Two services over the same two origins: `/shop` and `/cart`.
fn two_services(dir: tempfile::TempDir) -> Lab {
    let origins = vec![Origin::start("blue"), Origin::start("green")];
    let service = |name: &str| {
        format!(
            "[services.{name}]\nroutes = [{{ path = \"/{name}\" }}]\nstable = \"blue\"\n\
             [services.{name}.versions.blue]\nendpoints = [\"{}\"]\n\
             [services.{name}.versions.green]\nendpoints = [\"{}\"]\n",
            origins[0].address, origins[1].address
        )
    };
    let services = format!("[proxy]\nepoch_header = true\n{}{}", service("shop"), service("cart"));
    Lab::configured(dir, origins, &services)
}

/// Both services' green at `points`, in one change.
fn batch(points: u64) -> Value {
    let weights = json!({ "blue": 10_000 - points, "green": points });
    let edit = |service: &str| json!({ "service": service, "weights": weights });
    json!({ "changes": [edit("shop"), edit("cart")] })
}

fn green(service: &Value) -> u64 {
    service["weights"]["green"].as_u64().unwrap_or(0)
}

/// What the stream of changes knows when the proxy dies under it.
#[derive(Default)]
struct Stream {
    /// Green's weight by epoch, of every change that was acknowledged.
    acknowledged: Mutex<BTreeMap<u64, u64>>,
    /// The weight that was asked for last, acknowledged or not.
    asked: AtomicU64,
}

impl Stream {
    /// Changes without a pause until the proxy is gone; no two changes in a row ask for the same.
    fn run(&self, socket: &Path) {
        loop {
            let points = (self.asked.load(Ordering::SeqCst) + 1) % 10_000;
            self.asked.store(points, Ordering::SeqCst);
            let body = batch(points).to_string();
            let Ok(answer) = admin::call(socket, "POST", "/v1/changes", &[], &body) else { return };
            if !answer.is_whole || answer.json().is_null() {
                return;
            }
            assert_eq!(answer.status, 200, "{}", answer.text());
            let epoch = answer.json()["epoch"].as_u64().unwrap();
            let before = self.acknowledged.lock().unwrap().insert(epoch, points);
            assert_eq!(before, None, "epoch {epoch} was used twice");
        }
    }
}

/// A number below `end` that nobody can foresee.
fn chance(end: u64) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) % end
}

/// Everything that is promised of a start after a kill.
fn check_restart(lab: &Lab, stream: &Stream, seen_in_traffic: u64) {
    let (_, all) = lab.call("GET", "/v1/services", &Value::Null);
    let epoch = all["epoch"].as_u64().unwrap();
    let [cart, shop] = [0, 1].map(|index| green(&all["services"][index]));
    assert_eq!(cart, shop, "half a change at epoch {epoch}");
    let mut acknowledged = stream.acknowledged.lock().unwrap();
    let (last, points) = acknowledged.last_key_value().map(|(last, points)| (*last, *points)).unwrap();
    let asked = stream.asked.load(Ordering::SeqCst);
    assert!(epoch >= last, "epoch {last} was acknowledged, and is lost: now {epoch}");
    assert!(
        epoch >= seen_in_traffic,
        "epoch {seen_in_traffic} has served requests, and is lost: now {epoch}"
    );
    match epoch - last {
        0 => assert_eq!(shop, points, "epoch {epoch} is another one now"),
        1 => assert_eq!(shop, asked, "nothing else was under way"),
        _ => panic!("changes that nobody asked for: {last}, then {epoch}"),
    }
    acknowledged.insert(epoch, shop);
    let (_, history) = lab.call("GET", "/v1/changes?limit=1000", &Value::Null);
    for change in history["changes"].as_array().unwrap() {
        let epoch = change["epoch"].as_u64().unwrap();
        let was = [green(&change["services"]["shop"]), green(&change["services"]["cart"])];
        assert_eq!(was[0], was[1], "{change}");
        if let Some(points) = acknowledged.get(&epoch) {
            assert_eq!(was[0], *points, "{change}");
        }
    }
}

#[test]
fn a_kill_at_any_instant_loses_nothing_that_was_acknowledged() {
    let kills = std::env::var("SWITCHBACK_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20);
    let mut lab = two_services(tempfile::tempdir().unwrap());
    let stream = Arc::new(Stream::default());
    stream.acknowledged.lock().unwrap().insert(lab.epoch(), 0);
    let mut starts = Vec::new();
    for _ in 0..kills {
        let (running, socket) = (Arc::clone(&stream), lab.socket());
        let changes = thread::spawn(move || running.run(&socket));
        let load = Load::start(lab.address(), 1, &[("shop", "/shop")]);
        // Not a wait for anything: the instant is what is tried.
        thread::sleep(Duration::from_micros(chance(60_000)));
        lab.proxy.take().unwrap().kill();
        changes.join().unwrap();
        let traffic = load.stop();
        let seen = traffic.requests.iter().map(|request| request.epoch).max().unwrap_or(0);
        let since = Instant::now();
        lab.proxy = Some(lab.spawn(2));
        starts.push(since.elapsed());
        check_restart(&lab, &stream, seen);
    }
    starts.sort();
    let (median, longest) = (starts[starts.len() / 2], starts[starts.len() - 1]);
    let acknowledged = stream.acknowledged.lock().unwrap().len();
    println!(
        "{kills} kills within {acknowledged} changes: none lost, none half; \
         ready again in {median:.1?} (median), {longest:.1?} (longest)"
    );
    assert!(longest <= Duration::from_secs(10), "{longest:?}");
}

#[test]
fn a_kill_while_it_starts_leaves_what_it_can_start_from() {
    let mut lab = two_services(tempfile::tempdir().unwrap());
    assert!(lab.proxy.take().unwrap().stop().0.success());
    let (state, elsewhere) = (lab.dir.path().join("state"), lab.dir.path().join("before"));
    for round in 0..20 {
        // Every other time there is nothing yet, and the kill is among the first files that are made.
        if round % 2 == 0 {
            let _ = fs::remove_dir_all(&elsewhere);
            fs::rename(&state, &elsewhere).unwrap();
        }
        let mut starting = Command::new(env!("CARGO_BIN_EXE_switchback"))
            .args(["run", "--workers", "1", "--config"])
            .arg(lab.config())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_micros(chance(40_000)));
        starting.kill().unwrap();
        starting.wait().unwrap();
        let proxy = lab.spawn(1);
        let (_, all) = lab.call("GET", "/v1/services", &Value::Null);
        assert_eq!((&all["epoch"], green(&all["services"][1])), (&json!(1), 0), "in round {round}");
        assert!(proxy.stop().0.success());
    }
}

/// Makes changes until one is refused: its answer, and how often green had been flipped to before.
fn until_refused(lab: &Lab) -> Value {
    for points in 1..5_000 {
        let weights = json!({ "blue": 10_000 - points, "green": points });
        let (status, answer) = lab.call("PUT", "/v1/services/shop/weights", &weights);
        if status != 200 {
            assert_eq!(status, 503, "{answer}");
            assert_eq!(green(&lab.shop()), points - 1, "nothing of the refused change is there");
            return answer;
        }
    }
    panic!("a full disk takes any number of changes");
}

#[test]
fn a_full_disk_refuses_the_change_and_says_why_while_traffic_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::at(&dir.path().join("state")) else {
        eprintln!("skipped: lacks the right to mount a tmpfs (run as root)");
        return;
    };
    let mut lab = two_services(dir);
    lab.flip("blue");
    let epoch = lab.epoch();
    let load = Load::start(lab.address(), 2, &[("shop", "/shop"), ("cart", "/cart")]);
    let ballast = disk.fill();
    let refused = until_refused(&lab);
    assert_eq!(refused["type"], "urn:switchback:problem:store_failed");
    assert!(refused["detail"].as_str().unwrap().contains("full: make room on the disk"), "{refused}");
    assert!(
        refused["hint"].as_str().unwrap().starts_with("nothing was changed and traffic goes on"),
        "{refused}"
    );
    let (at, standing) = (lab.epoch(), lab.shop()["weights"].clone());
    assert!(at >= epoch);
    // Refused again, as long as it is full; the changes of before are all there.
    let (status, _) = lab.call("POST", "/v1/services/shop/flip", &json!({ "to": "green" }));
    assert_eq!(status, 503);
    load.wait_for_more(5);
    fs::remove_file(ballast).unwrap();
    let done = lab.flip("green");
    assert_eq!(done["epoch"], at + 1, "no epoch was used up by what was refused");
    let traffic = load.stop();
    assert_eq!(traffic.failures, [] as [&str; 0]);
    lab.kill_and_restart();
    assert_eq!(lab.shop()["weights"], json!({ "green": 10_000 }));
    assert_eq!(lab.shop()["previous"]["weights"], standing);
    drop(lab);
    drop(disk);
}

/// A file that would become larger than it may be ends a process by default (SIGXFSZ).
#[test]
fn a_limit_on_the_size_of_files_is_as_a_full_disk() {
    let mut lab = two_services(tempfile::tempdir().unwrap());
    assert!(lab.proxy.take().unwrap().stop().0.success());
    let limited = ["prlimit", "--fsize=300000"];
    let proxy = Proxy::start_as(&limited, &["--workers", "2"], &lab.config(), &lab.socket());
    lab.proxy = Some(proxy.unwrap_or_else(|log| panic!("the proxy did not start:\n{log}")));
    let refused = until_refused(&lab);
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("the limit on the size of files"), "{refused}");
    assert_eq!(lab.get("/shop").status, 200);
    let status = fs::read_to_string(format!("/proc/{}/status", lab.proxy().pid())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    let xfsz = 1 << (libc::SIGXFSZ - 1);
    assert_eq!(
        u64::from_str_radix(ignored, 16).unwrap() & xfsz,
        0,
        "a program that it starts would ignore it too"
    );
}

/// Syncs fail while the file is there that says so; what was written stays written.
const NO_SYNC: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int synced(long call, int file) {
    if (unlink(getenv("NO_SYNC"))) return syscall(call, file);
    errno = EIO;
    return -1;
}

int fsync(int file) { return synced(SYS_fsync, file); }
int fdatasync(int file) { return synced(SYS_fdatasync, file); }
"#;

#[test]
fn a_change_that_was_refused_for_its_sync_is_not_there_after_a_crash() {
    let mut lab = two_services(tempfile::tempdir().unwrap());
    let library = Preload::compile(lab.dir.path(), NO_SYNC);
    let no_sync = lab.dir.path().join("no-sync");
    assert!(lab.proxy.take().unwrap().stop().0.success());
    let variables = [library.variable(), format!("NO_SYNC={}", no_sync.display())];
    let before = ["env", &variables[0], &variables[1]];
    let proxy = Proxy::start_as(&before, &["--workers", "2"], &lab.config(), &lab.socket());
    lab.proxy = Some(proxy.unwrap_or_else(|log| panic!("the proxy did not start:\n{log}")));
    lab.call("PUT", "/v1/services/shop/weights", &json!({ "blue": 9_000, "green": 1_000 }));
    let epoch = lab.epoch();
    fs::write(&no_sync, "").unwrap();
    let (status, refused) = lab.call("POST", "/v1/services/shop/flip", &json!({ "to": "green" }));
    assert_eq!((status, &refused["type"]), (503, &json!("urn:switchback:problem:store_failed")), "{refused}");
    assert!(!no_sync.exists(), "a sync has failed");
    lab.kill_and_restart();
    assert_eq!((green(&lab.shop()), lab.epoch()), (1_000, epoch));
}

#[test]
fn a_disk_that_is_full_at_the_start_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::at(&dir.path().join("state")) else {
        eprintln!("skipped: lacks the right to mount a tmpfs (run as root)");
        return;
    };
    disk.fill();
    let (code, log) = refused_on(&dir.path().join("state"), dir.path());
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("full: make room on the disk"), "{log}");
    assert!(log.contains(&format!("{}", dir.path().join("state").display())), "says which one: {log}");
}

#[test]
fn no_other_program_has_the_store_while_the_proxy_runs() {
    let lab = two_services(tempfile::tempdir().unwrap());
    let other = rusqlite::Connection::open(lab.dir.path().join("state/switchback.db")).unwrap();
    other.busy_timeout(Duration::ZERO).unwrap();
    let refused = other.execute_batch("BEGIN IMMEDIATE").unwrap_err().to_string();
    assert!(refused.contains("database is locked"), "{refused}");
    lab.flip("green");
    assert_eq!(lab.get("/shop").version(), "green");
}

#[test]
fn a_store_that_another_program_has_open_is_refused_at_the_start() {
    let mut lab = two_services(tempfile::tempdir().unwrap());
    assert!(lab.proxy.take().unwrap().stop().0.success());
    let state = lab.dir.path().join("state");
    let other = rusqlite::Connection::open(state.join("switchback.db")).unwrap();
    other.execute_batch("BEGIN; SELECT * FROM changes").unwrap();
    let (code, log) = refused_on(&state, lab.dir.path());
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("another program has it open; end that program"), "{log}");
    drop(other);
    lab.proxy = Some(lab.spawn(2));
}

/// Where a disk copies on write, one that is full has no room for a page of a mapped file, and the process ends by SIGBUS.
#[test]
fn nothing_of_the_store_is_mapped_into_memory() {
    let lab = two_services(tempfile::tempdir().unwrap());
    lab.flip("green");
    let maps = fs::read_to_string(format!("/proc/{}/maps", lab.proxy().pid())).unwrap();
    let state = lab.dir.path().join("state").display().to_string();
    assert_eq!(maps.lines().find(|line| line.contains(&state)), None);
}

#[test]
fn a_store_that_is_lost_refuses_the_change_and_leaves_the_traffic_alone() {
    for lost in ["switchback.db", "switchback.db-wal"] {
        let lab = two_services(tempfile::tempdir().unwrap());
        lab.flip("green");
        fs::remove_file(lab.dir.path().join("state").join(lost)).unwrap();
        refused_as(&lab, &format!("{lost} is gone: put it back"));
    }
}

/// A flip to blue is refused for this, and green goes on.
fn refused_as(lab: &Lab, said: &str) {
    let (status, refused) = lab.call("POST", "/v1/services/shop/flip", &json!({ "to": "blue" }));
    assert_eq!(status, 503, "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains(said), "{refused}");
    assert_eq!(lab.get("/shop").version(), "green");
    assert_eq!(lab.shop()["weights"], json!({ "green": 10_000 }));
}

#[test]
fn a_store_that_is_emptied_is_no_new_one() {
    let mut lab = two_services(tempfile::tempdir().unwrap());
    lab.flip("green");
    let state = lab.dir.path().join("state");
    let (database, copy) = (state.join("switchback.db"), fs::read(state.join("switchback.db")).unwrap());
    fs::write(&database, "").unwrap();
    refused_as(&lab, "switchback.db: restart, to begin from what is there");
    assert!(lab.proxy.take().unwrap().stop().0.success());
    let (code, log) = refused_on(&state, lab.dir.path());
    assert_eq!(code, 1, "{log}");
    assert!(
        log.contains("it is empty or gone, and its log ") && log.contains("put a copy of both back"),
        "{log}"
    );
    fs::write(&database, copy).unwrap();
    lab.proxy = Some(lab.spawn(2));
    assert_eq!(lab.get("/shop").version(), "green");
}

#[test]
fn a_log_that_is_emptied_refuses_the_change() {
    let lab = two_services(tempfile::tempdir().unwrap());
    lab.flip("green");
    fs::write(lab.dir.path().join("state/switchback.db-wal"), "").unwrap();
    refused_as(&lab, "switchback.db-wal: restart, to begin from what is there");
}

#[test]
fn a_copy_that_is_put_back_while_it_runs_is_where_the_next_start_begins() {
    let mut lab = two_services(tempfile::tempdir().unwrap());
    let (state, copy) = (lab.dir.path().join("state"), lab.dir.path().join("copy"));
    let put = |from: &Path, to: &Path| {
        let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
        assert!(copied.success());
    };
    lab.weights(&json!({ "blue": 9_000, "green": 1_000 }));
    fs::create_dir(&copy).unwrap();
    put(&state, &copy);
    lab.flip("green");
    put(&copy, &state);
    refused_as(&lab, "another program has written to");
    assert!(lab.proxy.take().unwrap().stop().0.success());
    lab.proxy = Some(lab.spawn(2));
    assert_eq!((green(&lab.shop()), lab.epoch()), (1_000, 2));
    lab.flip("green");
}

/// What the proxy says that cannot start on this state directory: exit code and log.
fn refused_on(state: &Path, dir: &Path) -> (i32, String) {
    let config = dir.join("refused.toml");
    let text = format!(
        "[admin]\nsocket = \"{}/refused.sock\"\n[state]\ndir = \"{}\"\n[[listeners]]\nlisten = \"127.0.0.1:0\"\n\
         [services.shop]\nroutes = [{{ path = \"/\" }}]\n[services.shop.versions.v1]\nendpoints = [\"127.0.0.1:1\"]\n",
        dir.display(),
        state.display()
    );
    fs::write(&config, text).unwrap();
    let refused = Proxy::refused(&config);
    assert!(!dir.join("refused.sock").exists(), "nothing is left behind");
    refused
}

#[test]
fn a_state_directory_of_a_newer_schema_is_refused_with_the_remedy_and_left_alone() {
    let mut lab = two_services(tempfile::tempdir().unwrap());
    lab.flip("green");
    assert!(lab.proxy.take().unwrap().stop().0.success());
    let (dir, state) = (lab.dir.path(), lab.dir.path().join("state"));
    let store = rusqlite::Connection::open(state.join("switchback.db")).unwrap();
    store.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let (code, log) = refused_on(&state, dir);
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("has schema 99; this switchback knows up to 1"), "{log}");
    assert!(log.contains("use a newer switchback, or another state.dir"), "{log}");
    assert!(log.contains(&*state.display().to_string()), "{log}");
    let store = rusqlite::Connection::open(state.join("switchback.db")).unwrap();
    store.pragma_update(None, "user_version", 1).unwrap();
    drop(store);
    lab.proxy = Some(lab.spawn(2));
    assert_eq!(lab.get("/shop").version(), "green");
}

#[test]
fn a_store_of_an_earlier_build_is_taken_over_without_a_change_and_an_edit_of_the_file_is_one_from_then_on() {
    let mut lab = two_services(tempfile::tempdir().unwrap());
    lab.flip("green");
    let history = |lab: &Lab| lab.call("GET", "/v1/changes", &Value::Null).1;
    let before = history(&lab);
    assert!(lab.proxy.take().unwrap().stop().0.success());
    // As it was written once: a digest of what the compiler of that time printed.
    let store = rusqlite::Connection::open(lab.dir.path().join("state/switchback.db")).unwrap();
    let earlier = "UPDATE service_records
        SET standing = json_set(json_remove(standing, '$.digest_form'), '$.file_digest', '0123456789abcdef')";
    assert_eq!(store.execute(earlier, ()).unwrap(), 3);
    drop(store);
    lab.proxy = Some(lab.spawn(2));
    assert_eq!(history(&lab), before);
    assert_eq!(lab.get("/shop").version(), "green");
    assert!(lab.proxy.take().unwrap().stop().0.success());
    let text = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), text.replace("path = \"/shop\"", "path = \"/store\"")).unwrap();
    lab.proxy = Some(lab.spawn(2));
    let newest = &history(&lab)["changes"][0];
    let expected = (&json!(3), &json!("configure"), &json!("shop: as the file says now"));
    assert_eq!((&newest["epoch"], &newest["kind"], &newest["summary"]), expected, "{newest}");
    assert_eq!((lab.shop()["epoch"].clone(), lab.get("/store").version()), (json!(3), "green"));
}

#[test]
fn a_second_process_on_the_same_state_is_refused_and_the_first_one_goes_on() {
    let lab = two_services(tempfile::tempdir().unwrap());
    let (code, log) = refused_on(&lab.dir.path().join("state"), lab.dir.path());
    assert_eq!(code, 1, "{log}");
    let holder = format!("process {} uses it; stop that one, or set another state.dir", lab.proxy().pid());
    assert!(log.contains(&holder), "{log}");
    lab.flip("green");
    assert_eq!(lab.get("/shop").version(), "green");
}

#[test]
fn a_state_directory_that_cannot_be_made_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let (code, log) = refused_on(&dir.path().join("file/state"), dir.path());
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("make the directory writable, or set another state.dir"), "{log}");
}
