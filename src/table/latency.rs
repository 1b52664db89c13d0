//! How long answers take, as a bucket: log-linear, 16 to an octave from 64 µs to 134 s, each at most 6.25 % wide.

/// Buckets to an octave, as a power of two.
const BITS: u32 = 4;
/// The first octave begins at 2⁶ µs.
const FIRST: u32 = 6;
const OCTAVES: u32 = 21;

/// How many there are: the first is what is faster than 64 µs, the last what is slower than 134 s.
pub const BUCKETS: usize = (OCTAVES as usize) * (1 << BITS) + 2;

/// The bucket of a time in microseconds. Shift and mask only.
#[must_use]
pub fn bucket(micros: u64) -> usize {
    let Some(octave) = micros.checked_ilog2().and_then(|log| log.checked_sub(FIRST)) else { return 0 };
    if octave >= OCTAVES {
        return BUCKETS - 1;
    }
    let within = (micros >> (octave + FIRST - BITS)) & ((1 << BITS) - 1);
    1 + ((octave as usize) << BITS) + usize::try_from(within).unwrap_or(0)
}

/// The shortest time of a bucket, in microseconds.
#[must_use]
pub fn floor(bucket: usize) -> u64 {
    let Some(index) = bucket.checked_sub(1) else { return 0 };
    if bucket >= BUCKETS - 1 {
        return 1 << (FIRST + OCTAVES);
    }
    let (octave, within) = (index >> BITS, index & ((1 << BITS) - 1));
    ((1 << BITS) + within as u64) << (octave + (FIRST - BITS) as usize)
}
