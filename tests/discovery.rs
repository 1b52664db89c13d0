//! Endpoints that are found by DNS or in a file: they come and go by themselves, and the last good list stays.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lab::dns::{NameServer, Record};
use lab::origin::Then;
use lab::{Lab, Origin};
use serde_json::{Value, json};

/// Puts another list in the file's place.
fn list(path: &Path, text: &str) {
    let beside = path.with_extension("tmp");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, path).unwrap();
}

fn service(discover: &str, more: &str) -> String {
    format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\n[services.shop.versions.blue]\ndiscover = {{ {discover} }}\n{more}\n"
    )
}

/// Origins that say their names, and a file that lists the first ones.
struct Listed {
    lab: Lab,
    file: std::path::PathBuf,
}

fn listed(names: &[&str], first: usize, more: &str) -> Listed {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("endpoints.json");
    let origins: Vec<_> = names.iter().map(|name| Origin::start(name)).collect();
    let addresses: Vec<_> = origins[..first].iter().map(|origin| origin.address.to_string()).collect();
    list(&file, &json!(addresses).to_string());
    let lab = Lab::configured(dir, origins, &service("file = \"endpoints.json\"", more));
    Listed { lab, file }
}

impl Listed {
    fn list(&self, names: &[&str]) {
        let addresses: Vec<_> = names.iter().map(|name| json!({ "address": self.at(name) })).collect();
        list(&self.file, &json!({ "endpoints": addresses }).to_string());
    }

    fn at(&self, name: &str) -> String {
        self.lab.origin(name).address.to_string()
    }

    fn wait_for(&self, names: &[&str]) {
        let expected: Vec<_> = names.iter().map(|name| self.at(name)).collect();
        lab::wait_until("the pool is as it is listed", || pool(&self.lab) == expected);
    }
}

fn pool(lab: &Lab) -> Vec<String> {
    let shop = lab.shop();
    let endpoints = shop["versions"][0]["endpoints"].as_array().unwrap().clone();
    endpoints.iter().map(|endpoint| endpoint["address"].as_str().unwrap().to_owned()).collect()
}

fn failed(lab: &Lab) -> f64 {
    lab.metric(&["switchback_discoveries_total", "\"blue\"", "\"failed\""]).unwrap()
}

#[test]
fn a_list_in_a_file_is_followed_and_what_cannot_be_used_changes_nothing() {
    let listed = listed(&["a", "b", "c"], 2, "");
    let lab = &listed.lab;
    listed.wait_for(&["a", "b"]);
    let mut events = lab.events();
    listed.list(&["b", "c"]);
    let change = events.change();
    assert_eq!((&change["kind"], &change["actor"]["kind"]), (&json!("endpoints"), &json!("file")));
    assert_eq!(change["actor"]["name"], listed.file.display().to_string());
    assert_eq!(change["reason"], "discovery");
    assert_eq!(change["summary"], format!("shop: blue +{} -{}", listed.at("c"), listed.at("a")));
    listed.wait_for(&["b", "c"]);
    let epoch = lab.epoch();
    for (count, bad) in (1..).zip(["[\"10.0.0.1\"]", "[]", "nothing", "{\"endpoints\": [], \"more\": 1}"]) {
        list(&listed.file, bad);
        lab::wait_until("it is counted", || failed(lab) >= f64::from(count));
    }
    fs::remove_file(&listed.file).unwrap();
    lab::wait_until("it is counted", || failed(lab) >= 5.0);
    listed.wait_for(&["b", "c"]);
    assert_eq!(lab.epoch(), epoch, "no change");
    assert_eq!(
        lab.proxy().log().matches("no endpoints are found; those that were found last stay").count(),
        1
    );
    assert!(["b", "c"].contains(&lab.get("/").version()));
    listed.list(&["a"]);
    listed.wait_for(&["a"]);
    assert!(lab.proxy().log().contains("endpoints are found again"));
}

#[test]
fn what_was_found_last_is_there_after_a_crash_before_anybody_has_answered() {
    let mut listed = listed(&["a", "b"], 2, "");
    listed.wait_for(&["a", "b"]);
    fs::remove_file(&listed.file).unwrap();
    let epoch = listed.lab.epoch();
    listed.lab.kill_and_restart();
    assert_eq!(pool(&listed.lab), [listed.at("a"), listed.at("b")]);
    assert_eq!(listed.lab.epoch(), epoch);
    assert_eq!(listed.lab.get("/").status, 200);
}

