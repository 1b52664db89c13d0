//! Users who stay with a version: the same user gets the same version, on every instance and for as long as weights let him
//! (G5); who has no key is given one, or is assigned by a coin a request.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;

use http::{HeaderValue, Method};
use lab::client::Answer;
use lab::http2::{request, run};
use lab::origin::{Then, nobody};
use lab::tls::{Authority, Caller};
use lab::{Client, Http2, Lab, Origin, wait_until};
use serde_json::{Value, json};

const COOKIE: &str = "{ cookie = \"sb_id\" }";
const MINT: &str = "{ cookie = \"sb_id\", mint = true }";
const HEADER: &str = "{ header = \"x-user\" }";
const USERS: u32 = 1_000;

/// The file of `shop` on these origins, with `settings` of it, behind `extra`.
fn file(origins: &[Origin], settings: &str, extra: &str) -> String {
    let head = format!(
        "{extra}\n[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"{}\"\n{settings}\n",
        origins[0].name
    );
    origins.iter().fold(head, |text, origin| {
        format!("{text}[services.shop.versions.{}]\nendpoints = [\"{}\"]\n", origin.name, origin.address)
    })
}

fn lab_on(origins: Vec<Origin>, settings: &str, extra: &str) -> Lab {
    let text = file(&origins, settings, extra);
    Lab::configured(tempfile::tempdir().unwrap(), origins, &text)
}

/// `shop` with blue and green, where users stay by `sticky`.
fn shop(sticky: &str) -> Lab {
    shop_with(sticky, "")
}

fn shop_with(sticky: &str, extra: &str) -> Lab {
    lab_on(vec![Origin::start("blue"), Origin::start("green")], &format!("sticky = {sticky}"), extra)
}

fn ask(client: &mut Client, fields: &str) -> Answer {
    client.send(format!("GET / HTTP/1.1\r\nhost: shop.test\r\n{fields}\r\n")).answer()
}

/// Which of so many users green has; user 7 says `field`, with `{}` for his name.
fn on_green(address: SocketAddr, field: &str) -> BTreeSet<u32> {
    let mut client = Client::connect(address);
    let mut version = |user: &u32| {
        let fields = format!("{}\r\n", field.replace("{}", &format!("user-{user}")));
        let answer = ask(&mut client, &fields);
        assert_eq!(answer.status, 200);
        answer.version() == "green"
    };
    (0..USERS).filter(|user| version(user)).collect()
}

fn green_to(lab: &Lab, points: u64) {
    lab.weights(&json!({ "green": points, "blue": 10_000 - points }));
}

/// The cookies that an answer sets.
fn cookies(answer: &Answer) -> Vec<&str> {
    let fields = answer.headers.iter().filter(|(name, _)| name == "set-cookie");
    fields.map(|(_, value)| value.as_str()).collect()
}

/// The id that it mints, and what else it says of it.
fn minted(answer: &Answer) -> (String, String) {
    let all = cookies(answer);
    let [cookie] = all[..] else { panic!("one cookie: {all:?}") };
    let (id, attributes) = cookie.strip_prefix("sb_id=").unwrap().split_once("; ").unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{cookie}");
    (id.to_owned(), attributes.to_owned())
}

const USUAL: &str = "Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax";

#[test]
fn a_canary_that_grows_keeps_its_users_and_the_way_back_brings_the_very_same_ones() {
    let (by_cookie, by_header) = (shop(COOKIE), shop(HEADER));
    let mut steps = Vec::new();
    for points in [0, 100, 500, 2_500] {
        [&by_cookie, &by_header].into_iter().for_each(|lab| green_to(lab, points));
        let found = on_green(by_cookie.address(), "cookie: a=1; sb_id={}");
        // The same names under the same salt.
        assert_eq!(found, on_green(by_header.address(), "x-user: {}"), "{points}");
        let expected = f64::from(USERS) * points as f64 / 1e4;
        assert!(
            (found.len() as f64 - expected).abs() <= 5.0 * expected.sqrt(),
            "{} at {points}",
            found.len()
        );
        steps.push(found);
    }
    assert!(steps.windows(2).all(|pair| pair[0].is_subset(&pair[1])), "nobody left");
    assert!(steps[0].is_empty());
    by_cookie.flip("green");
    assert_eq!(on_green(by_cookie.address(), "cookie: sb_id={}").len(), USERS as usize, "all is all");
    let (status, _) = by_cookie.call("POST", "/v1/services/shop/revert", &Value::Null);
    assert_eq!(status, 200);
    for (points, before) in [(2_500, &steps[3]), (500, &steps[2]), (100, &steps[1]), (0, &steps[0])] {
        green_to(&by_cookie, points);
        assert_eq!(on_green(by_cookie.address(), "cookie: sb_id={}"), *before, "{points}");
    }
}

