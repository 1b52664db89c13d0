//! TLS towards clients, from outside: which certificate they get, what they have to show, what a session is good for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use lab::tls::{Authority, Caller, Offer, Pair};
use lab::{Http2, Lab, Origin};
use rustls::CipherSuite;
use rustls::version::{TLS12, TLS13};
use serde_json::json;

/// A second address beside the lab's own: ports are free ones, and two of them on one address would be one listener.
const LISTEN: &str = "127.0.0.2:0";

/// A lab with one more listener with `tls = { <settings> }`, and these files beside the configuration.
fn lab(pairs: &[(&str, &Pair)], settings: &str) -> (Lab, SocketAddr) {
    lab_with(pairs, settings, "", Origin::start("blue"))
}

fn lab_with(pairs: &[(&str, &Pair)], settings: &str, more: &str, origin: Origin) -> (Lab, SocketAddr) {
    let dir = tempfile::tempdir().unwrap();
    pairs.iter().for_each(|(name, pair)| pair.write(dir.path(), name));
    let service = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\n[services.shop.versions.blue]\nendpoints = [\"{}\"]\n",
        origin.address
    );
    let listener = format!("[[listeners]]\nlisten = \"{LISTEN}\"\ntls = {{ {settings} }}\n{more}\n{service}");
    let lab = Lab::configured(dir, vec![origin], &listener);
    let address = lab.bound(LISTEN);
    (lab, address)
}

const SHOP: &str = "certificates = [{ cert = \"shop.pem\", key = \"shop.key\" }]";

fn handshakes(lab: &Lab, result: &str) -> f64 {
    lab.metric(&["switchback_tls_handshakes_total", &format!("\"{result}\"")]).unwrap()
}

/// One that failed is counted a moment after its client knows.
fn wait_for_handshakes(lab: &Lab, result: &str, count: f64) {
    lab::wait_until(&format!("{count} handshakes: {result}"), || handshakes(lab, result) == count);
}

