//! Each call does what the contract says, and refuses what it must.

use serde_json::{Value, json};

use super::World;

#[tokio::test]
async fn a_service_tells_where_it_stands() {
    let world = World::new();
    let reply = world.get("/v1/services/shop").await;
    assert_eq!((reply.status, reply.header("etag")), (200, Some("\"1\"")));
    assert_eq!(reply.json["weights"], json!({"blue": 10_000}));
    assert_eq!(reply.json["phase"], "steady");
    assert_eq!(reply.json["routes"], json!([{"host": "shop.example.com", "path": "/"}]));
    assert_eq!(
        reply.json["versions"][0]["endpoints"],
        json!([{"address": "127.0.0.1:9001", "draining": false}])
    );
    assert_eq!(reply.json["changes"][0]["actor"]["kind"], "file");
    assert_eq!(world.get("/v1/services").await.json["services"][0]["name"], "cart");
    assert_eq!(world.get("/v1/services/nix").await.status, 404);
}

#[tokio::test]
async fn a_flip_is_made_by_whom_the_kernel_says() {
    let world = World::new();
    let reply = world.post("/v1/services/shop/flip", r#"{"to":"green","reason":"v2 is out"}"#).await;
    assert_eq!((reply.status, reply.header("etag")), (200, Some("\"2\"")));
    assert_eq!(reply.json["state"], "fenced");
    assert_eq!(reply.json["services"]["shop"]["weights"], json!({"green": 10_000}));
    assert_eq!(reply.json["leaving"], json!([{"service": "shop", "version": "blue"}]));
    let change = &world.get("/v1/changes?limit=1").await.json["changes"][0];
    assert_eq!((&change["kind"], &change["reason"]), (&json!("flip"), &json!("v2 is out")));
    assert_eq!(change["actor"]["kind"], "controller");
    let own = format!("pid={}", std::process::id());
    assert!(change["actor"]["name"].as_str().unwrap().ends_with(&own));
}

#[tokio::test]
async fn our_own_command_line_is_an_operator() {
    let world = World::new();
    world.send("POST", "/v1/services/shop/flip", &["switchback-client: cli"], r#"{"to":"green"}"#).await;
    assert_eq!(world.get("/v1/changes").await.json["changes"][0]["actor"]["kind"], "operator");
}

#[tokio::test]
async fn a_revert_needs_no_body_and_a_way_back() {
    let world = World::new();
    let refused = world.post("/v1/services/shop/revert", "").await;
    assert_eq!(
        (refused.status, &refused.json["type"]),
        (409, &json!("urn:switchback:problem:nothing_to_revert"))
    );
    assert!(refused.json["hint"].as_str().unwrap().contains("undo"));
    world.post("/v1/services/shop/flip", r#"{"to":"green"}"#).await;
    let reply = world.post("/v1/services/shop/revert", "").await;
    assert_eq!(reply.json["services"]["shop"]["weights"], json!({"blue": 10_000}));
}

#[tokio::test]
async fn weights_sum_or_their_rest_goes_where_it_is_told() {
    let world = World::new();
    let path = "/v1/services/shop/weights";
    let reply = world.put(&format!("{path}?rest=@stable&reason=canary"), r#"{"green":500}"#).await;
    assert_eq!(reply.json["services"]["shop"]["weights"], json!({"green": 500, "blue": 9500}));
    assert_eq!(reply.json["services"]["shop"]["phase"], "canary");
    for (query, body, status, token, field) in [
        ("", r#"{"green":500}"#, 422, "bad_weights", json!(null)),
        ("", r#"{"green":20000}"#, 422, "bad_weights", json!("green")),
        ("", r#"{"red":10000}"#, 422, "unknown_version", json!("red")),
        ("?rest=stable", r#"{"green":1}"#, 422, "unknown_version", json!("rest")),
        ("?rest=red", r#"{"green":1}"#, 422, "unknown_version", json!("rest")),
        ("", r#"{"green":1,"green":2}"#, 400, "bad_json", json!(null)),
        ("", r#"{"green":-1}"#, 400, "bad_json", json!("green")),
        ("", r#"{"green":"5%"}"#, 400, "bad_json", json!("green")),
        ("?rset=stable", r#"{"green":500}"#, 400, "bad_query", json!("rset")),
    ] {
        let reply = world.put(&format!("{path}{query}"), body).await;
        assert_eq!(reply.status, status, "{query} {body}: {}", reply.text);
        assert_eq!(reply.json["type"], format!("urn:switchback:problem:{token}"), "{body}");
        assert_eq!(reply.json["field"], field, "{query} {body}: {}", reply.text);
    }
}

#[tokio::test]
async fn pools_are_edited_by_path() {
    let world = World::new();
    let version = "/v1/services/shop/versions/v3";
    let body = r#"{"endpoints":["127.0.0.1:9301"],"protocol":"http1"}"#;
    assert_eq!(world.put(version, body).await.json["changed"], true);
    assert_eq!(world.put(version, body).await.json["changed"], false);
    let unix = format!("{version}/endpoints/unix:%2Frun%2Fapp.sock");
    assert_eq!(world.put(&unix, "").await.status, 200);
    let shop = world.get("/v1/services/shop").await;
    assert_eq!(shop.json["versions"][3]["endpoints"][1]["address"], "unix:/run/app.sock");
    assert_eq!(world.send("DELETE", &unix, &[], "").await.status, 200);
    assert_eq!(world.send("DELETE", &unix, &[], "").await.status, 404);
    assert_eq!(world.send("DELETE", version, &[], "").await.status, 200);
    assert_eq!(world.send("DELETE", version, &[], "").await.status, 404);
    assert_eq!(world.send("DELETE", "/v1/services/shop/versions/blue", &[], "").await.status, 409);
    let last = "/v1/services/shop/versions/blue/endpoints/127.0.0.1:9001";
    assert_eq!(world.send("DELETE", last, &[], "").await.status, 409);
    let unknown = world.put(version, r#"{"endpoints":[],"protocol":"h3"}"#).await;
    assert_eq!((unknown.status, &unknown.json["field"]), (400, &json!("protocol")));
    let nameless = world.put(version, r#"{"endpoints":["unix:/run/a.sock"],"protocol":"https"}"#).await;
    assert_eq!((nameless.status, &nameless.json["field"]), (422, &json!("endpoints[0]")));
    let bad = world.put(version, r#"{"endpoints":["127.0.0.1:1","nix"]}"#).await;
    assert_eq!((bad.status, &bad.json["field"]), (400, &json!("endpoints[1]")));
}

#[tokio::test]
async fn a_batch_is_one_change_or_none() {
    let world = World::new();
    let body = r#"{"changes":[{"service":"shop","flip":{"to":"green"}},
        {"service":"cart","weights":{"v2":1000},"rest":"@stable"}],"reason":"release 7"}"#;
    let reply = world.post("/v1/changes", body).await;
    assert_eq!((reply.status, &reply.json["epoch"]), (200, &json!(2)));
    assert_eq!(reply.header("etag"), Some("\"2\""));
    assert_eq!(reply.json["services"]["cart"]["weights"], json!({"v1": 9000, "v2": 1000}));
    for (body, status, field) in [
        (r#"{"changes":[]}"#, 422, "changes"),
        (
            r#"{"changes":[{"service":"shop","flip":{"to":"blue"}},{"service":"cart","flip":{"to":"v9"}}]}"#,
            422,
            "changes[1]",
        ),
        (r#"{"changes":[{"service":"shop","flip":{"to":"blue"},"revert":{}}]}"#, 400, "changes[0]"),
        (r#"{"changes":[{"service":"shop","flap":{}}]}"#, 400, "changes[0].flap"),
        (
            r#"{"changes":[{"service":"shop","flip":{"to":"blue","reason":"x"}}]}"#,
            400,
            "changes[0].flip.reason",
        ),
        (r#"{"changes":[{"flip":{"to":"blue"}}]}"#, 400, "changes[0].service"),
    ] {
        let reply = world.post("/v1/changes", body).await;
        assert_eq!((reply.status, &reply.json["field"]), (status, &json!(field)), "{body}: {}", reply.text);
    }
    assert_eq!(world.get("/v1/status").await.json["epoch"], 2, "a refused batch changes nothing");
}

#[tokio::test]
async fn a_batch_that_is_refused_names_the_edit_at_fault() {
    let world = World::new();
    for (edit, status, token, field) in [
        (r#""if_epoch":7,"flip":{"to":"blue"}"#, 412, "conflict", "changes[1].if_epoch"),
        (r#""flip":{"to":"red"}"#, 422, "unknown_version", "changes[1]"),
        (r#""flip":{"to":"empty"}"#, 422, "empty_version", "changes[1]"),
        (r#""weights":{"green":5}"#, 422, "bad_weights", "changes[1]"),
        (r#""revert":{}"#, 409, "nothing_to_revert", "changes[1]"),
        (r#""remove_version":"blue""#, 409, "version_in_use", "changes[1]"),
        (
            r#""remove_endpoint":{"version":"blue","endpoint":"127.0.0.1:1"}"#,
            404,
            "unknown_endpoint",
            "changes[1]",
        ),
    ] {
        let first = r#"{"service":"shop","put_version":{"version":"v3","endpoints":["127.0.0.1:9301"]}}"#;
        let last = r#"{"service":"shop","drain_endpoint":{"version":"v3","endpoint":"127.0.0.1:9301"}}"#;
        let body = format!(r#"{{"changes":[{first},{{"service":"shop",{edit}}},{last}]}}"#);
        let reply = world.post("/v1/changes", &body).await;
        assert_eq!(reply.json["type"], format!("urn:switchback:problem:{token}"), "{body}: {}", reply.text);
        assert_eq!((reply.status, &reply.json["field"]), (status, &json!(field)), "{body}: {}", reply.text);
    }
    for (edit, field) in [
        (r#"{"service":"nix","flip":{"to":"blue"}}"#, "changes[0]"),
        (r#"{"service":"nix","if_epoch":1,"flip":{"to":"blue"}}"#, "changes[0].service"),
    ] {
        let reply = world.post("/v1/changes", &format!(r#"{{"changes":[{edit}]}}"#)).await;
        assert_eq!((reply.status, &reply.json["field"]), (404, &json!(field)), "{edit}: {}", reply.text);
    }
}

#[tokio::test]
async fn every_service_of_a_batch_is_told_of() {
    let world = World::new();
    let body =
        r#"{"changes":[{"service":"cart","weights":{"v1":10000}},{"service":"shop","flip":{"to":"green"}}]}"#;
    let reply = world.post("/v1/changes", body).await;
    let services = &reply.json["services"];
    assert_eq!(
        (&services["cart"]["epoch"], &services["shop"]["epoch"]),
        (&json!(1), &json!(2)),
        "{}",
        reply.text
    );
    assert_eq!(reply.header("etag"), None, "no one tag is right for both");
}

#[tokio::test]
async fn a_flip_of_a_batch_whose_exclusive_is_not_understood_is_refused() {
    let world = World::new();
    for (said, field) in [
        (r#""exclusive":"write""#, "exclusive"),
        (r#""exclusive":1"#, "exclusive"),
        (r#""exclusive":true"#, "exclusive"),
        (r#""exclusive":"writes","streams":"bogus""#, "streams"),
        (r#""exclusive":true,"hold_timeout":"99h""#, "hold_timeout"),
        (r#""streams":"close""#, "streams"),
    ] {
        let body = format!(r#"{{"changes":[{{"service":"shop","flip":{{"to":"green",{said}}}}}]}}"#);
        let reply = world.post("/v1/changes", &body).await;
        let field = json!(format!("changes[0].flip.{field}"));
        assert_eq!((reply.status, &reply.json["field"]), (400, &field), "{said}: {}", reply.text);
    }
    assert_eq!(world.get("/v1/status").await.json["epoch"], 1);
}

#[tokio::test]
async fn an_array_is_no_object() {
    let world = World::new();
    world.post("/v1/services/shop/flip", r#"{"to":"green"}"#).await;
    for (method, path, body, field) in [
        ("POST", "/v1/services/shop/flip", r#"["blue"]"#, json!(null)),
        ("POST", "/v1/services/shop/revert", "[]", json!(null)),
        ("POST", "/v1/services/shop/hold", r#"["writes","1s"]"#, json!(null)),
        ("POST", "/v1/services/shop/release", "[]", json!(null)),
        ("PUT", "/v1/services/shop/versions/v3", r#"[["127.0.0.1:1"]]"#, json!(null)),
        ("PUT", "/v1/services/shop/versions/blue/endpoints/127.0.0.1:9001", "[2]", json!(null)),
        ("POST", "/v1/undo", "[1]", json!(null)),
        ("POST", "/v1/upgrade", "[]", json!(null)),
        ("POST", "/v1/explain", r#"["/"]"#, json!(null)),
        ("POST", "/v1/services/shop/rollout", "[]", json!(null)),
        ("POST", "/v1/changes", "[[]]", json!(null)),
        ("POST", "/v1/changes", r#"{"changes":[["shop",2,["blue"]]]}"#, json!("changes[0]")),
        (
            "POST",
            "/v1/changes",
            r#"{"changes":[{"service":"shop","revert":[]}]}"#,
            json!("changes[0].revert"),
        ),
    ] {
        let reply = world.send(method, path, &[], body).await;
        assert_eq!((reply.status, &reply.json["field"]), (400, &field), "{path} {body}: {}", reply.text);
        assert_eq!(reply.json["type"], "urn:switchback:problem:bad_json", "{path} {body}");
    }
    assert_eq!(world.get("/v1/status").await.json["epoch"], 2);
}

#[tokio::test]
async fn where_a_body_may_be_absent_it_may_be_null() {
    let world = World::new();
    world.post("/v1/services/shop/flip", r#"{"to":"green"}"#).await;
    let reply = world.post("/v1/services/shop/revert", "null").await;
    assert_eq!(reply.json["services"]["shop"]["weights"], json!({"blue": 10_000}), "{}", reply.text);
    assert_eq!(world.post("/v1/services/shop/flip", "null").await.status, 400);
}

#[tokio::test]
async fn a_parameter_that_is_not_known_is_refused() {
    let world = World::new();
    for (method, path, body) in [("GET", "/v1/status", ""), ("POST", "/v1/explain", r#"{"uri":"/"}"#)] {
        let reply = world.send(method, &format!("{path}?vesrion=1"), &[], body).await;
        assert_eq!((reply.status, &reply.json["field"]), (400, &json!("vesrion")), "{path}: {}", reply.text);
        assert_eq!(world.send(method, path, &[], body).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn an_undo_goes_back_to_an_epoch() {
    let world = World::new();
    world.post("/v1/services/shop/flip", r#"{"to":"green"}"#).await;
    world.post("/v1/services/cart/flip", r#"{"to":"v2"}"#).await;
    let reply = world.post("/v1/undo", r#"{"to_epoch":1,"reason":"night"}"#).await;
    assert_eq!(reply.json["services"]["shop"]["weights"], json!({"blue": 10_000}));
    assert_eq!(reply.json["services"]["cart"]["weights"], json!({"v1": 10_000}));
    let refused = world.post("/v1/undo", r#"{"to_epoch":99}"#).await;
    assert_eq!((refused.status, &refused.json["field"]), (422, &json!("to_epoch")));
}

#[tokio::test]
async fn a_flip_says_whether_it_is_supervised_and_for_how_long() {
    let world = World::new();
    let flip = "/v1/services/shop/flip";
    for bad in [r#"5"#, r#""soon""#, r#""0s""#] {
        let reply = world.post(flip, &format!(r#"{{"to":"green","supervise":{bad}}}"#)).await;
        assert_eq!((reply.status, &reply.json["field"]), (400, &json!("supervise")), "{bad}");
    }
    let reply = world.post(flip, r#"{"to":"green","supervise":"10m"}"#).await;
    let standing = &reply.json["services"]["shop"];
    assert_eq!((reply.status, &standing["phase"]), (200, &json!("supervising")));
    let trial = &standing["supervision"];
    assert_eq!((&trial["baseline"], &trial["candidate"]), (&json!("blue"), &json!("green")));
    assert_eq!((&trial["acts"], &trial["stage"]), (&json!(true), &reply.json["epoch"]));
    assert!(trial["until"].is_string());
    let reply = world.post("/v1/services/shop/revert", "").await;
    assert_eq!(reply.json["services"]["shop"]["supervision"], Value::Null);
    let reply = world.post(flip, r#"{"to":"green","supervise":false}"#).await;
    assert_eq!(reply.json["services"]["shop"]["supervision"], Value::Null);
}

#[tokio::test]
async fn health_is_waited_for_where_something_comes_and_forced_as_a_whole() {
    let world = World::new();
    let reply = world.post("/v1/services/shop/flip?wait=healthy", r#"{"to":"green"}"#).await;
    assert_eq!((reply.status, &reply.json["field"]), (400, &json!("wait")), "{}", reply.text);
    let batch = r#"{"changes":[{"service":"shop","flip":{"to":"green","force":true}}]}"#;
    let reply = world.post("/v1/changes", batch).await;
    assert_eq!(
        (reply.status, &reply.json["field"]),
        (400, &json!("changes[0].flip.force")),
        "{}",
        reply.text
    );
    // What is not checked is ready at once, and nothing has to be forced.
    let body = r#"{"endpoints":["127.0.0.1:9"]}"#;
    assert_eq!(world.put("/v1/services/shop/versions/v3?wait=healthy", body).await.status, 200);
    let reply = world.get("/v1/services/shop/versions/v3/health").await;
    assert_eq!((&reply.json["healthy"], &reply.json["needed"]), (&json!(true), &json!(0)), "{}", reply.text);
    assert_eq!(world.get("/v1/services/shop/versions/v9/health").await.status, 404);
    assert_eq!(world.get("/v1/services/shop/versions/v3/health?wait=drained").await.json["field"], "wait");
    let batch = r#"{"changes":[{"service":"shop","flip":{"to":"v3"}}],"force":true}"#;
    let reply = world.post("/v1/changes", batch).await;
    assert_eq!((reply.status, &reply.json["notes"]), (200, &json!([])), "{}", reply.text);
}

#[tokio::test]
async fn what_is_not_understood_names_the_field() {
    let world = World::new();
    for (body, status, field) in [
        (r#"{"to":"green","hurry":true}"#, 400, json!("hurry")),
        (r#"{"to":5}"#, 400, json!("to")),
        (r"{}", 400, json!("to")),
        (r#"{"to":"green""#, 400, json!(null)),
        (r#"{"to":"green"} {}"#, 400, json!(null)),
        ("", 400, json!(null)),
        (r#"{"to":"a/b"}"#, 400, json!("to")),
        (r#"{"to":"red"}"#, 422, json!("to")),
        (r#"{"to":"empty"}"#, 422, json!("to")),
        (r#"{"to":"@candidate"}"#, 422, json!("to")),
        (r#"{"to":"green","reason":"\u001b[2J"}"#, 400, json!("reason")),
    ] {
        let reply = world.post("/v1/services/shop/flip", body).await;
        assert_eq!((reply.status, &reply.json["field"]), (status, &field), "{body}: {}", reply.text);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    }
    assert_eq!(world.post("/v1/services/nix/flip", r#"{"to":"green"}"#).await.status, 404);
    assert_eq!(world.post("/v1/services/a%2fb/flip", r#"{"to":"green"}"#).await.json["field"], "service");
    let big = format!(r#"{{"to":"{}"}}"#, "x".repeat(1024 * 1024));
    assert_eq!(world.post("/v1/services/shop/flip", &big).await.status, 413);
}

#[tokio::test]
async fn an_explanation_follows_the_live_table() {
    let world = World::new();
    let asked = r#"{"uri":"http://shop.example.com:8080/x"}"#;
    let reply = world.post("/v1/explain", asked).await;
    assert_eq!(reply.json["reason"], "single");
    assert_eq!(reply.json["version"], "blue");
    world.put("/v1/services/shop/weights", r#"{"green":500,"blue":9500}"#).await;
    let reply = world.post("/v1/explain", r#"{"uri":"/x","headers":{"Host":"shop.example.com"}}"#).await;
    assert_eq!((&reply.json["reason"], &reply.json["version"]), (&json!("coin"), &json!(null)));
    assert_eq!(reply.json["chances"][1], json!({"version": "green", "weight": 500, "probability": 0.05}));
    let reply = world.post("/v1/explain", r#"{"uri":"http://other/x"}"#).await;
    assert_eq!((&reply.json["reason"], &reply.json["service"]), (&json!("no_route"), &json!(null)));
    assert_eq!(world.post("/v1/explain", r#"{"uri":"a b"}"#).await.json["field"], "uri");
}

#[tokio::test]
async fn a_store_that_fails_is_told_and_changes_nothing() {
    let world = World::new();
    world.lose_the_store();
    let reply = world.post("/v1/services/shop/flip", r#"{"to":"green"}"#).await;
    assert_eq!((reply.status, &reply.json["type"]), (503, &json!("urn:switchback:problem:store_failed")));
    let shop = world.get("/v1/services/shop").await;
    assert_eq!((shop.status, &shop.json["weights"]), (200, &json!({"blue": 10_000})));
    assert_eq!(world.get("/v1/changes").await.status, 503);
}
