//! Sockets that a service manager has bound (sd_listen_fds(3)), and what it is told (sd_notify(3)).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use command_fds::{CommandFdExt, FdMapping};
use lab::{Client, Origin, PATIENCE, wait_until};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// A service manager with one service.
struct Manager {
    dir: tempfile::TempDir,
    origin: Origin,
    notices: UnixDatagram,
    child: Option<Child>,
    /// Processes that have taken the child's place.
    heirs: Vec<u32>,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let notices = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        notices.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { dir, origin: Origin::start("blue"), notices, child: None, heirs: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts it on this configuration with these sockets, each with its name.
    fn start(&mut self, config: &str, workers: usize, sockets: Vec<(&str, OwnedFd)>) {
        let text = format!(
            "[state]\ndir = \"state\"\n{config}\n[services.shop]\nroutes = [{{ path = \"/\" }}]\n\
             versions.blue.endpoints = [\"{}\"]\n",
            self.origin.address
        );
        fs::write(self.path("switchback.toml"), text).unwrap();
        let names: Vec<_> = sockets.iter().map(|(name, _)| *name).collect();
        let count = sockets.len().to_string();
        let mut command = Command::new("sh");
        command.args(["-c", "LISTEN_PID=$$ WATCHDOG_PID=$$ exec \"$@\"", "sh"]);
        command.args([
            env!("CARGO_BIN_EXE_switchback"),
            "run",
            "--workers",
            &workers.to_string(),
            "--config",
        ]);
        command.arg(self.path("switchback.toml"));
        command.env("LISTEN_FDS", count).env("LISTEN_FDNAMES", names.join(":"));
        command.env("NOTIFY_SOCKET", self.path("notify")).env("WATCHDOG_USEC", "2000000");
        command.stdin(Stdio::null()).stderr(fs::File::create(self.path("log")).unwrap());
        let fds = sockets.into_iter().zip(3..);
        let fds = fds.map(|((_, parent_fd), child_fd)| FdMapping { parent_fd, child_fd }).collect();
        self.child = Some(command.fd_mappings(fds).unwrap().spawn().unwrap());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// The next notice with this line; those before it are passed over.
    fn notice(&self, line: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let read = self
                .notices
                .recv(&mut buffer)
                .unwrap_or_else(|why| panic!("no {line}: {why}\n{}", self.log()));
            let notice = String::from_utf8_lossy(&buffer[..read]).into_owned();
            if notice.lines().any(|other| other.starts_with(line)) {
                return notice;
            }
        }
    }

    fn status(&self) -> Value {
        lab::admin::call(&self.path("admin.sock"), "GET", "/v1/status", &[], "").unwrap().json()
    }

    fn kill(&self, signal: &str) {
        let pid = self.heirs.last().copied().unwrap_or_else(|| self.child.as_ref().unwrap().id());
        assert!(
            Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap().success()
        );
    }

    /// Tells it to stop; its log.
    fn stop(&mut self) -> String {
        self.kill("TERM");
        let status = self.child.take().unwrap().wait().unwrap();
        assert!(status.success(), "{}", self.log());
        for pid in self.heirs.drain(..) {
            wait_until("it ends", || !Path::new(&format!("/proc/{pid}")).exists());
        }
        self.log()
    }

    /// Waits until it has given up; its log.
    fn refused(&mut self) -> String {
        let status = self.child.take().unwrap().wait().unwrap();
        assert!(!status.success());
        self.log()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        for pid in &self.heirs {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn listener() -> (SocketAddr, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (listener.local_addr().unwrap(), listener.into())
}

/// Several sockets of one address.
fn listeners(count: usize) -> (SocketAddr, Vec<OwnedFd>) {
    let mut address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut all = Vec::new();
    for _ in 0..count {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(128).unwrap();
        address = socket.local_addr().unwrap().as_socket().unwrap();
        all.push(socket.into());
    }
    (address, all)
}

/// A socket for the admin API as a unit's `ListenStream=` and `SocketMode=` make it.
fn admin(path: &Path, mode: u32) -> OwnedFd {
    let listener = UnixListener::bind(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    listener.into()
}

const ADMIN: &str = "[admin]\nsocket = \"admin.sock\"\n";

fn listens(address: SocketAddr) -> String {
    format!("[[listeners]]\nlisten = \"{address}\"\n")
}

#[test]
fn who_came_before_the_start_is_served() {
    let mut manager = Manager::new();
    let (address, socket) = listener();
    let mut early = Client::connect(address);
    early.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    manager.start(&format!("{ADMIN}{}", listens(address)), 3, vec![("web", socket)]);
    assert_eq!(early.answer().status, 200);
    manager.notice("READY=1");
    for _ in 0..20 {
        assert_eq!(Client::connect(address).get("/").status, 200);
    }
    let log = manager.stop();
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn who_comes_when_it_has_ended_waits_at_the_managers_socket() {
    let mut manager = Manager::new();
    let (address, socket) = listener();
    let kept = TcpListener::from(socket.try_clone().unwrap());
    manager.start(&format!("{ADMIN}{}", listens(address)), 1, vec![("web", socket)]);
    manager.notice("READY=1");
    assert_eq!(Client::connect(address).get("/").status, 200);
    manager.stop();
    // A handshake that nobody hears of is tried again after a second.
    let client = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(900)).unwrap();
    assert_eq!(kept.accept().unwrap().1, client.local_addr().unwrap());
}

#[test]
fn no_socket_of_several_is_left_without_a_worker() {
    for workers in [1, 2, 6] {
        let mut manager = Manager::new();
        let (address, sockets) = listeners(4);
        // Each of the sockets has some of them in its queue.
        let mut early: Vec<_> = (0..40).map(|_| Client::connect(address)).collect();
        let sockets = sockets.into_iter().map(|socket| ("web", socket)).collect();
        manager.start(&format!("{ADMIN}{}", listens(address)), workers, sockets);
        for client in &mut early {
            assert_eq!(client.get("/").status, 200, "{workers} workers");
        }
        manager.stop();
    }
}

#[test]
fn a_socket_is_known_by_its_name_and_so_are_admin_and_metrics() {
    let mut manager = Manager::new();
    let ((_, web), (metrics, other)) = (listener(), listener());
    let socket = manager.path("given.sock");
    let admin = admin(&socket, 0o600);
    let config =
        format!("{ADMIN}[metrics]\nlisten = \"127.0.0.1:1\"\n[[listeners]]\nlisten = \"127.0.0.1:80\"\n");
    manager.start(&config, 2, vec![("127.0.0.1%3A80", web), ("metrics", other), ("admin", admin)]);
    manager.notice("READY=1");
    assert_eq!(Client::connect(metrics).get("/readyz").text(), "ready\n");
    let status = lab::admin::call(&socket, "GET", "/v1/status", &[], "").unwrap().json();
    let bound: SocketAddr = status["listeners"][0]["bound"].as_str().unwrap().parse().unwrap();
    assert_eq!(Client::connect(bound).get("/").status, 200);
    // A new process has them too, and their files are the manager's for ever.
    let answer = lab::admin::call(&socket, "POST", "/v1/upgrade", &[], "{}").unwrap();
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), manager.log());
    manager.heirs.push(u32::try_from(answer.json()["pid"].as_u64().unwrap()).unwrap());
    assert_eq!(Client::connect(metrics).get("/readyz").text(), "ready\n");
    let after = lab::admin::call(&socket, "GET", "/v1/status", &[], "").unwrap().json();
    assert_eq!((&after["listeners"], &after["generation"]), (&status["listeners"], &Value::from(2)));
    manager.stop();
    assert!(socket.exists(), "it is the manager's");
}

#[test]
fn an_admin_socket_that_others_may_connect_to_is_an_error_that_says_what_to_do() {
    // What systemd makes of it where nothing is said, and what lets a group in.
    for mode in [0o666, 0o660] {
        let mut manager = Manager::new();
        let socket = manager.path("admin.sock");
        let (address, web) = listener();
        let config = format!("{ADMIN}{}", listens(address));
        manager.start(&config, 2, vec![("web", web), ("switchback.socket", admin(&socket, mode))]);
        let log = manager.refused();
        let open = format!("{} is open to others than its owner (mode {mode:o})", socket.display());
        assert!(log.contains(&open) && log.contains("SocketMode=0600"), "{log}");
    }
}

#[test]
fn tokens_are_not_taken_in_clear_text_where_a_manager_lets_everybody_come() {
    let mut manager = Manager::new();
    let open = TcpListener::bind("0.0.0.0:0").unwrap();
    let bound = open.local_addr().unwrap();
    let admin = format!(
        "{ADMIN}listen = \"127.0.0.1:9901\"\n[[admin.tokens]]\nname = \"ci\"\nscopes = [\"admin\"]\nsha256 = \"{}\"\n",
        "ab".repeat(32)
    );
    manager.start(&format!("{admin}{}", listens(listener().0)), 1, vec![("admin_tcp", open.into())]);
    let log = manager.refused();
    assert!(log.contains(&format!("the socket `admin_tcp` listens on {bound}")), "{log}");
    assert!(log.contains("give [admin] a `tls`"), "{log}");
}

#[test]
fn a_socket_that_nobody_wants_is_an_error_that_says_which() {
    let mut manager = Manager::new();
    let ((address, web), (other, stray)) = (listener(), listener());
    manager.start(&format!("{ADMIN}{}", listens(address)), 2, vec![("web", web), ("stray", stray)]);
    let log = manager.refused();
    assert!(log.contains("no listener is configured for the inherited socket `stray`"), "{log}");
    assert!(log.contains(&format!("listen = \"{other}\"")), "{log}");
}

#[test]
fn what_is_no_listening_socket_is_an_error_that_says_which() {
    let mut manager = Manager::new();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (address, web) = listener();
    manager.start(&format!("{ADMIN}{}", listens(address)), 2, vec![("web", web), ("dns", udp.into())]);
    let log = manager.refused();
    assert!(log.contains("descriptor 4 (`dns`) is not a listening stream socket"), "{log}");
}

#[test]
fn the_manager_is_told_of_every_stage() {
    let mut manager = Manager::new();
    manager.start(&format!("{ADMIN}[[listeners]]\nlisten = \"127.0.0.1:0\"\n"), 2, Vec::new());
    let ready = manager.notice("READY=1");
    assert!(ready.contains("STATUS=generation 1, epoch 1, 1 services"), "{ready}");
    manager.notice("WATCHDOG=1");
    manager.kill("HUP");
    let reloading = manager.notice("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.notice("READY=1");
    let answer = lab::admin::call(&manager.path("admin.sock"), "POST", "/v1/upgrade", &[], "{}").unwrap();
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), manager.log());
    let pid = answer.json()["pid"].as_u64().unwrap();
    manager.heirs.push(u32::try_from(pid).unwrap());
    let again = manager.notice("READY=1");
    assert!(again.contains("STATUS=generation 2"), "{again}");
    assert!(manager.notice("MAINPID=").contains(&format!("MAINPID={pid}\n")));
    // Of the new process alone: the old one's heart has stopped to count, or will.
    manager.notice("WATCHDOG=1");
    assert_eq!(manager.status()["pid"], pid);
    manager.stop();
    manager.notice("STOPPING=1");
}

/// The real one, where it is installed.
#[test]
fn systemds_own_activation_serves() {
    if Command::new("systemd-socket-activate").arg("--version").output().is_err() {
        return eprintln!("skipped: it lacks systemd-socket-activate (Debian: systemd)");
    }
    let mut manager = Manager::new();
    let address = listener().0;
    let text = format!(
        "{ADMIN}[state]\ndir = \"state\"\n{}[services.shop]\nroutes = [{{ path = \"/\" }}]\nversions.blue.endpoints = [\"{}\"]\n",
        listens(address),
        manager.origin.address
    );
    fs::write(manager.path("switchback.toml"), text).unwrap();
    let mut command = Command::new("systemd-socket-activate");
    command.args(["--listen", &address.to_string(), env!("CARGO_BIN_EXE_switchback"), "run", "--config"]);
    command.arg(manager.path("switchback.toml")).stdin(Stdio::null());
    manager.child = Some(command.stderr(fs::File::create(manager.path("log")).unwrap()).spawn().unwrap());
    let since = Instant::now();
    while manager.log().is_empty() && since.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(Client::connect(address).get("/").status, 200, "{}", manager.log());
    manager.stop();
}

#[test]
fn the_units_are_ones_that_systemd_takes() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return eprintln!("skipped: it lacks systemd-analyze (Debian: systemd)");
    }
    let dir = tempfile::tempdir().unwrap();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/systemd");
    for name in ["switchback.service", "switchback.socket"] {
        let text = fs::read_to_string(units.join(name)).unwrap();
        // It looks for the programs too.
        let text = text.replace("/usr/bin/switchback", env!("CARGO_BIN_EXE_switchback"));
        fs::write(dir.path().join(name), text).unwrap();
    }
    let analyze = |arguments: &[&str], unit: &str| {
        let output =
            Command::new("systemd-analyze").args(arguments).arg(dir.path().join(unit)).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    for unit in ["switchback.service", "switchback.socket"] {
        let (is_good, said) = analyze(&["verify"], unit);
        assert!(is_good && !said.contains("switchback."), "{said}");
    }
    // The socket is for whoever wants it, and listens where the configuration does that is shipped with it.
    let read = |name: &str| fs::read_to_string(units.join(name)).unwrap();
    assert!(!read("switchback.service").contains("\nAlso="));
    let (socket, shipped) = (read("switchback.socket"), read("../switchback.toml"));
    let addresses = socket.lines().filter_map(|line| line.strip_prefix("ListenStream="));
    let listens = |address: &str| shipped.contains(&format!("\nlisten = \"{address}\""));
    assert_eq!(addresses.map(listens).collect::<Vec<_>>(), [true]);
    let (is_hardened, said) =
        analyze(&["security", "--offline=true", "--threshold=20"], "switchback.service");
    assert!(is_hardened, "{said}");
}
