//! FNV-1a with 64 bits: a hash that is the same on every machine and in every version. It keeps out nobody who means harm.

/// The hash of what was written so far.
#[derive(Debug, Clone, Copy)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// The hash of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::default();
        bytes.iter().for_each(|byte| hash.write(*byte));
        hash.finish()
    }

    /// One byte more.
    pub fn write(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    /// The hash.
    #[must_use]
    pub fn finish(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the authors' own vectors (draft-eastlake-fnv, appendix C).
    #[test]
    fn it_is_the_one_that_all_know() {
        let hashes = [&b""[..], b"a", b"foobar"].map(Fnv::of);
        assert_eq!(hashes, [0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c, 0x8594_4171_f739_67e8]);
    }
}
