//! Slow start.

use super::*;

fn starting(policy: Policy, slow_start: SlowStart) -> World {
    let mut world = World::of(4, policy);
    world.balance.slow_start = Some(slow_start);
    world
}

/// The share of an endpoint with this part of its weight, beside three others.
fn beside_three(part: f64) -> f64 {
    part / (3.0 + part)
}

#[test]
fn one_that_comes_back_gets_its_share_bit_by_bit() {
    let slow_start = SlowStart::over(Duration::from_secs(30));
    for policy in [Policy::P2c, Policy::RoundRobin, Policy::Random] {
        let mut world = starting(policy, slow_start);
        is_near(&world.shares(), &[0.25; 4]);
        world.stands(0, Standing::Down);
        world.at = Duration::from_secs(100);
        world.stands(0, Standing::Up);
        for (after, part) in [(0, 0.1), (3, 0.1), (15, 0.5), (24, 0.8), (30, 1.0), (60, 1.0)] {
            world.at = Duration::from_secs(100 + after);
            let share = world.shares()[0];
            assert!((share - beside_three(part)).abs() < 0.01, "{share} after {after} s");
        }
        assert!(world.board.listed.is_none(), "nothing is left of it");
    }
}

#[test]
fn one_that_joins_a_serving_pool_begins_slowly_and_a_pool_that_begins_does_not() {
    let slow_start = SlowStart { curve: 200, ..SlowStart::over(Duration::from_secs(10)) };
    let mut world = starting(Policy::Random, slow_start);
    is_near(&world.shares(), &[0.25; 4]);
    world.upstream.arrive(&address(3), world.now());
    world.at = Duration::from_millis(2_500);
    let share = world.shares()[3];
    assert!((share - beside_three(0.5)).abs() < 0.01, "the root of a quarter is a half: {share}");
    let mut without = World::of(4, Policy::Random);
    without.upstream.arrive(&address(3), without.now());
    is_near(&without.shares(), &[0.25; 4]);
}

#[test]
fn a_pool_that_came_back_as_a_whole_is_even() {
    let mut world = starting(Policy::Random, SlowStart::over(Duration::from_secs(30)));
    (0..4).for_each(|index| world.stands(index, Standing::Down));
    (0..4).for_each(|index| world.stands(index, Standing::Up));
    is_near(&world.shares(), &[0.25; 4]);
}
