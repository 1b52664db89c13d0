//! TLS towards endpoints: they are who they should be, or get no request.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::{fs, thread};

use lab::dns::{NameServer, Record};
use lab::{Answer, Lab};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

/// Signs certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate and its key, as PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// An origin over TLS that answers with what it saw of the connection: name, protocol, certificate, kind of handshake.
fn secure(authority: &Authority, name: &str, clients: Option<&Authority>, alpn: &[&str]) -> SocketAddr {
    let (certificate, key) = authority.issue(name);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, config) = (listener.local_addr().unwrap(), Arc::new(config));
    thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            thread::spawn(move || answer(StreamOwned::new(session, tcp)));
        }
    });
    address
}

fn answer(mut stream: StreamOwned<ServerConnection, TcpStream>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        head.clear();
        let session = &stream.conn;
        let alpn = session.alpn_protocol().map(String::from_utf8_lossy);
        let body = format!(
            "{} {} {} {:?}",
            session.server_name().unwrap_or("-"),
            alpn.as_deref().unwrap_or("-"),
            session.peer_certificates().map_or(0, <[_]>::len),
            session.handshake_kind().unwrap()
        );
        if write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).is_err() {
            return;
        }
    }
}

fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).unwrap();
}

fn config(endpoint: impl std::fmt::Display, protocol: &str, tls: &str) -> String {
    format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n[services.shop.versions.blue]\n\
         endpoints = [\"{endpoint}\"]\nprotocol = \"{protocol}\"\n{tls}\n"
    )
}

/// The proxy in front of such an origin; `files` are beside its configuration.
fn lab(endpoint: impl std::fmt::Display, tls: &str, files: &[(&str, &str)]) -> Lab {
    let dir: TempDir = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, text)| write(dir.path(), name, text));
    Lab::configured(dir, Vec::new(), &config(endpoint, "https", tls))
}

fn failed(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.header("switchback-reason").unwrap_or(""))
}

#[test]
fn an_endpoint_is_verified_by_its_name_and_spoken_to_over_tls() {
    let authority = Authority::new();
    let origin = secure(&authority, "localhost", None, &["h2", "http/1.1"]);
    let lab = lab(
        format!("localhost:{}", origin.port()),
        "tls = { ca = \"ca.pem\" }",
        &[("ca.pem", &authority.pem)],
    );
    let mut client = lab.client();
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!(
            (answer.status, answer.text().split(' ').collect::<Vec<_>>()[..3].to_vec()),
            (200, vec!["localhost", "http/1.1", "0"])
        );
    }
    let found = lab.metric(&["switchback_name_lookups_total{", "localhost", "found"]);
    assert!(found.is_some_and(|found| found > 0.0), "{found:?}");
}

#[test]
fn an_endpoint_that_is_given_by_address_is_verified_by_address_or_by_the_name_that_is_said() {
    let authority = Authority::new();
    let origin = secure(&authority, "127.0.0.1", None, &[]);
    let files = [("ca.pem", authority.pem.as_str())];
    assert_eq!(lab(origin, "tls = { ca = \"ca.pem\" }", &files).get("/").status, 200);
    let origin = secure(&authority, "shop.internal", None, &[]);
    let lab = lab(origin, "tls = { ca = \"ca.pem\", server_name = \"shop.internal\" }", &files);
    assert!(lab.get("/").text().starts_with("shop.internal - 0 "));
}

#[test]
fn an_endpoint_that_does_not_prove_who_it_is_gets_no_request() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let origin = secure(&authority, "other.internal", None, &[]);
    for (tls, ca) in [
        ("tls = { ca = \"ca.pem\" }", &authority),
        ("tls = { ca = \"ca.pem\", server_name = \"shop.internal\" }", &authority),
        ("tls = { ca = \"ca.pem\", server_name = \"other.internal\" }", &stranger),
        ("tls = { server_name = \"other.internal\" }", &authority),
        ("", &authority),
    ] {
        let lab = lab(origin, tls, &[("ca.pem", &ca.pem)]);
        assert_eq!(failed(&lab.get("/")), (502, "upstream_tls"), "{tls}");
        lab.proxy().wait_for_log("the TLS handshake with an endpoint failed");
        let counted = lab.metric(&["switchback_upstream_requests_total{", "reason=\"upstream_tls\""]);
        assert_eq!(counted, Some(1.0));
    }
    let believed = lab(origin, "tls = { verify = false }", &[]);
    assert_eq!(believed.get("/").status, 200);
}

