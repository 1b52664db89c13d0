//! What an endpoint's checks make of it: a state and a streak, nothing else.
//!
//! ```text
//! Unchecked ── well ──▶ Up ── `fall` × unwell ──▶ Down
//!     │                  ▲ ◀──── `rise` × well ─── │
//!     └── unwell ────────┼────────────────────────▶┘
//! Arriving ── well ──────┘   (unwell: still arriving)
//! ```
//!
//! The first answer decides: nothing was known before, and a proxy that starts is not to send requests to the dead for
//! three more checks. An endpoint that came while others serve is given all the time it needs to begin.

use crate::proxy::upstream::Standing;

/// Where an endpoint is in its checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Course {
    state: Standing,
    /// How many answers in a row spoke against `state`.
    streak: u16,
}

impl Course {
    /// Of an endpoint that was there from the start.
    pub(super) const UNCHECKED: Self = Self { state: Standing::Unchecked, streak: 0 };
    /// Of one that came later.
    pub(super) const ARRIVING: Self = Self { state: Standing::Arriving, streak: 0 };

    /// Of one that another process has found like this.
    pub(super) fn found(state: Standing) -> Self {
        Self { state, streak: 0 }
    }

    /// How it stands.
    pub(super) fn state(self) -> Standing {
        self.state
    }

    /// After an answer.
    #[must_use]
    pub(super) fn after(self, is_well: bool, rise: u16, fall: u16) -> Self {
        let to = |state| Self { state, streak: 0 };
        let against = |needed: u16, state| match self.streak.saturating_add(1) {
            streak if streak >= needed => to(state),
            streak => Self { streak, ..self },
        };
        match (self.state, is_well) {
            (Standing::Unchecked | Standing::Arriving | Standing::Up, true) => to(Standing::Up),
            (Standing::Unchecked | Standing::Down, false) => to(Standing::Down),
            (Standing::Arriving, false) => to(Standing::Arriving),
            (Standing::Up, false) => against(fall, Standing::Down),
            (Standing::Down, true) => against(rise, Standing::Up),
            // Ejection is not a matter of checks, and lies over all of these.
            (Standing::Ejected, _) => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(from: Course, answers: &[bool], rise: u16, fall: u16) -> Standing {
        answers.iter().fold(from, |course, is_well| course.after(*is_well, rise, fall)).state()
    }

    #[test]
    fn the_first_answer_decides() {
        assert_eq!(run(Course::UNCHECKED, &[true], 5, 5), Standing::Up);
        assert_eq!(run(Course::UNCHECKED, &[false], 5, 5), Standing::Down);
        assert_eq!(run(Course::ARRIVING, &[true], 5, 5), Standing::Up);
    }

    #[test]
    fn an_arriving_endpoint_has_all_the_time_it_needs() {
        assert_eq!(run(Course::ARRIVING, &[false; 100], 2, 3), Standing::Arriving);
        assert_eq!(run(Course::ARRIVING, &[false, false, true], 2, 3), Standing::Up);
    }

    proptest! {
        /// Told with the answers alone: up until `fall` in a row are bad, down until `rise` in a row are good.
        #[test]
        fn it_changes_after_a_whole_streak_and_at_nothing_less(
            answers in proptest::collection::vec(any::<bool>(), 1..60), rise in 1u16..5, fall in 1u16..5,
        ) {
            let ends_with = |past: &[bool], is_well: bool, many: u16| {
                past.len() >= usize::from(many) && past.iter().rev().take(usize::from(many)).all(|a| *a == is_well)
            };
            let mut course = Course::UNCHECKED.after(answers[0], rise, fall);
            // Where the present state began: only answers since then count.
            let mut since = 1;
            for end in 2..=answers.len() {
                let (before, past) = (course.state(), &answers[since..end]);
                course = course.after(answers[end - 1], rise, fall);
                let expected = match before {
                    Standing::Up if ends_with(past, false, fall) => Standing::Down,
                    Standing::Down if ends_with(past, true, rise) => Standing::Up,
                    same => same,
                };
                prop_assert_eq!(course.state(), expected);
                if course.state() != before {
                    since = end;
                }
            }
        }
    }
}
