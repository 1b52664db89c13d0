//! The lab: the real proxy, real versions and a real client in three lines.
//!
//! ```ignore
//! let lab = Lab::start(&["blue", "green"]);
//! lab.flip("green");
//! assert_eq!(lab.get("/").version(), "green");
//! ```
//!
//! The proxy is the real binary in a process of its own, on free ports, with a state directory of its own. When the lab is
//! dropped it winds the proxy down and checks what must always hold: it ends by itself and cleanly, nothing of any kind is
//! in flight on any version, nothing panicked, nothing was logged as an error that the test did not expect.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses its part of the lab"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "what fails here fails a test"
)]

pub mod admin;
pub mod client;
pub mod disk;
pub mod dns;
pub mod events;
pub mod frames;
pub mod gate;
pub mod group;
pub mod health;
pub mod held;
pub mod history;
pub mod http2;
pub mod origin;
pub mod preload;
pub mod process;
pub mod prometheus;
pub mod tls;
pub mod users;
pub mod websocket;
pub mod wire;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub use client::{Answer, Client};
pub use disk::SmallDisk;
pub use events::Events;
pub use frames::Frames;
pub use gate::Gate;
pub use group::Group;
pub use health::Pulse;
pub use http2::Http2;
pub use origin::Origin;
pub use users::Users;

/// How long anything may take before the test is a failure: a guard, never a pause.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `is_so`, for what nobody tells.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "it never came to this: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A proxy with the service `shop`, its versions, and what they stand on.
pub struct Lab {
    pub dir: TempDir,
    pub origins: Vec<Origin>,
    pub proxy: Option<Proxy>,
    /// Log lines with these words are no failure.
    pub expected_errors: Vec<&'static str>,
}

impl Lab {
    /// One origin a version, named after it; all traffic goes to the first.
    pub fn start(versions: &[&str]) -> Self {
        Self::with(versions, "")
    }

    /// The same, with `extra` lines of configuration before the services.
    pub fn with(versions: &[&str], extra: &str) -> Self {
        let origins: Vec<_> = versions.iter().map(|version| Origin::start(version)).collect();
        Self::on(origins, extra)
    }

    /// On these origins, one a version, named after them.
    pub fn on(origins: Vec<Origin>, extra: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut services =
            format!("[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"{}\"\n", origins[0].name);
        for origin in &origins {
            writeln!(
                services,
                "[services.shop.versions.{}]\nendpoints = [\"{}\"]",
                origin.name, origin.address
            )
            .unwrap();
        }
        Self::configured(dir, origins, &format!("{extra}\n{services}"))
    }

    /// On these origins, all of them endpoints of the one version `blue`, as are `others`; with `settings` of the service.
    /// It is worked in turn, and nobody is left alone, unless these say how: so a test knows who is next.
    pub fn pool(origins: Vec<Origin>, others: &[SocketAddr], extra: &str, settings: &str) -> Self {
        let addresses = origins.iter().map(|origin| origin.address).chain(others.iter().copied());
        let endpoints: Vec<_> = addresses.map(|address| address.to_string()).collect();
        let usual = [("balance", "\"round_robin\""), ("outliers", "false")];
        let unsaid = usual.iter().filter(|(key, _)| !settings.contains(&format!("{key} = ")));
        let usual: String = unsaid.map(|(key, value)| format!("{key} = {value}\n")).collect();
        let services = format!(
            "{extra}\n[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n{usual}{settings}\n\
             [services.shop.versions.blue]\nendpoints = {endpoints:?}\n"
        );
        Self::configured(tempfile::tempdir().expect("a directory"), origins, &services)
    }

    /// With services of your own; listeners, admin socket and state are the lab's.
    pub fn configured(dir: TempDir, origins: Vec<Origin>, services: &str) -> Self {
        let mut lab = Self { dir, origins, proxy: None, expected_errors: Vec::new() };
        lab.write_config(services);
        lab.proxy = Some(lab.spawn(2));
        lab
    }

    /// Puts another file in the configuration's place, as an editor does; the proxy notices by itself.
    pub fn write_config(&self, services: &str) {
        let text = format!(
            "[admin]\nsocket = \"{0}/admin.sock\"\n[state]\ndir = \"{0}/state\"\n[[listeners]]\nlisten = \"127.0.0.1:0\"\n{services}",
            self.dir.path().display()
        );
        let beside = self.dir.path().join("switchback.toml.new");
        fs::write(&beside, text).expect("the configuration is written");
        fs::rename(beside, self.config()).expect("the configuration is put in place");
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("switchback.toml")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// Starts the proxy and waits until it is ready.
    pub fn spawn(&self, workers: usize) -> Proxy {
        Proxy::start(&self.config(), &self.socket(), workers)
            .unwrap_or_else(|log| panic!("the proxy did not start:\n{log}"))
    }

    /// Kills the proxy as a power cut would and starts it again.
    pub fn kill_and_restart(&mut self) {
        self.proxy.take().expect("a proxy").kill();
        self.proxy = Some(self.spawn(2));
    }

    /// Starts the proxy again with one worker, for tests that look at which connections are used again.
    pub fn restrict_to_one_worker(&mut self) {
        let (status, log) = self.proxy.take().expect("a proxy").stop();
        assert!(status.success(), "{log}");
        self.proxy = Some(self.spawn(1));
    }

    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("a proxy")
    }

