//! The switch worked from elsewhere: over TCP, by who shows a token or a certificate, and by nobody else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use lab::tls::{Authority, Caller, Offer, Pair, Secure};
use lab::{Answer, Client, Lab, Origin, wait_until};
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};

const SHOP: &str = "the-token-of-shops-own-pipeline-1";
const READER: &str = "the-token-of-a-dashboard-that-reads";
const ROOT: &str = "the-token-of-who-may-do-everything";

const TOKENS: &str = r#"
[[admin.tokens]]
name = "shop-ci"
scopes = ["operate:shop"]
file = "shop.token"
[[admin.tokens]]
name = "dashboard"
scopes = ["read"]
file = "reader.token"
"#;

const ROOTS: &str = r#"
[[admin.tokens]]
name = "ops"
scopes = ["admin"]
file = "root.token"
"#;

/// Services `shop` and `cart` behind a proxy whose `[admin]` has these lines too.
struct World {
    lab: Lab,
}

impl World {
    /// Files are there before it starts.
    fn start(admin: &str, prepare: impl FnOnce(&std::path::Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (file, token) in [("shop.token", SHOP), ("reader.token", READER), ("root.token", ROOT)] {
            fs::write(dir.path().join(file), token).unwrap();
            fs::set_permissions(dir.path().join(file), fs::Permissions::from_mode(0o600)).unwrap();
        }
        prepare(dir.path());
        let origins = vec![Origin::start("blue"), Origin::start("green")];
        let lab = Lab { dir, origins, proxy: None, expected_errors: Vec::new() };
        let mut world = Self { lab };
        world.configure(admin);
        world.lab.proxy = Some(world.lab.spawn(2));
        world
    }

    /// Over `listen` in clear text, with the usual tokens.
    fn plain() -> Self {
        Self::start(&format!("listen = \"127.0.0.1:0\"\n{TOKENS}{ROOTS}"), |_| ())
    }

    /// Puts another file in the configuration's place.
    fn configure(&self, admin: &str) {
        let service = |name: &str| {
            let (blue, green) = (self.lab.origins[0].address, self.lab.origins[1].address);
            format!(
                "[services.{name}]\nroutes = [{{ path = \"/{name}\" }}]\nstable = \"blue\"\n\
                 versions.blue.endpoints = [\"{blue}\"]\nversions.green.endpoints = [\"{green}\"]\n"
            )
        };
        let text = format!(
            "[admin]\nsocket = \"{0}/admin.sock\"\n{admin}\n[state]\ndir = \"{0}/state\"\n[[listeners]]\nlisten = \"127.0.0.1:0\"\n{1}{2}",
            self.lab.dir.path().display(),
            service("shop"),
            service("cart")
        );
        let beside = self.lab.dir.path().join("switchback.toml.new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.lab.config()).unwrap();
    }

    /// The same, and waits until it is in force.
    fn reconfigure(&self, admin: &str) {
        let applied = || self.lab.metric(&["switchback_config_reloads_total", "applied"]).unwrap();
        let before = applied();
        self.configure(admin);
        wait_until("it is read", || applied() > before);
    }

    /// Where the admin API is served, if it is.
    fn bound(&self) -> Option<SocketAddr> {
        let (_, status) = self.lab.call("GET", "/v1/status", &Value::Null);
        status["admin"]["bound"].as_str().map(|bound| bound.parse().unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.bound().expect("it is served")
    }

    /// Runs the command line from elsewhere: exit code, standard output and standard error.
    fn cli(&self, at: &str, env: &[(&str, &str)], args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
        command.args(args).env("SWITCHBACK_SOCKET", at).current_dir(self.lab.dir.path());
        let output = command.envs(env.iter().copied()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }
}

fn request(method: &str, path: &str, token: Option<&str>, body: &str) -> String {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{token}content-length: {}\r\n\r\n{body}", body.len())
}

fn ask(connection: &mut Client, path: &str, token: &str) -> Answer {
    connection.send(request("GET", path, Some(token), "")).answer()
}

fn over_tls(connection: io::Result<Secure>, path: &str, token: Option<&str>) -> io::Result<Answer> {
    let mut connection = connection?;
    connection.send(request("GET", path, token, ""));
    connection.try_answer()
}

#[test]
fn every_team_works_its_own_service_with_the_command_line_and_no_other() {
    let world = World::plain();
    let at = format!("http://{}", world.address());
    let own = [("SWITCHBACK_TOKEN_FILE", "shop.token")];
    let (exit, said, error) = world.cli(&at, &own, &["flip", "shop", "--to", "green", "--reason", "v2"]);
    assert_eq!(exit, 0, "{said}{error}");
    // Who may not look at another service hears nevertheless that it needs what would be stopped.
    assert!(said.contains("cart/blue uses") && said.contains("do not stop it"), "{said}");
    assert_eq!((world.lab.get("/shop").version(), world.lab.get("/cart").version()), ("green", "blue"));
    let (exit, _, error) = world.cli(&at, &own, &["flip", "cart", "--to", "green"]);
    assert_eq!(exit, 1);
    assert!(error.contains("hint: it takes the scope `operate:cart`"), "{error}");
    assert_eq!(world.lab.get("/cart").version(), "blue");
    let (exit, said, _) = world.cli(&at, &own, &["status"]);
    assert!(exit == 0 && said.contains("shop · ") && !said.contains("cart · "), "{said}");
    let (exit, _, error) = world.cli(&at, &own, &["upgrade"]);
    assert!(exit == 1 && error.contains("`admin`"), "{error}");
    // Who reads sees all, and changes nothing. The token itself stands in the environment alone.
    let reads = [("SWITCHBACK_TOKEN", READER)];
    let (exit, said, _) = world.cli(&at, &reads, &["history"]);
    assert!(exit == 0 && said.contains("token=shop-ci peer=127.0.0.1:") && said.contains("v2"), "{said}");
    assert_eq!(world.cli(&at, &reads, &["revert", "shop"]).0, 1);
    for verbs in [
        &["weights", "shop", "blue=40"][..],
        &["explain", "http://x/shop"],
        &["versions", "shop"],
        &["history", "shop"],
    ] {
        let (exit, said, error) = world.cli(&at, &own, verbs);
        assert_eq!(exit, 0, "{verbs:?}: {said}{error}");
    }
    assert!(!world.lab.proxy().log().contains(SHOP), "a token is in the log");
}

#[test]
fn what_is_wrong_on_the_way_is_said_with_what_to_do() {
    let world = World::plain();
    let at = format!("http://{}", world.address());
    let (exit, _, error) = world.cli(&at, &[], &["status"]);
    assert_eq!(exit, 1);
    assert!(error.contains("neither a token nor a certificate") && error.contains("--token-file"), "{error}");
    world.lab.proxy().wait_for_log("somebody who is not known calls the admin API");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cases = [
        (format!("http://{nobody}"), "status", "is [admin] listen set there"),
        (format!("https://{}", world.address()), "status", "there is no secure connection"),
        ("http://192.0.2.1:9901".to_owned(), "status", "use https:// with 192.0.2.1:9901"),
        ("https://x/v1".to_owned(), "status", "--socket takes a path"),
        // Not the port of the scheme in its place.
        ("http://127.0.0.1:65536".to_owned(), "status", "--socket takes a path"),
    ];
    for (at, verb, words) in cases {
        let (exit, said, error) = world.cli(&at, &[("SWITCHBACK_TOKEN", SHOP)], &[verb]);
        assert_eq!((exit, error.contains(words)), (1, true), "{at}: {said}{error}");
        assert!(!error.contains(SHOP), "{error}");
    }
    let (_, _, error) = world.cli(&at, &[("SWITCHBACK_TOKEN_FILE", "none")], &["status"]);
    assert!(error.contains("cannot read a token from none"), "{error}");
    // Variables without a value are none.
    let empty = ["TOKEN", "TOKEN_FILE", "CA", "CERT", "KEY"].map(|name| format!("SWITCHBACK_{name}"));
    let empty = empty.each_ref().map(|name| (name.as_str(), ""));
    assert_eq!(world.cli("none", &empty, &["completions", "bash"]).0, 0);
    let (exit, _, error) = world.cli(&at, &empty, &["status"]);
    assert!(exit == 1 && error.contains("neither a token nor a certificate"), "{error}");
    let (_, _, error) = world.cli("https://x", &[], &["--cert", "a.pem", "status"]);
    assert!(error.contains("--cert and --key go together"), "{error}");
}

/// An authority for everything, the listener's certificate, and what `[admin]` says of it.
fn secured(dir: &std::path::Path, authority: &Authority) {
    authority.issue(&["admin.test", "127.0.0.1"]).write(dir, "admin");
    fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
}

fn client(authority: &Authority, common: &str, names: Vec<SanType>) -> Pair {
    authority.issue_with(&[], |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, common);
        params.subject_alt_names = names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    })
}

fn uri(uri: &str) -> Vec<SanType> {
    vec![SanType::URI(uri.try_into().unwrap())]
}

fn tls(auth: &str) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\ntls = {{ certificates = [{{ cert = \"admin.pem\", key = \"admin.key\" }}], client_auth = \"{auth}\", client_ca = \"ca.pem\" }}\n"
    )
}

const CERTIFICATES: &str = r#"
[[admin.certificates]]
name = "shop-cd"
scopes = ["operate:shop"]
uri = "spiffe://example.com/shop-cd"
[[admin.certificates]]
name = "reader"
scopes = ["read"]
dns = "reader.example.com"
"#;

#[test]
fn a_certificate_is_known_by_its_alternative_name_and_the_authority_alone() {
    let authority = Authority::new("ops");
    let shop = client(&authority, "anybody", uri("spiffe://example.com/shop-cd"));
    let world = World::start(&format!("{}{CERTIFICATES}", tls("required")), |dir| {
        secured(dir, &authority);
        shop.write(dir, "shop");
    });
    let (address, at) = (world.address(), format!("https://{}", world.address()));
    let shown =
        [("SWITCHBACK_CA", "ca.pem"), ("SWITCHBACK_CERT", "shop.pem"), ("SWITCHBACK_KEY", "shop.key")];
    let (exit, said, error) = world.cli(&at, &shown, &["flip", "shop", "--to", "green"]);
    assert_eq!(exit, 0, "{said}{error}");
    let (_, history) = world.lab.call("GET", "/v1/changes?limit=1", &Value::Null);
    let actor = history["changes"][0]["actor"]["name"].as_str().unwrap();
    assert!(actor.starts_with("certificate=shop-cd peer=127.0.0.1:"), "{actor}");
    assert_eq!(world.cli(&at, &shown, &["flip", "cart", "--to", "green"]).0, 1);
    let get = |pair: &Pair| {
        let caller = Offer { shows: Some(pair), ..Offer::to(&authority) }.caller();
        over_tls(caller.connect(address, "admin.test"), "/v1/services", None)
    };
    let dns = |name: &str| vec![SanType::DnsName(name.try_into().unwrap())];
    assert_eq!(get(&client(&authority, "x", dns("Reader.example.com"))).unwrap().status, 200);
    // The right name in the wrong place, or another's.
    assert_eq!(get(&client(&authority, "reader.example.com", Vec::new())).unwrap().status, 401);
    assert_eq!(get(&client(&authority, "x", uri("spiffe://example.com/shop-cd/x"))).unwrap().status, 401);
    let other = Authority::new("ops");
    assert!(get(&client(&other, "x", dns("reader.example.com"))).is_err(), "by another authority");
    let nothing = Caller::trusting(&authority);
    assert!(over_tls(nothing.connect(address, "admin.test"), "/healthz", None).is_err());
    let (exit, _, error) = world.cli(&at, &shown[1..], &["status"]);
    assert!(exit == 1 && error.contains("--ca names who is believed"), "{error}");
}

#[test]
fn a_handshake_by_an_authority_that_is_believed_no_more_leads_nowhere() {
    let (authority, other) = (Authority::new("ops"), Authority::new("others"));
    let shop = client(&authority, "x", uri("spiffe://example.com/shop-cd"));
    let admin = format!("{}{CERTIFICATES}", tls("required"));
    let world = World::start(&admin, |dir| secured(dir, &authority));
    let config = Offer { shows: Some(&shop), ..Offer::to(&authority) }.caller().config();
    let mut session = ClientConnection::new(config, "admin.test".try_into().unwrap()).unwrap();
    let mut stream = std::net::TcpStream::connect(world.address()).unwrap();
    session.write_tls(&mut stream).unwrap();
    // All of the server's part, and nothing yet of the certificate that answers it.
    while session.is_handshaking() {
        session.read_tls(&mut stream).unwrap();
        session.process_new_packets().unwrap();
    }
    let applied = || world.lab.metric(&["switchback_config_reloads_total", "applied"]).unwrap();
    let before = applied();
    fs::write(world.lab.dir.path().join("ca.pem"), other.pem()).unwrap();
    wait_until("it is read", || applied() > before);
    let mut stream = StreamOwned::new(session, stream);
    let flip = request("POST", "/v1/services/shop/flip", None, r#"{"to":"green"}"#);
    // Either fails where the connection is closed already.
    let mut answer = Vec::new();
    drop(stream.write_all(flip.as_bytes()).and_then(|()| stream.read_to_end(&mut answer)));
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    let (_, after) = world.lab.call("GET", "/v1/services/shop", &Value::Null);
    assert_eq!(after["stable"], "blue");
}

/// A change that asks before it sends its body.
fn asks_first(body: &str) -> String {
    let head = request("POST", "/v1/services/shop/flip", None, body);
    head.trim_end_matches(body).replace("content-length", "expect: 100-continue\r\ncontent-length")
}

#[test]
fn a_certificate_counts_while_its_authority_is_believed_whatever_the_listener_shows() {
    let (authority, other) = (Authority::new("ops"), Authority::new("others"));
    let shop = client(&authority, "x", uri("spiffe://example.com/shop-cd"));
    let admin = format!("{}{CERTIFICATES}", tls("required"));
    let world = World::start(&admin, |dir| secured(dir, &authority));
    let caller = Offer { shows: Some(&shop), ..Offer::to(&authority) }.caller();
    let connect = || caller.connect(world.address(), "admin.test");
    let flip = |to: &str, meanwhile: &dyn Fn()| {
        let (body, mut connection) = (format!("{{\"to\":\"{to}\"}}"), connect().unwrap());
        connection.send(asks_first(&body)).wait_for("100 Continue");
        meanwhile();
        connection.send(body).answer().status
    };
    let renewed = || {
        let next = authority.issue(&["admin.test"]);
        next.write(world.lab.dir.path(), "admin");
        wait_until("it is shown", || connect().is_ok_and(|secure| secure.certificate() == next.der));
    };
    assert_eq!(flip("green", &renewed), 200);
    let doubted = || {
        fs::write(world.lab.dir.path().join("ca.pem"), other.pem()).unwrap();
        wait_until("it is believed no more", || over_tls(connect(), "/healthz", None).is_err());
    };
    assert_eq!(flip("blue", &doubted), 401);
    assert_eq!(world.lab.get("/shop").version(), "green");
}

#[test]
fn a_token_that_comes_with_a_certificate_counts_first() {
    let authority = Authority::new("ops");
    let shop = client(&authority, "x", uri("spiffe://example.com/shop-cd"));
    let admin = format!("{}{CERTIFICATES}{TOKENS}", tls("optional"));
    let world = World::start(&admin, |dir| secured(dir, &authority));
    let with = Offer { shows: Some(&shop), ..Offer::to(&authority) }.caller();
    let (without, address) = (Caller::trusting(&authority), world.address());
    let ask = |caller: &Caller, token| {
        let answer = over_tls(caller.connect(address, "admin.test"), "/v1/services/cart", token).unwrap();
        answer.status
    };
    assert_eq!(ask(&with, None), 403, "shop's certificate");
    assert_eq!(ask(&with, Some(READER)), 200, "who reads");
    assert_eq!(ask(&with, Some("guess")), 401, "is not made good by the certificate");
    assert_eq!(ask(&without, Some(READER)), 200);
    assert_eq!(ask(&without, None), 401);
}

#[test]
fn who_is_listed_no_more_is_refused_with_the_next_request() {
    let world = World::plain();
    let mut kept = Client::connect(world.address());
    assert_eq!(ask(&mut kept, "/v1/services/shop", SHOP).status, 200);
    let other = TOKENS.replace("operate:shop", "operate:cart");
    world.reconfigure(&format!("listen = \"127.0.0.1:0\"\n{other}"));
    assert_eq!(ask(&mut kept, "/v1/services/shop", SHOP).status, 403, "another scope");
    assert_eq!(ask(&mut kept, "/v1/services/cart", SHOP).status, 200);
    // A token's file is watched as the configuration is.
    let applied = || world.lab.metric(&["switchback_config_reloads_total", "applied"]).unwrap();
    let before = applied();
    fs::write(world.lab.dir.path().join("shop.token"), "another-token-of-shops-own-pipeline").unwrap();
    wait_until("the token is read", || applied() > before);
    assert_eq!(ask(&mut kept, "/v1/services/cart", SHOP).status, 401);
    assert!(kept.rest().is_empty(), "and its connection is closed");
}

#[test]
fn who_is_listed_no_more_changes_nothing_also_where_the_listener_has_moved_or_is_gone() {
    let world = World::plain();
    let flip = |token, admin: &str| {
        let mut connection = Client::connect(world.address());
        let body = r#"{"to":"green"}"#;
        let head = asks_first(body).replace("expect", &format!("authorization: Bearer {token}\r\nexpect"));
        let goes_on = "HTTP/1.1 100 Continue\r\n\r\n";
        assert_eq!(connection.send(head).bytes(goes_on.len()), goes_on.as_bytes());
        world.reconfigure(admin);
        connection.send(body).answer().status
    };
    let elsewhere = format!("listen = \"[::1]:0\"\n{ROOTS}");
    assert_eq!(flip(SHOP, &elsewhere), 401);
    assert_eq!(flip(ROOT, ""), 401, "nobody is listed");
    assert_eq!(world.lab.get("/shop").version(), "blue");
    world.reconfigure(&elsewhere);
    assert_eq!(
        flip(ROOT, &format!("listen = \"127.0.0.1:0\"\n{ROOTS}")),
        200,
        "who is listed is heard to the end"
    );
}

#[test]
fn a_reload_moves_the_listener_secures_it_and_takes_it_away() {
    let authority = Authority::new("ops");
    let mut world =
        World::start(&format!("listen = \"127.0.0.1:0\"\n{TOKENS}"), |dir| secured(dir, &authority));
    let (first, mut kept) = (world.address(), Client::connect(world.address()));
    assert_eq!(ask(&mut kept, "/healthz", SHOP).status, 200);
    // The same address, and TLS from now on: who has come in clear text is let go.
    world.reconfigure(&format!("{}{TOKENS}", tls("optional")));
    assert_eq!(world.address(), first);
    assert!(kept.rest().is_empty(), "it had nothing to finish");
    let caller = Caller::trusting(&authority);
    let get = |address| over_tls(caller.connect(address, "admin.test"), "/healthz", Some(SHOP));
    assert_eq!(get(first).unwrap().status, 200);
    // Another certificate, for who comes next.
    let applied = || world.lab.metric(&["switchback_config_reloads_total", "applied"]).unwrap();
    let (before, next) = (applied(), authority.issue(&["admin.test"]));
    next.write(world.lab.dir.path(), "admin");
    wait_until("it is read", || applied() > before);
    wait_until("it is shown", || {
        caller.connect(first, "admin.test").is_ok_and(|secure| secure.certificate() == next.der)
    });
    assert!(
        world.lab.metric(&["switchback_tls_certificate_expiry_timestamp_seconds", "admin.pem"]).is_some()
    );
    // Elsewhere: [::1] is another address, whatever its port is.
    world.reconfigure(&format!("{}{TOKENS}", tls("optional").replace("127.0.0.1:0", "[::1]:0")));
    let second = world.address();
    assert!(second.is_ipv6());
    assert_eq!(get(second).unwrap().status, 200);
    wait_until("nobody listens there any more", || std::net::TcpStream::connect(first).is_err());
    // A file that would let everybody in, or nobody, changes nothing.
    let failed = || world.lab.metric(&["switchback_config_reloads_total", "failed"]).unwrap();
    let before = failed();
    world.configure("listen = \"0.0.0.0:0\"");
    wait_until("it is refused", || failed() > before);
    assert_eq!(get(second).unwrap().status, 200);
    world.reconfigure("");
    wait_until("nobody listens at all", || std::net::TcpStream::connect(second).is_err());
    assert_eq!(world.bound(), None);
    world.lab.expected_errors.push("the configuration is not used");
}

#[test]
fn who_waits_for_an_answer_has_it_also_where_the_listener_has_moved() {
    let world = World::plain();
    let [mut waiting, mut slow] = [(); 2].map(|()| Client::connect(world.address()));
    let ramp = r#"{"to":"green","steps":[5000,10000]}"#;
    waiting.send(request("POST", "/v1/services/shop/ramp?wait=finished&timeout=1m", Some(SHOP), ramp));
    wait_until("it has begun", || world.lab.shop()["phase"] == "ramping");
    slow.send(request("POST", "/v1/undo", Some(ROOT), "{}").trim_end_matches('}'));
    world.reconfigure(&format!("listen = \"[::1]:0\"\n{TOKENS}{ROOTS}"));
    assert!(slow.rest().is_empty(), "who is waited for is not waited for much longer");
    let (status, promoted) = world.lab.call("POST", "/v1/services/shop/promote", &Value::Null);
    assert_eq!(status, 200, "{promoted}");
    let answer = waiting.answer();
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("finished")));
    assert!(waiting.rest().is_empty(), "it was the last one there");
}

#[test]
fn it_is_there_after_a_crash_and_goes_to_a_successor_with_its_address() {
    let mut world = World::plain();
    let done = Client::connect(world.address())
        .send(request("POST", "/v1/services/shop/flip", Some(SHOP), r#"{"to":"green"}"#))
        .answer();
    assert_eq!(done.status, 200, "{}", done.text());
    world.lab.kill_and_restart();
    assert_eq!(world.lab.get("/shop").version(), "green");
    let (address, first) = (world.address(), world.lab.proxy().pid());
    let mut kept = Client::connect(address);
    assert_eq!(ask(&mut kept, "/v1/status", ROOT).json()["pid"], first);
    let at = format!("http://{address}");
    let (exit, said, error) = world.cli(&at, &[("SWITCHBACK_TOKEN_FILE", "root.token")], &["upgrade"]);
    assert_eq!(exit, 0, "{said}{error}");
    assert!(kept.rest().is_empty(), "the old process serves nobody any more");
    let status = ask(&mut Client::connect(address), "/v1/status", ROOT).json();
    assert_ne!(status["pid"], first, "{status}");
    assert_eq!(status["admin"]["bound"], json!(address.to_string()));
    let mut connection = Client::connect(address);
    assert_eq!(ask(&mut connection, "/v1/services/shop", SHOP).status, 200);
    // The new one is not the lab's, and holds its log open.
    assert!(Command::new("kill").args(["-TERM", &status["pid"].to_string()]).status().unwrap().success());
    let (ended, log) = world.lab.proxy.take().unwrap().wait();
    assert!(ended.success(), "{log}");
    wait_until("nobody listens any more", || std::net::TcpStream::connect(address).is_err());
}

#[test]
fn who_does_not_finish_the_handshake_keeps_nobody_out() {
    let authority = Authority::new("ops");
    let admin = tls("optional").replace("client_auth", "handshake_timeout = \"1s\", client_auth");
    let world = World::start(&format!("{admin}{TOKENS}"), |dir| secured(dir, &authority));
    let mut silent: Vec<_> = (0..300).map(|_| Client::connect(world.address())).collect();
    let caller = Caller::trusting(&authority);
    let answer = over_tls(caller.connect(world.address(), "admin.test"), "/healthz", Some(SHOP));
    assert_eq!(answer.unwrap().status, 200);
    assert!(silent.pop().unwrap().is_closed_within(lab::PATIENCE), "its time is over");
}
