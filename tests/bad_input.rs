//! Bad input is a clear error that names the place and the remedy, and the running proxy is untouched (G7).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread;

use lab::history::Load;
use lab::preload::Preload;
use lab::{Lab, Origin, Proxy, admin};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// A configuration that is right, with `extra` behind it.
fn config(dir: &Path, listen: SocketAddr, extra: &str) -> String {
    format!(
        "[admin]\nsocket = \"{0}/admin.sock\"\n[state]\ndir = \"{0}/state\"\n[[listeners]]\nlisten = \"{listen}\"\n\
         [services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n\
         [services.shop.versions.blue]\nendpoints = [\"127.0.0.1:1\"]\n{extra}",
        dir.display()
    )
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Starts on `text`, which is refused: what it said. The exit code is 1, and nothing is left behind.
fn refused(dir: &Path, text: &str) -> String {
    let file = dir.join("switchback.toml");
    fs::write(&file, text).unwrap();
    let (code, said) = Proxy::refused(&file);
    assert_eq!(code, 1, "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// `switchback.toml:LINE:COLUMN` is in front of `message`, and `hint` is said too.
fn says(said: &str, dir: &Path, at: (usize, usize), message: &str, hint: &str) {
    let line = format!("{}:{}:{}: {message}", dir.join("switchback.toml").display(), at.0, at.1);
    assert!(said.contains(&line), "expected\n{line}\nin\n{said}");
    assert!(said.contains(hint), "expected\n{hint}\nin\n{said}");
}

/// `extra` begins at line 12 of the file.
fn refused_at(extra: &str, at: (usize, usize), message: &str, hint: &str) {
    let dir = tempfile::tempdir().unwrap();
    let said = refused(dir.path(), &config(dir.path(), any_port(), extra));
    says(&said, dir.path(), at, message, hint);
    assert!(!dir.path().join("admin.sock").exists());
    assert!(!dir.path().join("state").exists(), "the file is read before anything is made");
}

#[test]
fn a_level_that_the_log_does_not_have_is_told_and_another_one_taken() {
    let said = |level: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
        let run =
            command.args(["run", "--config", "/nowhere.toml"]).env("SWITCHBACK_LOG", level).output().unwrap();
        String::from_utf8(run.stderr).unwrap()
    };
    assert!(said("loud").contains("SWITCHBACK_LOG is none of error, warn, info"), "{}", said("loud"));
    assert!(["", "warn"].iter().all(|level| !said(level).contains("SWITCHBACK_LOG")));
}

#[test]
fn an_unknown_key_is_refused_and_the_right_one_named() {
    refused_at(
        "[limits]\nconections = 5\n",
        (13, 1),
        "unknown key `conections`",
        "did you mean `connections`?",
    );
}

#[test]
fn a_wrong_type_is_refused_and_the_right_one_named() {
    refused_at(
        "[limits]\nidle = 60\n",
        (13, 8),
        "expected a duration such as \"500ms\", \"30s\"",
        "found the integer 60",
    );
}

#[test]
fn weights_that_do_not_sum_are_refused() {
    let cart = "[services.cart]\nroutes = [{ path = \"/cart\" }]\nweights = { v1 = 90, v2 = 9 }\n\
                versions.v1.endpoints = [\"127.0.0.1:1\"]\nversions.v2.endpoints = [\"127.0.0.1:2\"]\n";
    refused_at(cart, (14, 11), "weights of service `cart` sum to 99.00 %, not 100 %", "");
}

#[test]
fn an_endpoint_that_does_not_parse_is_refused() {
    let green = "[services.shop.versions.green]\nendpoints = [\"127.0.0.1\"]\n";
    refused_at(
        green,
        (13, 14),
        "`127.0.0.1` is not an endpoint",
        "expected host:port, [v6]:port or unix:/path",
    );
}

#[test]
fn two_services_with_the_same_route_are_refused_and_both_named() {
    let cart = "[services.cart]\nroutes = [{ path = \"/\" }]\nversions.v1.endpoints = [\"127.0.0.1:1\"]\n";
    refused_at(cart, (13, 11), "route */ already leads to service `shop`", "switchback.toml:8:11");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let extra = "[limits]\nconections = 5\nidle = 60\n";
    let said = refused(dir.path(), &config(dir.path(), any_port(), extra));
    says(&said, dir.path(), (13, 1), "unknown key", "");
    says(&said, dir.path(), (14, 8), "expected a duration", "");
}

#[test]
fn no_file_is_refused_and_the_way_to_name_one_told() {
    let dir = tempfile::tempdir().unwrap();
    let (code, said) = Proxy::refused(&dir.path().join("nowhere.toml"));
    assert_eq!(code, 1);
    assert!(
        said.contains(&format!("{}/nowhere.toml: cannot be read: No such file", dir.path().display())),
        "{said}"
    );
}

#[test]
fn what_cannot_be_written_was_not_told() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("switchback.toml"), config(dir.path(), any_port(), "")).unwrap();
    for words in [&["check", "--json"][..], &["completions", "bash"], &["--help"], &["--version"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
        command.args(words).current_dir(dir.path());
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let told = command.stdout(full).output().unwrap();
        let said = String::from_utf8(told.stderr).unwrap();
        assert_eq!(told.status.code(), Some(1), "{words:?}: {said}");
        assert!(said.starts_with("cannot write the answer: No space left on device"), "{words:?}: {said}");
        // A reader that went away has read what it wanted.
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(command.stdout(closed).status().unwrap().code(), Some(0), "{words:?}");
    }
}

const PORT_TAKEN: &str =
    "another process listens there, or has a connection from that port: stop it, or choose another address";

#[test]
fn a_port_in_use_is_refused() {
    let taken = TcpListener::bind(any_port()).unwrap();
    let (dir, address) = (tempfile::tempdir().unwrap(), taken.local_addr().unwrap());
    let said = refused(dir.path(), &config(dir.path(), address, ""));
    assert!(said.contains(&format!("cannot listen on {address}; {PORT_TAKEN}")), "{said}");
    assert!(!dir.path().join("admin.sock").exists(), "nothing is left behind");
}

#[test]
fn a_port_that_somebody_would_share_is_refused_all_the_same() {
    let taken = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    taken.set_reuse_port(true).unwrap();
    taken.set_reuse_address(true).unwrap();
    taken.bind(&any_port().into()).unwrap();
    taken.listen(8).unwrap();
    let (dir, address) = (tempfile::tempdir().unwrap(), taken.local_addr().unwrap().as_socket().unwrap());
    let said = refused(dir.path(), &config(dir.path(), address, ""));
    assert!(said.contains(&format!("cannot listen on {address}; {PORT_TAKEN}")), "{said}");
}

/// Whoever binds a socket that others may share is not scheduled for a moment before.
const SLOW_TO_BIND: &str = r#"
#define _GNU_SOURCE
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int bind(int socket, const struct sockaddr *address, socklen_t length) {
    int shared = 0;
    socklen_t size = sizeof shared;
    if (!getsockopt(socket, SOL_SOCKET, SO_REUSEPORT, &shared, &size) && shared) usleep(1000000);
    return syscall(SYS_bind, socket, address, length);
}
"#;

#[test]
fn of_two_that_want_a_port_at_the_same_moment_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let library = Preload::compile(dir.path(), SLOW_TO_BIND).variable();
    let address = TcpListener::bind(any_port()).unwrap().local_addr().unwrap();
    let start = |name: &str| {
        let dir = dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        let file = dir.join("switchback.toml");
        fs::write(&file, config(&dir, address, "")).unwrap();
        Proxy::start_as(&["env", &library], &["--workers", "2"], &file, &dir.join("admin.sock"))
    };
    let both = thread::scope(|scope| {
        ["one", "two"].map(|name| scope.spawn(|| start(name))).map(|it| it.join().unwrap())
    });
    let refused: Vec<_> = both.iter().filter_map(|started| started.as_ref().err()).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].contains(&format!("cannot listen on {address}; {PORT_TAKEN}")), "{}", refused[0]);
}

