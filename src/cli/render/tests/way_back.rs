//! The command that takes a change back, as it is named.

use serde_json::{from_value, json};

use super::{answer, standing};
use crate::admin::api::{ChangeAnswer, Move, Phase};
use crate::cli::Style;
use crate::cli::render::{change, way_back, way_back_from_undo};

#[test]
fn the_way_back_from_an_exclusive_flip_is_exclusive() {
    for (scope, split, back) in [
        ("all", [("green", 10_000)].as_slice(), "switchback flip shop --to blue --exclusive"),
        ("writes", &[("green", 10_000)], "switchback flip shop --to blue --exclusive=writes"),
        // It carried most before, and all since.
        ("all", &[("blue", 10_000)], "switchback revert shop"),
    ] {
        let before = [("blue", 9_000), ("green", 1_000)];
        let mut flipped = standing(Phase::Steady, split, &before, &[]);
        flipped.previous.as_mut().unwrap().exclusive = Some(scope.to_owned());
        let told = way_back(&answer(&[("shop", flipped.clone())]));
        assert_eq!(told, Some(format!("the way back: {back}")));
        let rule = json!({ "headers": { "x-beta": "yes" }, "to": "red" });
        flipped.previous.as_mut().unwrap().rules = from_value(json!([rule])).unwrap();
        let lost = if back.contains("flip") {
            "   (without its rules of before: header x-beta=yes -> red)"
        } else {
            ""
        };
        let told = way_back(&answer(&[("shop", flipped)]));
        assert_eq!(told, Some(format!("the way back: {back}{lost}")), "a flip brings no rules back");
    }
}

#[test]
fn an_undo_that_moved_no_weight_is_taken_back_by_an_undo() {
    let step = |version: &str, from, to| Move { service: "shop".into(), version: version.into(), from, to };
    let undone = answer(&[("shop", standing(Phase::Steady, &[("green", 10_000)], &[("blue", 10_000)], &[]))]);
    let before = undone.epoch - 1;
    let told = |answer: &ChangeAnswer| (change(answer, Style::PLAIN), way_back_from_undo(answer).unwrap());
    let (said, back) = told(&undone);
    assert!(!said.contains("was"), "the flip was an earlier change: {said}");
    assert_eq!(back, format!("the way back: switchback undo --to {before}"));
    let moved = ChangeAnswer { moves: vec![step("blue", 10_000, 0), step("green", 0, 10_000)], ..undone };
    let (said, back) = told(&moved);
    assert!(said.contains(", was blue 100 %"), "{said}");
    assert_eq!(back, "the way back: switchback revert shop");
}
