//! Who waits is served in his order, by the first place that suits, and nobody is overtaken.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::*;

const LONG: Duration = Duration::from_secs(30);

/// One who would go to these rooms, the first of them first.
#[derive(Clone)]
struct Anyone(Rc<RefCell<Vec<u64>>>, Option<NonZeroU32>);

fn anyone(rooms: &[u64], size: u32) -> Anyone {
    Anyone(Rc::new(RefCell::new(rooms.to_vec())), NonZeroU32::new(size))
}

impl Seek for Anyone {
    type Found = u64;

    fn refresh(&mut self) {}

    fn choose(&mut self, has_place: &dyn Fn(u64, Option<NonZeroU32>) -> bool) -> Result<(u64, u64), Wish> {
        let rooms = self.0.borrow().clone();
        let found = rooms.iter().find(|room| has_place(**room, self.1)).copied();
        found.map(|room| (room, room)).ok_or(Wish { rooms, size: self.1 })
    }
}

fn try_enter(rooms: &Arc<Rooms>, room: u64, size: u32) -> Option<Place> {
    rooms.try_enter(&mut anyone(&[room], size)).map(|(_, place)| place)
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
}

/// What it has come to by now.
macro_rules! poll {
    ($waits:expr) => {
        $waits.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    };
}

#[test]
fn there_is_room_for_so_many_and_for_another_when_one_has_left() {
    let rooms = Arc::<Rooms>::default();
    let (first, _second) = (try_enter(&rooms, 7, 2).unwrap(), try_enter(&rooms, 7, 2).unwrap());
    assert!(try_enter(&rooms, 7, 2).is_none());
    assert!(try_enter(&rooms, 8, 2).is_some(), "another room");
    drop(first);
    assert!(try_enter(&rooms, 7, 2).is_some());
}

#[test]
fn another_size_counts_those_who_are_there() {
    let rooms = Arc::<Rooms>::default();
    let mut places: Vec<_> = (0..4).map(|_| try_enter(&rooms, 7, 4).unwrap()).collect();
    assert!(try_enter(&rooms, 7, 2).is_none());
    places.truncate(2);
    assert!(try_enter(&rooms, 7, 2).is_none(), "two are there");
    assert!(try_enter(&rooms, 7, 3).is_some());
    drop(places);
    assert!(rooms.taken().places.is_empty());
}

#[test]
fn the_first_place_that_becomes_free_is_of_whoever_has_waited_longest_and_may_have_it() {
    run(async {
        let (circuit, mut held) = (Circuit::default(), Vec::new());
        let rooms = &circuit.endpoints;
        held.extend([1, 2, 3].map(|room| try_enter(rooms, room, 1)));
        let enter = |of: &[u64]| Box::pin(circuit.enter(rooms, anyone(of, 1), Some(9), LONG));
        let [mut first, mut second, mut third] = [enter(&[1, 3]), enter(&[1, 2]), enter(&[2, 3])];
        assert!(poll!(first).is_pending() && poll!(second).is_pending() && poll!(third).is_pending());
        assert_eq!(circuit.pending(), 3);
        held[1] = None;
        assert!(try_enter(rooms, 2, 1).is_none(), "nobody is overtaken");
        assert!(poll!(first).is_pending() && poll!(third).is_pending());
        let Poll::Ready(Ok((2, _two))) = poll!(second) else { panic!("the first that may go there") };
        held[2] = None;
        assert!(poll!(third).is_pending());
        let Poll::Ready(Ok((3, three))) = poll!(first) else { panic!("the first of all") };
        held[0] = None;
        assert!(poll!(third).is_pending());
        assert!(try_enter(rooms, 1, 1).is_some(), "nobody waits for it");
        drop(three);
        assert!(matches!(poll!(third), Poll::Ready(Ok((3, _)))));
        assert_eq!(circuit.pending(), 0);
    });
}

#[test]
fn whoever_goes_with_a_place_in_hand_passes_it_on() {
    run(async {
        let circuit = Circuit::default();
        let rooms = &circuit.endpoints;
        let held = try_enter(rooms, 1, 1);
        let enter = || Box::pin(circuit.enter(rooms, anyone(&[1], 1), Some(9), LONG));
        let [mut first, mut second, mut third] = [enter(), enter(), enter()];
        assert!(poll!(first).is_pending() && poll!(second).is_pending() && poll!(third).is_pending());
        drop(second);
        drop(held);
        drop(first);
        assert!(matches!(poll!(third), Poll::Ready(Ok((1, _)))));
        assert!(rooms.taken().places.is_empty() && rooms.taken().line.is_empty());
    });
}

#[test]
fn whoever_looks_anew_keeps_his_number_and_takes_what_does_now() {
    run(async {
        let circuit = Circuit::default();
        let rooms = &circuit.endpoints;
        let held = try_enter(rooms, 1, 1);
        let seeker = anyone(&[1], 1);
        let mut first = Box::pin(circuit.enter(rooms, seeker.clone(), Some(9), LONG));
        let mut second = Box::pin(circuit.enter(rooms, anyone(&[1], 1), Some(9), LONG));
        assert!(poll!(first).is_pending() && poll!(second).is_pending());
        circuit.look_anew();
        assert!(poll!(second).is_pending() && poll!(first).is_pending());
        drop(held);
        assert!(poll!(second).is_pending());
        // What it is handed does not do any more: it is the next one's.
        *seeker.0.borrow_mut() = vec![2];
        assert!(matches!(poll!(first), Poll::Ready(Ok((2, _)))));
        assert!(matches!(poll!(second), Poll::Ready(Ok((1, _)))));
    });
}

#[test]
fn who_waits_too_long_or_has_nowhere_to_go_is_told_so_and_no_more_wait_than_may() {
    run(async {
        let circuit = Circuit::default();
        let rooms = &circuit.requests;
        let _held = try_enter(rooms, 1, 1).unwrap();
        let why = |ended: Result<(u64, Place), NoPlace>| ended.err();
        let mut first = Box::pin(circuit.enter(rooms, anyone(&[1], 1), Some(1), LONG));
        assert!(poll!(first).is_pending());
        assert_eq!(why(circuit.enter(rooms, anyone(&[1], 1), Some(1), LONG).await), Some(NoPlace::Full));
        assert_eq!(why(circuit.enter(rooms, anyone(&[], 1), Some(2), LONG).await), Some(NoPlace::Nowhere));
        let late = circuit.enter(rooms, anyone(&[1], 1), Some(2), Duration::ZERO);
        assert_eq!(why(late.await), Some(NoPlace::Full));
        drop(first);
        assert_eq!(circuit.pending(), 0);
    });
}
