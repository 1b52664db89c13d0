//! The admin API over TCP: who is let in, and to what.

mod strangers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Reply, World, send_over};
use crate::admin::access::{Access, Door, Known, Proof};
use crate::admin::{App, router, serve_remote};
use crate::release::Scopes;

const FLIP: &str = r#"{"to":"green"}"#;

fn scopes(all: &[&str]) -> Scopes {
    Scopes::of(all.iter().map(|scope| scope.parse().unwrap()).collect())
}

/// Somebody whose token is the name.
fn known(name: &str, may: &[&str]) -> Known {
    let sum = digest(&SHA256, name.as_bytes()).as_ref().try_into().unwrap();
    Known { name: name.to_owned(), proof: Proof::Token(sum), scopes: scopes(may) }
}

fn door(known: Vec<Known>) -> Arc<Door> {
    let handshake_timeout = Duration::from_secs(10);
    let [replaced, doubted] = [(); 2].map(|()| CancellationToken::new());
    Arc::new(Door { tls: None, handshake_timeout, access: Access::of(known), replaced, doubted })
}

/// A world, and its API over TCP.
struct Remote {
    world: World,
    door: watch::Sender<Arc<Door>>,
    address: SocketAddr,
}

impl Remote {
    async fn of(known: Vec<Known>) -> Self {
        let mut world = World::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (door, seen) = watch::channel(door(known));
        let app = App::new(
            world.control.clone(),
            Arc::clone(&world.status),
            Arc::new(|| "a_metric 1\n".to_owned()),
        );
        world._tasks.spawn(serve_remote(listener, seen, app, std::future::pending()));
        Self { world, door, address }
    }

    /// `shop` may operate shop, `cart` cart, `reader` read, `both` read and operate shop, `root` everything.
    async fn usual() -> Self {
        let all = [
            known("shop", &["operate:sho*"]),
            known("cart", &["operate:cart"]),
            known("reader", &["read"]),
            known("both", &["read", "operate:shop"]),
            known("root", &["admin"]),
        ];
        Self::of(all.into()).await
    }

    async fn call(&self, who: &str, method: &str, target: &str, headers: &[&str], body: &str) -> Reply {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let token = format!("authorization: Bearer {who}");
        send_over(stream, method, target, &[headers, &[&token]].concat(), body).await
    }

    async fn get(&self, who: &str, target: &str) -> Reply {
        self.call(who, "GET", target, &[], "").await
    }

    async fn post(&self, who: &str, target: &str, body: &str) -> Reply {
        self.call(who, "POST", target, &[], body).await
    }
}

/// Who may, said once more and otherwise: a call that nobody has thought of has no place here.
fn may(method: &str, path: &str, service: &str, scopes: &[(bool, bool, &str)]) -> bool {
    let any =
        |may: &dyn Fn(bool, bool, &str) -> bool| scopes.iter().any(|(read, all, of)| may(*read, *all, of));
    let fits = |of: &str| of.parse::<crate::table::Glob>().is_ok_and(|glob| glob.matches(service));
    let everything = any(&|_, all, _| all);
    let reads = everything || any(&|read, _, _| read);
    let operates_some = everything || any(&|_, _, of| !of.is_empty());
    let operates = everything || any(&|_, _, of| !of.is_empty() && fits(of));
    match (method, path) {
        ("GET", "/healthz" | "/readyz" | "/v1/openapi.json" | "/v1/status") => true,
        ("GET", "/metrics") => reads,
        ("GET", "/v1/services" | "/v1/drain" | "/v1/changes" | "/v1/events") | ("POST", "/v1/explain") => {
            reads || operates_some
        }
        ("POST", "/v1/changes" | "/v1/undo") => operates_some,
        ("POST", "/v1/upgrade") => everything,
        ("GET", path) if path.starts_with("/v1/services/{service}") => reads || operates,
        ("POST" | "PUT" | "DELETE", path) if path.starts_with("/v1/services/{service}") => operates,
        _ => panic!("who may {method} {path}?"),
    }
}

fn model(all: &[String]) -> Vec<(bool, bool, &str)> {
    let of = |scope: &String| scope.strip_prefix("operate:").map_or(0, str::len);
    all.iter().map(|scope| (scope == "read", scope == "admin", &scope[scope.len() - of(scope)..])).collect()
}