#[test]
fn every_instance_gives_the_same_answer_also_after_a_restart_and_a_reload() {
    let mut lab = shop(HEADER);
    green_to(&lab, 3_000);
    let users = on_green(lab.address(), "x-user: {}");
    // Another one, with the versions in another order.
    let others = vec![Origin::start("green"), Origin::start("blue")];
    let other = lab_on(others, &format!("sticky = {HEADER}"), "");
    green_to(&other, 3_000);
    assert_eq!(on_green(other.address(), "x-user: {}"), users);
    lab.kill_and_restart();
    assert_eq!(on_green(lab.address(), "x-user: {}"), users);
    // The file can say it otherwise at any time.
    let says = |sticky: &str| {
        lab.write_config(&file(&lab.origins, sticky, ""));
        let wanted = |shop: &Value| match sticky {
            "" => shop["sticky"].is_null(),
            _ => shop["sticky"]["by"] == if sticky.contains("client") { "client" } else { "header" },
        };
        wait_until("the file is in force", || wanted(&lab.shop()));
    };
    says("sticky = { client = true }");
    let all = on_green(lab.address(), "x-user: {}").len();
    assert!([0, USERS as usize].contains(&all), "one address, one version: {all}");
    says("sticky = { header = \"x-user\", salt = \"shop\" }\ntimeouts.connect = \"4s\"");
    assert_eq!(on_green(lab.address(), "x-user: {}"), users);
    says("");
    let coins = on_green(lab.address(), "x-user: {}");
    assert!((200..400).contains(&coins.len()) && coins != users, "{}", coins.len());
    says("sticky = { header = \"x-user\", salt = \"other\" }");
    let others = on_green(lab.address(), "x-user: {}");
    // Three in ten of three in ten.
    assert!((50..130).contains(&others.intersection(&users).count()));
}

#[test]
fn of_three_versions_one_that_grows_loses_nobody_and_one_that_goes_takes_nobody_elses() {
    let origins = vec![Origin::start("blue"), Origin::start("green"), Origin::start("v3")];
    let lab = lab_on(origins, &format!("sticky = {HEADER}"), "");
    let versions = || -> Vec<String> {
        let mut client = lab.client();
        (0..USERS).map(|user| ask(&mut client, &format!("x-user: {user}\r\n")).version().to_owned()).collect()
    };
    lab.weights(&json!({ "blue": 6_000, "green": 1_000, "v3": 3_000 }));
    let before = versions();
    lab.weights(&json!({ "blue": 4_000, "green": 4_000, "v3": 2_000 }));
    let after = versions();
    assert!(before.iter().zip(&after).all(|(old, new)| old != "green" || new == "green"));
    assert!(after.iter().filter(|version| *version == "v3").count() > 120);
    // In proportion: only those of the one that goes move.
    lab.weights(&json!({ "blue": 5_000, "green": 5_000, "v3": 0 }));
    let gone = versions();
    assert!(after.iter().zip(&gone).all(|(old, new)| old == new || old == "v3"));
    assert!(!gone.contains(&"v3".to_owned()));
}

#[test]
fn who_is_not_known_gets_an_id_and_keeps_its_version() {
    let lab = shop(MINT);
    green_to(&lab, 5_000);
    let (mut client, mut ids, mut green) = (lab.client(), BTreeSet::new(), 0);
    for _ in 0..100 {
        let first = ask(&mut client, "cookie: theme=dark\r\n");
        let (id, attributes) = minted(&first);
        assert_eq!(attributes, USUAL);
        for _ in 0..2 {
            let again = ask(&mut client, &format!("cookie: theme=dark; sb_id={id}\r\n"));
            assert_eq!((again.version(), cookies(&again)), (first.version(), vec![]));
        }
        green += u32::from(first.version() == "green");
        ids.insert(id);
    }
    assert_eq!(ids.len(), 100);
    assert!((25..=75).contains(&green), "{green}");
    // The version gets what came, and no more.
    let seen =
        lab.origins.iter().flat_map(Origin::seen).find(|seen| seen.header("cookie") == Some("theme=dark"));
    assert!(seen.is_some());
    // An empty one is none.
    assert_eq!(cookies(&ask(&mut client, "cookie: sb_id=\r\ncookie: sb_id=late\r\n")).len(), 1);
}

