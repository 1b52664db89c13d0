//! A stream as a socket gives it: in pieces of any size. What it means must not depend on them.

use bytes::Bytes;
use switchback::proxy::http1::{Decoded, Decoder, Malformed};

/// The sizes of the pieces that `seed` stands for; 0 is all at once.
pub fn sizes(seed: u8) -> impl Iterator<Item = usize> {
    let mut state = u32::from(seed);
    std::iter::from_fn(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(if seed == 0 { usize::MAX } else { 1 + (state >> 16) as usize % (1 + usize::from(seed & 15)) })
    })
}

/// Whatever comes, piece by piece.
pub struct Pieces<'b> {
    rest: &'b [u8],
    sizes: Box<dyn Iterator<Item = usize>>,
    /// What has come and was not taken.
    pub buffer: Bytes,
}

impl<'b> Pieces<'b> {
    /// `bytes`, in the pieces that `seed` stands for.
    pub fn of(bytes: &'b [u8], seed: u8) -> Self {
        Self { rest: bytes, sizes: Box::new(sizes(seed)), buffer: Bytes::new() }
    }

    /// The next piece comes; false when there is none.
    pub fn more(&mut self) -> bool {
        let size = self.sizes.next().unwrap_or(1).min(self.rest.len());
        let (piece, rest) = self.rest.split_at(size);
        self.rest = rest;
        self.buffer = [&self.buffer, piece].concat().into();
        size > 0
    }

    /// How many bytes nobody took.
    pub fn left(&self) -> usize {
        self.buffer.len() + self.rest.len()
    }
}

/// What a body came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Body {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its trailers, as they came.
    pub trailers: Vec<(String, Vec<u8>)>,
    /// True at its end, false where it breaks off.
    pub ended: Result<bool, Malformed>,
    /// How many bytes are behind it.
    pub left: usize,
}

impl Body {
    /// All of the body that `pieces` has.
    pub fn read(mut decoder: Decoder, pieces: &mut Pieces<'_>) -> Self {
        let (mut bytes, mut trailers) = (Vec::new(), Vec::new());
        let ended = loop {
            match decoder.decode(&mut pieces.buffer) {
                Ok(Decoded::Data(data)) => {
                    assert!(!data.is_empty(), "data of no bytes: {decoder:?}");
                    bytes.extend_from_slice(&data);
                }
                Ok(Decoded::Trailers(fields)) => {
                    let owned = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
                        (name.to_string(), value.as_bytes().to_vec())
                    };
                    trailers.extend(fields.iter().map(owned));
                    assert!(decoder.is_end(), "nothing follows trailers: {decoder:?}");
                }
                Ok(Decoded::End) => {
                    assert!(decoder.is_end());
                    break Ok(true);
                }
                Ok(Decoded::More) if pieces.more() => {}
                Ok(Decoded::More) => break Ok(false),
                Err(why) => break Err(why),
            }
        };
        // Behind something malformed nothing is read: how much of it had come does not matter.
        let left = if ended.is_err() { 0 } else { pieces.left() };
        Self { bytes, trailers, ended, left }
    }
}
