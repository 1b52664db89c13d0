//! Events are told by HTTP: signed, retried, bounded, and without anybody waiting for the receiver.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lab::dns::{NameServer, Record};
use lab::origin::{Seen, Then};
use lab::preload::Preload;
use lab::tls::Authority;
use lab::{Gate, Lab, Origin, Proxy};
use serde_json::Value;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Answers its first requests with these statuses, and all others with 204.
fn receiver(first: &'static [&'static str]) -> Origin {
    let count = AtomicUsize::new(0);
    Origin::behaving("receiver", move |_, stream| {
        let status = first.get(count.fetch_add(1, Ordering::SeqCst)).unwrap_or(&"204 No Content");
        write!(stream, "HTTP/1.1 {status}\r\n\r\n")?;
        Ok(Then::Close)
    })
}

fn webhook(receiver: &Origin, more: &str) -> String {
    format!("[[webhooks]]\nname = \"ci\"\nurl = \"http://{}/hook?a=b\"\n{more}\n", receiver.address)
}

fn event(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body).expect("JSON")
}

fn delivered(lab: &Lab, result: &str) -> f64 {
    lab.metric(&["switchback_webhook_deliveries_total", "\"ci\"", &format!("\"{result}\"")]).unwrap()
}

/// What another implementation says of the signature of a delivery.
fn signature_of(seen: &Seen) -> String {
    let program = "import base64, hashlib, hmac, sys\n\
        key = base64.b64decode(sys.argv[1].removeprefix('whsec_'))\n\
        signed = f'{sys.argv[2]}.{sys.argv[3]}.'.encode() + sys.stdin.buffer.read()\n\
        print('v1,' + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode())\n";
    let (id, time) = (seen.header("webhook-id").unwrap(), seen.header("webhook-timestamp").unwrap());
    let mut child = Command::new("python3")
        .args(["-c", program, SECRET, id, time])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    child.stdin.take().unwrap().write_all(&seen.body).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn a_flip_is_told_as_a_signed_cloud_event_and_again_until_it_is_taken() {
    let receiver = receiver(&["503 Service Unavailable\r\nretry-after: 0", "500 Internal Server Error"]);
    let lab = Lab::with(&["blue", "green"], &webhook(&receiver, &format!("secret = \"{SECRET}\"")));
    let mut events = lab.events();
    lab.flip("green");
    let changed = events.change();
    lab::wait_until("both events are delivered", || delivered(&lab, "delivered") == 2.0);
    let seen = receiver.seen();
    assert_eq!(seen.len(), 4, "two that failed, the third attempt, and the second event");
    let told = event(&seen[2]);
    assert_eq!(told["specversion"], "1.0");
    assert_eq!(told["type"], "switchback.changed");
    assert_eq!(told["subject"], "shop");
    assert_eq!(told["data"]["change"], changed);
    for attempt in &seen[..3] {
        assert_eq!(attempt.line, "POST /hook?a=b HTTP/1.1");
        assert_eq!(attempt.header("content-type"), Some("application/cloudevents+json; charset=utf-8"));
        assert_eq!(attempt.header("host"), Some(&*receiver.address.to_string()));
        assert_eq!(attempt.body, seen[2].body, "each attempt is the same event");
        assert_eq!(attempt.header("webhook-id"), told["id"].as_str());
        assert_eq!(attempt.header("webhook-signature"), Some(&*signature_of(attempt)));
    }
    assert_eq!(event(&seen[3])["type"], "switchback.drained");
    assert_eq!(event(&seen[3])["subject"], "shop/blue");
    assert_ne!(event(&seen[3])["id"], told["id"]);
    assert_eq!((delivered(&lab, "failed"), delivered(&lab, "dropped")), (0.0, 0.0));
}

#[test]
fn an_event_that_nobody_takes_is_given_up_counted_and_logged_and_the_next_one_is_tried() {
    let receiver = receiver(&["500 No", "500 No", "410 Gone"]);
    let lab = Lab::with(&["blue", "green"], &webhook(&receiver, "attempts = 2\nevents = [\"changed\"]"));
    lab.flip("green");
    lab::wait_until("the first is given up", || delivered(&lab, "failed") == 1.0);
    lab.flip("blue");
    lab::wait_until("the second is given up at once", || delivered(&lab, "failed") == 2.0);
    lab.flip("green");
    lab::wait_until("the third is taken", || delivered(&lab, "delivered") == 1.0);
    assert_eq!(receiver.served(), 4);
    let log = lab.proxy().log();
    assert_eq!(log.matches("an event could not be delivered; it is lost").count(), 2, "{log}");
    assert!(receiver.seen().iter().all(|seen| seen.header("webhook-signature").is_none()));
}

#[test]
fn a_receiver_that_never_answers_delays_nothing_and_loses_its_oldest_events() {
    let gate = Gate::default();
    let held = gate.clone();
    let receiver = Origin::behaving("receiver", move |_, stream| {
        held.wait();
        write!(stream, "HTTP/1.1 204 No Content\r\n\r\n")?;
        Ok(Then::Close)
    });
    let lab = Lab::with(&["blue", "green"], &webhook(&receiver, "events = [\"changed\"]\ntimeout = \"5m\""));
    lab.flip("green");
    receiver.wait_served(1);
    // Every hold and release is an event.
    for _ in 0..600 {
        lab.hold(&Value::Null);
        lab.release();
    }
    lab::wait_until("all have come", || delivered(&lab, "dropped") == 1201.0 - 1024.0);
    assert_eq!(lab.metric(&["switchback_webhook_waiting", "\"ci\""]), Some(1024.0), "the outbox is full");
    gate.open();
    lab::wait_until("all that was kept is delivered", || delivered(&lab, "delivered") == 1024.0);
    let epochs: Vec<_> =
        receiver.seen().iter().map(|seen| event(seen)["data"]["change"]["epoch"].as_u64()).collect();
    assert!(epochs.is_sorted(), "one after the other, in their order");
    assert_eq!(epochs.last().unwrap(), &Some(lab.epoch()));
}

#[test]
fn an_event_is_taken_when_the_answers_head_says_so_however_its_body_ends() {
    let gate = Gate::default();
    let held = gate.clone();
    let receiver = Origin::behaving("receiver", move |_, stream| {
        // Without a length, and it goes on.
        write!(stream, "HTTP/1.1 200 OK\r\n\r\nthank you")?;
        held.wait();
        Ok(Then::Close)
    });
    let lab = Lab::with(
        &["blue", "green"],
        &webhook(&receiver, "events = [\"changed\"]\ntimeout = \"200ms\"\nattempts = 2"),
    );
    lab.flip("green");
    lab::wait_until("it is over", || delivered(&lab, "delivered") + delivered(&lab, "failed") == 1.0);
    assert_eq!((delivered(&lab, "delivered"), receiver.served()), (1.0, 1), "{}", lab.proxy().log());
    gate.open();
}

#[test]
fn a_url_with_a_query_and_no_path_is_the_root() {
    let receiver = receiver(&[]);
    let url = format!("http://{}?token=x", receiver.address);
    let lab = Lab::with(&["blue", "green"], &format!("[[webhooks]]\nname = \"ci\"\nurl = \"{url}\"\n"));
    lab.flip("green");
    lab::wait_until("it is delivered", || delivered(&lab, "delivered") > 0.0);
    assert_eq!(receiver.seen()[0].line, "POST /?token=x HTTP/1.1");
}

#[test]
fn webhooks_follow_the_file_and_what_waits_is_kept() {
    let [first, second] = [receiver(&[]), receiver(&[])];
    let dead = lab::origin::nobody();
    let lab = Lab::with(&["blue", "green"], "");
    let services = fs::read_to_string(lab.config()).unwrap();
    let services = &services[services.find("[services.shop]").unwrap()..];
    let mut events = lab.events();
    // A file that changes no service is no change: the log says when it is in force.
    let reloads = |lab: &Lab| lab.proxy().log().matches("configuration read").count();
    let put = |text: &str| {
        let before = reloads(&lab);
        lab.write_config(&format!("{text}\n{services}"));
        lab::wait_until("the file is read", || reloads(&lab) > before);
    };
    put(&format!(
        "[[webhooks]]\nname = \"ci\"\nurl = \"http://{dead}/\"\nattempts = 100\nevents = [\"changed\"]"
    ));
    lab.flip("green");
    events.change();
    put(&webhook(&first, "attempts = 100\nevents = [\"changed\"]"));
    first.wait_served(1);
    assert_eq!(event(&first.seen()[0])["data"]["change"]["kind"], "flip", "it had waited for another place");
    put(&format!(
        "[[webhooks]]\nurl = \"http://{}/\"\nservices = \"sh*\"\n[[webhooks]]\nname = \"other\"\nurl = \"http://{}/\"\nservices = [\"cart\"]",
        second.address, first.address
    ));
    lab.flip("blue");
    second.wait_served(2);
    assert_eq!(first.served(), 1, "it is gone, and the other one is about another service");
    assert_eq!(delivered_by(&lab, &second.address.to_string()), 2.0);
}

fn delivered_by(lab: &Lab, name: &str) -> f64 {
    let mut count = None;
    lab::wait_until("it is counted", || {
        count = lab.metric(&["switchback_webhook_deliveries_total", &format!("\"{name}\""), "\"delivered\""]);
        count.is_some_and(|count| count > 1.0)
    });
    count.unwrap()
}

#[test]
fn a_receiver_over_tls_has_to_be_who_it_should_be() {
    const LISTEN: &str = "127.0.0.2:0";
    let (authority, stranger) = (Authority::new("ca"), Authority::new("other"));
    let (dir, receiver) = (tempfile::tempdir().unwrap(), receiver(&[]));
    authority.issue(&["127.0.0.2"]).write(dir.path(), "hook");
    let front = format!(
        "[[listeners]]\nlisten = \"{LISTEN}\"\ntls = {{ certificates = [{{ cert = \"hook.pem\", key = \"hook.key\" }}] }}\n\
         [services.hook]\nroutes = [{{ path = \"/\" }}]\nversions.v1.endpoints = [\"{}\"]\n",
        receiver.address
    );
    let front = Lab::configured(dir, vec![receiver], &front);
    let at = front.bound(LISTEN);
    let files = Arc::new(tempfile::tempdir().unwrap());
    fs::write(files.path().join("ca.pem"), authority.pem()).unwrap();
    fs::write(files.path().join("other.pem"), stranger.pem()).unwrap();
    fs::write(files.path().join("secret"), format!("{SECRET}\n")).unwrap();
    let hook = |name: &str, ca: &str| {
        let dir = files.path().display();
        format!(
            "[[webhooks]]\nname = \"{name}\"\nurl = \"https://{at}/\"\nca = \"{dir}/{ca}.pem\"\nattempts = 1\nsecret_file = \"{dir}/secret\"\n"
        )
    };
    let lab = Lab::with(&["blue", "green"], &(hook("ci", "ca") + &hook("stranger", "other")));
    lab.hold(&Value::Null);
    lab::wait_until("it is delivered", || delivered(&lab, "delivered") == 1.0);
    lab.wait_for_metric(&["switchback_webhook_deliveries_total", "\"stranger\"", "\"failed\""], 1.0);
    let seen = front.origin("receiver").seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("webhook-signature"), Some(&*signature_of(&seen[0])));
    lab.release();
}