#[test]
fn what_an_operator_does_to_the_pool_lies_over_what_is_found() {
    let listed = listed(&["a", "b", "c", "mine"], 2, "");
    let lab = &listed.lab;
    listed.wait_for(&["a", "b"]);
    let endpoint = |name: &str| format!("/v1/services/shop/versions/blue/endpoints/{}", listed.at(name));
    assert_eq!(lab.call("POST", &format!("{}/drain", endpoint("a")), &Value::Null).0, 200);
    assert_eq!(lab.call("PUT", &endpoint("mine"), &Value::Null).0, 200);
    let (status, refused) = lab.call("DELETE", &endpoint("b"), &Value::Null);
    assert_eq!((status, &refused["type"]), (409, &json!("urn:switchback:problem:discovered")));
    assert!(refused["hint"].as_str().unwrap().starts_with("take it out where it was found"), "{refused}");
    listed.list(&["a", "c"]);
    listed.wait_for(&["mine", "a", "c"]);
    assert_eq!(lab.shop()["versions"][0]["endpoints"][1]["draining"], true, "{}", lab.shop());
    let served = lab.origin("a").served();
    let mut seen: Vec<_> = (0..20).map(|_| lab.get("/").version().to_owned()).collect();
    seen.sort();
    seen.dedup();
    assert_eq!((seen, lab.origin("a").served()), (vec!["c".to_owned(), "mine".to_owned()], served));
    // The file does not look any more: what was found goes, and what was put stays.
    lab.write_config(&format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\n[services.shop.versions.blue]\nendpoints = [\"{}\"]\n",
        listed.at("b")
    ));
    lab::wait_until("it is forgotten", || !pool(lab).contains(&listed.at("c")));
    assert!(pool(lab).contains(&listed.at("b")), "{:?}", pool(lab));
}

// ---- Rolling upgrades ----

#[test]
fn no_other_endpoint_takes_the_place_of_one_that_would_be_found_again() {
    let listed = listed(&["a", "b", "c"], 2, "");
    let lab = &listed.lab;
    listed.wait_for(&["a", "b"]);
    let (epoch, pair) = (lab.epoch(), format!("{}={}", listed.at("a"), listed.at("c")));
    for more in [&["--dry-run"][..], &["--surge"], &[]] {
        let (exit, out, err) = lab.cli(&[&["rollout", "shop", "--replace", &pair], more].concat());
        assert_eq!(exit, 1, "{out}{err}");
        let said = format!("endpoint {} of version `blue` was discovered", listed.at("a"));
        assert!(err.contains(&said) && err.contains("hint: replace it where it was found"), "{err}");
    }
    let gone = json!({ "replace": [{ "out": listed.at("a") }] });
    let (status, refused) = lab.call("POST", "/v1/services/shop/rollout", &gone);
    assert_eq!((status, &refused["type"]), (422, &json!("urn:switchback:problem:discovered")));
    assert_eq!(lab.epoch(), epoch, "nothing was drained");
    let (exit, out, err) = lab.cli(&["rollout", "shop", "--hook", "true"]);
    assert_eq!(exit, 0, "it can be restarted in its place: {out}{err}");
}

#[test]
fn what_is_found_once_a_rollout_has_begun_is_not_drained_by_it() {
    let listed = listed(&["a", "b", "c"], 1, "");
    let lab = &listed.lab;
    listed.wait_for(&["a"]);
    let endpoint = format!("/v1/services/shop/versions/blue/endpoints/{}", listed.at("b"));
    assert_eq!(lab.call("PUT", &endpoint, &Value::Null).0, 200);
    let (a, b) = (listed.at("a"), listed.at("b"));
    let replace = json!([{ "out": a, "into": a }, { "out": b, "into": listed.at("c") }]);
    let path = "/v1/services/shop/rollout";
    assert_eq!(lab.call("POST", path, &json!({ "replace": replace, "confirm": true })).0, 202);
    lab::wait_until("the first one is safe", || rollout(lab)["steps"][0]["awaits_confirmation"] == true);
    let mut events = lab.events();
    listed.list(&["a", "b"]);
    assert_eq!(events.change()["reason"], "discovery");
    assert_eq!(lab.call("POST", &format!("{path}/proceed"), &json!({ "endpoint": a })).0, 200);
    let told = events.wait_for(|event| event["rollout"]["state"] == "reversed");
    assert!(told["rollout"]["why"].as_str().unwrap().contains("was discovered"), "{told}");
    let drained = |event: &Value| event["rollout"]["steps"][1]["state"] == "draining";
    assert!(!events.past.iter().any(drained), "it was not drained");
}

