//! What checking costs: 1,000 endpoints every two seconds are at most 2 % of one core, and no request waits for them.
//!
//! The figure is that of a release build: `cargo test --release --test health_cost -- --nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a test, and it measures"
)]

mod lab;

use std::thread;
use std::time::Instant;

use lab::Lab;
use lab::health::everywhere;

const ENDPOINTS: u32 = 1_000;
/// What an unoptimised build may take in place of 2 %.
const DEBUG_SHARE: f64 = 0.2;

/// What a process has used so far, in user space and in the kernel; the kernel counts in hundredths.
fn cpu_seconds(pid: u32) -> [f64; 2] {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    [fields[11], fields[12]].map(|ticks| ticks.parse::<f64>().unwrap() / 100.0)
}

#[test]
fn a_thousand_endpoints_cost_next_to_nothing() {
    let endpoints = everywhere(ENDPOINTS, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nhealth = {{ path = \"/healthz\", interval = \"2s\" }}\n\
         [services.shop.versions.blue]\nendpoints = {endpoints:?}\n"
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &services);
    let checks = || lab.metric(&["switchback_health_checks_total{", "result=\"well\""]).unwrap_or(0.0);
    let cpu = || cpu_seconds(lab.proxy().pid());
    lab::wait_until("all are well", || lab.metric_sum("switchback_endpoint_up{") >= f64::from(ENDPOINTS));
    lab::wait_until("it goes on", || checks() >= f64::from(2 * ENDPOINTS));
    let (since, cpu_before, checks_before) = (Instant::now(), cpu(), checks());
    // Nothing else is asked of it meanwhile: a scrape of so many endpoints costs more than their checks.
    thread::sleep(std::time::Duration::from_secs(8));
    let (cpu_after, seconds) = (cpu(), since.elapsed().as_secs_f64());
    let [user, kernel] = [0, 1].map(|part: usize| (cpu_after[part] - cpu_before[part]) / seconds);
    let (share, rate) = (user + kernel, (checks() - checks_before) / seconds);
    eprintln!(
        "{rate:.0} checks a second took {:.2} % of a core ({:.2} % in the kernel), {:.1} us each",
        share * 100.0,
        kernel * 100.0,
        share * 1e6 / rate
    );
    assert!((400.0..=600.0).contains(&rate), "{rate} checks a second");
    let most = if cfg!(debug_assertions) { DEBUG_SHARE } else { 0.02 };
    assert!(share <= most, "{:.2} % of a core", share * 100.0);
}
