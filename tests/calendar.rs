//! Somebody sets the calendar, by hours, while the proxy runs or while it does not: nothing that takes its time ends sooner or
//! later by it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::origin::Then;
use lab::preload::Preload;
use lab::{Lab, Origin, Proxy, Pulse, wait_until};
use serde_json::{Value, json};

/// Stands before the C library's clock, and adds to the calendar what the file says.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    int file = failed || clock != CLOCK_REALTIME ? -1 : open(getenv("CALENDAR"), O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        char seconds[32] = {0};
        if (read(file, seconds, sizeof seconds - 1) > 0) now->tv_sec += atol(seconds);
        close(file);
    }
    return failed;
}
"#;

const HOURS: i64 = 3_600;

/// A process that has taken over; it ends with this.
struct Heir(Value);

impl Drop for Heir {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = Command::new("kill").args(["-KILL", &self.0["pid"].to_string()]).status();
    }
}

/// A lab whose proxy has a calendar that can be set.
struct World {
    lab: Lab,
    calendar: PathBuf,
    library: Preload,
}

impl World {
    fn of(lab: Lab) -> Self {
        let library = Preload::compile(lab.dir.path(), SOURCE);
        let calendar = lab.dir.path().join("calendar");
        let mut world = Self { lab, calendar, library };
        world.set(0);
        assert!(world.lab.proxy.take().unwrap().stop().0.success());
        world.start();
        world
    }

    fn start(&mut self) {
        let library = self.library.variable();
        let calendar = format!("CALENDAR={}", self.calendar.display());
        let proxy = Proxy::start_as(
            &["env", &library, &calendar],
            &["--workers", "2"],
            &self.lab.config(),
            &self.lab.socket(),
        );
        self.lab.proxy = Some(proxy.unwrap_or_else(|log| panic!("the proxy did not start:\n{log}")));
    }

    /// So many seconds from what it is.
    fn set(&self, seconds: i64) {
        let beside = self.calendar.with_extension("new");
        fs::write(&beside, seconds.to_string()).unwrap();
        fs::rename(beside, &self.calendar).unwrap();
    }

    /// Another process takes over from the lab's, which is ended with what is returned.
    fn upgrade(&mut self) -> (Proxy, Heir) {
        let (status, answer) = self.lab.call("POST", "/v1/upgrade", &Value::Null);
        assert_eq!(status, 200, "{answer}");
        (self.lab.proxy.take().unwrap(), Heir(answer))
    }

    fn trial(&self) -> Value {
        self.lab.call("GET", "/v1/services/shop/verdict", &Value::Null).1["trial"].clone()
    }