#[test]
fn a_second_proxy_on_the_same_port_is_refused_and_takes_nobody_away() {
    let lab = Lab::start(&["blue"]);
    let load = Load::start(lab.address(), 2, &[("shop", "/")]);
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let said = refused(dir.path(), &config(dir.path(), lab.address(), ""));
        assert!(said.contains(&format!("cannot listen on {}; {PORT_TAKEN}", lab.address())), "{said}");
        (0..20).for_each(|_| assert_eq!(lab.get("/").status, 200));
    }
    load.wait_for_more(2);
    assert_eq!(load.stop().failures, [] as [&str; 0]);
}

#[test]
fn a_start_that_fails_leaves_no_listening_socket_behind() {
    let lab = Lab::start(&["blue"]);
    let dir = tempfile::tempdir().unwrap();
    let unix = format!("[[listeners]]\nlisten = \"unix:{}/http.sock\"\n", dir.path().display());
    let text = config(dir.path(), any_port(), &unix);
    // Its state is another's: that is found out after the listeners were bound.
    let state = format!("{}/state", lab.dir.path().display());
    let said = refused(dir.path(), &text.replacen(&format!("{}/state", dir.path().display()), &state, 1));
    assert!(said.contains("stop that one, or set another state.dir"), "{said}");
    assert!(!dir.path().join("http.sock").exists());
    assert!(!dir.path().join("admin.sock").exists());
}

