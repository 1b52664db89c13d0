//! How an endpoint of a version fares, as the whole process knows: what its checks and its requests say.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use super::room::Room;

/// Whether an endpoint gets new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Standing {
    /// It was not checked yet, or is never: it counts as well.
    #[default]
    Unchecked,
    /// It came while others serve, and was not found well yet.
    Arriving,
    /// Its checks find it well.
    Up,
    /// Its checks find it unwell.
    Down,
    /// Its requests went badly, and it is left alone for a time.
    Ejected,
}

impl Standing {
    const ALL: [Self; 5] = [Self::Unchecked, Self::Arriving, Self::Up, Self::Down, Self::Ejected];

    /// True when it gets new requests.
    #[must_use]
    pub fn serves(self) -> bool {
        matches!(self, Self::Unchecked | Self::Up)
    }
}

/// What is known of one endpoint in one tenure of a version. Written by control, read by the workers.
#[derive(Debug, Default)]
pub struct Vitals {
    standing: AtomicU8,
    /// Room for the version's requests with it, where that is limited.
    room: OnceLock<Arc<Room>>,
}

impl Vitals {
    /// Whether it gets new requests.
    #[must_use]
    pub fn standing(&self) -> Standing {
        // Relaxed: a request that sees it a little late goes where it would have gone a moment before.
        Standing::ALL.get(usize::from(self.standing.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    /// Room for so many of the version's requests with it.
    pub fn room(&self, size: NonZeroU32) -> &Arc<Room> {
        Room::of(&self.room, size)
    }

    /// From now on it stands like this.
    pub fn set_standing(&self, standing: Standing) {
        self.standing.store(standing as u8, Ordering::Relaxed);
    }
}
