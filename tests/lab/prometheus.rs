//! A real Prometheus beside the proxy.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Client;

/// True when the program is here; says what the test lacks when not.
pub fn is_here(program: &str) -> bool {
    let here = Command::new(program).arg("--version").output().is_ok();
    if !here {
        eprintln!("skipped: lacks `{program}` (Debian's package `prometheus`)");
    }
    here
}

/// A running Prometheus; ended by its pid when dropped.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// One that scrapes `target`, on a free port, with all that it writes in `dir`.
    pub fn start(dir: &Path, target: SocketAddr) -> Self {
        let text = format!(
            "global:\n  scrape_interval: 250ms\n  scrape_timeout: 250ms\nscrape_configs:\n  - job_name: switchback\n    \
             static_configs:\n      - targets: ['{target}']\n"
        );
        Self::configured(dir, &text)
    }

    /// One with this configuration.
    pub fn configured(dir: &Path, text: &str) -> Self {
        let config = dir.join("prometheus.yml");
        fs::write(&config, text).unwrap();
        // Somebody may take the free port first; then another one is tried.
        (0..5)
            .find_map(|_| Self::try_start(dir, &config, super::origin::nobody()))
            .expect("prometheus starts")
    }

    fn try_start(dir: &Path, config: &Path, address: SocketAddr) -> Option<Self> {
        let mut child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("prometheus runs");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
        let is_ready = lines.any(|line| line.contains("Server is ready to receive web requests"));
        // Whoever reads no more would hold it up.
        thread::spawn(move || lines.for_each(drop));
        if is_ready {
            return Some(Self { child, address });
        }
        let _ = child.wait();
        None
    }

    /// What its API answers to a path: the data, or the error.
    pub fn ask(&self, path: &str) -> Result<Value, String> {
        let answer = Client::connect(self.address).get(&format!("/api/v1/{path}"));
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        if body["status"] == "success" { Ok(body["data"].clone()) } else { Err(body["error"].to_string()) }
    }

    /// What a query gives now, or what is wrong with it.
    pub fn try_query(&self, query: &str) -> Result<Value, String> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.ask(&format!("query?query={encoded}")).map(|data| data["result"].clone())
    }

    /// What a query gives now.
    pub fn query(&self, query: &str) -> Value {
        self.try_query(query).unwrap_or_else(|why| panic!("{query}: {why}"))
    }

    /// Asks until the answer is `wanted`: it comes with some scrape, and nobody tells when.
    pub fn until(&self, query: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let since = Instant::now();
        loop {
            let result = self.query(query);
            if wanted(&result) {
                return result;
            }
            assert!(since.elapsed() < super::PATIENCE, "{query}: {result}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
