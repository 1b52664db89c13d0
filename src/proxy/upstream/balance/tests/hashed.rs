//! The consistent hash.

use super::*;

const KEYS: u64 = 20_000;

#[test]
fn a_key_stays_where_it_is_and_who_goes_takes_only_his_own_along() {
    let mut world = World::of(10, hashing(None));
    let before: Vec<_> = (0..KEYS).map(|key| world.of_key(key)).collect();
    assert_eq!(before, (0..KEYS).map(|key| world.of_key(key)).collect::<Vec<_>>());
    let mut counts = [0; 10];
    before.iter().for_each(|seat| counts[*seat] += 1);
    is_near(&counts.map(|count| f64::from(count) / KEYS as f64), &[0.1; 10]);
    world.stands(3, Standing::Down);
    for key in 0..KEYS {
        let (was, is) = (before[usize::try_from(key).unwrap()], world.of_key(key));
        assert!(is != 3 && (was == 3 || was == is), "key {key} moved from {was} to {is}");
    }
    world.stands(3, Standing::Up);
    assert_eq!(before, (0..KEYS).map(|key| world.of_key(key)).collect::<Vec<_>>(), "and is back");
}

#[test]
fn keys_are_hashed_alike_everywhere_and_for_ever() {
    let mut world = World::of(5, hashing(None));
    let places: Vec<_> = (0..12).map(|key| world.of_key(key)).collect();
    assert_eq!(hash(b"switchback"), 10_846_842_416_903_951_507, "a change of the hash moves every client");
    assert_eq!(places, [4, 2, 4, 0, 2, 3, 3, 2, 1, 0, 1, 3]);
}

#[test]
fn a_heavier_one_has_more_of_the_keys_and_a_new_weight_moves_only_what_it_must() {
    let mut world = World::weighing(hashing(None), &[1, 1, 2]);
    let before: Vec<_> = (0..KEYS).map(|key| world.of_key(key)).collect();
    let share = before.iter().filter(|seat| **seat == 2).count() as f64 / KEYS as f64;
    assert!((share - 0.5).abs() < 0.01, "{share}");
    world.traits[2] = traits(3, "");
    world.board.forget();
    for (key, was) in (0..KEYS).zip(before) {
        let is = world.of_key(key);
        assert!(was == is || is == 2, "key {key} moved from {was} to {is}");
    }
}

#[test]
fn a_request_without_the_key_goes_where_there_is_less_to_do() {
    let mut world = World::of(2, hashing(None));
    world.seats[0].enter();
    assert_eq!(world.choice(&[], None).map(|choice| choice.seat), Some(1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the keys are spread, and whoever ends when: nobody has more than the bound says.
    #[test]
    fn nobody_gets_more_than_the_bound(
        weights in prop::collection::vec(1u64..5, 2..12),
        bound in 100u32..200,
        keys in prop::collection::vec((0u64..4, any::<bool>()), 1..400),
    ) {
        let mut world = World::weighing(hashing(Some(bound)), &weights);
        let total_weight: u64 = weights.iter().sum();
        let mut open = Vec::new();
        for (key, ends) in keys {
            let seat = world.of_key(key);
            world.seats[seat].enter();
            open.push(seat);
            let fair = open.len() as f64 * weights[seat] as f64 / total_weight as f64;
            let most = (fair * f64::from(bound) / 100.0).ceil();
            prop_assert!(f64::from(world.seats[seat].in_flight()) <= most);
            if ends {
                world.seats[open.remove(0)].leave();
            }
        }
    }
}

#[test]
fn what_is_beyond_the_bound_goes_to_the_keys_next_one_and_back() {
    let mut world = World::of(4, hashing(Some(125)));
    let home = world.of_key(1);
    world.seats[home].enter();
    let next = world.of_key(1);
    assert_ne!(next, home, "one of two is more than its part of four");
    world.seats[home].leave();
    assert_eq!(world.of_key(1), home);
    let mut unbound = World::of(4, hashing(None));
    (0..100).for_each(|_| unbound.seats[home].enter());
    assert_eq!(unbound.of_key(1), home);
}