proptest! {
    #[test]
    fn a_call_is_allowed_where_the_table_says_so_and_nowhere_else(
        all in proptest::collection::vec("read|admin|operate:[ab*]{1,3}", 0..4),
        service in "[ab]{1,3}",
        at in any::<prop::sample::Index>(),
    ) {
        let routes = router::routes();
        let route = &routes[at.index(routes.len())];
        let held = scopes(&all.iter().map(String::as_str).collect::<Vec<_>>());
        let checked = route.need.check(&held, &service, &[]);
        let wanted = may(route.method.as_str(), route.path, &service, &model(&all));
        prop_assert_eq!(checked.is_ok(), wanted, "{} {} of {} with {:?}", route.method, route.path, service, all);
    }

    #[test]
    fn all_services_of_a_batch_have_to_be_ones_own(
        all in proptest::collection::vec("read|operate:[ab*]{1,2}", 0..3),
        named in proptest::collection::vec("[ab]{1,2}", 0..4),
    ) {
        let held = scopes(&all.iter().map(String::as_str).collect::<Vec<_>>());
        let named: Vec<_> = named.iter().map(String::as_str).collect();
        let checked = crate::admin::need::Need::OperateNamed.check(&held, "", &named);
        let all = model(&all);
        let wanted = may("POST", "/v1/changes", "", &all)
            && named.iter().all(|name| may("POST", "/v1/services/{service}/flip", name, &all));
        prop_assert_eq!(checked.is_ok(), wanted);
    }
}