#[test]
fn a_certificate_is_found_by_name_by_wildcard_or_by_default() {
    let authority = Authority::new("ca");
    let first = authority.issue(&["first.test", "127.0.0.2"]);
    let (exact, wild) = (authority.issue(&["Shop.test"]), authority.issue(&["*.shop.test"]));
    let settings = "certificates = [{ cert = \"first.pem\", key = \"first.key\" },
        { cert = \"exact.pem\", key = \"exact.key\" }, { cert = \"wild.pem\", key = \"wild.key\" }]";
    let (_lab, at) = lab(&[("first", &first), ("exact", &exact), ("wild", &wild)], settings);
    let caller = Caller::trusting(&authority);
    let shown = |name: &str| caller.connect(at, name).map(|secure| secure.certificate());
    assert_eq!(shown("shop.test").unwrap(), exact.der);
    assert_eq!(shown("a.shop.test").unwrap(), wild.der);
    assert_eq!(shown("first.test").unwrap(), first.der);
    assert_eq!(shown("127.0.0.2").unwrap(), first.der, "a client that names no host");
    for stranger in ["other.test", "a.b.shop.test", "xshop.test"] {
        let refused = shown(stranger).unwrap_err().to_string();
        assert!(refused.contains("NotValidForName") || refused.contains("not valid for name"), "{refused}");
    }
    assert_eq!(caller.get(at, "a.shop.test", "/x").unwrap().version(), "blue");
}

#[test]
fn a_client_gets_the_key_that_it_can_verify_and_ecdsa_if_it_can() {
    let authority = Authority::new("ca");
    let (rsa, ecdsa) = (authority.issue_rsa(&["shop.test"]), authority.issue(&["shop.test"]));
    let settings = "certificates = [{ cert = \"rsa.pem\", key = \"rsa.key\" },
        { cert = \"ecdsa.pem\", key = \"ecdsa.key\" }]";
    let (lab, at) = lab(&[("rsa", &rsa), ("ecdsa", &ecdsa)], settings);
    for (versions, suites, expected) in [
        (&[&TLS13], &[][..], &ecdsa),
        (&[&TLS12], &[][..], &ecdsa),
        (&[&TLS12], &[CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256][..], &rsa),
    ] {
        let caller = Offer { versions, suites, ..Offer::to(&authority) }.caller();
        assert_eq!(caller.connect(at, "shop.test").unwrap().certificate(), expected.der);
    }
    fs::write(lab.dir.path().join("ca.pem"), authority.pem()).unwrap();
    for (algorithms, kind) in [("RSA-PSS+SHA256", "RSA-PSS"), ("ECDSA+SHA256:RSA-PSS+SHA256", "ECDSA")] {
        let said = s_client(&lab, at, &["-tls1_3", "-sigalgs", algorithms]);
        assert!(said.contains(&format!("Peer signature type: {kind}")), "{said}");
        assert!(said.contains("Verification: OK"), "{said}");
    }
}

/// What OpenSSL's own client says of a connection, of which it ends the input at once.
fn s_client(lab: &Lab, at: SocketAddr, args: &[&str]) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &at.to_string(), "-servername", "shop.test", "-CAfile", "ca.pem"])
        .args(args)
        .current_dir(lab.dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl: apt-get install openssl");
    child.stdin.take().unwrap().write_all(b"Q\n").unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn curl_is_served_as_it_is() {
    let authority = Authority::new("ca");
    let (lab, at) = lab(&[("shop", &authority.issue(&["shop.test"]))], SHOP);
    fs::write(lab.dir.path().join("ca.pem"), authority.pem()).unwrap();
    for version in ["--tlsv1.3", "--tls-max=1.2"] {
        let output = Command::new("curl")
            .args(["-sS", "--cacert", "ca.pem", "--connect-to"])
            .arg(format!("shop.test:443:{}:{}", at.ip(), at.port()))
            .args(version.split('='))
            .args(["https://shop.test/x", "https://shop.test/y"])
            .current_dir(lab.dir.path())
            .output()
            .expect("curl");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, "blue GET /x HTTP/1.1\nblue GET /y HTTP/1.1\n", "{output:?}");
    }
}

#[test]
fn both_versions_are_spoken_and_the_least_is_kept() {
    let authority = Authority::new("ca");
    let pair = authority.issue(&["shop.test"]);
    let old = Offer { versions: &[&TLS12], ..Offer::to(&authority) }.caller();
    let new = Offer { versions: &[&TLS13], ..Offer::to(&authority) }.caller();
    let (lab12, at) = lab(&[("shop", &pair)], SHOP);
    assert_eq!(old.get(at, "shop.test", "/").unwrap().version(), "blue");
    assert_eq!(new.get(at, "shop.test", "/").unwrap().version(), "blue");
    drop(lab12);
    let (lab13, at) = lab(&[("shop", &pair)], &format!("{SHOP}, min_version = \"1.3\""));
    assert_eq!(new.get(at, "shop.test", "/").unwrap().version(), "blue");
    let refused = old.connect(at, "shop.test").err().expect("refused").to_string();
    assert!(refused.contains("ProtocolVersion"), "{refused}");
    wait_for_handshakes(&lab13, "incompatible", 1.0);
    assert_eq!(handshakes(&lab13, "full"), 1.0);
}