#[test]
fn a_metrics_port_in_use_is_refused() {
    let taken = TcpListener::bind(any_port()).unwrap();
    let (dir, address) = (tempfile::tempdir().unwrap(), taken.local_addr().unwrap());
    let metrics = format!("[metrics]\nlisten = \"{address}\"\n");
    let said = refused(dir.path(), &config(dir.path(), any_port(), &metrics));
    assert!(
        said.contains(&format!("cannot listen on {address} for metrics; choose another [metrics] listen")),
        "{said}"
    );
}

#[test]
fn an_admin_socket_that_a_dead_process_left_is_taken_over() {
    let mut lab = Lab::start(&["blue"]);
    lab.proxy.take().unwrap().kill();
    assert!(lab.socket().exists(), "killed: it could not clean up");
    lab.proxy = Some(lab.spawn(2));
    lab.flip("blue");
}

/// Another that starts at the same moment may have made it just now.
#[test]
fn who_does_not_get_the_state_takes_no_socket_away() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, state) = (dir.path().join("admin.sock"), dir.path().join("state"));
    drop(UnixListener::bind(&socket).unwrap());
    fs::create_dir(&state).unwrap();
    let lock = fs::File::create(state.join("switchback.lock")).unwrap();
    lock.lock().unwrap();
    let text = config(dir.path(), any_port(), "");
    assert!(text.contains(&format!("dir = \"{}\"", state.display())), "{text}");
    let said = refused(dir.path(), &text);
    assert!(said.contains("uses it; stop that one, or set another state.dir"), "{said}");
    assert!(socket.exists());
}

#[test]
fn an_admin_socket_in_use_is_refused_and_its_owner_goes_on() {
    let lab = Lab::start(&["blue", "green"]);
    let dir = tempfile::tempdir().unwrap();
    let text = config(dir.path(), any_port(), "");
    let theirs = format!("socket = \"{}\"", lab.socket().display());
    let text = text.replacen(&format!("socket = \"{}/admin.sock\"", dir.path().display()), &theirs, 1);
    let said = refused(dir.path(), &text);
    assert!(
        said.contains(&format!("another process serves this socket: {}", lab.socket().display())),
        "{said}"
    );
    assert!(said.contains("stop that one, or set another admin.socket"), "{said}");
    lab.flip("green");
    assert_eq!(lab.get("/").version(), "green");
}

#[test]
fn a_socket_of_somebody_elses_is_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let _theirs = UnixListener::bind(dir.path().join("admin.sock")).unwrap();
    let said = refused(dir.path(), &config(dir.path(), any_port(), ""));
    assert!(said.contains("stop that one, or set another admin.socket"), "{said}");
    assert!(dir.path().join("admin.sock").exists());
    fs::remove_file(dir.path().join("admin.sock")).unwrap();
    fs::write(dir.path().join("admin.sock"), "a letter").unwrap();
    let said = refused(dir.path(), &config(dir.path(), any_port(), ""));
    assert!(
        said.contains("something that is not a socket is there; move it away or set admin.socket"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(dir.path().join("admin.sock")).unwrap(), "a letter");
}

/// `shop` with blue, green, and `empty` without endpoints.
fn lab_with_empty() -> Lab {
    let origins = vec![Origin::start("blue"), Origin::start("green")];
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n\
         versions.blue.endpoints = [\"{}\"]\nversions.green.endpoints = [\"{}\"]\nversions.empty.endpoints = []\n",
        origins[0].address, origins[1].address
    );
    Lab::configured(tempfile::tempdir().unwrap(), origins, &services)
}

/// A call that is refused: what is wrong, and that nothing has changed.
fn refused_call(lab: &Lab, (method, path): (&str, &str), body: &str, status: u16, token: &str) -> Value {
    let before = (lab.epoch(), lab.shop());
    let answer = admin::call(&lab.socket(), method, path, &[], body).unwrap();
    let problem = answer.json();
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(problem["type"], format!("urn:switchback:problem:{token}"), "{problem}");
    assert_eq!(problem["status"], status);
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
    assert_eq!((lab.epoch(), lab.shop()), before, "nothing has changed");
    assert_eq!(lab.get("/").version(), "blue");
    problem
}

const FLIP: (&str, &str) = ("POST", "/v1/services/shop/flip");
const WEIGHTS: (&str, &str) = ("PUT", "/v1/services/shop/weights");