    pub fn address(&self) -> SocketAddr {
        self.proxy().address
    }

    pub fn origin(&self, name: &str) -> &Origin {
        self.origins.iter().find(|origin| origin.name == name).expect("an origin of that name")
    }

    /// A new connection to the proxy.
    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// One GET over a connection of its own.
    pub fn get(&self, path: &str) -> Answer {
        self.client().get(path)
    }

    /// Where the listener that is configured as `listen` is really bound.
    pub fn bound(&self, listen: &str) -> SocketAddr {
        let (_, status) = self.call("GET", "/v1/status", &Value::Null);
        let listeners = status["listeners"].as_array().expect("listeners");
        let listener = listeners.iter().find(|listener| listener["listen"] == listen).expect("the listener");
        listener["bound"].as_str().expect("an address").parse().expect("an address")
    }

    /// A call to the admin socket: status and body.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let answer = admin::call(&self.socket(), method, path, &[], &body.to_string()).expect("an answer");
        (answer.status, answer.json())
    }

    /// The same with headers of your own, and all of the answer.
    pub fn call_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        admin::call(&self.socket(), method, path, headers, &body.to_string()).expect("an answer")
    }

    /// Listens to what happens from now on.
    pub fn events(&self) -> Events {
        Events::of(&self.socket())
    }

    /// Flips `shop`; the answer's body.
    pub fn flip(&self, to: &str) -> Value {
        let (status, body) = self.call("POST", "/v1/services/shop/flip", &serde_json::json!({ "to": to }));
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Sets weights in basis points.
    pub fn weights(&self, weights: &Value) -> Value {
        let (status, body) = self.call("PUT", "/v1/services/shop/weights", weights);
        assert_eq!(status, 200, "{body}");
        body
    }

    /// The table's epoch.
    pub fn epoch(&self) -> u64 {
        self.call("GET", "/v1/status", &Value::Null).1["epoch"].as_u64().expect("an epoch")
    }

    /// The state of `shop`.
    pub fn shop(&self) -> Value {
        self.call("GET", "/v1/services/shop", &Value::Null).1
    }

    /// Waits until a metric's first sample whose line contains all of `parts` is `value`.
    pub fn wait_for_metric(&self, parts: &[&str], value: f64) {
        let since = Instant::now();
        while self.metric(parts) != Some(value) {
            assert!(since.elapsed() < PATIENCE, "{parts:?} is {:?}, not {value}", self.metric(parts));
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until a metric's first sample whose line contains all of `parts` is above `value`.
    pub fn wait_for_metric_above(&self, parts: &[&str], value: f64) {
        wait_until(&format!("{parts:?} is above {value}"), || {
            self.metric(parts).is_some_and(|now| now > value)
        });
    }

    /// The value of a metric's first sample whose line contains all of `parts`.
    pub fn metric(&self, parts: &[&str]) -> Option<f64> {
        let text = admin::call(&self.socket(), "GET", "/metrics", &[], "").expect("metrics").text();
        let line =
            text.lines().find(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
    }

    /// All samples of the metric `name` together whose line contains `part`.
    pub fn metric_total(&self, name: &str, part: &str) -> f64 {
        let text = admin::call(&self.socket(), "GET", "/metrics", &[], "").expect("metrics").text();
        let samples = text.lines().filter(|line| line.starts_with(name) && line.contains(part));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// All samples together whose line begins so.
    pub fn metric_sum(&self, begins: &str) -> f64 {
        let text = admin::call(&self.socket(), "GET", "/metrics", &[], "").expect("metrics").text();
        let samples = text.lines().filter(|line| line.starts_with(begins));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Runs the command line against this proxy: exit code, standard output and standard error.
    pub fn cli(&self, args: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_switchback"))
            .args(args)
            .env("SWITCHBACK_SOCKET", self.socket())
            .current_dir(self.dir.path())
            .output()
            .expect("the command runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let Some(proxy) = self.proxy.take() else { return };
        if thread::panicking() {
            eprintln!("the proxy's log:\n{}", proxy.log());
            return;
        }
        let in_flight = self.left_in_flight();
        let (status, log) = proxy.stop();
        assert!(status.success(), "the proxy ended with {status}:\n{log}");
        assert!(in_flight.is_empty(), "still counted in flight:\n{}", in_flight.join("\n"));
        let bad = |line: &&str| {
            (line.contains("panicked") || line.contains("ERROR"))
                && !self.expected_errors.iter().any(|words| line.contains(words))
        };
        let bad: Vec<_> = log.lines().filter(bad).collect();
        assert!(bad.is_empty(), "unexpected in the proxy's log:\n{}", bad.join("\n"));
    }
}

impl Lab {
    /// The samples that say that something is in flight once everything had the time to end: of each version and kind
    /// as much has to have come as has gone.
    fn left_in_flight(&self) -> Vec<String> {
        let since = Instant::now();
        loop {
            let text = admin::call(&self.socket(), "GET", "/metrics", &[], "").expect("metrics").text();
            let samples: Vec<_> =
                text.lines().filter(|line| line.starts_with("switchback_in_flight{")).collect();
            assert!(!samples.is_empty(), "nobody tells what is in flight:\n{text}");
            let left: Vec<_> =
                samples.into_iter().filter(|sample| !sample.ends_with(" 0")).map(str::to_owned).collect();
            if left.is_empty() || since.elapsed() > Duration::from_secs(5) {
                return left;
            }
            thread::yield_now();
        }
    }
}

/// The real binary, running.
pub struct Proxy {
    child: Child,
    pub address: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Proxy {
    /// Its resident memory in bytes.
    pub fn memory(&self) -> usize {
        self.size("VmRSS:")
    }

    /// The most that it ever was.
    pub fn peak_memory(&self) -> usize {
        self.size("VmHWM:")
    }

    fn size(&self, name: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    }

    /// Starts it and waits until it says that it is ready.
    ///
    /// # Errors
    /// Its log when it ends before.
    pub fn start(config: &Path, socket: &Path, workers: usize) -> Result<Self, String> {
        Self::start_program(Path::new(env!("CARGO_BIN_EXE_switchback")), config, socket, workers)
    }

    /// The same with another path for the binary.
    ///
    /// # Errors
    /// As there.
    pub fn start_program(
        program: &Path,
        config: &Path,
        socket: &Path,
        workers: usize,
    ) -> Result<Self, String> {
        let mut command = Command::new(program);
        command.args(["run", "--workers", &workers.to_string(), "--config"]).arg(config);
        Self::start_command(command, socket)
    }

    /// The same with other arguments, and `before` the program.
    ///
    /// # Errors
    /// As there.
    pub fn start_as(before: &[&str], args: &[&str], config: &Path, socket: &Path) -> Result<Self, String> {
        let words = before.iter().chain([&env!("CARGO_BIN_EXE_switchback"), &"run"]).chain(args);
        let words: Vec<_> = words.collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("--config").arg(config);
        Self::start_command(command, socket)
    }

    fn start_command(mut command: Command, socket: &Path) -> Result<Self, String> {
        let mut child =
            command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().expect("the binary starts");
        let (log, reader, ready) = follow(child.stderr.take().expect("a pipe"));
        let is_ready = ready.recv_timeout(PATIENCE).is_ok();
        if !is_ready {
            let _ = child.kill();
            let _ = child.wait();
            let _ = reader.join();
            return Err(log.lock().unwrap().clone());
        }
        let status = admin::call(socket, "GET", "/v1/status", &[], "").expect("the status").json();
        let address =
            status["listeners"][0]["bound"].as_str().expect("a listener").parse().expect("an address");
        Ok(Self { child, address, log, reader: Some(reader) })
    }

    /// Runs it on a configuration with which it cannot start, to its end: exit code and standard error.
    pub fn refused(config: &Path) -> (i32, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_switchback"))
            .args(["run", "--workers", "2", "--config"])
            .arg(config)
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let (log, reader, _ready) = follow(child.stderr.take().expect("a pipe"));
        let since = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("a status") {
                break status;
            }
            if since.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("it was not refused:\n{}", log.lock().unwrap());
            }
            thread::sleep(Duration::from_millis(2));
        };
        let _ = reader.join();
        let log = log.lock().unwrap().clone();
        (status.code().unwrap_or(-1), log)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Sends a signal by its name: `HUP`, `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Waits until the log has a line with `words`.
    pub fn wait_for_log(&self, words: &str) {
        let since = Instant::now();
        while !self.log().contains(words) {
            assert!(since.elapsed() < PATIENCE, "`{words}` never came in:\n{}", self.log());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// SIGTERM, then waits for its end.
    pub fn stop(self) -> (ExitStatus, String) {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let since = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                break status;
            }
            if since.elapsed() > PATIENCE {
                let _ = self.child.kill();
                panic!("the proxy does not end:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(2));
        };
        let _ = self.reader.take().expect("a reader").join();
        (status, self.log())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Whatever happened, nothing is left running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Ready = std::sync::mpsc::Receiver<()>;

/// Keeps the log, and tells when the line `ready` has come.
fn follow(stderr: std::process::ChildStderr) -> (Arc<Mutex<String>>, thread::JoinHandle<()>, Ready) {
    let log = Arc::new(Mutex::new(String::new()));
    let (tell, ready) = std::sync::mpsc::channel();
    let kept = Arc::clone(&log);
    let reader = thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let is_ready = line.contains(" ready ") || line.ends_with(" ready");
            kept.lock().unwrap().push_str(&(line + "\n"));
            if is_ready {
                let _ = tell.send(());
            }
        }
    });
    (log, reader, ready)
}
