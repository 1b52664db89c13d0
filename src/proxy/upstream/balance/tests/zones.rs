//! Zone preference.

use super::*;

/// Of `here` endpoints in zone a, where the proxy stands, and `there` in zone b.
fn zones(here: usize, there: usize) -> World {
    let zones = std::iter::repeat_n("a", here).chain(std::iter::repeat_n("b", there));
    let traits = zones.map(|zone| traits(1, zone)).collect();
    World { traits, zone: Some("a".parse().unwrap()), ..World::of(here + there, Policy::Random) }
}

fn near(world: &mut World, here: usize) -> f64 {
    world.shares()[..here].iter().sum()
}

#[test]
fn its_own_zone_comes_first_as_long_as_enough_of_it_serves() {
    let mut world = zones(5, 5);
    // 4 of 5 is more than 1 / 1.4; then 1.4 x 3/5, 2/5, 1/5 of it stay.
    for (down, stays) in [(0, 1.0), (1, 1.0), (2, 0.84), (3, 0.56), (4, 0.28), (5, 0.0)] {
        (0..down).for_each(|index| world.stands(index, Standing::Down));
        let near = near(&mut world, 5);
        assert!((near - stays).abs() < 0.01, "{near} with {down} down");
    }
    let mut only = zones(3, 0);
    is_near(&only.shares(), &[1.0 / 3.0; 3]);
}

#[test]
fn the_zone_does_not_matter_where_it_is_not_to_or_is_not_known() {
    let mut ignoring = zones(2, 2);
    ignoring.balance.zone_preference = false;
    is_near(&ignoring.shares(), &[0.25; 4]);
    let mut unknown = World { zone: None, ..zones(2, 2) };
    is_near(&unknown.shares(), &[0.25; 4]);
    let mut elsewhere = World { zone: Some("c".parse().unwrap()), ..zones(2, 2) };
    is_near(&elsewhere.shares(), &[0.25; 4]);
}

#[test]
fn another_attempt_leaves_the_zone_when_there_is_nobody_else_in_it() {
    let mut world = zones(1, 2);
    assert_eq!(world.counts(100)[0], 100);
    let other = world.choice(&[0], None).unwrap().seat;
    assert!(other > 0);
}

#[test]
fn a_key_stays_in_its_zone_or_out_of_it() {
    let mut world = zones(5, 5);
    world.balance.policy = hashing(None);
    (0..3).for_each(|index| world.stands(index, Standing::Down));
    let before: HashMap<_, _> = (0..1000).map(|key| (key, world.of_key(key))).collect();
    assert!(before.iter().all(|(key, seat)| world.of_key(*key) == *seat));
    let near = before.values().filter(|seat| **seat < 5).count();
    assert!((500..620).contains(&near), "{near}");
}