#[test]
fn who_came_before_the_canary_is_known_when_it_begins() {
    let lab = shop("{ cookie = \"sb_id\", mint = true, max_age = \"1h\" }");
    let mut client = lab.client();
    let ids: Vec<_> = (0..60).map(|_| minted(&ask(&mut client, ""))).collect();
    assert!(ids.iter().all(|(_, attributes)| attributes == "Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"));
    green_to(&lab, 5_000);
    let mut green = 0;
    for (id, _) in ids {
        let [first, second] = [(), ()].map(|()| ask(&mut client, &format!("cookie: sb_id={id}\r\n")));
        assert_eq!((first.version(), cookies(&first).len()), (second.version(), 0));
        green += u32::from(first.version() == "green");
    }
    assert!((10..=50).contains(&green), "{green}");
}

#[test]
fn what_no_version_was_asked_for_brings_no_id_and_what_a_version_failed_does() {
    let extra = "[services.own]\nroutes = [{ path = \"/gone\", answer = { status = 410, body = \"gone\" } }, \
        { path = \"/moved\", redirect = { to = \"/\", status = 302 } }]\n\
        sticky = { cookie = \"sb_id\", mint = true }\nversions.v1.endpoints = [\"127.0.0.1:9\"]\n\
        [services.down]\nroutes = [{ path = \"/down\" }]\nsticky = { cookie = \"sb_id\", mint = true }\n";
    let origins = vec![Origin::start("blue")];
    let text = format!(
        "{extra}versions.v1.endpoints = [\"{}\"]\n{}",
        nobody(),
        file(&origins, &format!("sticky = {MINT}\nlimits = {{ request_body = \"10B\" }}"), "")
    )
    .replace("path = \"/\" }]", "path = \"/shop\" }]");
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &text);
    for (path, status, count) in
        [("/gone", 410, 0), ("/moved", 302, 0), ("/nowhere", 404, 0), ("/down", 503, 1), ("/shop", 200, 1)]
    {
        let answer = lab.get(path);
        assert_eq!((answer.status, cookies(&answer).len()), (status, count), "{path}: {:?}", answer.headers);
    }
    let too_large = lab.client().post("/shop", b"more than ten");
    assert_eq!((too_large.status, cookies(&too_large).len()), (413, 0));
}

#[test]
fn a_version_that_sets_the_cookie_itself_has_the_last_word() {
    let sets = |stream: &mut std::net::TcpStream, cookie: &str| {
        write!(
            stream,
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nx-version: blue\r\nset-cookie: {cookie}\r\ncontent-length: 0\r\n\r\n"
        )?;
        Ok(Then::Keep)
    };
    let blue = Origin::behaving("blue", move |seen, stream| {
        sets(stream, if seen.path() == "/own" { "sb_id=mine" } else { "other=1" })
    });
    let lab = lab_on(vec![blue], &format!("sticky = {MINT}"), "");
    let mut client = lab.client();
    assert_eq!(cookies(&client.get("/own")), ["sb_id=mine"]);
    let answer = client.get("/");
    let all = cookies(&answer);
    assert!(all.len() == 2 && all[0] == "other=1" && all[1].starts_with("sb_id="), "{all:?}");
    let [(103, hints)] = &answer.interim[..] else { panic!("{answer:?}") };
    assert!(hints.iter().all(|(name, _)| name != "set-cookie"), "{hints:?}");
    // What the operator takes out of the versions' answers is theirs, and not ours.
    lab.write_config(&file(
        &lab.origins,
        &format!("sticky = {MINT}\nresponse_headers.remove = [\"set-cookie\"]"),
        "",
    ));
    wait_until("the file is in force", || {
        let answer = lab.get("/own");
        let all = cookies(&answer);
        all.len() == 1 && all[0] != "sb_id=mine"
    });
}

#[test]
fn a_change_of_protocol_brings_an_id_along() {
    let blue = Origin::scripted("blue", |peer| {
        peer.head()?;
        peer.send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )?;
        peer.rest();
        Ok(())
    });
    let lab = lab_on(vec![blue], &format!("sticky = {MINT}"), "");
    let mut client = lab.client();
    client.send(
        "GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!(answer.status, 101);
    minted(&answer);
}

