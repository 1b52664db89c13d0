//! What holds for all calls: preconditions, keys, plans, the document.

use std::collections::BTreeSet;

use serde_json::json;

use super::World;
use crate::admin::{document, router};

const FLIP: &str = "/v1/services/shop/flip";

#[tokio::test]
async fn a_stale_if_match_is_a_conflict_with_the_present_state() {
    let world = World::new();
    world.post(FLIP, r#"{"to":"green"}"#).await;
    let refused = world.send("POST", FLIP, &["if-match: \"1\""], r#"{"to":"blue"}"#).await;
    assert_eq!((refused.status, &refused.json["field"]), (412, &json!("if-match")));
    assert_eq!(refused.json["present"]["epoch"], 2);
    assert_eq!(refused.json["present"]["weights"], json!({"green": 10_000}));
    let epoch = world.get("/v1/services/cart").await.header("etag").map(str::to_owned);
    assert_eq!(epoch.as_deref(), Some("\"1\""), "another service's change is no conflict");
    for (value, status) in [("\"2\"", 200), ("\"1\", \"3\"", 200), ("*", 200), ("3", 400), ("W/\"3\"", 400)] {
        let to =
            if world.get("/v1/services/shop").await.json["stable"] == "green" { "blue" } else { "green" };
        let header = format!("if-match: {value}");
        let reply = world.send("POST", FLIP, &[&header], &format!(r#"{{"to":"{to}"}}"#)).await;
        assert_eq!(reply.status, status, "{value}: {}", reply.text);
    }
    let weak = world.send("POST", FLIP, &["if-match: W/\"3\""], r#"{"to":"blue"}"#).await;
    assert_eq!(weak.json["detail"], "`W/\"3\"` is not an entity tag of this API");
    let document = world.get("/v1/openapi.json").await.json;
    for (path, takes_it) in
        [("/v1/undo", false), ("/v1/changes", false), ("/v1/services/{service}/flip", true)]
    {
        let mut said = document["paths"][path]["post"]["parameters"].as_array().unwrap().iter();
        assert_eq!(said.any(|parameter| parameter["name"] == "If-Match"), takes_it, "{path}");
    }
    let many = world.send("POST", "/v1/undo", &["if-match: \"3\""], r#"{"to_epoch":1}"#).await;
    assert_eq!((many.status, &many.json["field"]), (400, &json!("if-match")));
}

#[tokio::test]
async fn the_same_key_twice_is_one_change() {
    let world = World::new();
    let key = ["idempotency-key: deploy-7"];
    let first = world.send("POST", FLIP, &key, r#"{"to":"green"}"#).await;
    world.post(FLIP, r#"{"to":"blue"}"#).await;
    let again = world.send("POST", FLIP, &key, r#"{"to":"green"}"#).await;
    assert_eq!((again.status, &again.json), (200, &first.json));
    assert_eq!(
        (first.header("idempotent-replayed"), again.head.contains("idempotent-replayed: true")),
        (None, true)
    );
    assert_eq!(world.get("/v1/status").await.json["epoch"], 3);
    let other = world.send("POST", FLIP, &key, r#"{"to":"blue"}"#).await;
    assert_eq!((other.status, &other.json["type"]), (422, &json!("urn:switchback:problem:key_reused")));
    let long = format!("idempotency-key: {}", "k".repeat(256));
    for bad in ["idempotency-key: a b", "idempotency-key: ", &long] {
        assert_eq!(world.send("POST", FLIP, &[bad], r#"{"to":"blue"}"#).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_dry_run_tells_the_plan_and_changes_nothing() {
    let world = World::new();
    let plan = world.post(&format!("{FLIP}?dry_run=true&wait=drained"), r#"{"to":"green"}"#).await;
    assert_eq!((&plan.json["dry_run"], &plan.json["changed"]), (&json!(true), &json!(true)));
    let moves = json!([
        {"service": "shop", "version": "blue", "from": 10_000, "to": 0},
        {"service": "shop", "version": "green", "from": 0, "to": 10_000},
    ]);
    assert_eq!(plan.json["moves"], moves);
    assert_eq!(world.get("/v1/status").await.json["epoch"], 1);
    assert_eq!(world.post(&format!("{FLIP}?dry_run=1"), r#"{"to":"green"}"#).await.json["field"], "dry_run");
}

#[tokio::test]
async fn nothing_new_is_no_change() {
    let world = World::new();
    let reply = world.post(FLIP, r#"{"to":"@stable"}"#).await;
    assert_eq!((reply.status, &reply.json["changed"], &reply.json["epoch"]), (200, &json!(false), &json!(1)));
    assert_eq!(reply.json["services"]["shop"]["stable"], "blue");
}

#[tokio::test]
async fn history_is_read_page_by_page() {
    let world = World::new();
    for to in ["green", "blue", "green"] {
        world.post(FLIP, &format!(r#"{{"to":"{to}"}}"#)).await;
    }
    let first = world.get("/v1/changes?limit=2&service=shop").await;
    assert_eq!(first.json["changes"].as_array().unwrap().len(), 2);
    let rest = world.get(&format!("/v1/changes?before={}", first.json["next_before"])).await;
    let epochs: Vec<_> =
        rest.json["changes"].as_array().unwrap().iter().map(|change| &change["epoch"]).collect();
    assert_eq!((epochs, rest.json.get("next_before")), (vec![&json!(2), &json!(1)], None));
    assert_eq!(world.get("/v1/changes?limit=0").await.json["field"], "limit");
    assert_eq!(world.get("/v1/changes?limit=x").await.json["field"], "limit");
}

#[tokio::test]
async fn web_pages_are_refused() {
    let world = World::new();
    let reply = world.send("POST", FLIP, &["origin: https://evil.example"], r#"{"to":"green"}"#).await;
    assert_eq!(reply.status, 403);
    assert_eq!(world.send("GET", "/v1/services", &["Origin: null"], "").await.status, 403);
}

/// An unknown method is answered with `allow`: the router itself says what it serves.
#[tokio::test]
async fn the_document_has_every_route_of_the_router() {
    let world = World::new();
    let document = serde_json::to_value(document()).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut documented = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        documented
            .extend(methods.as_object().unwrap().keys().map(|method| (path.clone(), method.to_uppercase())));
    }
    let mut served = BTreeSet::new();
    let paths: BTreeSet<_> = router::routes().into_iter().map(|route| route.path).collect();
    for path in paths {
        let reply = world.send("PROPFIND", &path.replace(['{', '}'], ""), &[], "").await;
        assert_eq!(reply.status, 405, "{path}");
        let allowed = reply.header("allow").unwrap().split(',').filter(|method| *method != "HEAD");
        served.extend(allowed.map(|method| (path.to_owned(), method.to_owned())));
    }
    assert_eq!(documented, served);
    assert_eq!(world.get("/v1/openapi.json").await.json, document);
}

#[test]
fn the_document_says_what_a_name_is_and_how_every_call_can_be_refused() {
    let document = serde_json::to_value(document()).unwrap();
    let call = &document["paths"]["/v1/services/{service}/versions/{version}/drain"]["get"];
    let patterns: Vec<_> =
        call["parameters"].as_array().unwrap().iter().map(|of| of["schema"]["pattern"].as_str()).collect();
    assert!(patterns.iter().all(Option::is_some), "{patterns:?}");
    for status in ["401", "403", "405", "408", "413"] {
        assert!(call["responses"][status].is_object(), "{status}");
    }
    let limit = &document["paths"]["/v1/changes"]["get"]["parameters"][0];
    assert_eq!(
        (&limit["schema"]["minimum"], &limit["schema"]["maximum"]),
        (&json!(1), &json!(1000)),
        "{limit}"
    );
}

#[test]
fn the_document_says_in_which_forms_a_ramps_steps_are_taken() {
    let document = serde_json::to_value(document()).unwrap();
    let schemas = &document["components"]["schemas"];
    let item = &schemas["StartRamp"]["properties"]["steps"]["items"]["$ref"];
    let name = item.as_str().unwrap().rsplit('/').next().unwrap();
    let mut forms = schemas[name]["oneOf"].as_array().unwrap().clone();
    forms.iter_mut().for_each(|form| _ = form.as_object_mut().unwrap().remove("description"));
    let points = json!({ "type": "integer", "minimum": 1, "maximum": 10_000 });
    assert_eq!(forms, [points, json!({ "type": "string", "examples": ["5", "0.25%"] })]);
}

#[test]
fn the_document_describes_every_answer_and_names_every_call_once() {
    let document = serde_json::to_value(document()).unwrap();
    let mut names = BTreeSet::new();
    let methods =
        |calls: &serde_json::Value| calls.as_object().unwrap().values().cloned().collect::<Vec<_>>();
    for call in methods(&document["paths"]).iter().flat_map(methods) {
        let name = call["operationId"].as_str().unwrap();
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        for (status, answer) in call["responses"].as_object().unwrap() {
            let said = answer["description"].as_str();
            assert!(said.is_some_and(|said| !said.is_empty()), "{name}: {status} is not described");
        }
    }
}

#[tokio::test]
async fn what_goes_with_weights_is_refused_elsewhere() {
    let world = World::new();
    for (name, value) in [("supervise", "10m"), ("rest", "@stable")] {
        let reply = world.post(&format!("{FLIP}?{name}={value}"), r#"{"to":"green"}"#).await;
        assert_eq!((reply.status, &reply.json["field"]), (400, &json!(name)), "{}", reply.text);
    }
    assert_eq!(world.get("/v1/status").await.json["epoch"], 1);
}

#[test]
fn the_documents_references_all_lead_somewhere() {
    let text = serde_json::to_string(&document()).unwrap();
    let document = serde_json::to_value(document()).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let references = text.split("#/components/schemas/").skip(1);
    for name in references.map(|rest| rest.split('"').next().unwrap()) {
        assert!(schemas.contains_key(name), "{name}");
    }
}
