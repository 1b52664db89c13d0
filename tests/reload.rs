//! The file's rule: it says what exists, the store says where the traffic goes; a bad file changes nothing (G7), a good one
//! takes effect without a dropped connection (G2).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use lab::frames::PING;
use lab::origin::Seen;
use lab::{Client, Frames, Gate, Lab, Origin, Proxy, gate};
use serde_json::{Value, json};

/// `[services.NAME]` at `/NAME` with these versions; the first one is stable.
fn service(name: &str, versions: &[(&str, SocketAddr)]) -> String {
    let path = if name == "shop" { "/".to_owned() } else { format!("/{name}") };
    let head =
        format!("[services.{name}]\nroutes = [{{ path = \"{path}\" }}]\nstable = \"{}\"\n", versions[0].0);
    versions.iter().fold(head, |text, (version, at)| {
        format!("{text}[services.{name}.versions.{version}]\nendpoints = [\"{at}\"]\n")
    })
}

/// `shop` as [`Lab::start`] made it.
fn shop(lab: &Lab) -> String {
    let versions: Vec<_> = lab.origins.iter().map(|origin| (&*origin.name, origin.address)).collect();
    service("shop", &versions)
}

/// `shop`, and `cart` on the first origin.
fn shop_and_cart(lab: &Lab) -> String {
    shop(lab) + &service("cart", &[("v1", lab.origins[0].address)])
}

fn has_cart(lab: &Lab) -> bool {
    lab.call("GET", "/v1/services/cart", &Value::Null).0 == 200
}

#[test]
fn a_file_that_is_written_in_place_is_read() {
    let lab = Lab::start(&["blue"]);
    let mut events = lab.events();
    let text = fs::read_to_string(lab.config()).unwrap();
    fs::write(lab.config(), text + &service("cart", &[("v1", lab.origins[0].address)])).unwrap();
    let change = events.change();
    assert_eq!((&change["kind"], &change["actor"]["kind"]), (&json!("configure"), &json!("file")));
    assert_eq!(change["actor"]["name"], lab.config().display().to_string());
    assert_eq!(lab.get("/cart").version(), "blue");
}

#[test]
fn a_file_that_is_put_in_its_place_is_read_again_and_again() {
    let lab = Lab::start(&["blue"]);
    let mut events = lab.events();
    for _ in 0..3 {
        lab.write_config(&shop_and_cart(&lab));
        events.change();
        assert!(has_cart(&lab));
        lab.write_config(&shop(&lab));
        events.change();
        assert!(!has_cart(&lab));
    }
}