#[test]
fn over_http2_it_is_the_same_and_its_cookies_may_come_apart() {
    let lab = shop(MINT);
    green_to(&lab, 5_000);
    run(async {
        let http2 = Http2::to(lab.address()).await;
        for _ in 0..20 {
            let first = http2.get("/").await;
            let (id, attributes) = minted(&first);
            assert_eq!(attributes, USUAL);
            let mut again = request(Method::GET, "/");
            for crumb in ["theme=dark".to_owned(), format!("sb_id={id}"), "sb_id=second".to_owned()] {
                again.headers_mut().append("cookie", HeaderValue::from_str(&crumb).unwrap());
            }
            let again = http2.ask(again).await;
            assert_eq!((again.version(), cookies(&again).len()), (first.version(), 0));
            // And over HTTP/1, however it is quoted there: as it stands.
            let same =
                ask(&mut lab.client(), &format!("cookie: a=1\r\ncookie: sb_id={id}; sb_id=second\r\n"));
            assert_eq!(same.version(), first.version());
        }
    });
}

#[test]
fn a_cookie_is_for_secure_connections_only_where_the_client_has_one() {
    let authority = Authority::new("ca");
    let dir = tempfile::tempdir().unwrap();
    authority.issue(&["shop.test"]).write(dir.path(), "shop");
    let extra = "trusted_proxies = [\"127.0.0.1\"]\n[[listeners]]\nlisten = \"127.0.0.2:0\"\n\
        tls = { certificates = [{ cert = \"shop.pem\", key = \"shop.key\" }] }\n\
        [[listeners]]\nlisten = \"127.0.0.3:0\"\n";
    let origins = vec![Origin::start("blue")];
    let text = file(&origins, &format!("sticky = {MINT}"), extra);
    let lab = Lab::configured(dir, origins, &text);
    let secure = format!("{USUAL}; Secure");
    let answer = Caller::trusting(&authority).get(lab.bound("127.0.0.2:0"), "shop.test", "/").unwrap();
    assert_eq!(minted(&answer).1, secure);
    let told = |address: SocketAddr, fields: &str| minted(&ask(&mut Client::connect(address), fields)).1;
    assert_eq!(told(lab.address(), ""), USUAL);
    for (fields, expected) in [
        ("x-forwarded-proto: https\r\n", secure.as_str()),
        ("x-forwarded-proto: HTTPS, http\r\n", &secure),
        ("x-forwarded-proto: http\r\nforwarded: proto=https\r\n", USUAL),
        ("forwarded: for=192.0.2.1;proto=\"https\"\r\n", &secure),
    ] {
        assert_eq!(told(lab.address(), fields), expected, "{fields}");
        // A stranger's word is nothing.
        assert_eq!(told(lab.bound("127.0.0.3:0"), fields), USUAL, "{fields}");
    }
}

#[test]
fn a_request_that_waits_has_one_id_and_the_version_of_then() {
    let lab = shop(MINT);
    lab.hold(&json!({}));
    let waiting: Vec<_> = (0..20).map(|_| lab.get_later("/")).collect();
    lab.wait_held(20);
    lab.flip("green");
    lab.release();
    let mut ids = BTreeSet::new();
    for waiting in waiting {
        let answer = waiting.answer();
        assert_eq!((answer.status, answer.version()), (200, "green"));
        ids.insert(minted(&answer).0);
    }
    assert_eq!(ids.len(), 20);
    // And those of who was known: none stays where he was.
    let (status, _) = lab.call("POST", "/v1/services/shop/flip", &json!({ "to": "blue", "exclusive": true }));
    assert_eq!(status, 200);
    assert!(
        ids.iter().all(|id| ask(&mut lab.client(), &format!("cookie: sb_id={id}\r\n")).version() == "blue")
    );
}

#[test]
fn a_request_that_is_tried_again_has_one_id() {
    let origins = vec![Origin::start("blue")];
    let text = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nsticky = {MINT}\nbalance = \"round_robin\"\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\", \"{}\"]\n",
        origins[0].address,
        nobody()
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &text);
    for _ in 0..4 {
        let answer = lab.get("/");
        assert_eq!(answer.status, 200);
        minted(&answer);
    }
}

