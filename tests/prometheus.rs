//! A real Prometheus scrapes the real proxy and answers the query by which a version is judged.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use lab::origin::Then;
use lab::prometheus::{Prometheus, is_here};
use lab::{Client, Lab, Origin, admin};
use serde_json::{Value, json};

/// The error rate of each version (the question of every canary).
const ERROR_RATE: &str = "sum by (version) (rate(switchback_upstream_requests_total{code=~\"5..\"}[1m])) / \
                          sum by (version) (rate(switchback_upstream_requests_total[1m]))";

/// Blue is well; of green's answers every third is a 500.
fn lab_with_metrics() -> (Lab, SocketAddr) {
    let counter = std::sync::atomic::AtomicU64::new(0);
    let green = Origin::behaving("green", move |_, stream| {
        let is_third = counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst).is_multiple_of(3);
        let status = if is_third { "500 Internal Server Error" } else { "200 OK" };
        write!(stream, "HTTP/1.1 {status}\r\nx-version: green\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let metrics = lab::origin::nobody();
    let lab = Lab::on(vec![Origin::start("blue"), green], &format!("[metrics]\nlisten = \"{metrics}\"\n"));
    (lab, metrics)
}

#[test]
fn a_real_prometheus_answers_which_version_fails() {
    if !is_here("prometheus") {
        return;
    }
    let (lab, metrics) = lab_with_metrics();
    let dir = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(dir.path(), metrics);
    let version = |result: &Value, version: &str| -> Option<f64> {
        let of = |sample: &&Value| sample["metric"]["version"] == version;
        let found = result.as_array()?.iter().find(of)?;
        found["value"][1].as_str()?.parse().ok()
    };
    // Scraped before the first request: what comes then is counted whole.
    prometheus.until("switchback_epoch", |result| result[0]["value"][1] == "1");
    let mut client = lab.client();
    (0..30).for_each(|_| assert_eq!(client.get("/").status, 200));
    lab.flip("green");
    let failed = (0..30).filter(|_| client.get("/").status == 500).count();
    assert_eq!(failed, 10);
    let rates =
        prometheus.until(ERROR_RATE, |result| version(result, "green").is_some_and(|rate| rate > 0.0));
    let rates = if version(&rates, "green").is_some_and(|rate| (rate - 1.0 / 3.0).abs() < 1e-9) {
        rates
    } else {
        // Scraped in the middle of the thirty.
        prometheus.until(ERROR_RATE, |result| {
            version(result, "green").is_some_and(|rate| (rate - 1.0 / 3.0).abs() < 1e-9)
        })
    };
    assert_eq!(version(&rates, "blue"), Some(0.0), "well, and not unknown: {rates}");
    let total = prometheus.query("sum(switchback_client_requests_total)");
    assert_eq!(total[0]["value"][1], "60");
    let weights = prometheus.query("switchback_split_weight_ratio");
    assert_eq!(version(&weights, "green"), Some(1.0));
}

#[test]
fn prometheus_own_checker_has_nothing_to_say() {
    if !is_here("promtool") {
        return;
    }
    let (lab, metrics) = lab_with_metrics();
    let mut client = lab.client();
    (0..6).for_each(|_| drop(client.get("/")));
    lab.flip("green");
    (0..6).for_each(|_| drop(client.get("/")));
    lab.weights(&json!({ "blue": 5_000, "green": 5_000 }));
    let text = Client::connect(metrics).get("/metrics").text();
    for part in [
        "switchback_upstream_requests_total{",
        "switchback_flip_fence_seconds_count{",
        "switchback_drain_seconds",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let words = [said.stdout, said.stderr].concat();
    assert!(said.status.success() && words.is_empty(), "{}", String::from_utf8_lossy(&words));
}

#[test]
fn the_metrics_listener_serves_what_monitoring_reads_and_nothing_else() {
    let (lab, metrics) = lab_with_metrics();
    let get = |path: &str| Client::connect(metrics).get(path);
    assert_eq!((get("/healthz").status, get("/readyz").status), (200, 200));
    assert_eq!(get("/v1/services").status, 404);
    let flip = Client::connect(metrics).post("/v1/services/shop/flip", b"{\"to\":\"green\"}");
    assert_eq!(flip.status, 404);
    assert_eq!(lab.get("/").version(), "blue");
    let both = [get("/metrics"), admin::call(&lab.socket(), "GET", "/metrics", &[], "").unwrap()];
    let names = |text: String| -> Vec<String> {
        text.lines().filter(|line| line.starts_with("# TYPE")).map(str::to_owned).collect()
    };
    let [over_tcp, over_socket] = both.map(|answer| names(answer.text()));
    assert_eq!(over_tcp, over_socket);
}