/// Puts `text` where Kubernetes puts a ConfigMap: in a directory of its own, to which `..data` is then turned.
fn mount(dir: &Path, round: u32, text: &str) {
    let own = format!("..{round}");
    fs::create_dir(dir.join(&own)).unwrap();
    fs::write(dir.join(&own).join("switchback.toml"), text).unwrap();
    symlink(&own, dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    if round > 0 {
        fs::remove_dir_all(dir.join(format!("..{}", round - 1))).unwrap();
    }
}

#[test]
fn a_config_map_that_is_swapped_by_its_link_is_read() {
    let mut lab = Lab::start(&["blue"]);
    assert!(lab.proxy.take().unwrap().stop().0.success());
    let plain = fs::read_to_string(lab.config()).unwrap();
    let mounted = lab.dir.path().join("mounted");
    fs::create_dir(&mounted).unwrap();
    symlink("..data/switchback.toml", mounted.join("switchback.toml")).unwrap();
    mount(&mounted, 0, &plain);
    lab.proxy = Some(Proxy::start(&mounted.join("switchback.toml"), &lab.socket(), 2).unwrap());
    let mut events = lab.events();
    let with_cart = plain.clone() + &service("cart", &[("v1", lab.origins[0].address)]);
    for round in 1..=4 {
        mount(&mounted, round, if round % 2 == 1 { &with_cart } else { &plain });
        events.change();
        assert_eq!(has_cart(&lab), round % 2 == 1);
    }
}

#[test]
fn a_teams_file_comes_and_goes() {
    let lab = Lab::start(&["blue"]);
    let mut events = lab.events();
    let team = lab.dir.path().join("conf.d/cart.toml");
    for _ in 0..2 {
        fs::create_dir_all(team.parent().unwrap()).unwrap();
        fs::write(&team, service("cart", &[("v1", lab.origins[0].address)])).unwrap();
        events.change();
        assert_eq!(lab.get("/cart").version(), "blue");
        fs::remove_file(&team).unwrap();
        let change = events.change();
        assert_eq!(change["services"], json!({ "cart": null }));
        assert!(!has_cart(&lab));
        fs::remove_dir(team.parent().unwrap()).unwrap();
    }
}

#[test]
fn a_signal_reads_the_file_though_it_is_the_same() {
    let lab = Lab::start(&["blue"]);
    let epoch = lab.epoch();
    lab.proxy().signal("HUP");
    lab.proxy().wait_for_log("configuration read");
    assert_eq!(lab.epoch(), epoch, "nothing has changed");
    lab.flip("blue");
}

#[test]
fn a_bad_file_changes_nothing_and_is_told_with_its_place() {
    let mut lab = Lab::start(&["blue", "green"]);
    lab.expected_errors.push("the configuration is not used");
    // Drained, so that nothing but the file could change what is seen.
    let flip = lab.call("POST", "/v1/services/shop/flip?wait=drained", &json!({ "to": "green" }));
    assert_eq!(flip.0, 200);
    let (before, epoch) = (lab.shop(), lab.epoch());
    let mut events = lab.events();
    // Everything else in it is good, and must not take effect.
    assert_eq!(lab.metric(&["switchback_config_last_reload_successful"]), Some(1.0));
    let bad = shop_and_cart(&lab) + "timeout = 5\n[limits]\nheaders = \"many\"\n";
    lab.write_config(&bad);
    let errors = events.wait_for(|event| event["type"] == "reload_failed")["errors"].take();
    assert_eq!(lab.metric(&["switchback_config_last_reload_successful"]), Some(0.0));
    assert_eq!(lab.metric(&["switchback_config_reloads_total", "failed"]), Some(1.0));
    let lines = fs::read_to_string(lab.config()).unwrap().lines().count();
    for (line, words) in [
        (lines - 2, ":1: unknown key `timeout` in version `v1` of service `cart`"),
        (lines, ":11: expected a whole number from 1 to 10000, found the string \"many\""),
    ] {
        let said = format!("{}:{line}{words}", lab.config().display());
        assert!(errors.as_str().unwrap().contains(&said), "{said}\n{errors}");
        // It is read in a thread of its own.
        lab::wait_until("the log says so too", || lab.proxy().log().contains(&said));
    }
    lab::wait_until("and that nothing has changed", || {
        lab.proxy().log().contains("the configuration is not used, everything stays as it was")
    });
    assert_eq!((lab.shop(), lab.epoch()), (before, epoch));
    assert_eq!(lab.get("/").version(), "green");
    // The next good one is used.
    lab.write_config(&shop_and_cart(&lab));
    events.change();
    assert!(has_cart(&lab));
    assert_eq!(lab.get("/").version(), "green");
    lab.wait_for_metric(&["switchback_config_last_reload_successful"], 1.0);
    lab.wait_for_metric(&["switchback_config_reloads_total", "applied"], 1.0);
}

#[test]
fn a_file_that_is_gone_changes_nothing() {
    let mut lab = Lab::start(&["blue", "green"]);
    lab.expected_errors.push("the configuration is not used");
    let mut events = lab.events();
    fs::rename(lab.config(), lab.dir.path().join("elsewhere")).unwrap();
    let failed = events.wait_for(|event| event["type"] == "reload_failed");
    assert!(failed["errors"].as_str().unwrap().contains("No such file"), "{failed}");
    lab.flip("green");
    assert_eq!(lab.get("/").version(), "green");
}

#[test]
fn weights_of_the_file_are_only_the_first_ones() {
    let mut lab = Lab::start(&["blue", "green"]);
    lab.flip("green");
    let epoch = lab.epoch();
    // Says blue as before, then something else, and each time something that shows that it was read.
    lab.write_config(&shop_and_cart(&lab));
    lab.events();
    lab.proxy().wait_for_log("configuration read");
    assert_eq!(lab.get("/").version(), "green");
    let other = shop_and_cart(&lab).replacen(
        "stable = \"blue\"",
        "weights = { blue = 50, green = 50 }\nstable = \"blue\"",
        1,
    );
    lab.write_config(&other);
    lab.proxy().wait_for_log("the file's weights of `shop` are only its first ones");
    assert_eq!(lab.shop()["weights"], json!({ "green": 10_000 }));
    assert!(lab.epoch() > epoch);
    lab.kill_and_restart();
    assert_eq!(lab.shop()["weights"], json!({ "green": 10_000 }), "at a start as well");
}

#[test]
fn a_version_that_the_file_no_longer_has_is_dropped_with_a_logged_change() {
    let lab = Lab::start(&["blue", "green"]);
    lab.flip("green");
    let mut events = lab.events();
    let mut client = lab.client();
    assert_eq!(client.get("/").version(), "green");
    lab.write_config(&service("shop", &[("blue", lab.origin("blue").address)]));
    let change = events.change();
    assert_eq!(change["services"]["shop"], json!({ "stable": "blue", "weights": { "blue": 10_000 } }));
    assert_eq!(client.get("/").version(), "blue", "on the same connection");
    lab.proxy().wait_for_log("version `green` of `shop` carried traffic and is gone");
    let (_, history) = lab.call("GET", "/v1/changes?limit=1", &Value::Null);
    assert_eq!(history["changes"][0], change);
}

#[test]
fn a_service_that_the_file_no_longer_has_is_dropped_with_a_logged_change() {
    let lab = Lab::start(&["blue", "green"]);
    let mut events = lab.events();
    lab.write_config(&shop_and_cart(&lab));
    events.change();
    lab.write_config(&service("cart", &[("v1", lab.origin("green").address)]));
    let change = events.change();
    assert_eq!(change["services"]["shop"], Value::Null);
    assert!(change["services"].as_object().unwrap().contains_key("shop"), "{change}");
    lab.proxy().wait_for_log("service `shop` is no longer in the file; dropped");
    let answer = lab.get("/");
    assert_eq!((answer.status, answer.header("switchback-reason")), (404, Some("no_route")));
    assert_eq!(lab.get("/cart").version(), "green");
}

#[test]
fn what_is_set_of_the_proxy_and_its_clients_holds_for_the_next_request_of_an_open_connection() {
    let services = |extra: &str, blue: SocketAddr| format!("{extra}{}", service("shop", &[("blue", blue)]));
    let origin = Origin::start("blue");
    let blue = origin.address;
    let before = services("trusted_proxies = [\"127.0.0.1\"]\n", blue);
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &before);
    let mut client = lab.client();
    let mut ask = |fields: &str| {
        let answer = client
            .send(format!("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 203.0.113.9\r\n{fields}\r\n"))
            .answer();
        (answer.status, lab.origins[0].seen().pop())
    };
    let told = |seen: Option<Seen>| seen.and_then(|seen| seen.header("x-forwarded-for").map(str::to_owned));
    let (status, seen) = ask("");
    assert_eq!((status, told(seen).as_deref()), (200, Some("203.0.113.9, 127.0.0.1")));
    // The load balancer is no longer believed.
    lab.write_config(&services("[proxy]\nvia = \"edge\"\nforwarded = true\n[limits]\nheaders = 3\n", blue));
    lab.proxy().wait_for_log("configuration read");
    let (status, seen) = ask("");
    let seen = seen.unwrap();
    assert_eq!((status, seen.header("via")), (200, Some("1.1 edge")));
    assert!(seen.header("forwarded").is_some());
    assert_eq!(told(Some(seen)).as_deref(), Some("127.0.0.1"));
    assert_eq!(ask("a: 1\r\nb: 2\r\n").0, 431, "four fields are too many now");
    assert_eq!(lab.origins[0].connections(), 1);
}

