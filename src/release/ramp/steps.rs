//! The plan of a ramp: the weights that its version gets, one after the other.

use crate::table::{BasisPoints, Invalid};

/// The steps of a ramp of which nothing else is said, in basis points.
const STANDARD: [u16; 5] = [100, 500, 2_500, 5_000, 10_000];
/// The most steps of a ramp.
const MOST: usize = 100;

/// The weights of a ramp's version, step by step: strictly rising, the first above 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps(Vec<BasisPoints>);

impl Default for Steps {
    fn default() -> Self {
        Self(STANDARD.into_iter().filter_map(|points| BasisPoints::new(points.into()).ok()).collect())
    }
}

impl Steps {
    /// These weights.
    ///
    /// # Errors
    /// [`Invalid`] when there are none or too many of them, or when one is not above the one before.
    pub fn new(steps: Vec<BasisPoints>) -> Result<Self, Invalid> {
        if steps.is_empty() || steps.len() > MOST {
            return Err(Invalid(format!("a ramp has 1 to {MOST} steps, not {}", steps.len())));
        }
        if steps[0] == BasisPoints::NONE {
            return Err(Invalid("a step of 0 % is none: the first one is above that".to_owned()));
        }
        match steps.windows(2).find(|pair| pair[1] <= pair[0]) {
            Some(pair) => Err(Invalid(format!("steps rise: {} does not come after {}", pair[1], pair[0]))),
            None => Ok(Self(steps)),
        }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[BasisPoints] {
        &self.0
    }

    /// The index of the last one.
    pub(super) fn last(&self) -> usize {
        self.0.len() - 1
    }

    /// Those above `weight`, if there are any.
    pub(super) fn above(&self, weight: BasisPoints) -> Option<Self> {
        let above: Vec<_> = self.0.iter().copied().filter(|step| *step > weight).collect();
        Self::new(above).ok()
    }
}
