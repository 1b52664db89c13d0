//! What the versions beside the one that ramps have meanwhile.

use proptest::prelude::*;

use super::*;
use crate::release::Steps;
use crate::table::{Split, VersionName};

fn points(points: u64) -> BasisPoints {
    BasisPoints::new(points).unwrap()
}

/// A ramp of green by these steps, beside versions that have so many points each, and blue, which has the rest.
fn beside(others: &[u64], steps: impl IntoIterator<Item = u64>) -> State {
    let named = |index: usize| format!("v{index}");
    let pools = (0..others.len()).map(|index| put("shop", pool(&named(index), &[9401])));
    let weights = others.iter().enumerate().map(|(index, had)| (reference(&named(index)), points(*had)));
    let (weights, rest) = (weights.collect(), Some(reference("blue")));
    let mixed = Command::SetWeights { service: service("shop"), weights, rest, supervise: Supervise::No };
    let steps = Steps::new(steps.into_iter().map(points).collect()).unwrap();
    let begin = RampOrder::Begin { to: reference("green"), steps, every: None, supervise: Supervise::No };
    after(&plain(), pools.chain([mixed, ramp("shop", begin)]))
}

#[test]
fn whom_a_step_has_emptied_no_later_one_gives_any_again() {
    // By the largest remainders alone the first of them has nothing at 40 %, and a point at 45 %.
    let begun = beside(&[1, 8], [4_000, 4_500, 10_000]);
    assert_eq!(shop(&begun), "blue 59.95 %, green 40 %, v1 0.05 %");
    assert_eq!(shop(&stepped(&begun)), "blue 54.95 %, green 45 %, v1 0.05 %");
}

proptest! {
    #[test]
    fn they_fall_together_and_share_the_rest_as_they_did(
        others in prop::collection::vec(1u64..1_500, 1..6),
        steps in prop::collection::btree_set(1u64..10_000, 1..20),
    ) {
        let mut state = beside(&others, steps.into_iter().chain([10_000]));
        let before = under_way(&state).unwrap().before.split.clone();
        let mut had = before.clone();
        while let Some(ramp) = under_way(&state) {
            let (now, rest) = (split(&state, "shop"), 10_000 - i64::from(ramp.weight().points()));
            let weight = |of: &Split, version: &VersionName| i64::from(of.weight(version).points());
            for (version, _) in before.shares() {
                let due = weight(&before, version) * rest;
                prop_assert!(now.weight(version) <= had.weight(version), "{version}: {now} after {had}");
                prop_assert!((weight(&now, version) * 10_000 - due).abs() < 20_000, "{version}: {now} of {before}");
            }
            had = now;
            state = stepped(&state);
        }
    }
}