#[test]
fn only_the_ciphers_groups_and_protocols_of_the_list_are_agreed_on() {
    let authority = Authority::new("ca");
    let settings = format!(
        "{SHOP}, ciphers = [\"TLS_AES_128_GCM_SHA256\"], groups = [\"secp256r1\"], alpn = [\"http/1.1\"]"
    );
    let (lab, at) = lab(&[("shop", &authority.issue(&["shop.test"]))], &settings);
    let caller = Offer { alpn: &["h9", "http/1.1"], ..Offer::to(&authority) }.caller();
    let mut secure = caller.connect(at, "shop.test").unwrap();
    let agreed = secure.connection();
    assert_eq!(agreed.negotiated_cipher_suite().unwrap().suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(agreed.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::secp256r1);
    assert_eq!(agreed.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(secure.get("shop.test", "/").version(), "blue");
    let foreign = Offer { alpn: &["h9"], ..Offer::to(&authority) }.caller();
    assert!(foreign.connect(at, "shop.test").is_err(), "no protocol in common");
    let old = Offer { versions: &[&TLS12], ..Offer::to(&authority) }.caller();
    assert!(old.connect(at, "shop.test").is_err(), "no cipher suite of TLS 1.2 is listed");
    wait_for_handshakes(&lab, "incompatible", 2.0);
}

/// What a client agrees on that offers these, the most wanted first.
fn agreed(authority: &Authority, at: SocketAddr, suites: &[CipherSuite]) -> CipherSuite {
    let secure = Offer { suites, ..Offer::to(authority) }.caller().connect(at, "shop.test").unwrap();
    secure.connection().negotiated_cipher_suite().unwrap().suite()
}

#[test]
fn the_listeners_order_of_ciphers_decides_but_for_who_is_slow_with_aes() {
    use CipherSuite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 as OLD_AES_128,
        TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 as OLD_AES_256, TLS13_AES_128_GCM_SHA256 as AES_128,
        TLS13_AES_256_GCM_SHA384 as AES_256, TLS13_CHACHA20_POLY1305_SHA256 as CHACHA20,
    };
    let authority = Authority::new("ca");
    let pair = authority.issue(&["shop.test"]);
    let (_lab, at) = lab(&[("shop", &pair)], SHOP);
    assert_eq!(agreed(&authority, at, &[AES_256, CHACHA20, AES_128]), AES_128);
    assert_eq!(agreed(&authority, at, &[AES_256, CHACHA20]), AES_256);
    assert_eq!(agreed(&authority, at, &[OLD_AES_256, OLD_AES_128]), OLD_AES_128);
    assert_eq!(agreed(&authority, at, &[CHACHA20, AES_256, AES_128]), CHACHA20);
    let ordered = format!("{SHOP}, ciphers = [\"TLS_AES_256_GCM_SHA384\", \"TLS_AES_128_GCM_SHA256\"]");
    let (_lab, at) = lab(&[("shop", &pair)], &ordered);
    assert_eq!(agreed(&authority, at, &[AES_128, CHACHA20, AES_256]), AES_256);
    assert_eq!(agreed(&authority, at, &[CHACHA20, AES_128]), AES_128, "ChaCha20 is not listed");
}

#[test]
fn the_default_key_exchange_is_safe_from_quantum_computers() {
    let authority = Authority::new("ca");
    let (_lab, at) = lab(&[("shop", &authority.issue(&["shop.test"]))], SHOP);
    let secure = Caller::trusting(&authority).connect(at, "shop.test").unwrap();
    let group = secure.connection().negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
}

#[test]
fn an_ocsp_response_is_stapled() {
    let authority = Authority::new("ca");
    let settings = "certificates = [{ cert = \"shop.pem\", key = \"shop.key\", ocsp = \"shop.ocsp\" }]";
    let dir = tempfile::tempdir().unwrap();
    authority.issue(&["shop.test"]).write(dir.path(), "shop");
    fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    // A successful one without content: nobody but the client looks further.
    fs::write(dir.path().join("shop.ocsp"), [0x30, 3, 0x0a, 1, 0]).unwrap();
    let listener = format!(
        "[[listeners]]\nlisten = \"{LISTEN}\"\ntls = {{ {settings} }}\n[services.shop]\nroutes = [{{}}]\n\
         versions.blue.endpoints = [\"127.0.0.1:1\"]\n"
    );
    let lab = Lab::configured(dir, Vec::new(), &listener);
    let said = s_client(&lab, lab.bound(LISTEN), &["-status"]);
    assert!(said.contains("OCSP Response Status: successful"), "{said}");
}

/// A lab whose listener asks for clients' certificates.
fn lab_of_clients(authority: &Authority, clients: &Authority, auth: &str) -> (Lab, SocketAddr) {
    let settings = format!(
        "{SHOP}, client_auth = \"{auth}\", client_ca = \"clients.pem\", client_subject_header = \"x-client-subject\""
    );
    let ca = Pair { der: authority.issue(&[]).der, cert: clients.pem(), key: String::new() };
    let pairs = [("shop", &authority.issue(&["shop.test", "other.test"])), ("clients", &ca)];
    lab_with(&pairs, &settings, "", Origin::start("blue"))
}

const FORGED: &str = "GET /forged HTTP/1.1\r\nhost: shop.test\r\nx-client-subject: CN=root\r\n\
                      X-Client_Subject: CN=root\r\n\r\n";

#[test]
fn a_clients_certificate_can_be_required_and_endpoints_are_told_whose_it_was() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let (lab, at) = lab_of_clients(&authority, &clients, "required");
    for versions in [&[&TLS12], &[&TLS13]] {
        let shows = Some(&clients.client("alice"));
        let alice = Offer { versions, shows, ..Offer::to(&authority) }.caller();
        let mut secure = alice.connect(at, "shop.test").unwrap();
        assert_eq!(secure.send(FORGED).answer().version(), "blue");
        let seen = lab.origin("blue").seen().pop().unwrap();
        let told: Vec<_> = seen.headers.iter().filter(|(name, _)| name.contains("client")).collect();
        assert_eq!(told, [&("x-client-subject".to_owned(), r"CN=alice,O=Example\, Inc.".to_owned())]);
        assert_eq!(seen.header("x-forwarded-proto"), Some("https"));

        let stranger = Some(&Authority::new("clients").client("alice"));
        for shows in [None, stranger] {
            let caller = Offer { versions, shows, ..Offer::to(&authority) }.caller();
            assert!(caller.get(at, "shop.test", "/").is_err());
        }
    }
    wait_for_handshakes(&lab, "client_certificate", 4.0);
    assert_eq!(handshakes(&lab, "full"), 2.0);
    assert_eq!(lab.origin("blue").served(), 2);
}