fn rollout(lab: &Lab) -> Value {
    lab.call("GET", "/v1/services/shop/rollout", &Value::Null).1
}

/// `blue` is found in a file, a and b at first, and `green` is c.
fn with_green() -> Listed {
    let listed = listed(&["a", "b", "c"], 2, "");
    listed.wait_for(&["a", "b"]);
    let green = json!({ "endpoints": [listed.at("c")] });
    assert_eq!(listed.lab.call("PUT", "/v1/services/shop/versions/green", &green).0, 200);
    listed
}

#[test]
fn a_rollout_to_what_was_discovered_and_from_there_leaves_it_discovered() {
    let listed = with_green();
    let lab = &listed.lab;
    for (from, to) in [("blue", "green"), ("green", "blue")] {
        let (exit, out, err) = lab.cli(&["rollout", "shop", "--from", from, "--to", to, "--surge"]);
        assert_eq!(exit, 0, "{out}{err}");
    }
    let shop = lab.shop();
    let is_discovered = |endpoint: &Value| endpoint["discovered"] == true && endpoint["draining"] == false;
    assert!(shop["versions"][0]["endpoints"].as_array().unwrap().iter().all(is_discovered), "{shop}");
    listed.list(&["b"]);
    listed.wait_for(&["b"]);
}

#[test]
fn what_is_restarted_in_its_place_serves_once_it_is_found_again_and_is_not_put_there() {
    let listed = listed(&["a", "b"], 2, "");
    let lab = &listed.lab;
    listed.wait_for(&["a", "b"]);
    let (path, a) = ("/v1/services/shop/rollout", listed.at("a"));
    let body = json!({ "replace": [{ "out": a, "into": a }], "confirm": true });
    assert_eq!(lab.call("POST", path, &body).0, 202);
    lab::wait_until("it is safe", || rollout(lab)["steps"][0]["awaits_confirmation"] == true);
    listed.list(&["b"]);
    listed.wait_for(&["b"]);
    assert_eq!(lab.call("POST", &format!("{path}/proceed"), &json!({ "endpoint": a })).0, 200);
    lab::wait_until("it is waited for", || rollout(lab)["steps"][0]["state"] == "warming");
    listed.list(&["a", "b"]);
    lab::wait_until("it is done", || rollout(lab)["state"] == "done");
    assert_eq!(lab.shop()["versions"][0]["endpoints"][0]["draining"], false, "{}", lab.shop());
    listed.list(&["b"]);
    listed.wait_for(&["b"]);
}

#[test]
fn what_is_found_no_more_is_not_put_back_when_a_rollout_is_taken_back() {
    let listed = with_green();
    let lab = &listed.lab;
    let path = "/v1/services/shop/rollout";
    let body = json!({ "from": "blue", "to": "green", "surge": true, "confirm": true });
    assert_eq!(lab.call("POST", path, &body).0, 202);
    lab::wait_until("it is safe", || rollout(lab)["steps"][0]["awaits_confirmation"] == true);
    listed.list(&["b"]);
    listed.wait_for(&["b"]);
    assert_eq!(lab.call("DELETE", path, &Value::Null).0, 202);
    lab::wait_until("it is taken back", || rollout(lab)["state"] == "reversed");
    assert_eq!((pool(lab), &rollout(lab)["steps"][0]["state"]), (vec![listed.at("b")], &json!("kept")));
    listed.list(&["a", "b"]);
    listed.wait_for(&["a", "b"]);
    assert_eq!(lab.shop()["versions"][0]["endpoints"][0]["draining"], false, "{}", lab.shop());
}