#[test]
fn who_has_no_key_is_assigned_by_a_coin_a_request() {
    let lab = shop(HEADER);
    green_to(&lab, 5_000);
    let mut client = lab.client();
    for fields in ["", "x-user:\r\n", "x-other: a\r\n"] {
        let green = (0..200).filter(|_| ask(&mut client, fields).version() == "green").count();
        assert!((60..=140).contains(&green), "{green} of 200 with {fields:?}");
    }
    // Of several the first; and any bytes will do.
    let version = |client: &mut Client, fields: &str| ask(client, fields).version().to_owned();
    for name in ["a", "\"a\"", "gr\u{fc}n", "a, b", &"long".repeat(1_000)] {
        let all: BTreeSet<_> = (0..12)
            .map(|turn| version(&mut client, &format!("x-user: {name}\r\nx-user: {turn}\r\n")))
            .collect();
        assert_eq!(all.len(), 1, "{name}");
    }
}

#[test]
fn a_client_is_its_address_as_trusted_proxies_tell_it_and_of_ipv6_its_network() {
    let lab = shop_with("{ client = true }", "trusted_proxies = [\"127.0.0.1\"]");
    green_to(&lab, 5_000);
    let mut client = lab.client();
    let mut from =
        |address: &str| ask(&mut client, &format!("x-forwarded-for: {address}\r\n")).version().to_owned();
    let (mut seen, mut green) = (Vec::new(), 0);
    for host in 0..100 {
        let (v4, v6) = (format!("192.0.2.{host}"), format!("2001:db8:0:{host}::1"));
        seen.push((from(&v4), from(&v6)));
        green += u32::from(seen[host].0 == "green");
    }
    assert!((25..=75).contains(&green), "{green}");
    for (host, (v4, v6)) in seen.iter().enumerate() {
        assert_eq!(from(&format!("::ffff:192.0.2.{host}")), *v4);
        assert_eq!(from(&format!("2001:db8:0:{host}:ffff::2")), *v6);
    }
}

#[test]
fn the_users_of_a_host_are_the_same_ones_however_it_is_said() {
    let lab = shop("{ header = \"Host\" }");
    green_to(&lab, 5_000);
    let mut client = lab.client();
    let mut by_http1 = |target: &str, host: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        client.send(request).answer().version().to_owned()
    };
    let hosts: Vec<_> = (0..30).map(|host| format!("t{host}.test")).collect();
    let expected: Vec<_> = hosts.iter().map(|host| by_http1("/", host)).collect();
    assert_eq!(expected.iter().collect::<BTreeSet<_>>().len(), 2, "{expected:?}");
    run(async {
        let http2 = Http2::to(lab.address()).await;
        for (host, version) in hosts.iter().zip(&expected) {
            for said in [host.clone(), format!("{host}:8080"), host.to_uppercase()] {
                assert_eq!(by_http1("/", &said), *version, "{said}");
                let uri = format!("http://{said}/");
                let request = http::Request::get(&uri).body(()).unwrap();
                assert_eq!(http2.ask(request).await.version(), version, "{said}");
                let explained = lab.call("POST", "/v1/explain", &json!({ "uri": uri })).1;
                assert_eq!(
                    (&explained["reason"], &explained["version"]),
                    (&json!("sticky"), &json!(version))
                );
            }
            assert_eq!(by_http1(&format!("http://{host}/"), host), *version);
        }
    });
    let without = |_| lab.client().send("GET / HTTP/1.0\r\n\r\n").answer().version().to_owned();
    assert_eq!((0..60).map(without).collect::<BTreeSet<_>>().len(), 2, "who says none is nobody");
}

#[test]
fn the_access_log_says_what_decided() {
    let origins = || vec![Origin::start("blue"), Origin::start("green")];
    for (sticky, expected) in [(MINT, ["single", "minted", "sticky"]), (HEADER, ["single", "coin", "sticky"])]
    {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        let origins = origins();
        let extra = format!("[access_log]\ntarget = \"file\"\npath = \"{}\"\n", log.display());
        let text = file(&origins, &format!("sticky = {sticky}"), &extra);
        let lab = Lab::configured(dir, origins, &text);
        lab.get("/");
        green_to(&lab, 5_000);
        lab.get("/");
        ask(&mut lab.client(), "cookie: sb_id=me\r\nx-user: me\r\n");
        let read = || fs::read_to_string(&log).unwrap_or_default();
        wait_until("three lines", || read().matches('\n').count() >= 3);
        let mut said: Vec<Value> = read().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        // Of two workers either may write first.
        said.sort_by_key(|line| line["time"].as_str().unwrap().to_owned());
        let said: Vec<_> = said.iter().map(|line| line["assigned"].as_str().unwrap()).collect();
        assert_eq!(said, expected);
    }
}