#[test]
fn a_clients_certificate_can_be_optional_but_not_a_bad_one() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let (lab, at) = lab_of_clients(&authority, &clients, "optional");
    let mut anonymous = Caller::trusting(&authority).connect(at, "shop.test").unwrap();
    assert_eq!(anonymous.send(FORGED).answer().version(), "blue");
    assert_eq!(lab.origin("blue").seen().pop().unwrap().header("x-client-subject"), None);
    let stranger = Authority::new("strangers").client("alice");
    let stranger = Offer { shows: Some(&stranger), ..Offer::to(&authority) }.caller();
    assert!(stranger.get(at, "shop.test", "/").is_err());
    let alice = clients.client("alice");
    let alice = Offer { shows: Some(&alice), ..Offer::to(&authority) }.caller();
    alice.get(at, "shop.test", "/").unwrap();
    let seen = lab.origin("blue").seen().pop().unwrap();
    assert_eq!(seen.header("x-client-subject"), Some(r"CN=alice,O=Example\, Inc."));
}

#[test]
fn nobody_tells_a_subject_on_another_listener_either() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let (lab, _) = lab_of_clients(&authority, &clients, "required");
    assert_eq!(lab.client().send(FORGED).answer().version(), "blue");
    let seen = lab.origin("blue").seen().pop().unwrap();
    assert!(!seen.headers.iter().any(|(name, _)| name.contains("client")), "{:?}", seen.headers);
}