#[test]
fn a_flip_to_nothing_is_refused_with_the_remedy() {
    let lab = lab_with_empty();
    let unknown = refused_call(&lab, FLIP, "{\"to\":\"gren\"}", 422, "unknown_version");
    assert_eq!(unknown["detail"], "service `shop` has no version `gren`; it has `blue`, `green`, `empty`");
    assert_eq!(unknown["field"], "to");
    assert!(unknown["hint"].as_str().unwrap().contains("switchback versions add shop"), "{unknown}");
    let empty = refused_call(&lab, FLIP, "{\"to\":\"empty\"}", 422, "empty_version");
    assert_eq!(empty["detail"], "version `empty` of service `shop` has no endpoints");
    assert!(empty["hint"].as_str().unwrap().contains("switchback endpoints add shop/empty"), "{empty}");
    let nobody =
        refused_call(&lab, ("POST", "/v1/services/shoop/flip"), "{\"to\":\"blue\"}", 404, "unknown_service");
    assert!(nobody["hint"].as_str().unwrap().contains("switchback status"), "{nobody}");
}

#[test]
fn weights_that_cannot_be_are_refused() {
    let lab = lab_with_empty();
    let sum = refused_call(&lab, WEIGHTS, "{\"blue\":9000,\"green\":900}", 422, "bad_weights");
    assert!(sum["detail"].as_str().unwrap().contains("weights sum to 99.00 %, not 100 %"), "{sum}");
    let field = |body: &str, status, token| refused_call(&lab, WEIGHTS, body, status, token)["field"].take();
    assert_eq!(field("{\"blue\":9000,\"gren\":1000}", 422, "unknown_version"), "gren");
    refused_call(&lab, WEIGHTS, "{\"blue\":5000,\"blue\":5000}", 400, "bad_json");
    refused_call(&lab, WEIGHTS, "{\"blue\":-1,\"green\":10001}", 400, "bad_json");
    refused_call(&lab, WEIGHTS, "{\"blue\":10001}", 422, "bad_weights");
}

#[test]
fn calls_that_are_not_understood_are_refused_with_the_member_at_fault() {
    let lab = lab_with_empty();
    let field =
        |call, body: &str, status, token| refused_call(&lab, call, body, status, token)["field"].take();
    assert_eq!(field(FLIP, "{\"to\":\"green\",\"fast\":true}", 400, "bad_json"), "fast");
    assert_eq!(field(FLIP, "{\"too\":\"green\"}", 400, "bad_json"), "too");
    assert_eq!(field(FLIP, "{\"to\":5}", 400, "bad_json"), "to");
    assert_eq!(field(FLIP, "{\"to\":\"gr een\"}", 400, "bad_value"), "to");
    refused_call(&lab, FLIP, "{\"to\":", 400, "bad_json");
    refused_call(&lab, FLIP, "", 400, "bad_json");
    refused_call(&lab, FLIP, "{\"to\":\"green\"} and more", 400, "bad_json");
    let query = ("POST", "/v1/services/shop/flip?dryrun=true");
    assert_eq!(field(query, "{\"to\":\"green\"}", 400, "bad_query"), "dryrun");
    refused_call(&lab, ("POST", "/v1/services/shop/flop"), "{}", 404, "unknown_path");
    refused_call(&lab, ("GET", "/v1/services/shop/flip"), "", 405, "wrong_method");
    refused_call(&lab, ("POST", "/v1/changes"), "{\"changes\":[]}", 422, "empty_change");
    let one_good_one_bad = json!({ "changes": [
        { "service": "shop", "flip": { "to": "green" } }, { "service": "cart", "flip": { "to": "blue" } }
    ] });
    refused_call(&lab, ("POST", "/v1/changes"), &one_good_one_bad.to_string(), 404, "unknown_service");
    let endpoint = ("PUT", "/v1/services/shop/versions/green/endpoints/nowhere");
    assert_eq!(field(endpoint, "", 400, "bad_value"), "endpoint");
    refused_call(&lab, ("DELETE", "/v1/services/shop/versions/blue"), "", 409, "version_in_use");
    refused_call(&lab, ("POST", "/v1/undo"), "{\"to_epoch\":99}", 422, "unknown_epoch");
    refused_call(&lab, ("POST", "/v1/services/shop/revert"), "", 409, "nothing_to_revert");
}

#[test]
fn a_call_that_is_no_http_or_too_large_ends_that_connection_and_nothing_else() {
    let lab = lab_with_empty();
    let mut raw = std::os::unix::net::UnixStream::connect(lab.socket()).unwrap();
    std::io::Write::write_all(&mut raw, b"\x16\x03\x01 not http\r\n\r\n").unwrap();
    let mut said = Vec::new();
    // It may be cut off in the middle of what it sends.
    let _ = std::io::Read::read_to_end(&mut raw, &mut said);
    let large = format!("{{\"to\":\"{}\"}}", "x".repeat(1 << 20));
    let answer = admin::call(&lab.socket(), FLIP.0, FLIP.1, &[], &large);
    assert!(answer.is_ok_and(|answer| answer.status == 413));
    lab.flip("green");
}
