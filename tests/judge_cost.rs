//! What judging costs: a pool of which nobody answers keeps control busy for a small part of its time, so that changes of
//! other services are as fast as ever.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test, and it measures"
)]

mod lab;

use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::{Client, Lab};

/// At every address of 127.0.0.0/8.
const ENDPOINTS: u32 = 400;

/// Answers everything everywhere with 503; its port.
fn failing_everywhere() -> u16 {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let serve = move || {
                let mut head = [0; 4096];
                while std::io::Read::read(&mut stream, &mut head).is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 503 X\r\ncontent-length: 2\r\n\r\nno");
                }
            };
            thread::Builder::new().stack_size(64 * 1024).spawn(serve).unwrap();
        }
    });
    port
}

/// What control's thread has used so far, in seconds.
fn control_seconds(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    let is_control = |path: &std::path::PathBuf| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "control")
    };
    let control = tasks.into_iter().find(is_control).expect("control's thread");
    let stat = fs::read_to_string(control.join("stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // The kernel counts in hundredths.
    [11, 12].map(|field: usize| fields[field].parse::<f64>().unwrap() / 100.0).iter().sum()
}

/// Ends the clients, whatever becomes of the test.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_pool_of_which_nobody_answers_leaves_control_its_time() {
    let port = failing_everywhere();
    let endpoints: Vec<_> =
        (0..ENDPOINTS).map(|index| format!("127.0.{}.{}:{port}", 1 + index / 250, 1 + index % 250)).collect();
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nbalance = \"round_robin\"\nretries = {{ attempts = 0 }}\n\
         [services.shop.versions.blue]\nendpoints = {endpoints:?}\n"
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &services);
    let (stop, served, address) = (AtomicBool::new(false), AtomicU64::new(0), lab.address());
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/").status, 503);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Every endpoint of every worker has failed five times.
        lab::wait_until("all are suspect", || served.load(Ordering::Relaxed) > u64::from(ENDPOINTS) * 20);
        let pid = lab.proxy().pid();
        let (since, before, asked) = (Instant::now(), control_seconds(pid), served.load(Ordering::Relaxed));
        thread::sleep(Duration::from_secs(4));
        let share = (control_seconds(pid) - before) / since.elapsed().as_secs_f64();
        let rate = (served.load(Ordering::Relaxed) - asked) / 4;
        println!("{rate} failures a second: {:.1} % of a core for control", share * 100.0);
        assert!(share < 0.2, "{:.1} % of a core for control", share * 100.0);
    });
}