/// Two versions, and a receiver that is given by name, which this name server is asked for.
fn named(server: impl ToString, port: u16) -> Lab {
    let server = server.to_string();
    let more = format!(
        "[proxy]\nname_servers = [{server:?}]\n[[webhooks]]\nname = \"ci\"\nurl = \"http://Hook.internal:{port}/\"\n"
    );
    Lab::with(&["blue", "green"], &more)
}

#[test]
fn a_receivers_name_is_asked_of_the_name_servers_that_endpoints_names_are() {
    let (receiver, server) = (receiver(&[]), NameServer::start(&[Record::Address(Ipv4Addr::LOCALHOST)]));
    let lab = named(server.address, receiver.address.port());
    lab.flip("green");
    lab::wait_until("it is delivered", || delivered(&lab, "delivered") > 0.0);
    let found = lab.metric(&["switchback_name_lookups_total{", "hook.internal", "found"]);
    assert!(found > Some(0.0));
}

#[test]
fn a_name_server_that_never_answers_keeps_no_process_from_its_end() {
    const ASKS_FOR_EVER: &str = "#include <unistd.h>\nint getaddrinfo(void) { for (;;) pause(); }";
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut lab = named(silent.local_addr().unwrap(), 1);
    // Nor does the system's way to ask end.
    let library = Preload::compile(lab.dir.path(), ASKS_FOR_EVER).variable();
    assert!(lab.proxy.take().unwrap().stop().0.success());
    let proxy = Proxy::start_as(&["env", &library], &["--workers", "2"], &lab.config(), &lab.socket());
    lab.proxy = Some(proxy.unwrap_or_else(|log| panic!("the proxy did not start:\n{log}")));
    lab.flip("green");
    lab.wait_for_metric_above(&["switchback_webhook_waiting", "\"ci\""], 0.0);
    let (status, log) = lab.proxy.take().unwrap().stop();
    assert!(status.success() && log.contains("events were not delivered any more"), "{log}");
}

#[test]
fn a_receiver_that_sends_interim_answers_without_end_delays_nothing_and_is_given_up() {
    let receiver = Origin::never_comes_to_the_point("receiver");
    let settings = "events = [\"changed\"]\ntimeout = \"5m\"\nattempts = 1";
    let lab = Lab::with(&["blue", "green"], &webhook(&receiver, settings));
    lab.flip("green");
    lab::wait_until("it is given up", || delivered(&lab, "failed") == 1.0);
    let log = lab.proxy().log();
    assert!(log.contains("the answer does not end within 128 KiB"), "{log}");
}