    fn flip(&self, to: &str, period: &str) -> Value {
        let body = json!({ "to": to, "supervise": period });
        let (status, answer) = self.lab.call("POST", "/v1/services/shop/flip", &body);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    fn last_change(&self) -> Value {
        self.lab.call("GET", "/v1/changes?limit=1", &Value::Null).1["changes"][0].clone()
    }
}

/// That is not over before so long.
fn lasts(since: Instant, least: Duration, what: &str, mut is_over: impl FnMut() -> bool) {
    wait_until(what, &mut is_over);
    let took = since.elapsed();
    assert!((least..least + Duration::from_secs(4)).contains(&took), "{what}, after {took:?}");
}

#[test]
fn a_trial_takes_its_time_whatever_the_calendar_says() {
    let mut world = World::of(Lab::start(&["blue", "green"]));
    for (to, hours) in [("green", 3), ("blue", -3)] {
        let since = Instant::now();
        world.flip(to, "2s");
        world.set(hours * HOURS);
        lasts(since, Duration::from_millis(1_900), "the trial is over", || world.trial().is_null());
        assert_eq!(world.last_change()["kind"], "supervision");
        world.set(0);
    }
    // What is written down is by the calendar, which may be another one after a restart.
    world.flip("green", "3s");
    world.lab.proxy.take().unwrap().kill();
    world.set(-3 * HOURS);
    let since = Instant::now();
    world.start();
    assert!(!world.trial().is_null());
    lasts(since, Duration::from_millis(2_500), "the trial is over", || world.trial().is_null());
}

#[test]
fn a_step_of_a_ramp_takes_its_time_whatever_the_calendar_says() {
    let mut world = World::of(Lab::start(&["blue", "green"]));
    let begin = |world: &World, every: &str| {
        let body = json!({ "to": "green", "steps": [5_000, 10_000], "every": every });
        let (status, answer) = world.lab.call("POST", "/v1/services/shop/ramp", &body);
        assert_eq!(status, 200, "{answer}");
    };
    let is_over = |world: &World| world.lab.shop()["ramp"].is_null();
    for hours in [3, -3] {
        let since = Instant::now();
        begin(&world, "2s");
        world.set(hours * HOURS);
        // What is left of one that is frozen is not the calendar's either.
        for verb in ["freeze", "resume"] {
            assert_eq!(world.lab.call("POST", &format!("/v1/services/shop/{verb}"), &Value::Null).0, 200);
        }
        lasts(since, Duration::from_millis(1_950), "the step is over", || is_over(&world));
        assert_eq!(world.lab.call("POST", "/v1/services/shop/revert", &Value::Null).0, 200);
        world.set(0);
    }
    begin(&world, "3s");
    world.lab.proxy.take().unwrap().kill();
    world.set(-3 * HOURS);
    let since = Instant::now();
    world.start();
    assert!(!is_over(&world));
    lasts(since, Duration::from_millis(2_500), "the step is over", || is_over(&world));
}

#[test]
fn a_hold_takes_its_time_and_history_is_in_the_order_of_what_happened() {
    let world = World::of(Lab::start(&["blue", "green"]));
    let is_over = || world.lab.shop()["hold"].is_null();
    for hours in [3, -3] {
        let since = Instant::now();
        world.lab.hold(&json!({ "timeout": "1s" }));
        world.set(hours * HOURS);
        lasts(since, Duration::from_millis(950), "the hold is over", is_over);
    }
    world.lab.flip("green");
    let changes = world.lab.call("GET", "/v1/changes?limit=10", &Value::Null).1["changes"].clone();
    let epochs: Vec<_> =
        changes.as_array().unwrap().iter().map(|change| change["epoch"].as_u64().unwrap()).collect();
    assert!(epochs.is_sorted_by(|newer, older| newer > older), "{changes}");
    assert!(
        changes[0]["at"].as_str().unwrap() < changes[2]["at"].as_str().unwrap(),
        "the calendar was set back: {changes}"
    );
    let (status, answer) = world.lab.call("POST", "/v1/undo", &json!({ "to_epoch": epochs[1] }));
    assert_eq!(
        (status, &answer["services"]["shop"]["weights"]),
        (200, &json!({ "blue": 10_000 })),
        "{answer}"
    );
}

#[test]
fn a_machine_that_was_restarted_is_found_well_although_the_calendar_was_set_back() {
    let origins = [0, 1].map(|_| Origin::with_pulse("blue", &Pulse::well()));
    let checks = "health = { path = \"/healthz\", interval = \"500ms\", rise = 1 }";
    let world = World::of(Lab::pool(origins.into(), &[], "", checks));
    let begin = json!({ "confirm": true, "ready_timeout": "10s" });
    let (status, told) = world.lab.call("POST", "/v1/services/shop/rollout", &begin);
    assert_eq!(status, 202, "{told}");
    let rollout = || world.lab.call("GET", "/v1/services/shop/rollout", &Value::Null).1;
    for (index, hours) in [(0, -3), (1, -6)] {
        let out = told["steps"][index]["out"].clone();
        wait_until("it waits for a word", || rollout()["steps"][index]["awaits_confirmation"] == true);
        let proceed =
            world.lab.call("POST", "/v1/services/shop/rollout/proceed", &json!({ "endpoint": out }));
        assert_eq!(proceed.0, 200, "{}", proceed.1);
        world.set(hours * HOURS);
    }
    wait_until("it has ended", || rollout()["state"] != "running");
    assert_eq!(rollout()["state"], "done", "{}", rollout());
}

/// `shop` and two more, of which users stay with `blog`'s versions.
fn three() -> Lab {
    let origins = ["blue", "green"].map(Origin::start);
    let versions = |service: &str| {
        let of = |origin: &Origin| {
            format!("[services.{service}.versions.{}]\nendpoints = [\"{}\"]\n", origin.name, origin.address)
        };
        origins.iter().map(of).collect::<String>()
    };
    let more = format!(
        "[upgrade]\nspread = \"100ms\"\n\
         [services.cart]\nroutes = [{{ path = \"/cart\" }}]\nstable = \"blue\"\n{}\
         [services.blog]\nroutes = [{{ path = \"/blog\" }}]\nstable = \"blue\"\n\
         sticky = {{ cookie = \"sb_id\", mint = true }}\n{}",
        versions("cart"),
        versions("blog")
    );
    Lab::on(origins.into(), &more)
}

#[test]
fn what_is_over_by_time_takes_its_time_in_the_process_that_takes_over() {
    let mut world = World::of(three());
    let asked = [
        ("POST", "shop/ramp", json!({ "to": "green", "steps": [5_000, 10_000], "every": "8s" })),
        ("POST", "cart/flip", json!({ "to": "green", "supervise": "8s" })),
        ("PUT", "blog/weights", json!({ "blue": 5_000, "green": 5_000 })),
        ("POST", "blog/retire", json!({ "for": "8s" })),
    ];
    let since = Instant::now();
    for (method, of, body) in asked {
        let (status, answer) = world.lab.call(method, &format!("/v1/services/{of}"), &body);
        assert!(status < 300, "{of}: {answer}");
    }
    let phases = |lab: &Lab| {
        ["shop", "cart", "blog"].map(|service| {
            lab.call("GET", &format!("/v1/services/{service}"), &Value::Null).1["phase"].clone()
        })
    };
    let under_way = ["ramping", "supervising", "retiring"];
    assert_eq!(phases(&world.lab), under_way);
    world.set(24 * HOURS);
    let (_first, _second) = world.upgrade();
    assert_eq!(phases(&world.lab), under_way, "right after the upgrade");
    lasts(since, Duration::from_millis(7_900), "all are over", || {
        phases(&world.lab) == ["steady", "steady", "steady"]
    });
}

#[test]
fn an_ejection_takes_its_time_in_the_process_that_takes_over() {
    let is_bad = Arc::new(AtomicBool::new(true));
    let bad = Arc::clone(&is_bad);
    let fails = Origin::behaving("blue", move |_, stream| {
        let status = if bad.load(Ordering::SeqCst) { 503 } else { 200 };
        write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok")?;
        Ok(Then::Keep)
    });
    let address = fails.address;
    let outliers = "outliers = { base_ejection = \"3s\", max_ejection = \"60s\" }";
    let spread = "[upgrade]\nspread = \"100ms\"\n";
    let mut world = World::of(Lab::pool(vec![Origin::start("blue"), fails], &[], spread, outliers));
    let state = |world: &World| world.lab.endpoint(address)["health"]["state"].clone();
    wait_until("it is ejected", || {
        let _ = world.lab.client().try_get("/");
        state(&world) == "ejected"
    });
    let since = Instant::now();
    is_bad.store(false, Ordering::SeqCst);
    world.set(-HOURS);
    let (_first, _second) = world.upgrade();
    assert_eq!(state(&world), "ejected");
    lasts(since, Duration::from_millis(1_000), "it gets requests again", || state(&world) != "ejected");
}