#[test]
fn an_endpoint_that_accepts_and_does_no_tls_costs_of_the_budget() {
    let origin = secure(&Authority::new(), "localhost", None, &[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let closing = listener.local_addr().unwrap();
    thread::spawn(move || while listener.accept().is_ok() {});
    let rules = "tls = { verify = false }\noutliers = false\nretries = { min_per_second = 0 }";
    let mut lab = lab(format!("{closing}\", \"{origin}"), rules, &[]);
    lab.restrict_to_one_worker();
    let mut user = lab.client();
    let gave_up = (0..100).filter(|_| failed(&user.post("/", b"")) == (502, "upstream_tls")).count();
    let again = lab.metric(&["switchback_retries_total{", "outcome=\"answered\""]).unwrap();
    assert!(gave_up > 0 && (1.0..=20.0).contains(&again), "{gave_up} were given up, {again} made good");
}

#[test]
fn an_endpoint_that_speaks_no_tls_or_says_nothing_is_given_up() {
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = plain.local_addr().unwrap();
    thread::spawn(move || {
        for mut tcp in plain.incoming().map_while(Result::ok) {
            let _ = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ = tcp.read(&mut [0; 4096]);
        }
    });
    assert_eq!(failed(&lab(address, "", &[]).get("/")), (502, "upstream_tls"));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut text = config(silent.local_addr().unwrap(), "https", "");
    text = text.replace("stable = \"blue\"", "timeouts = { connect = \"200ms\" }");
    let lab = Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &text);
    assert_eq!(failed(&lab.get("/")), (504, "connect_timeout"));
}

#[test]
fn a_certificate_is_shown_to_an_endpoint_that_asks_for_one() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let origin = secure(&authority, "localhost", Some(&clients), &[]);
    let endpoint = format!("localhost:{}", origin.port());
    let (certificate, key) = clients.issue("proxy");
    let files = [("ca.pem", authority.pem.as_str()), ("proxy.pem", &certificate), ("proxy.key", &key)];
    let shown = "tls = { ca = \"ca.pem\", client_cert = \"proxy.pem\", client_key = \"proxy.key\" }";
    assert!(lab(&endpoint, shown, &files).get("/").text().starts_with("localhost - 1 "));
    let without = lab(&endpoint, "tls = { ca = \"ca.pem\" }", &files);
    assert_eq!(without.get("/").status, 502);
}

#[test]
fn sessions_are_resumed() {
    let authority = Authority::new();
    let origin = secure(&authority, "localhost", None, &[]);
    let endpoint = format!("localhost:{}", origin.port());
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "ca.pem", &authority.pem);
    let text = config(endpoint, "https", "tls = { ca = \"ca.pem\" }");
    let lab = Lab::configured(dir, Vec::new(), &format!("[limits]\npool_size = 0\n{text}"));
    assert!(lab.get("/").text().ends_with("Full"));
    assert!(lab.get("/").text().ends_with("Resumed"));
}

#[test]
fn another_certificate_on_a_reload_is_the_one_that_counts() {
    let (old, new) = (Authority::new(), Authority::new());
    let origin = secure(&new, "localhost", None, &[]);
    let endpoint = format!("localhost:{}", origin.port());
    let mut lab = lab(&endpoint, "tls = { ca = \"ca.pem\" }", &[("ca.pem", &old.pem)]);
    lab.expected_errors = vec!["the configuration is not used", "has no certificate"];
    assert_eq!(failed(&lab.get("/")), (502, "upstream_tls"));
    write(lab.dir.path(), "ca.pem", &new.pem);
    // It is watched.
    lab::wait_until("the new authority is believed", || lab.get("/").status == 200);
    // A file that is broken changes nothing.
    write(lab.dir.path(), "ca.pem", "nonsense");
    lab.proxy().wait_for_log("has no certificate");
    assert_eq!(lab.get("/").status, 200);
}

#[test]
fn what_a_certificate_says_is_no_line_of_the_log() {
    let authority = Authority::new();
    let origin = secure(&authority, "other\nINFO changed epoch=99\x1b[2J", None, &[]);
    let lab = lab(origin, "tls = { ca = \"ca.pem\" }", &[("ca.pem", &authority.pem)]);
    assert_eq!(failed(&lab.get("/")), (502, "upstream_tls"));
    lab.proxy().wait_for_log("the TLS handshake with an endpoint failed");
    let log = lab.proxy().log();
    assert!(log.contains(r"other\nINFO changed epoch=99"), "{log}");
    assert!(!log.contains('\x1b') && !log.contains("\nINFO"), "{log}");
}

#[test]
fn addresses_are_verified_by_the_name_that_they_are_discovered_by() {
    let authority = Authority::new();
    let origin = secure(&authority, "shop.internal", None, &["http/1.1"]);
    let server = NameServer::start(&[Record::Address(Ipv4Addr::LOCALHOST)]);
    let config = |tls: &str| {
        format!(
            "[proxy]\nname_servers = [\"{}\"]\n[services.shop]\nroutes = [{{ path = \"/\" }}]\n\
             health = {{ path = \"/\", interval = \"100ms\" }}\n[services.shop.versions.blue]\nprotocol = \"https\"\n\
             discover = {{ dns = \"shop.internal:{}\" }}\ntls = {{ ca = \"ca.pem\"{tls} }}\n",
            server.address,
            origin.port()
        )
    };
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "ca.pem", &authority.pem);
    let lab = Lab::configured(dir, Vec::new(), &config(""));
    lab::wait_until("it is found", || lab.get("/").status == 200);
    assert!(lab.get("/").text().starts_with("shop.internal "));
    lab.wait_for_metric_above(&["switchback_health_checks_total{", "\"well\""], 0.0);
    lab.write_config(&config(", server_name = \"other.internal\""));
    lab::wait_until("what is said of it comes first", || lab.get("/").status != 200);
}