#[tokio::test]
async fn every_call_of_the_document_is_refused_to_whom_it_is_not_for() {
    let remote = Remote::usual().await;
    let document = serde_json::to_value(crate::admin::document()).unwrap();
    let held = [
        ("reader", vec!["read".to_owned()]),
        ("shop", vec!["operate:sho*".to_owned()]),
        ("both", vec!["read".to_owned(), "operate:shop".to_owned()]),
        ("root", vec!["admin".to_owned()]),
    ];
    let mut refused = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            let target = |service: &str| {
                let target = path.replace("{service}", service).replace("{version}", "none");
                target.replace("{endpoint}", "127.0.0.1:1")
            };
            let stranger = remote.call("guess", &method, &target("shop"), &[], "").await;
            assert_eq!(stranger.status, 401, "{method} {path}");
            for ((who, all), service) in held.iter().flat_map(|held| [(held, "shop"), (held, "cart")]) {
                // No JSON: nothing is changed where it is allowed.
                let reply = remote.call(who, &method, &target(service), &[], "no JSON").await;
                let wanted = may(&method, path, service, &model(all));
                let is_refused = reply.status == 403;
                assert_eq!(
                    is_refused, !wanted,
                    "{who}: {method} {path} of {service}: {} {}",
                    reply.status, reply.text
                );
                if is_refused {
                    let hint = reply.json["hint"].as_str().unwrap();
                    assert!(hint.starts_with("it takes the scope `"), "{hint}");
                    assert_eq!(reply.json["type"], "urn:switchback:problem:out_of_scope");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 50, "{refused}");
}

#[tokio::test]
async fn a_change_says_who_made_it_and_a_page_of_the_web_makes_none() {
    let remote = Remote::usual().await;
    let done = remote.post("shop", "/v1/services/shop/flip", FLIP).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let history = remote.get("shop", "/v1/changes").await;
    let actor = &history.json["changes"][0]["actor"];
    assert_eq!(actor["kind"], "controller");
    assert!(actor["name"].as_str().unwrap().starts_with("token=shop peer=127.0.0.1:"), "{actor}");
    let page =
        remote.call("shop", "POST", "/v1/services/shop/flip", &["origin: https://evil.example"], FLIP).await;
    assert_eq!(page.json["type"], "urn:switchback:problem:origin_refused");
}

#[tokio::test]
async fn lists_tell_of_ones_own_services_alone() {
    let remote = Remote::usual().await;
    let names = |reply: &Reply| -> Vec<Value> {
        reply.json["services"].as_array().unwrap().iter().map(|service| service["name"].clone()).collect()
    };
    assert_eq!(names(&remote.get("shop", "/v1/services").await), ["shop"]);
    assert_eq!(names(&remote.get("reader", "/v1/services").await), ["cart", "shop"]);
    // One of the other, then one over both.
    remote.post("cart", "/v1/services/cart/flip", r#"{"to":"v2","reason":"theirs"}"#).await;
    let both =
        r#"{"changes":[{"service":"cart","flip":{"to":"v1"}},{"service":"shop","flip":{"to":"green"}}]}"#;
    assert_eq!(remote.post("root", "/v1/changes", both).await.status, 200);
    let history = remote.get("shop", "/v1/changes").await;
    assert!(!history.text.contains("cart") && !history.text.contains("theirs"), "{}", history.text);
    let epochs: Vec<_> =
        history.json["changes"].as_array().unwrap().iter().map(|change| &change["epoch"]).collect();
    assert_eq!(epochs, [3, 1]);
    let page = remote.get("shop", "/v1/changes?limit=1").await;
    let before = page.json["next_before"].as_u64().unwrap();
    let rest = remote.get("shop", &format!("/v1/changes?limit=1&before={before}")).await;
    assert_eq!(rest.json["changes"][0]["epoch"], 1, "{}", rest.text);
    assert!(!remote.get("shop", "/v1/services/shop").await.text.contains("cart"));
    assert_eq!(remote.get("shop", "/v1/changes?service=cart").await.status, 403);
    let explained = remote.post("shop", "/v1/explain", r#"{"uri":"http://cart.example.com/"}"#).await;
    assert!(explained.status == 403 && !explained.text.contains("`operate:cart`"), "{}", explained.text);
    assert_eq!(remote.post("shop", "/v1/explain", r#"{"uri":"http://shop.example.com/"}"#).await.status, 200);
    let _left = remote.world.enter("cart", "v2");
    let theirs = remote.get("shop", "/v1/drain").await;
    assert_eq!((theirs.json["drained"].clone(), theirs.text.contains("cart")), (json!(true), false));
    let all = remote.get("reader", "/v1/drain").await;
    assert_eq!(all.json["versions"][0]["service"], "cart", "{}", all.text);
}

#[tokio::test]
async fn a_batch_and_an_undo_change_nobody_elses_services() {
    let remote = Remote::usual().await;
    let both =
        r#"{"changes":[{"service":"shop","flip":{"to":"green"}},{"service":"cart","flip":{"to":"v2"}}]}"#;
    for target in ["/v1/changes", "/v1/changes?dry_run=true"] {
        let refused = remote.post("shop", target, both).await;
        assert_eq!(
            (refused.status, refused.json["hint"].as_str().unwrap().contains("`operate:cart`")),
            (403, true)
        );
    }
    assert_eq!(remote.post("root", "/v1/changes", both).await.status, 200);
    for target in ["/v1/undo", "/v1/undo?dry_run=true"] {
        let refused = remote.post("shop", target, r#"{"to_epoch":1}"#).await;
        assert_eq!(
            (refused.status, refused.json["detail"].as_str()),
            (403, Some("nothing has changed: it would change services that may not be looked at"))
        );
        assert!(!refused.text.contains("cart"), "{}", refused.text);
        let told = remote.post("both", target, r#"{"to_epoch":1}"#).await;
        assert_eq!(told.json["detail"], "nothing has changed: it would change `cart`");
    }
    assert_eq!(remote.world.get("/v1/status").await.json["epoch"], 2);
    remote.post("shop", "/v1/services/shop/flip", r#"{"to":"blue"}"#).await;
    let own = remote.post("shop", "/v1/undo", r#"{"to_epoch":2}"#).await;
    assert_eq!(own.status, 200, "only its own would change: {}", own.text);
}

#[tokio::test]
async fn a_path_of_the_proxys_machine_is_for_who_may_do_everything() {
    let remote = Remote::usual().await;
    let endpoint = "/v1/services/shop/versions/green/endpoints/unix:%2Frun%2Fadmin.sock";
    let version = "/v1/services/shop/versions/new";
    let pool = r#"{"endpoints":["unix:/run/admin.sock"]}"#;
    let rollout = r#"{"from":"blue","replace":[{"out":"127.0.0.1:9001","into":"unix:/run/admin.sock"}]}"#;
    let batch = r#"{"changes":[{"service":"shop","put_version":{"version":"new","endpoints":["unix:/run/admin.sock"]}}]}"#;
    let calls = [
        ("PUT", endpoint, ""),
        ("PUT", version, pool),
        ("POST", "/v1/services/shop/rollout?dry_run=true", rollout),
        ("POST", "/v1/changes", batch),
    ];
    for (method, target, body) in calls {
        let refused = remote.call("both", method, target, &[], body).await;
        assert_eq!(refused.status, 403, "{method} {target}: {}", refused.text);
        assert!(refused.json["hint"].as_str().unwrap().contains("`admin`"), "{}", refused.text);
    }
    assert_eq!(remote.call("root", "PUT", version, &[], pool).await.status, 200);
    let again = remote
        .call("both", "POST", &format!("{version}/endpoints/unix:%2Frun%2Fadmin.sock/drain"), &[], "")
        .await;
    assert_eq!(again.status, 200, "one that is there may be dealt with: {}", again.text);
}

#[tokio::test]
async fn an_idempotency_key_is_its_callers_own() {
    let remote = Remote::usual().await;
    let key = ["idempotency-key: deploy-7"];
    let first = remote.call("cart", "POST", "/v1/services/cart/flip", &key, r#"{"to":"v2"}"#).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let other = remote.call("shop", "POST", "/v1/services/shop/flip", &key, FLIP).await;
    assert_eq!(other.status, 200, "what others call theirs is nothing to it: {}", other.text);
    let again = remote.call("shop", "POST", "/v1/services/shop/flip", &key, FLIP).await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let reused = remote.call("shop", "POST", "/v1/services/shop/revert", &key, "").await;
    let detail = "the idempotency key `deploy-7` was used for a different request";
    assert_eq!((reused.status, reused.json["detail"].as_str()), (422, Some(detail)));
}

#[tokio::test]
async fn nobody_who_is_known_keeps_the_others_out() {
    let remote = Remote::usual().await;
    let blue = remote.world.enter("shop", "blue");
    let head = format!(
        "POST /v1/services/shop/flip?wait=drained&timeout=24h HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer shop\r\ncontent-length: {}\r\n\r\n{FLIP}",
        FLIP.len()
    );
    let in_time = |asked| tokio::time::timeout(Duration::from_secs(10), asked);
    let mut waiting = Vec::new();
    for _ in 0..5 {
        for _ in 0..60 {
            let mut stream = TcpStream::connect(remote.address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            waiting.push(stream);
        }
        assert_eq!(in_time(remote.get("cart", "/healthz")).await.unwrap().status, 200);
    }
    let refused = in_time(remote.get("shop", "/healthz")).await.unwrap();
    let (problem, pause) = (refused.json["type"].as_str(), refused.header("retry-after"));
    assert_eq!(
        (refused.status, problem, pause),
        (429, Some("urn:switchback:problem:too_many_connections"), Some("1"))
    );
    // Those that wait are answered, and then there is room.
    blue.shard(0).counts.end();
    let mut told = BTreeMap::new();
    for mut stream in waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        *told.entry(answer[9..12].to_owned()).or_insert(0) += 1;
    }
    assert_eq!(told, BTreeMap::from([("200".to_owned(), 64), ("429".to_owned(), 236)]));
    assert_eq!(in_time(remote.get("shop", "/healthz")).await.unwrap().status, 200);
}

#[tokio::test]
async fn nobody_who_is_known_has_all_event_streams() {
    let remote = Remote::usual().await;
    let open = async |who: &str| {
        let stream = TcpStream::connect(remote.address).await.unwrap();
        let mut stream = BufReader::new(stream);
        let head = format!("GET /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {who}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut status = String::new();
        stream.read_line(&mut status).await.unwrap();
        (status[9..12].to_owned(), stream)
    };
    let mut held = Vec::new();
    for index in 0..64 {
        let (status, stream) = open("shop").await;
        assert_eq!(status, if index < 32 { "200" } else { "429" });
        held.extend((index < 32).then_some(stream));
    }
    let refused = remote.get("shop", "/v1/events").await;
    assert_eq!(refused.json["type"].as_str(), Some("urn:switchback:problem:too_many_streams"));
    assert_eq!(open("cart").await.0, "200", "others have theirs");
    // With the end of one there is room for another.
    drop(held.pop());
    while open("shop").await.0 != "200" {}
}

#[tokio::test]
async fn an_event_stream_tells_of_ones_own_and_ends_with_the_right_to_it() {
    let remote = Remote::usual().await;
    let mut stream = BufReader::new(TcpStream::connect(remote.address).await.unwrap());
    let call =
        b"GET /v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer shop\r\n\r\n";
    stream.write_all(call).await.unwrap();
    let mut line = String::new();
    while !line.contains("hello") {
        line.clear();
        assert!(stream.read_line(&mut line).await.unwrap() > 0);
    }
    remote.post("cart", "/v1/services/cart/flip", r#"{"to":"v2"}"#).await;
    remote.post("shop", "/v1/services/shop/flip", FLIP).await;
    let mut seen = String::new();
    while !seen.contains("\"green\"") {
        assert!(stream.read_line(&mut seen).await.unwrap() > 0, "{seen}");
    }
    assert!(!seen.contains("cart"), "{seen}");
    // Others come and go.
    remote.door.send_replace(door(vec![known("shop", &["operate:sho*"])]));
    remote.post("shop", "/v1/services/shop/flip", r#"{"to":"blue"}"#).await;
    while !seen.contains("\"to\":\"blue\"") && !seen.contains("\"blue\":10000") {
        assert!(stream.read_line(&mut seen).await.unwrap() > 0, "{seen}");
    }
    // It may less than when it asked.
    remote.door.send_replace(door(vec![known("shop", &["read"])]));
    stream.read_to_string(&mut seen).await.unwrap();
}