#[test]
fn a_deploy_that_changes_nothing_leaves_what_was_discovered_as_it_was() {
    let listed = with_green();
    let lab = &listed.lab;
    lab.flip("green");
    let endpoint = format!("/v1/services/shop/versions/blue/endpoints/{}", listed.at("b"));
    assert_eq!(lab.call("POST", &format!("{endpoint}/drain"), &Value::Null).0, 200);
    let blue = || lab.shop()["versions"][0]["endpoints"].clone();
    let (before, dead) = (blue(), lab::origin::nobody().to_string());
    let args = ["deploy", "shop", "--version", "blue", "--endpoint", &dead, "--timeout", "300ms"];
    let (exit, out, err) = lab.cli(&args);
    assert_eq!((exit, blue()), (3, before), "{out}{err}");
    listed.list(&["b", "c"]);
    listed.wait_for(&["b", "c"]);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test's clock")]
fn who_drains_and_is_found_no_more_serves_again_when_it_is_found_after_a_minute() {
    let listed = listed(&["a", "b"], 2, "");
    let lab = &listed.lab;
    listed.wait_for(&["a", "b"]);
    let draining = |index: usize| lab.shop()["versions"][0]["endpoints"][index]["draining"] == true;
    let drain = format!("/v1/services/shop/versions/blue/endpoints/{}/drain", listed.at("a"));
    assert_eq!(lab.call("POST", &drain, &Value::Null).0, 200);
    listed.list(&["b"]);
    listed.wait_for(&["b"]);
    listed.list(&["a", "b"]);
    listed.wait_for(&["a", "b"]);
    assert!(draining(0), "it was missing for a moment only");
    listed.list(&["b"]);
    let since = Instant::now();
    let ended = format!("shop: blue {} drains no more", listed.at("a"));
    let newest = || lab.call("GET", "/v1/changes?limit=1", &Value::Null).1["changes"][0]["summary"].clone();
    while newest() != ended {
        assert!(since.elapsed() < 3 * lab::PATIENCE, "{}", newest());
        thread::sleep(Duration::from_millis(100));
    }
    assert!(since.elapsed() > Duration::from_secs(59));
    // Whoever has the address now, and alone.
    listed.list(&["a"]);
    listed.wait_for(&["a"]);
    assert!(!draining(0));
    assert_eq!(lab.get("/").version(), "a");
}

/// Machines on one port, at addresses of their own.
fn machines(addresses: &[Ipv4Addr]) -> (Vec<Origin>, u16) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let origin = |address: &Ipv4Addr| {
        let name = address.to_string();
        let version = name.clone();
        Origin::at(&SocketAddr::from((*address, port)).to_string(), &name, move |_, stream| {
            use std::io::Write;
            write!(stream, "HTTP/1.1 200 OK\r\nx-version: {version}\r\ncontent-length: 0\r\n\r\n")?;
            Ok(Then::Keep)
        })
    };
    (addresses.iter().map(origin).collect(), port)
}

#[test]
fn each_address_of_a_name_is_an_endpoint() {
    let [one, two, three] = [11, 12, 13].map(|last| Ipv4Addr::new(127, 0, 0, last));
    let (origins, port) = machines(&[one, two, three]);
    let server = NameServer::start(&[Record::Address(one), Record::Address(two)]);
    let config = format!(
        "[proxy]\nname_servers = [\"{}\"]\n{}",
        server.address,
        service(&format!("dns = \"shop.internal:{port}\""), "")
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &config);
    let endpoints = |addresses: &[Ipv4Addr]| {
        addresses.iter().map(|address| format!("{address}:{port}")).collect::<Vec<_>>()
    };
    lab::wait_until("the name is resolved", || pool(&lab) == endpoints(&[one, two]));
    server.say(Some(&[Record::Address(three), Record::Address(two)]));
    lab::wait_until("its new addresses are taken over", || pool(&lab) == endpoints(&[two, three]));
    server.say(Some(&[]));
    lab.wait_for_metric_above(&["switchback_name_lookups_total", "shop.internal", "failed"], 0.0);
    assert_eq!(pool(&lab), endpoints(&[two, three]), "an empty answer takes nothing away");
    assert_eq!(lab.get("/").status, 200);
}