#[test]
fn a_request_of_a_service_that_is_dropped_is_finished() {
    let gate = Gate::default();
    let lab = Lab::on(vec![Origin::held("blue", &gate)], "");
    let mut client = lab.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    lab.origin("blue").wait_served(1);
    let mut events = lab.events();
    lab.write_config(&service("cart", &[("v1", lab.origin("blue").address)]));
    assert_eq!(events.change()["services"]["shop"], Value::Null);
    assert_eq!(lab.get("/").status, 404);
    gate.open();
    let answer = client.answer();
    assert_eq!((answer.text().as_str(), answer.is_whole), (gate::HELD, true));
    events.drained("blue");
    assert_eq!(client.get("/").status, 404, "the same connection, the new table");
}

/// The lab's listener comes first; these are further ones.
fn listeners(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| format!("[[listeners]]\nlisten = \"{address}\"\n")).collect()
}

fn read_times(lab: &Lab) -> usize {
    lab.proxy().log().matches("configuration read").count()
}

/// Writes the configuration and waits until it was read.
fn reload(lab: &Lab, services: &str) {
    let before = read_times(lab);
    lab.write_config(services);
    lab::wait_until("the configuration is read", || read_times(lab) > before);
}

#[test]
fn a_listener_comes_and_goes_and_what_came_by_it_is_finished() {
    let gate = Gate::default();
    let lab = Lab::on(vec![Origin::held("blue", &gate)], "");
    let second = lab::origin::nobody();
    reload(&lab, &(listeners(&[second]) + &shop(&lab)));
    let mut held = Client::connect(second);
    held.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    let mut idle = Client::connect(second);
    assert_eq!(idle.get("/").status, 200);
    lab.origin("blue").wait_served(2);
    reload(&lab, &shop(&lab));
    // Nobody listens there any more, and what is open goes on.
    lab::wait_until("nobody listens", || TcpStream::connect(second).is_err());
    assert_eq!(idle.get("/").status, 200);
    gate.open();
    let answer = held.answer();
    assert_eq!((answer.text().as_str(), answer.is_whole), (gate::HELD, true));
    assert_eq!(lab.get("/").status, 200, "the other listener was never in question");
    // And it can come back on the same port.
    reload(&lab, &(listeners(&[second]) + &shop(&lab)));
    assert_eq!(Client::connect(second).get("/").status, 200);
}

