//! What somebody else undoes while it is waited for.

use super::last;
use crate::admin::tests::World;
use crate::cli::Exit;

#[tokio::test]
async fn a_flip_that_somebody_takes_back_while_it_waits_has_failed() {
    let world = World::new();
    let _blue = world.enter("shop", "blue");
    for words in ["flip shop --to green", "flip shop --to green --json"] {
        let returning = async {
            while world.get("/v1/services/shop").await.json["phase"] != "draining" {}
            world.type_in("revert shop --async").await
        };
        let ((exit, text), _) = tokio::join!(world.type_in(words), returning);
        assert_eq!(exit, Exit::Failed, "{words}: {text}");
        assert!(text.contains("the change was made (epoch"), "{words}: {text}");
        let stops = last(&text) == "blue carries 100 % of the traffic: do not stop it";
        assert!(stops || words.ends_with("--json"), "{text}");
    }
}

/// Nothing is left by the weights: only supervision is waited for.
#[tokio::test]
async fn a_supervised_move_that_somebody_takes_back_has_failed() {
    let world = World::new();
    let returning = async {
        while world.get("/v1/services/shop/verdict").await.json["trial"].is_null() {}
        world.type_in("revert shop").await
    };
    let ((exit, text), _) = tokio::join!(world.type_in("weights shop green=50 --supervise 1h"), returning);
    assert_eq!((exit, last(&text)), (Exit::Failed, "blue carries the traffic: do not stop it"), "{text}");
}

/// Who only ends the comparison leaves the traffic where it is.
#[tokio::test]
async fn a_supervised_move_whose_comparison_is_called_off_is_done() {
    let world = World::new();
    let ending = async {
        while world.get("/v1/services/shop/verdict").await.json["trial"].is_null() {}
        world.type_in("flip shop --to green --no-supervise").await
    };
    let ((exit, text), _) = tokio::join!(world.type_in("flip shop --to green --supervise 1h"), ending);
    assert_eq!((exit, last(&text)), (Exit::Done, "blue is safe to stop: nothing is left on it"), "{text}");
}