#[test]
fn a_family_that_gives_no_answer_keeps_its_endpoints() {
    let one = Ipv4Addr::new(127, 0, 0, 14);
    let (origins, port) = machines(&[one]);
    let both = [Record::Address(one), Record::Address6(Ipv6Addr::LOCALHOST)];
    let server = NameServer::start(&both);
    let name_servers = format!("[proxy]\nname_servers = [\"{}\"]\n", server.address);
    let config = name_servers + &service(&format!("dns = \"half.internal:{port}\""), "");
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &config);
    let endpoints = [format!("{one}:{port}"), format!("[::1]:{port}")];
    lab::wait_until("the name is resolved", || pool(&lab) == endpoints);
    let epoch = lab.epoch();
    server.say(Some(&[Record::Failure(1), Record::Address6(Ipv6Addr::LOCALHOST)]));
    lab.wait_for_metric_above(&["switchback_name_lookups_total", "half.internal", "failed"], 1.0);
    assert_eq!((pool(&lab).as_slice(), lab.epoch()), (&endpoints[..], epoch));
    lab::wait_until("each failed lookup is counted", || failed(&lab) >= 2.0);
    let said = "no endpoints are found; those that were found last stay";
    assert_eq!(lab.proxy().log().matches(said).count(), 1);
    server.say(Some(&both));
    lab.proxy().wait_for_log("endpoints are found again");
    server.say(Some(&both[1..]));
    lab::wait_until("an answer that there is none counts", || pool(&lab) == endpoints[1..]);
}

#[test]
fn the_places_of_a_service_with_the_best_priority_are_endpoints() {
    let [one, two] = [21, 22].map(|last| Ipv4Addr::new(127, 0, 0, last));
    let (origins, port) = machines(&[one, two]);
    let server = NameServer::start(&[
        Record::Service(20, 9, "backup.internal"),
        Record::Service(10, port, "shop.internal"),
        Record::Address(one),
    ]);
    let config = format!(
        "[proxy]\nname_servers = [\"{}\"]\n{}",
        server.address,
        service("srv = \"_http._tcp.shop.internal\"", "")
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &config);
    lab::wait_until("the service is found", || pool(&lab) == [format!("shop.internal:{port}")]);
    assert_eq!(lab.get("/").version(), one.to_string());
    server.say(Some(&[Record::Service(5, port, "other.internal"), Record::Address(two)]));
    lab::wait_until("its new place is taken over", || pool(&lab) == [format!("other.internal:{port}")]);
    assert_eq!(lab.get("/").version(), two.to_string());
}

/// A service with a version that the file names, and another one whose endpoints are listed beside it.
fn beside(name: &str, origin: SocketAddr) -> String {
    format!(
        "[services.{name}]\nroutes = [{{ path = \"/{name}\" }}]\nstable = \"blue\"\n\
         [services.{name}.versions.blue]\nendpoints = [\"{origin}\"]\n\
         [services.{name}.versions.green]\ndiscover = {{ file = \"{name}.json\" }}\n"
    )
}