#[test]
fn a_unix_listener_comes_and_goes_with_its_file() {
    let lab = Lab::start(&["blue"]);
    let path = lab.dir.path().join("http.sock");
    let listener = format!("[[listeners]]\nlisten = \"unix:{}\"\n", path.display());
    for _ in 0..2 {
        reload(&lab, &(listener.clone() + &shop(&lab)));
        let answer = lab::admin::call(&path, "GET", "/", &[], "").unwrap();
        assert_eq!((answer.status, answer.version()), (200, "blue"));
        reload(&lab, &shop(&lab));
        assert!(!path.exists(), "nobody is to find a socket that nobody serves");
    }
}

#[test]
fn a_listener_that_cannot_be_had_leaves_everything_as_it_was() {
    let mut lab = Lab::start(&["blue"]);
    lab.expected_errors.push("the configuration is not used");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut events = lab.events();
    lab.write_config(&(listeners(&[address]) + &shop_and_cart(&lab)));
    let errors = events.wait_for(|event| event["type"] == "reload_failed")["errors"].take();
    let said = format!(
        "cannot listen on {address}; another process listens there, or has a connection from that port"
    );
    assert!(errors.as_str().unwrap().contains(&said), "{errors}");
    assert!(!has_cart(&lab));
    assert_eq!(lab.get("/").status, 200);
}

#[test]
fn a_pipe_in_conf_d_is_refused_and_not_waited_for() {
    let mut lab = Lab::start(&["blue", "green"]);
    lab.expected_errors.push("the configuration is not used");
    let mut events = lab.events();
    let teams = lab.dir.path().join("conf.d");
    fs::create_dir(&teams).unwrap();
    assert!(Command::new("mkfifo").arg(teams.join("x.toml")).status().unwrap().success());
    lab.write_config(&shop(&lab));
    let errors = events.wait_for(|event| event["type"] == "reload_failed")["errors"].take();
    assert!(errors.as_str().unwrap().contains("x.toml: cannot be read: it is not a file"), "{errors}");
    lab.flip("green");
}

