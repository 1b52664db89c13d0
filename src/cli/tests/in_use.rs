//! What is empty and yet not safe to stop.

use super::last;
use crate::admin::tests::World;
use crate::cli::Exit;

#[tokio::test]
async fn what_supervision_may_go_back_to_is_not_safe_to_stop() {
    let world = World::new();
    let (exit, text) = world.type_in("flip shop --to green --supervise 10m --async").await;
    assert_eq!(exit, Exit::Done, "{text}");
    for words in ["drain shop/blue", "drain --all", "drain shop/blue --wait"] {
        let (exit, text) = world.type_in(words).await;
        let said = last(&text);
        assert_eq!(exit, Exit::Failed, "{text}");
        assert!(said.starts_with("green is compared with blue until 20"), "{text}");
        assert!(said.ends_with(": traffic may go back to blue by itself, do not stop it"), "{text}");
    }
    let (_, text) = world.type_in("status shop").await;
    assert!(text.contains("traffic may go back to blue by itself, do not stop it"), "{text}");
    assert!(!text.contains("safe to stop"), "{text}");
    let (_, text) = world.type_in("--json drain shop/blue").await;
    assert!(text.contains("\"measure\"") && text.contains("\"candidate\": \"green\""), "{text}");
    world.type_in("flip shop --to green --async").await;
    world.type_in("revert shop").await;
    let (exit, text) = world.type_in("drain shop/green").await;
    assert_eq!((exit, last(&text)), (Exit::Done, "green is safe to stop: nothing is left on it"));
}

#[tokio::test]
async fn what_another_version_uses_is_not_safe_to_stop() {
    let world = World::new();
    // One backend behind two services, and behind two labels of one.
    world.type_in("versions add cart v3 -e 127.0.0.1:9001 127.0.0.1:9003").await;
    world.type_in("versions add shop v9 -e 127.0.0.1:9101").await;
    world.type_in("flip cart --to v3").await;
    let (exit, text) = world.type_in("flip shop --to v9").await;
    let blue = "nothing of blue is left, but cart/v3 uses 127.0.0.1:9001 too: do not stop it";
    assert_eq!((exit, last(&text)), (Exit::Done, blue), "the flip is made");
    let (exit, text) = world.type_in("drain shop/blue --wait").await;
    assert_eq!((exit, last(&text)), (Exit::Failed, blue));
    let (exit, text) = world.type_in("drain shop/blue --json").await;
    assert!(exit == Exit::Failed && text.contains("\"drained\": true"), "nothing of blue is left: {text}");
    let green = "nothing of green is left, but shop/v9 uses 127.0.0.1:9101 too: do not stop it";
    let (exit, text) = world.type_in("drain shop/green --wait").await;
    assert_eq!((exit, last(&text)), (Exit::Failed, green));
    let (_, text) = world.type_in("status shop").await;
    assert!(text.contains(blue) && text.contains(green) && !text.contains("safe to stop"), "{text}");
    let (exit, text) = world.type_in("drain --all").await;
    assert!(exit == Exit::Failed && text.contains("do not stop it") && !text.contains("safe"), "{text}");
    // An endpoint of a version that goes on.
    world.type_in("endpoints add cart/v3 127.0.0.1:9002").await;
    world.type_in("endpoints add shop/v9 127.0.0.1:9002").await;
    let (exit, text) = world.type_in("endpoints drain shop/v9 127.0.0.1:9002 --wait").await;
    let there = "nothing of this version is left there, but cart/v3 uses 127.0.0.1:9002 too: do not stop it";
    assert_eq!((exit, last(&text)), (Exit::Failed, there));
    let (exit, text) = world.type_in("endpoints drain cart/v3 127.0.0.1:9002 --wait").await;
    assert_eq!((exit, last(&text)), (Exit::Done, "127.0.0.1:9002 is safe to stop: nothing is left on it"));
    // What gets nothing and has nothing stands in nobody's way.
    world.type_in("flip cart --to v1").await;
    let (exit, text) = world.type_in("drain shop/blue --wait").await;
    assert_eq!((exit, last(&text)), (Exit::Done, "blue is safe to stop: nothing is left on it"));
    let _left = world.enter("cart", "v3");
    assert_eq!(world.type_in("drain shop/blue").await.0, Exit::Failed, "it has work again");
}

#[tokio::test]
async fn where_another_service_may_go_back_to_is_not_safe_to_stop() {
    let world = World::new();
    // One backend behind two services.
    world.type_in("versions add cart v3 -e 127.0.0.1:9001").await;
    world.type_in("flip shop --to green --supervise 10m --async").await;
    let v3 = "nothing of v3 is left, but shop/blue uses 127.0.0.1:9001 too: do not stop it";
    for words in ["drain cart/v3", "drain cart/v3 --wait"] {
        let (exit, text) = world.type_in(words).await;
        assert_eq!((exit, last(&text)), (Exit::Failed, v3), "{words}");
    }
    let (_, text) = world.type_in("status cart").await;
    assert!(text.contains(v3), "{text}");
    let at = "/v1/services/shop/versions/blue/endpoints/127.0.0.1:9001/drain";
    let told = world.get(at).await.json;
    assert!(told["drained"] == true && told["measure"]["candidate"] == "green", "{told}");
    // What was taken out gets nothing back, and the comparison goes on without it.
    world.type_in("endpoints add shop/blue 127.0.0.1:9002").await;
    let (exit, text) = world.type_in("endpoints drain shop/blue 127.0.0.1:9002 --wait").await;
    assert_eq!((exit, last(&text)), (Exit::Done, "127.0.0.1:9002 is safe to stop: nothing is left on it"));
    world.type_in("flip shop --to green --no-supervise").await;
    let (exit, text) = world.type_in("drain cart/v3").await;
    assert_eq!((exit, last(&text)), (Exit::Done, "v3 is safe to stop: nothing is left on it"));
    assert_eq!(world.get(at).await.json["measure"], serde_json::Value::Null);
}

#[tokio::test]
async fn the_last_endpoint_that_supervision_may_go_back_to_is_not_called_safe_to_stop() {
    let world = World::new();
    world.type_in("flip shop --to green --supervise 10m --async").await;
    for words in ["drain shop/blue 127.0.0.1:9001 --wait", "rm shop/blue 127.0.0.1:9001"] {
        let (exit, text) = world.type_in(&format!("endpoints {words}")).await;
        assert_eq!(exit, Exit::Failed, "{text}");
        assert!(text.contains("supervision compares `green` of service `shop` with `blue`"), "{text}");
        assert!(last(&text).contains("`switchback flip shop --to green --no-supervise`"), "{text}");
    }
    world.type_in("flip shop --to green --no-supervise").await;
    let (exit, text) = world.type_in("endpoints drain shop/blue 127.0.0.1:9001 --wait").await;
    assert_eq!((exit, last(&text)), (Exit::Done, "127.0.0.1:9001 is safe to stop: nothing is left on it"));
    // The way back is gone with it, until it serves again.
    assert!(text.contains("note: `shop` cannot be reverted while no endpoint of `blue` serves"), "{text}");
    let (_, text) = world.type_in("status shop").await;
    let instead =
        "back: not while no endpoint of blue serves   (switchback endpoints add shop/blue HOST:PORT)";
    assert!(text.contains(instead) && !text.contains("revert"), "{text}");
    world.type_in("endpoints add shop/blue 127.0.0.1:9001").await;
    let (_, text) = world.type_in("status shop").await;
    assert!(text.contains("back: switchback revert shop   (to blue 100 %)"), "{text}");
}
