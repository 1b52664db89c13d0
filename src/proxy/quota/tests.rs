//! What a quota lets pass, and whom it lets wait.

use super::*;
use std::future::Future as _;
use std::num::NonZeroU32;
use std::task::{Context, Waker};

fn rate(by: RateBy) -> ServiceLimits {
    let [requests, burst] = [1, 3].map(|n| NonZeroU32::new(n).unwrap());
    let rate = Rate { requests, per: Duration::from_hours(1), burst, by };
    ServiceLimits { rate: Some(rate), ..ServiceLimits::default() }
}

fn few(most: u32) -> ServiceLimits {
    ServiceLimits { in_flight: NonZeroU32::new(most), ..ServiceLimits::default() }
}

#[test]
fn no_more_are_in_flight_than_may_be() {
    let quota = Quota::of(few(2), None).unwrap();
    let enter = || quota.enter(None, Comer::New, || None);
    let (first, second) = (enter().unwrap(), enter().unwrap());
    assert_eq!(enter().unwrap_err().reason, Reason::Concurrency);
    drop(first);
    let third = enter().unwrap();
    assert_eq!(enter().unwrap_err().reason, Reason::Concurrency);
    // Another limit over the same requests.
    let other = Quota::of(few(3), Some(&quota)).unwrap();
    let fourth = other.enter(None, Comer::New, || None).unwrap();
    assert_eq!(other.enter(None, Comer::New, || None).unwrap_err().reason, Reason::Concurrency);
    drop((second, third, fourth));
    assert_eq!(other.room.taken.load(Ordering::Relaxed), 0);
}

#[test]
fn who_has_a_place_keeps_it_when_the_limit_becomes_another_one() {
    let mut quota = Quota::of(few(2), None).unwrap();
    let [mut first, second] = [(); 2].map(|()| quota.enter(None, Comer::New, || None).unwrap());
    // Who waits would be the next.
    let waiting = Waiting::for_place(&quota);
    for most in [3, 1] {
        quota = Quota::of(few(most), Some(&quota)).unwrap();
        first = quota.enter(Some(first), Comer::New, || None).unwrap();
        assert_eq!(quota.room.taken.load(Ordering::Relaxed), 2);
    }
    drop((waiting, first, second));
    assert_eq!(quota.room.taken.load(Ordering::Relaxed), 0);
}

#[test]
fn a_limit_is_exact_over_many_workers() {
    let quota = Quota::of(few(10), None).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let slot = quota.enter(None, Comer::New, || None);
                    assert!(quota.room.taken.load(Ordering::Relaxed) <= 10);
                    drop(slot);
                }
            });
        }
    });
    assert_eq!(quota.room.taken.load(Ordering::Relaxed), 0);
}

fn is_ready(waiting: &Waiting) -> bool {
    pin!(waiting.wait()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn who_waits_for_a_place_is_woken_when_there_is_one() {
    let quota = Quota::of(few(1), None).unwrap();
    let first = quota.enter(None, Comer::New, || None).unwrap();
    let waiting = Waiting::for_place(&quota);
    assert!(!is_ready(&waiting));
    drop(first);
    assert!(is_ready(&waiting));
    let second = quota.enter(None, Comer::Waited, || None).unwrap();
    assert!(!is_ready(&waiting));
    drop(second);
    assert!(is_ready(&waiting));
}

#[test]
fn one_who_is_woken_and_takes_no_place_wakes_the_next() {
    let quota = Quota::of(few(1), None).unwrap();
    let taken = quota.enter(None, Comer::New, || None).unwrap();
    let [first, second] = [(); 2].map(|()| Waiting::for_place(&quota));
    let cx = &mut Context::from_waker(Waker::noop());
    let (mut first_turn, mut second_turn) = (Box::pin(first.wait()), Box::pin(second.wait()));
    assert!(first_turn.as_mut().poll(cx).is_pending() && second_turn.as_mut().poll(cx).is_pending());
    drop(taken);
    assert!(first_turn.as_mut().poll(cx).is_ready() && second_turn.as_mut().poll(cx).is_pending());
    drop(first_turn);
    drop(first);
    assert!(second_turn.as_mut().poll(cx).is_ready());
}

#[test]
fn the_rate_is_asked_once_of_who_has_waited() {
    let quota = Quota::of(rate(RateBy::Service), None).unwrap();
    (0..3).for_each(|_| quota.pass(|| None).unwrap());
    assert_eq!(quota.pass(|| None).unwrap_err().reason, Reason::Rate);
    (0..3).for_each(|_| drop(quota.enter(None, Comer::Waited, || None).unwrap()));
}

#[test]
fn a_burst_passes_and_then_no_more() {
    let quota = Quota::of(rate(RateBy::Service), None).unwrap();
    for _ in 0..3 {
        quota.enter(None, Comer::New, || unreachable!("nobody asks who it is")).unwrap();
    }
    let refused = quota.enter(None, Comer::New, || None).unwrap_err();
    assert_eq!(refused.reason, Reason::Rate);
    let wait = refused.wait.unwrap();
    assert!(wait > Duration::from_mins(59) && wait <= Duration::from_hours(1), "{wait:?}");
    let same = Quota::of(rate(RateBy::Service), Some(&quota)).unwrap();
    assert_eq!(
        same.enter(None, Comer::New, || None).unwrap_err().reason,
        Reason::Rate,
        "a reload forgives nothing"
    );
}

#[test]
fn a_rate_stays_as_it_stands_when_another_limit_changes() {
    let quota = Quota::of(rate(RateBy::Service), None).unwrap();
    let [first, second, _third] = [(); 3].map(|()| quota.enter(None, Comer::New, || None).unwrap());
    let limits = ServiceLimits { in_flight: NonZeroU32::new(2), ..rate(RateBy::Service) };
    let other = Quota::of(limits, Some(&quota)).unwrap();
    assert_eq!(other.enter(None, Comer::New, || None).unwrap_err().reason, Reason::Rate);
    // Who has passed it passes it once, and is in flight once.
    let first = other.enter(Some(first), Comer::New, || None).unwrap();
    let second = other.enter(Some(second), Comer::New, || None).unwrap();
    assert_eq!(other.enter(None, Comer::New, || None).unwrap_err().reason, Reason::Concurrency);
    drop((first, second));
    let faster = Rate { requests: NonZeroU32::new(2).unwrap(), ..limits.rate.unwrap() };
    let faster = Quota::of(ServiceLimits { rate: Some(faster), ..limits }, Some(&other)).unwrap();
    faster.enter(None, Comer::New, || None).unwrap();
}

#[test]
fn clients_are_limited_one_by_one_and_ipv6_ones_by_their_network() {
    let quota = Quota::of(rate(RateBy::Client), None).unwrap();
    let ask = |address: &str| quota.enter(None, Comer::New, || Some(address.parse().unwrap())).is_ok();
    let thrice = |address: &str| (0..3).all(|_| ask(address));
    assert!(thrice("192.0.2.1") && !ask("192.0.2.1") && thrice("192.0.2.2"));
    assert!(thrice("2001:db8::1") && !ask("2001:db8::2:3:4:5") && ask("2001:db8:0:1::1"));
}

#[test]
fn many_clients_cost_no_more_than_some() {
    let clients = Clients::default();
    for n in 0..200_000u32 {
        let judged: Result<(), ()> =
            clients.measure_and_replace(&IpAddr::V4(n.into()), |_| Ok(((), Nanos::from(1))));
        judged.unwrap();
    }
    let known: usize = clients.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
    assert!((MOST_CLIENTS / 2..=MOST_CLIENTS).contains(&known), "{known}");
}