#[test]
fn a_file_that_is_too_large_is_refused_unread() {
    let mut lab = Lab::start(&["blue"]);
    lab.expected_errors.push("the configuration is not used");
    let beside = lab.dir.path().join("large");
    fs::File::create(&beside).unwrap().set_len(1 << 30).unwrap();
    let peak = || lab.proxy().peak_memory();
    let before = peak();
    fs::rename(beside, lab.config()).unwrap();
    lab.proxy().wait_for_log("is larger than 64 MiB");
    let grown = peak() - before;
    assert!(grown < 16 << 20, "it has grown by {} MiB", grown >> 20);
    assert_eq!(lab.get("/").version(), "blue");
}

#[test]
fn a_listener_that_would_only_move_on_its_port_is_told_so() {
    let mut lab = Lab::start(&["blue"]);
    lab.expected_errors.push("the configuration is not used");
    let address = lab::origin::nobody();
    reload(&lab, &(listeners(&[address]) + &shop(&lab)));
    let mut events = lab.events();
    let wider = SocketAddr::new("0.0.0.0".parse().unwrap(), address.port());
    lab.write_config(&(listeners(&[wider]) + &shop(&lab)));
    let errors = events.wait_for(|event| event["type"] == "reload_failed")["errors"].take();
    let said = format!(
        "cannot listen on {wider}; this proxy itself listens on that port, at another address: restart"
    );
    assert!(errors.as_str().unwrap().contains(&said), "{errors}");
    assert_eq!(Client::connect(address).get("/").status, 200);
}

#[test]
fn limits_of_a_reload_hold_for_new_connections_and_for_the_next_request_of_open_ones() {
    let lab = Lab::start(&["blue"]);
    let request = "GET / HTTP/1.1\r\nhost: shop.test\r\na: 1\r\nb: 2\r\nc: 3\r\n\r\n";
    let mut open = lab.client();
    assert_eq!(open.send(request).answer().status, 200);
    reload(&lab, &("[limits]\nheaders = 3\n".to_owned() + &shop(&lab)));
    for client in [&mut lab.client(), &mut open] {
        let answer = client.send(request).answer();
        assert_eq!((answer.status, answer.header("switchback-reason")), (431, Some("head_too_large")));
    }
}

#[test]
fn a_new_idle_time_closes_open_connections_too_once_they_had_another_request() {
    let lab = Lab::start(&["blue"]);
    let (mut open, mut streams) = (lab.client(), Frames::to(lab.address()));
    assert_eq!((open.get("/").status, streams.ask(1, "/")), (200, 200));
    reload(&lab, &("[limits]\nidle = \"200ms\"\n".to_owned() + &shop(&lab)));
    let mut new = lab.client();
    assert_eq!((new.get("/").status, open.get("/").status, streams.ask(3, "/")), (200, 200, 200));
    for client in [&mut new, &mut open] {
        assert!(client.is_closed_within(lab::PATIENCE), "after 200 ms, not after a minute");
    }
    assert_eq!(streams.end(), Some(0), "NO_ERROR");
}

#[test]
fn a_new_ping_asks_clients_of_open_connections_too_once_they_had_another_request() {
    let lab = Lab::with(&["blue"], "[limits]\nping = \"5m\"\n");
    let mut open = Frames::to(lab.address());
    assert_eq!(open.ask(1, "/"), 200);
    reload(&lab, &("[limits]\nping = \"200ms\"\n".to_owned() + &shop(&lab)));
    assert_eq!(open.ask(3, "/"), 200);
    assert_eq!(open.next(PING, 0).flags, 0);
}

#[test]
fn timeouts_of_a_reload_hold_for_the_next_request() {
    let gate = Gate::default();
    let lab = Lab::on(vec![Origin::held("blue", &gate)], "");
    let mut client = lab.client();
    let services = shop(&lab).replacen("stable", "timeouts = { response = \"100ms\" }\nstable", 1);
    reload(&lab, &services);
    let answer = client.get("/late");
    assert_eq!((answer.status, answer.header("switchback-reason")), (504, Some("response_timeout")));
    gate.open();
}

#[test]
fn what_takes_effect_only_at_the_next_start_is_said() {
    let lab = Lab::start(&["blue"]);
    let metrics = format!("[metrics]\nlisten = \"{}\"\n", lab::origin::nobody());
    reload(&lab, &(metrics + &shop(&lab)));
    let words =
        "changes of [admin] socket, [metrics], [state] and proxy.cpu_affinity take effect at the next start";
    lab.proxy().wait_for_log(words);
}
