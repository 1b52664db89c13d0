//! Waiting: for drains, for events.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;

use super::World;
use crate::control::Waited;

const FLIP: &str = "/v1/services/shop/flip?wait=drained";
const DRAIN: &str = "/v1/services/shop/versions/blue/drain";

#[tokio::test]
async fn a_version_is_drained_when_nothing_is_left_on_it() {
    let world = World::new();
    assert_eq!(
        world.get(DRAIN).await.json,
        json!({"drained": false, "weight": 10_000, "remaining": [], "endpoints": []})
    );
    let blue = world.enter("shop", "blue");
    let late = world.post(&format!("{FLIP}&timeout=20ms"), r#"{"to":"green"}"#).await;
    assert_eq!((late.status, &late.json["type"]), (504, &json!("urn:switchback:problem:timed_out")));
    assert_eq!(
        late.json["left"],
        json!([{"service": "shop", "version": "blue", "kind": "request", "count": 1}])
    );
    assert_eq!(late.json["change"]["epoch"], 2, "the change is made");
    let left = json!([{"kind": "request", "count": 1, "oldest_seconds": null}]);
    assert_eq!(
        world.get(DRAIN).await.json["remaining"],
        left,
        "there is no worker that could say since when"
    );
    let all = world.get("/v1/drain").await.json;
    let blue_left = json!({"service": "shop", "version": "blue", "drained": false, "weight": 0,
        "remaining": left, "endpoints": []});
    assert_eq!(all, json!({"drained": false, "stopping": false, "versions": [blue_left]}));
    blue.shard(0).counts.end();
    let blue = [("shop".parse().unwrap(), "blue".parse().unwrap())];
    assert!(matches!(world.control.wait_drained(&blue).await.unwrap(), Waited::Drained(_)));
    let drained = json!({"drained": true, "weight": 0, "remaining": [], "endpoints": []});
    assert_eq!(world.get(DRAIN).await.json, drained);
    assert_eq!(
        world.get("/v1/drain").await.json,
        json!({"drained": true, "stopping": false, "versions": []})
    );
    assert_eq!(world.get("/v1/services/shop/versions/red/drain").await.status, 404);
}

#[tokio::test]
async fn a_flip_can_wait_for_the_drain() {
    let world = World::new();
    let blue = world.enter("shop", "blue");
    let ending = async {
        while world.get("/v1/services/shop").await.json["phase"] != "draining" {}
        blue.shard(0).counts.end();
    };
    let (reply, ()) = tokio::join!(world.post(FLIP, r#"{"to":"green"}"#), ending);
    assert_eq!((reply.status, &reply.json["state"]), (200, &json!("drained")));
    assert_eq!(
        (&reply.json["leaving"], &reply.json["services"]["shop"]["phase"]),
        (&json!([]), &json!("steady"))
    );
}

#[tokio::test]
async fn a_version_that_gets_traffic_again_is_not_called_drained() {
    let world = World::new();
    let _blue = world.enter("shop", "blue");
    let returning = async {
        while world.get("/v1/services/shop").await.json["phase"] != "draining" {}
        world.post("/v1/services/shop/revert", "").await
    };
    let (reply, reverted) = tokio::join!(world.post(FLIP, r#"{"to":"green"}"#), returning);
    assert_eq!((reverted.status, reply.status), (200, 409));
    assert_eq!(reply.json["type"], "urn:switchback:problem:returned");
}

/// `cart` is empty at once; it is back before `shop` is.
#[tokio::test]
async fn what_gets_traffic_again_while_another_is_waited_for_is_not_called_drained() {
    let world = World::new();
    let _blue = world.enter("shop", "blue");
    let flips = json!({"changes": [
        {"service": "cart", "flip": {"to": "v2"}},
        {"service": "shop", "flip": {"to": "green"}}
    ]});
    let returning = async {
        while world.get("/v1/services/shop").await.json["phase"] != "draining" {}
        world.post("/v1/services/cart/revert", "").await
    };
    let changes = flips.to_string();
    let (reply, reverted) = tokio::join!(world.post("/v1/changes?wait=drained", &changes), returning);
    assert_eq!((reverted.status, reply.status), (200, 409));
    let detail = reply.json["detail"].as_str().unwrap();
    assert!(detail.contains("gave `v1` of `cart` traffic again"), "{detail}");
}

#[tokio::test]
async fn what_to_wait_for_is_checked_before_anything_is_changed() {
    let world = World::new();
    for (query, status, field) in [
        ("wait=forever", 400, "wait"),
        ("wait=drained&timeout=5", 400, "timeout"),
        ("wait=finished&drain_timeout=5", 400, "drain_timeout"),
        ("wait=drained&drain_timeout=5s", 400, "drain_timeout"),
    ] {
        let reply = world.post(&format!("/v1/services/shop/flip?{query}"), r#"{"to":"green"}"#).await;
        assert_eq!((reply.status, &reply.json["field"]), (status, &json!(field)));
    }
    assert_eq!(world.get("/v1/status").await.json["epoch"], 1);
}

async fn listen(world: &World) -> Lines<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(&world.socket).await.unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    BufReader::new(stream).lines()
}

async fn event(lines: &mut Lines<BufReader<UnixStream>>) -> Value {
    let next = async {
        loop {
            let line = lines.next_line().await.unwrap().unwrap();
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), next).await.unwrap()
}

#[tokio::test]
async fn events_tell_changes_and_drains() {
    let world = World::new();
    let mut lines = listen(&world).await;
    assert_eq!(event(&mut lines).await, json!({"type": "hello", "epoch": 1}));
    world.post(FLIP, r#"{"to":"green"}"#).await;
    let changed = event(&mut lines).await;
    assert_eq!((&changed["type"], &changed["change"]["epoch"]), (&json!("changed"), &json!(2)));
    let drained = event(&mut lines).await;
    assert_eq!((&drained["type"], &drained["version"]), (&json!("drained"), &json!("blue")));
}

#[tokio::test]
async fn event_streams_leave_room_for_an_operator() {
    let world = World::new();
    let mut open = Vec::new();
    for _ in 0..crate::admin::streams::LOCAL {
        let mut lines = listen(&world).await;
        event(&mut lines).await;
        open.push(lines);
    }
    assert_eq!(world.get("/v1/events").await.status, 503);
    assert_eq!(world.get("/v1/services").await.status, 200);
}
