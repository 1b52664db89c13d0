//! Peak EWMA.

use super::*;

/// Serves `total` requests one after the other, each as long as `takes` says of its endpoint; how many each got.
fn serve(world: &mut World, total: usize, takes: impl Fn(usize) -> Duration) -> Vec<usize> {
    let mut counts = vec![0; world.seats.len()];
    for _ in 0..total {
        let seat = world.pick();
        let since = world.now();
        world.at += takes(seat);
        world.seats[seat].pace.observe(since, world.now(), false);
        counts[seat] += 1;
    }
    counts
}

#[test]
fn the_slow_one_is_avoided_and_found_again_when_it_is_fast() {
    let mut world = World::of(5, ewma());
    let millis = |of_slow| move |seat| Duration::from_millis(if seat == 2 { of_slow } else { 5 });
    let counts = serve(&mut world, 1000, millis(50));
    assert!(counts[2] <= 10 && counts.iter().all(|count| *count > 0), "{counts:?}");
    serve(&mut world, 40_000, millis(5));
    let counts = serve(&mut world, 5_000, millis(5));
    assert!(counts[2] > 700, "{counts:?}");
    let counts = serve(&mut World::of(5, Policy::P2c), 1000, millis(50));
    assert!(counts[2] > 150, "what is in flight does not tell when it is one: {counts:?}");
}

#[test]
fn one_that_fails_fast_is_not_taken_for_a_fast_one() {
    let mut world = World::of(2, ewma());
    let mut failed = 0;
    for _ in 0..1000 {
        let seat = world.pick();
        let since = world.now();
        world.at += Duration::from_millis(if seat == 0 { 1 } else { 10 });
        world.seats[seat].pace.observe(since, world.now(), seat == 0);
        failed += usize::from(seat == 0);
    }
    assert!(failed < 20, "{failed}");
}
