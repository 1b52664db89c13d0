//! How long a machine's call waits for a comparison.

use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::admin::tests::World;
use crate::cli::client::{Call, Client};
use crate::cli::supervise::Follows;
use crate::table::SuperviseRules;

const TIMEOUT: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_hours(1);

async fn until(world: &World, call: Call, follows: Follows) -> (&'static str, Duration) {
    follows.until(&Client::new(&world.socket), &call, TIMEOUT).await.unwrap()
}

#[tokio::test]
async fn it_is_waited_for_as_long_as_it_lasts() {
    let world = World::new();
    world.supervise_shop(SuperviseRules { keep_old: HOUR, ..SuperviseRules::default() }).await;
    let flip =
        || Call::new(Method::POST, &["v1", "services", "shop", "flip"]).json(&json!({ "to": "green" }));
    let (what, patience) = until(&world, flip(), Follows::Always).await;
    assert!(what == "finished" && patience > HOUR && patience <= HOUR + TIMEOUT, "{what} {patience:?}");
    assert_eq!(until(&world, flip(), Follows::Never).await, ("drained", TIMEOUT));
    assert_eq!(world.get("/v1/status").await.json["epoch"], 2, "nothing was flipped yet");
}

#[tokio::test]
async fn one_that_only_the_next_change_ends_is_not_waited_for() {
    let world = World::new();
    world.supervise_shop(SuperviseRules::default()).await;
    let weights = Call::new(Method::PUT, &["v1", "services", "shop", "weights"]);
    let weights = weights.json(&json!({ "green": 500, "blue": 9_500 }));
    assert_eq!(until(&world, weights, Follows::Always).await, ("drained", TIMEOUT));
}

#[tokio::test]
async fn what_begins_none_is_not_waited_for() {
    let world = World::new();
    let flip = Call::new(Method::POST, &["v1", "services", "cart", "flip"]).json(&json!({ "to": "v2" }));
    assert_eq!(until(&world, flip, Follows::Always).await, ("drained", TIMEOUT));
}
