//! What reads bytes from outside, fuzzed; each target in `targets/` asserts what must hold, not only that nothing panics.
//! They are run in two ways, from the kept corpus in `corpus/`: by libFuzzer with the address sanitizer
//! (`tests/fuzz/run`, by hand, for as long as one likes), and without either in `tests/suites/fuzz` ([`smoke`]), which is
//! a part of `tests/run`.
//!
//! | target | reads | and must |
//! |---|---|---|
//! | `gate` | a client's request head and body | let nothing pass that another reader could frame or route differently, and no stranger's pin |
//! | `answers` | an endpoint's answers | make the same of them however they are cut, and write the body so that it stays it |
//! | `frames` | a client's HTTP/2 frames | count as a plain reader does, however they are cut |
//! | `proxy_header` | a PROXY header | end where it ends, and say what `ppp` reads |
//! | `config` | `switchback.toml` | refuse with places, or give what can be put in force |
//! | `admin` | the body of a batch | give commands or a problem; commands a sound table or a refusal |
//! | `records` | the store's records | read what it writes as what it was |
//!
//! WebSocket frames are not among them: a tunnel passes bytes and reads none. HTTP/2 itself is read by `h2`, TLS by
//! rustls, certificates by `x509-parser`, which have fuzzers of their own.

#![forbid(unsafe_code)]

pub mod pieces;
pub mod strict;

#[cfg(not(fuzzing))]
pub mod smoke;

#[cfg(fuzzing)]
pub use libfuzzer_sys::fuzz_target;

#[cfg(not(fuzzing))]
#[doc(hidden)]
pub use arbitrary;

/// Makes a program of a target: what libFuzzer's macro of this name does, for [`smoke`].
#[cfg(not(fuzzing))]
#[macro_export]
macro_rules! fuzz_target {
    (|$input:ident: $kind:ty| $body:expr) => {
        fn once(bytes: &[u8]) {
            let unstructured = $crate::arbitrary::Unstructured::new(bytes);
            if let Ok($input) = <$kind as $crate::arbitrary::Arbitrary>::arbitrary_take_rest(unstructured) {
                $body
            }
        }

        fn main() -> std::process::ExitCode {
            $crate::smoke::main(env!("CARGO_BIN_NAME"), once)
        }
    };
}
