//! What keeps few clients from deciding a comparison in which the coin is the client's, and not the request's.
//!
//! All that a client does counts for the same version then, so its failures are one throw of a coin, however many they are:
//! a bad event counts only where its client has met none of the same kind for a while, and for much longer than the comparison
//! had gone on by then: who fails from time to time would else be another throw each time. And of few clients nothing follows, so
//! it is counted how many there are.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::{CLIENTS, QUANTILES};

/// What a client can meet, each told apart: who is always slow would otherwise never be seen to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    Failed,
    ClientError,
    /// Slow, at this quantile.
    Slow(usize),
}

impl Bad {
    pub(super) const KINDS: usize = 2 + QUANTILES;

    pub(super) fn index(self) -> usize {
        match self {
            Self::Failed => 0,
            Self::ClientError => 1,
            Self::Slow(quantile) => 2 + quantile,
        }
    }
}

/// A client as one of many, by its sticky key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(u64);

impl Slot {
    /// Of these bits, each of which is as good as any other.
    pub(super) fn of(bits: u64) -> Self {
        Self(bits)
    }

    /// Its place among [`CLIENTS`].
    fn place(self) -> usize {
        usize::try_from(self.0 % CLIENTS as u64).unwrap_or(0)
    }

    /// Its word and bit among [`SEEN`], by other bits than its place.
    fn bit(self) -> (usize, u64) {
        let bit = usize::try_from((self.0 >> 32) % SEEN as u64).unwrap_or(0);
        (bit / 64, 1 << (bit % 64))
    }
}

/// When which clients have met what: second and 1; 0: never. Made with the first of a kind, 256 KiB each.
pub(super) struct Quiet {
    /// In seconds.
    lasts: u32,
    kinds: [OnceLock<Box<[AtomicU32]>>; Bad::KINDS],
}

impl Quiet {
    pub(super) fn new(lasts: Duration) -> Self {
        let lasts = u32::try_from(lasts.as_secs()).unwrap_or(u32::MAX);
        Self { lasts, kinds: Default::default() }
    }

    /// This client meets something bad, so many microseconds after the ledger's beginning: true when it has met the same just
    /// before, which says nothing new then.
    pub(super) fn is_repeated(&self, slot: Slot, bad: Bad, now: u64) -> bool {
        let slots = self.kinds[bad.index()].get_or_init(|| (0..CLIENTS).map(|_| AtomicU32::new(0)).collect());
        let second = u32::try_from(now / 1_000_000).unwrap_or(u32::MAX - 1) + 1;
        // One swap: of two workers at once one finds the other's.
        let before = slots[slot.place()].swap(second, Ordering::Relaxed);
        // Seconds that have begun: as long as that it was quiet in any case.
        before != 0 && second.saturating_sub(before) <= self.lasts.max(before.saturating_mul(PATIENCE))
    }
}

/// For so many times as long as the comparison had gone on when a client met something bad, the next of the kind says nothing new: who
/// fails again and again counts once.
const PATIENCE: u32 = 3;

/// So many bits tell clients apart well enough to count some hundred.
const SEEN: usize = 1 << 12;

/// One worker's clients. Only its worker writes.
pub(super) struct Clients {
    seen: [AtomicU64; SEEN / 64],
    /// Requests with a coin of their own: each is as good as a client.
    once: AtomicU64,
}

impl Clients {
    pub(super) fn new() -> Self {
        Self { seen: std::array::from_fn(|_| AtomicU64::new(0)), once: AtomicU64::new(0) }
    }

    /// This client is here; `None`: somebody who is nobody again.
    pub(super) fn came(&self, client: Option<Slot>) {
        let Some((word, bit)) = client.map(Slot::bit) else {
            self.once.store(self.once.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            return;
        };
        let seen = self.seen[word].load(Ordering::Relaxed);
        if seen & bit == 0 {
            self.seen[word].store(seen | bit, Ordering::Relaxed);
        }
    }
}

/// About how many clients these workers have seen, those counted once that came to several.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most some ten thousand")]
pub(super) fn count<'c>(workers: impl Iterator<Item = &'c Clients>) -> u64 {
    let (mut seen, mut once) = ([0; SEEN / 64], 0);
    for worker in workers {
        seen.iter_mut().zip(&worker.seen).for_each(|(sum, word)| *sum |= word.load(Ordering::Relaxed));
        once += worker.once.load(Ordering::Relaxed);
    }
    let free: u32 = seen.iter().map(|word| word.count_zeros()).sum();
    // Linear counting: two clients may have one bit (Whang, Vander-Zanden and Taylor, 1990).
    let all = SEEN as f64;
    once + (all * (all / f64::from(free.max(1))).ln()).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> impl Iterator<Item = Slot> {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        (1u64..).map(move |client| Slot::of(hasher.hash_one(client)))
    }

    #[test]
    fn a_client_that_hammers_counts_once() {
        let quiet = Quiet::new(Duration::from_secs(60));
        let [client, other] = [slots().next().unwrap(), slots().nth(1).unwrap()];
        let at = |second: u64| second * 1_000_000;
        assert!(!quiet.is_repeated(client, Bad::Failed, at(0)));
        assert!(quiet.is_repeated(client, Bad::Failed, at(0)));
        assert!(!quiet.is_repeated(other, Bad::Failed, at(0)));
        // Whoever goes on is not quiet, however long it lasts.
        for second in (30..600).step_by(30) {
            assert!(quiet.is_repeated(client, Bad::Failed, at(second)), "{second}");
        }
        // Nor who fails from time to time.
        for second in [691, 1_500] {
            assert!(quiet.is_repeated(client, Bad::Failed, at(second)), "{second}");
        }
        assert!(!quiet.is_repeated(client, Bad::Failed, at(4 * 1_500 + 10)));
        let every =
            |seconds: u64| (1..10_000).map(move |nth| at(nth * seconds)).take_while(|now| *now <= at(86_400));
        for seconds in [61, 600, 3_600] {
            let late = slots().nth(usize::try_from(seconds).unwrap()).unwrap();
            let counted = every(seconds).filter(|now| !quiet.is_repeated(late, Bad::Failed, *now)).count();
            assert!(counted <= 1, "{counted} at {seconds}");
        }
    }

    #[test]
    fn who_is_slow_is_still_seen_to_fail() {
        let quiet = Quiet::new(Duration::from_secs(60));
        let client = slots().next().unwrap();
        let kinds = [Bad::Failed, Bad::ClientError, Bad::Slow(0), Bad::Slow(1), Bad::Slow(2)];
        assert!(kinds.into_iter().all(|bad| !quiet.is_repeated(client, bad, 0)));
        assert!(kinds.into_iter().all(|bad| quiet.is_repeated(client, bad, 0)));
    }

    #[test]
    fn clients_are_counted_on_whichever_workers_they_come() {
        for number in [0, 1, 50, 299, 1_000, 5_000] {
            let workers = [Clients::new(), Clients::new(), Clients::new()];
            for (index, slot) in slots().take(number).enumerate() {
                workers[index % 3].came(Some(slot));
                workers[(index + 1) % 3].came(Some(slot));
            }
            let found = count(workers.iter()) as f64;
            assert!((found - number as f64).abs() <= 2.0 + number as f64 * 0.05, "{found} for {number}");
            workers[0].came(None);
            workers[1].came(None);
            assert_eq!(count(workers.iter()) as f64, found + 2.0);
        }
    }
}
