//! Shares, turns, standing, and who is chosen when something failed.

use super::*;

#[test]
fn with_nothing_to_do_each_gets_what_its_weight_says() {
    for policy in [Policy::P2c, Policy::RoundRobin, Policy::Random] {
        is_near(&World::of(4, policy.clone()).shares(), &[0.25; 4]);
        is_near(&World::weighing(policy.clone(), &[1, 2, 5]).shares(), &[0.125, 0.25, 0.625]);
        is_near(&World::weighing(policy, &[1, 9]).shares(), &[0.1, 0.9]);
    }
}

#[test]
fn turns_are_exact_and_interleaved() {
    assert_eq!(World::of(3, Policy::RoundRobin).counts(9), [3, 3, 3]);
    let mut world = World::weighing(Policy::RoundRobin, &[5, 1, 1]);
    let turns: Vec<_> = (0..7).map(|_| world.pick()).collect();
    assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0], "as nginx has it");
}

#[test]
fn another_attempt_is_the_next_ones_turn_and_a_turn_outlives_who_is_out() {
    let mut world = World::of(4, Policy::RoundRobin);
    assert_eq!(world.pick(), 0);
    let next = |world: &mut World, tried: &[usize]| world.choice(tried, None).unwrap().seat;
    assert_eq!(next(&mut world, &[0]), 1);
    assert_eq!(next(&mut world, &[0, 1, 2]), 3);
    assert_eq!(next(&mut world, &[3]), 2, "where there was no choice nobody's turn was taken");
    world.stands(1, Standing::Down);
    assert_eq!([(); 4].map(|()| world.pick()), [3, 0, 2, 3]);
    world.stands(1, Standing::Up);
    assert_eq!([(); 3].map(|()| world.pick()), [0, 1, 2]);
}

#[test]
fn of_two_the_one_with_less_in_flight_is_chosen() {
    let mut world = World::of(2, Policy::P2c);
    world.seats[0].enter();
    assert_eq!(world.counts(100), [0, 100]);
    let mut world = World::weighing(Policy::P2c, &[3, 1]);
    // 2 of 3 is less than 1 of 1.
    [0, 0, 1].iter().for_each(|index| world.seats[*index].enter());
    assert_eq!(world.counts(100), [100, 0]);
}

#[test]
fn two_choices_keep_the_load_even_where_lots_do_not() {
    // 1,000 requests that stay.
    let spread = |policy| {
        let mut world = World::of(10, policy);
        for _ in 0..1000 {
            let seat = world.pick();
            world.seats[seat].enter();
        }
        let loads: Vec<_> = world.seats.iter().map(|seat| seat.in_flight()).collect();
        loads.iter().max().unwrap() - loads.iter().min().unwrap()
    };
    let (two, one) = (spread(Policy::P2c), spread(Policy::Random));
    assert!(two <= 4 && one > 10, "{two} and {one}");
}

#[test]
fn only_those_are_chosen_that_serve_and_at_once() {
    for policy in all() {
        let mut world = World::of(3, policy.clone());
        world.counts(10);
        world.stands(1, Standing::Ejected);
        let counts = world.counts(300);
        assert!(counts[1] == 0 && counts[0] > 0 && counts[2] > 0, "{policy:?}: {counts:?}");
        world.stands(0, Standing::Down);
        world.stands(1, Standing::Arriving);
        assert_eq!(world.counts(10), [0, 0, 10], "{policy:?}");
        world.stands(0, Standing::Up);
        assert!(world.counts(100)[0] > 0, "{policy:?}");
    }
}

#[test]
fn when_none_serves_all_are_used_and_it_is_told() {
    let mut world = World::of(3, Policy::RoundRobin);
    assert!(!world.choice(&[], None).unwrap().is_panic);
    (0..3).for_each(|index| world.stands(index, Standing::Down));
    assert!(world.choice(&[], None).unwrap().is_panic);
    assert_eq!(world.counts(9), [3, 3, 3]);
    world.stands(2, Standing::Up);
    assert_eq!(world.choice(&[], None), Some(Choice { seat: 2, is_panic: false }));
    let mut alone = World::of(1, Policy::P2c);
    alone.stands(0, Standing::Down);
    assert_eq!(alone.choice(&[], None), Some(Choice { seat: 0, is_panic: true }));
}

#[test]
fn the_threshold_says_how_many_have_to_serve() {
    let mut world = World::of(4, Policy::RoundRobin);
    world.balance.panic_threshold = BasisPoints::new(5_000).unwrap();
    [0, 1].iter().for_each(|index| world.stands(*index, Standing::Down));
    assert_eq!(world.choice(&[], None).map(|choice| choice.is_panic), Some(false), "half is enough");
    world.stands(2, Standing::Down);
    assert_eq!(world.choice(&[], None).map(|choice| choice.is_panic), Some(true));
    world.balance.panic_threshold = BasisPoints::NONE;
    world.board.forget();
    assert_eq!(world.choice(&[], None), Some(Choice { seat: 3, is_panic: false }));
    world.stands(3, Standing::Ejected);
    assert_eq!(world.choice(&[], None), None, "nobody is better than somebody who does not serve");
}

#[test]
fn another_attempt_goes_to_somebody_else_while_there_is_one() {
    for policy in all() {
        for weights in [&[1, 1, 1][..], &[7, 1, 1]] {
            let mut world = World::weighing(policy.clone(), weights);
            for _ in 0..50 {
                assert_eq!(world.choice(&[0, 2], Some(3)).map(|choice| choice.seat), Some(1), "{policy:?}");
            }
            assert_eq!(world.choice(&[0, 1, 2], Some(3)), None, "{policy:?}");
        }
        let mut alone = World::of(1, policy);
        assert_eq!(alone.choice(&[0], Some(3)), None);
    }
}