#[test]
fn explain_says_by_what_and_which_and_what_becomes_of_who_has_no_key() {
    let lab = shop_with(HEADER, "");
    green_to(&lab, 2_500);
    let explain = |lab: &Lab, asked: Value| lab.call("POST", "/v1/explain", &asked).1;
    let with = |user: u32| json!({ "uri": "/", "headers": { "X-User": format!("user-{user}") } });
    let users = on_green(lab.address(), "x-user: {}");
    for user in 0..50 {
        let said = explain(&lab, with(user));
        let expected = if users.contains(&user) { "green" } else { "blue" };
        assert_eq!((&said["reason"], &said["version"]), (&json!("sticky"), &json!(expected)), "{said}");
        assert_eq!(said["sticky"], json!({ "by": "header", "name": "x-user", "mint": false }));
        assert_eq!(
            (said["chances"].as_array().unwrap().len(), &said["chances"][0]["probability"]),
            (1, &json!(1.0))
        );
    }
    let said = explain(&lab, json!({ "uri": "/" }));
    assert_eq!(
        (&said["reason"], &said["version"], said["chances"].as_array().unwrap().len()),
        (&json!("coin"), &Value::Null, 2)
    );
    let (code, text, _) = lab.cli(&["explain", "/", "-H", "x-user: user-1"]);
    assert!(code == 0 && text.contains("by the header x-user"), "{text}");
    let (_, text, _) = lab.cli(&["explain", "/"]);
    assert!(text.contains("the header x-user is not there: a coin for each request"), "{text}");
    let (_, text, _) = lab.cli(&["status", "shop"]);
    assert!(text.contains("sticky: users stay with a version by the header x-user"), "{text}");

    let lab = shop(MINT);
    green_to(&lab, 2_500);
    assert_eq!(explain(&lab, json!({ "uri": "/" }))["reason"], "minted");
    let known = explain(&lab, json!({ "uri": "/", "headers": { "cookie": "a=1; sb_id=user-1; sb_id=2" } }));
    let version = ask(&mut lab.client(), "cookie: sb_id=user-1\r\n").version().to_owned();
    assert_eq!((&known["reason"], &known["version"]), (&json!("sticky"), &json!(version)));
    assert_eq!(lab.shop()["sticky"], json!({ "by": "cookie", "name": "sb_id", "mint": true }));

    let lab = shop("{ client = true }");
    green_to(&lab, 5_000);
    let said = explain(&lab, json!({ "uri": "/", "client": "::ffff:127.0.0.1" }));
    assert_eq!(said["version"], lab.get("/").version());
}

#[test]
fn a_dry_run_says_how_many_users_would_move() {
    let lab = shop(HEADER);
    green_to(&lab, 100);
    let plan = |points: u64| {
        let weights = json!({ "green": points, "blue": 10_000 - points });
        lab.call("PUT", "/v1/services/shop/weights?dry_run=true", &weights).1["notes"].clone()
    };
    assert_eq!(
        plan(500),
        json!(["`shop` is sticky by the header x-user: 4 % of its users would change versions"])
    );
    let (_, flip) = lab.call("POST", "/v1/services/shop/flip?dry_run=true", &json!({ "to": "green" }));
    assert!(flip["notes"][0].as_str().unwrap().contains("99 % of its users"), "{flip}");
    assert_eq!(lab.weights(&json!({ "green": 500, "blue": 9_500 }))["notes"], json!([]), "done is done");
}

#[test]
fn a_file_that_asks_for_what_there_is_not_is_refused_in_words() {
    let mut lab = shop(HEADER);
    lab.expected_errors.push("the configuration is not used");
    lab.write_config(&file(&lab.origins, "sticky = { header = \"x-user\", cookie = \"a\" }", ""));
    lab.proxy().wait_for_log("`sticky` is by exactly one of cookie, header and client");
    assert_eq!(lab.shop()["sticky"]["name"], "x-user", "as before");
}