#[test]
fn no_rule_goes_by_a_subject_that_a_client_tells_himself() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let (lab, at) = lab_of_clients(&authority, &clients, "optional");
    let green = Origin::start("green");
    let pool = json!({ "endpoints": [green.address.to_string()] });
    assert_eq!(lab.call("PUT", "/v1/services/shop/versions/green", &pool).0, 200);
    let rule = |name: &str| json!({ "headers": { name: true }, "to": "green" });
    let rules = json!([rule("x-client-subject"), rule("x-client_subject"), rule("x-other")]);
    assert_eq!(lab.call("PUT", "/v1/services/shop/rules", &rules).0, 200);
    let mut secure = Caller::trusting(&authority).connect(at, "shop.test").unwrap();
    assert_eq!(secure.send(FORGED).answer().version(), "blue");
    assert_eq!(lab.client().send(FORGED).answer().version(), "blue");
    let other = FORGED.replace("/forged", "/other").replace("X-Client_Subject", "x-other");
    assert_eq!(lab.client().send(other).answer().version(), "green");
    let asked = json!({ "uri": "http://shop.test/", "headers": { "X-Client-Subject": "CN=root" } });
    let told = lab.call("POST", "/v1/explain", &asked).1;
    assert_eq!(
        (&told["version"], &told["taken_out"]),
        (&json!("blue"), &json!(["X-Client-Subject"])),
        "{told}"
    );
}

#[test]
fn a_request_for_another_host_than_the_handshakes_is_misdirected_where_clients_show_certificates() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let (lab, at) = lab_of_clients(&authority, &clients, "required");
    let alice = clients.client("alice");
    let alice = Offer { shows: Some(&alice), ..Offer::to(&authority) }.caller();
    let mut secure = alice.connect(at, "shop.test").unwrap();
    for host in ["shop.test", "SHOP.test:443", "shop.test."] {
        assert_eq!(secure.get(host, "/").status, 200, "{host}");
    }
    let refused = secure.get("other.test", "/");
    assert_eq!((refused.status, refused.header("switchback-reason")), (421, Some("misdirected_request")));
    assert_eq!(secure.get("shop.test", "/").status, 200, "the connection is as good as before");
    assert_eq!(lab.origin("blue").served(), 4);
}

#[test]
fn a_stream_for_another_host_than_the_handshakes_is_misdirected_and_its_connection_is_not() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let (lab, at) = lab_of_clients(&authority, &clients, "required");
    let alice = clients.client("alice");
    let alice = Offer { shows: Some(&alice), alpn: &["h2"], ..Offer::to(&authority) }.caller();
    lab::http2::run(async {
        let client = Http2::secure(at, &alice, "shop.test").await;
        let to = |host| http::Request::get(format!("https://{host}/")).body(()).unwrap();
        let refused = client.ask(to("other.test")).await;
        assert_eq!((refused.status, refused.header("switchback-reason")), (421, Some("misdirected_request")));
        assert_eq!(client.ask(to("shop.test:443")).await.status, 200);
    });
    assert_eq!(lab.origin("blue").served(), 1);
}

#[test]
fn without_clients_certificates_one_connection_may_be_for_several_hosts() {
    let authority = Authority::new("ca");
    let (_lab, at) = lab(&[("shop", &authority.issue(&["shop.test"]))], SHOP);
    let mut secure = Caller::trusting(&authority).connect(at, "shop.test").unwrap();
    assert_eq!(secure.get("other.test", "/").status, 200);
}

#[test]
fn a_session_is_resumed_on_any_worker() {
    let authority = Authority::new("ca");
    let (lab, at) = lab(&[("shop", &authority.issue(&["shop.test"]))], SHOP);
    for versions in [&[&TLS12], &[&TLS13]] {
        let caller = Offer { versions, ..Offer::to(&authority) }.caller();
        // The lab has two workers: eight connections do not all come to the same one.
        for round in 0..8 {
            let mut secure = caller.connect(at, "shop.test").unwrap();
            assert_eq!(secure.get("shop.test", "/").status, 200);
            assert_eq!(secure.is_resumed(), round > 0, "{versions:?} {round}");
        }
    }
    assert_eq!((handshakes(&lab, "full"), handshakes(&lab, "resumed")), (2.0, 14.0));
}

