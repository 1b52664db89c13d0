//! Endpoints that are given by name, and a name server that changes its mind or fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::thread;

use lab::Lab;
use lab::dns::{NameServer, Record};

/// Two machines that listen on the same port; each says which it is, and keeps no connection.
fn machines(addresses: [Ipv4Addr; 2]) -> u16 {
    let (first, second) = loop {
        let first = TcpListener::bind((addresses[0], 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = TcpListener::bind((addresses[1], port)) {
            break (first, second);
        }
    };
    let port = first.local_addr().unwrap().port();
    for listener in [first, second] {
        thread::spawn(move || {
            let text = listener.local_addr().unwrap().ip().to_string();
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    head.push(byte[0]);
                }
                let length = text.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{text}"
                );
            }
        });
    }
    port
}

fn config(servers: &[&NameServer], port: u16) -> String {
    let servers: Vec<_> = servers.iter().map(|server| server.address.to_string()).collect();
    format!(
        "[proxy]\nname_servers = {servers:?}\n[services.shop]\nroutes = [{{ path = \"/\" }}]\n\
         [services.shop.versions.blue]\nendpoints = [\"shop.internal:{port}\"]\n"
    )
}

fn lookups(lab: &Lab, result: &str) -> f64 {
    lab.metric(&["switchback_name_lookups_total{", "shop.internal", result]).unwrap_or_default()
}

#[test]
fn a_name_is_looked_up_again_and_its_last_good_address_is_kept() {
    let [one, other] = [1, 9].map(|last| Ipv4Addr::new(127, 0, 0, last));
    let (port, server) = (machines([one, other]), NameServer::start(&[Record::Address(one)]));
    let lab = Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &config(&[&server], port));
    let answers = |address: Ipv4Addr| lab.get("/").text() == IpAddr::from(address).to_string();
    assert!(answers(one));
    server.say(Some(&[Record::Address(other)]));
    lab::wait_until("the name's new address is used", || answers(other));
    assert_eq!(lookups(&lab, "failed"), 0.0);
    server.say(None);
    lab::wait_until("the name server has failed", || lookups(&lab, "failed") > 0.0);
    for _ in 0..10 {
        assert!(answers(other), "what was known last is used on");
    }
    // Another name server, which knows better.
    lab.write_config(&config(&[&NameServer::start(&[Record::Address(one)])], port));
    lab::wait_until("the other name server is asked", || answers(one));
    assert!(lookups(&lab, "found") >= 3.0);
    assert!(lab.proxy().log().contains("a name is resolved again"));
}

#[test]
fn a_name_that_nobody_knew_is_asked_for_again_whatever_the_name_server_says() {
    let address = Ipv4Addr::new(127, 0, 0, 1);
    let (port, server) = (machines([address, Ipv4Addr::new(127, 0, 0, 9)]), NameServer::start(&[]));
    let lab = Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &config(&[&server], port));
    lab::wait_until("the name has no address", || lookups(&lab, "failed") > 0.0);
    server.say(Some(&[Record::Address(address)]));
    lab::wait_until("it has one", || lookups(&lab, "found") > 0.0);
    assert_eq!(lab.get("/").status, 200);
}

#[test]
fn a_name_may_have_underscores() {
    let address = Ipv4Addr::new(127, 0, 0, 1);
    let (port, server) =
        (machines([address, Ipv4Addr::new(127, 0, 0, 9)]), NameServer::start(&[Record::Address(address)]));
    let services = config(&[&server], port).replace("shop.internal", "shop_web_1.internal");
    let lab = Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &services);
    assert_eq!(lab.get("/").text(), address.to_string());
}

#[test]
fn whoever_waits_for_an_endpoint_asks_the_name_servers_that_requests_ask() {
    let address = Ipv4Addr::new(127, 0, 0, 1);
    let (port, server) =
        (machines([address, Ipv4Addr::new(127, 0, 0, 9)]), NameServer::start(&[Record::Address(address)]));
    let lab = Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &config(&[&server], port));
    let [first, second] = ["green", "cyan"].map(|name| format!("{name}.internal:{port}"));
    let deploy = ["deploy", "shop", "--version", "green", "--timeout", "10s", "--endpoint", &first];
    let (code, out, err) = lab.cli(&deploy);
    assert_eq!(code, 0, "{out}{err}");
    let pair = format!("{first}={second}");
    let (code, out, err) =
        lab.cli(&["rollout", "shop", "--replace", &pair, "--surge", "--ready-timeout", "10s"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn a_name_that_nobody_knows_is_a_failure_to_connect() {
    let server = NameServer::start(&[]);
    server.say(None);
    let lab = Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &config(&[&server], 1));
    let answer = lab.get("/");
    assert_eq!((answer.status, answer.header("switchback-reason")), (503, Some("connect_failed")));
    assert!(lookups(&lab, "failed") > 0.0);
}