fn green(lab: &Lab, service: &str) -> Vec<String> {
    let (_, told) = lab.call("GET", &format!("/v1/services/{service}"), &Value::Null);
    let mut versions = told["versions"].as_array().into_iter().flatten();
    let green = versions.find(|version| version["name"] == "green");
    let endpoints = green.map(|green| green["endpoints"].as_array().unwrap().clone()).unwrap_or_default();
    endpoints.iter().map(|endpoint| endpoint["address"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn one_watch_is_for_all_lists_and_each_is_followed() {
    let names = ["shop", "cart", "search", "pay"];
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::start("origin");
    let services = |names: &[&str]| names.iter().map(|name| beside(name, origin.address)).collect::<String>();
    names.iter().for_each(|name| list(&dir.path().join(format!("{name}.json")), "[\"10.0.0.1:80\"]"));
    let lab = Lab::configured(dir, Vec::new(), &services(&names[..1]));
    let watches = || {
        let open = fs::read_dir(format!("/proc/{}/fd", lab.proxy().pid())).unwrap().flatten();
        let links = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        links.filter(|link| link.to_string_lossy().contains("inotify")).count()
    };
    lab::wait_until("the first is found", || green(&lab, "shop") == ["10.0.0.1:80"]);
    let before = watches();
    lab.write_config(&services(&names));
    lab::wait_until("the others are", || names.iter().all(|name| green(&lab, name) == ["10.0.0.1:80"]));
    assert_eq!(watches(), before);
    for name in names {
        list(&lab.dir.path().join(format!("{name}.json")), "[\"10.0.0.2:80\"]");
        lab::wait_until("it is followed", || green(&lab, name) == ["10.0.0.2:80"]);
    }
    lab.write_config(&services(&names[..3]));
    lab.wait_for_metric(&["switchback_config_reloads_total", "applied"], 2.0);
    let found = lab.metric(&["switchback_discoveries_total", "\"pay\"", "\"found\""]);
    assert_eq!(found, Some(2.0), "what is gone is still shown");
}

#[test]
fn what_cannot_be_taken_over_is_taken_over_as_soon_as_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::start("origin");
    let file = dir.path().join("shop.json");
    list(&file, "[\"10.0.0.1:80\"]");
    let lab = Lab::configured(dir, Vec::new(), &beside("shop", origin.address));
    lab::wait_until("it is found", || green(&lab, "shop") == ["10.0.0.1:80"]);
    let version = "/v1/services/shop/versions/green";
    assert_eq!(lab.call("DELETE", version, &Value::Null).0, 200);
    list(&file, "[\"10.0.0.2:80\"]");
    lab.proxy().wait_for_log("what was discovered is not taken over yet; trying again");
    assert_eq!(lab.call("PUT", version, &json!({ "endpoints": ["10.0.0.9:80"] })).0, 200);
    lab::wait_until("it is tried again", || green(&lab, "shop") == ["10.0.0.9:80", "10.0.0.2:80"]);
}

#[test]
fn a_version_of_which_nothing_is_found_yet_keeps_its_traffic_over_reload_and_restart() {
    let dir = tempfile::tempdir().unwrap();
    let [blue, next] = ["blue", "next"].map(Origin::start);
    let [first, second] = [&blue, &next].map(|origin| origin.address.to_string());
    let services = |blue: &str, comment: &str| {
        format!(
            "{comment}\n[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n\
             [services.shop.versions.blue]\n{blue}\n\
             [services.shop.versions.green]\ndiscover = {{ file = \"green.json\" }}\n"
        )
    };
    let discovered = "discover = { file = \"blue.json\" }";
    list(&dir.path().join("green.json"), "[\"127.0.0.1:1\"]");
    let mut lab = Lab::configured(dir, vec![blue, next], &services(discovered, ""));
    let weights = |lab: &Lab| [0, 1].map(|index| lab.shop()["versions"][index]["weight"].as_u64().unwrap());
    lab::wait_until("the other one is found", || green(&lab, "shop") == ["127.0.0.1:1"]);
    // Nothing was ever found: neither a reload nor a restart gives its traffic away.
    let read = |lab: &Lab, services: &str| {
        let before = lab.proxy().log().matches("configuration read").count();
        lab.write_config(services);
        lab::wait_until("it is read", || lab.proxy().log().matches("configuration read").count() > before);
    };
    read(&lab, &services(discovered, "# a comment"));
    assert_eq!((weights(&lab), lab.get("/").header("switchback-reason")), ([10_000, 0], Some("no_endpoint")));
    lab.kill_and_restart();
    assert_eq!(weights(&lab), [10_000, 0]);
    list(&lab.dir.path().join("blue.json"), &json!([first]).to_string());
    lab::wait_until("it is found", || pool(&lab) == [first.clone()]);
    assert_eq!(lab.get("/").version(), "blue");
    // From the file to discovery: what was there serves until something is found.
    read(&lab, &services(&format!("endpoints = [\"{first}\"]"), ""));
    fs::remove_file(lab.dir.path().join("blue.json")).unwrap();
    read(&lab, &services(discovered, ""));
    assert_eq!((weights(&lab), pool(&lab)), ([10_000, 0], vec![first.clone()]));
    assert_eq!(lab.get("/").version(), "blue");
    lab.kill_and_restart();
    assert_eq!((weights(&lab), pool(&lab)), ([10_000, 0], vec![first]));
    list(&lab.dir.path().join("blue.json"), &json!([second]).to_string());
    lab::wait_until("something is found", || pool(&lab) == [second.clone()]);
    assert_eq!((weights(&lab), lab.get("/").version()), ([10_000, 0], "next"));
}