#[test]
fn one_ticket_is_given_or_none() {
    let authority = Authority::new("ca");
    let pair = authority.issue(&["shop.test"]);
    for (settings, tickets) in [(SHOP.to_owned(), 1), (format!("{SHOP}, tickets = false"), 0)] {
        let (_lab, at) = lab(&[("shop", &pair)], &settings);
        let caller = Caller::trusting(&authority);
        for _ in 0..2 {
            let mut secure = caller.connect(at, "shop.test").unwrap();
            assert_eq!(secure.get("shop.test", "/").status, 200);
            assert_eq!(secure.connection().tls13_tickets_received(), tickets);
            assert!(tickets > 0 || !secure.is_resumed());
        }
    }
}

/// RFC 8446 §4.6.1 lets a client try a ticket under any name that its certificate is for; OpenSSL does as it is told.
fn resumes(
    lab: &Lab,
    from: (SocketAddr, &str),
    to: (SocketAddr, &str),
    version: &str,
    extra: &[&str],
) -> bool {
    let file = lab.dir.path().join("session");
    let _ = fs::remove_file(&file);
    let run = |(at, name): (SocketAddr, &str), args: &[&str]| {
        let mut child = Command::new("openssl")
            .args(["s_client", version, "-ign_eof", "-connect", &at.to_string(), "-servername", name])
            .args(args)
            .args(extra)
            .current_dir(lab.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl: apt-get install openssl");
        // The answer comes after the ticket.
        let request = format!("GET / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
        let _ = child.stdin.take().unwrap().write_all(request.as_bytes());
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let first = run(from, &["-sess_out", "session"]);
    assert!(first.contains("New, TLS") && file.exists(), "{first}");
    run(to, &["-sess_in", "session"]).contains("Reused, TLS")
}

#[test]
fn a_session_is_not_good_for_another_name_or_listener() {
    let authority = Authority::new("ca");
    let pair = authority.issue(&["shop.test", "other.test"]);
    let second = format!("[[listeners]]\nlisten = \"127.0.0.3:0\"\ntls = {{ {SHOP} }}");
    let (lab, at) = lab_with(&[("shop", &pair)], SHOP, &second, Origin::start("blue"));
    let elsewhere = lab.bound("127.0.0.3:0");
    for version in ["-tls1_2", "-tls1_3"] {
        assert!(resumes(&lab, (at, "shop.test"), (at, "shop.test"), version, &[]), "{version}");
        assert!(!resumes(&lab, (at, "shop.test"), (at, "other.test"), version, &[]), "{version}");
        assert!(!resumes(&lab, (at, "shop.test"), (elsewhere, "shop.test"), version, &[]), "{version}");
    }
}

#[test]
fn a_session_from_a_listener_without_clients_certificates_opens_no_other() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let ca = Pair { der: authority.issue(&[]).der, cert: clients.pem(), key: String::new() };
    let pair = authority.issue(&["shop.test"]);
    let locked = format!(
        "[[listeners]]\nlisten = \"127.0.0.3:0\"\n\
         tls = {{ {SHOP}, client_auth = \"required\", client_ca = \"clients.pem\" }}"
    );
    let (lab, open) = lab_with(&[("shop", &pair), ("clients", &ca)], SHOP, &locked, Origin::start("blue"));
    clients.client("alice").write(lab.dir.path(), "alice");
    let locked = lab.bound("127.0.0.3:0");
    for version in ["-tls1_2", "-tls1_3"] {
        assert!(!resumes(&lab, (open, "shop.test"), (locked, "shop.test"), version, &[]), "{version}");
        let shows = ["-cert", "alice.pem", "-key", "alice.key"];
        assert!(resumes(&lab, (locked, "shop.test"), (locked, "shop.test"), version, &shows), "{version}");
    }
    wait_for_handshakes(&lab, "client_certificate", 2.0);
}
