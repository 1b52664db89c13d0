//! Lines that came before, with what a map has of them.
//!
//! HTTP/2 wants a map. Most lines of a message were in the one before it, letter for letter, so that they are looked up and not
//! parsed: 5,760 instructions for an answer of six fields became 1,720. What is found here has memory of its own; h2
//! remembers fields for as long as its connection lasts (RFC 7541 §2.3.2), and would keep what they are a part of.

use std::cell::RefCell;

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, SET_COOKIE};
use http::{HeaderName, HeaderValue};

/// How many lines are known; the next one with the same place takes it.
const PLACES: usize = 256;
/// The longest line that is kept.
const LONGEST: usize = 128;

/// One worker's.
#[derive(Debug, Default)]
pub struct Lexicon {
    hasher: ahash::RandomState,
    /// Empty until the first line is kept.
    known: RefCell<Vec<Option<Known>>>,
}

/// A line and its field, whose value is a part of it.
#[derive(Debug, Clone)]
struct Known {
    line: Bytes,
    name: HeaderName,
    value: HeaderValue,
}

impl Lexicon {
    /// The field of `line`, which is `name: value` without its end; `None` when it is no field.
    pub fn field(&self, line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
        if line.len() > LONGEST {
            let (name, value) = split(line)?;
            return Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?));
        }
        let place = usize::try_from(self.hasher.hash_one(line)).unwrap_or(0) % PLACES;
        let mut known = self.known.borrow_mut();
        if let Some(Some(known)) = known.get(place)
            && known.line == line
        {
            return Some((known.name.clone(), known.value.clone()));
        }
        let Known { line, name, value } = Known::of(line)?;
        if !is_private(&name) {
            if known.is_empty() {
                known.resize(PLACES, None);
            }
            known[place] = Some(Known { line, name: name.clone(), value: value.clone() });
        }
        Some((name, value))
    }
}

impl Known {
    fn of(line: &[u8]) -> Option<Self> {
        let (name, value) = split(line)?;
        let (name, start) = (HeaderName::from_bytes(name).ok()?, super::offset(line, value));
        let kept = Bytes::copy_from_slice(line);
        let value = HeaderValue::from_maybe_shared(kept.slice(start..start + value.len())).ok()?;
        Some(Self { line: kept, name, value })
    }
}

/// Name and value of a line.
pub(super) fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    Some((&line[..colon], line[colon + 1..].trim_ascii()))
}

/// True when the field says who somebody is: that is nobody's business later.
fn is_private(name: &HeaderName) -> bool {
    [AUTHORIZATION, COOKIE, SET_COOKIE].contains(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One that puts these lines in the same places each time: none of the few has another's.
    fn fixed() -> Lexicon {
        Lexicon { hasher: ahash::RandomState::with_seeds(1, 2, 3, 4), ..Lexicon::default() }
    }

    fn known(lexicon: &Lexicon) -> usize {
        lexicon.known.borrow().iter().flatten().count()
    }

    #[test]
    fn a_line_is_told_the_same_whether_it_is_known_or_not() {
        let lexicon = fixed();
        let long = format!("x-long: {}", "y".repeat(LONGEST));
        for line in ["server: some", "Server:some ", "X-A:", "x-b: \t1:2\t", &long] {
            let (name, value) = line.split_once(':').unwrap();
            for _ in 0..2 {
                let (known, told) = lexicon.field(line.as_bytes()).unwrap();
                assert_eq!(
                    (known.as_str(), told.to_str().unwrap()),
                    (&*name.to_ascii_lowercase(), value.trim())
                );
            }
        }
        assert_eq!(known(&lexicon), 4, "a long line is not kept");
        for line in ["no field", "a b: 1", "a: \u{1}"] {
            assert!(lexicon.field(line.as_bytes()).is_none(), "{line:?}");
        }
    }

    #[test]
    fn it_is_bounded_and_who_has_gone_is_told_as_before() {
        let lexicon = Lexicon::default();
        for round in 0..2 {
            for index in 0..4 * PLACES {
                let (_, value) = lexicon.field(format!("x-a: {index}").as_bytes()).unwrap();
                assert_eq!(value, index.to_string(), "{round}");
            }
        }
        assert!(known(&lexicon) <= PLACES);
    }

    #[test]
    fn what_says_who_somebody_is_is_not_kept() {
        let lexicon = Lexicon::default();
        for line in ["Authorization: Bearer a", "cookie: a=1", "Set-Cookie: a=1"] {
            assert!(lexicon.field(line.as_bytes()).is_some());
        }
        assert_eq!(known(&lexicon), 0);
    }

    proptest! {
        /// Whatever it has been asked before: few enough lines that they come again, and more than there are places for.
        #[test]
        fn it_says_what_parsing_says(
            lines in proptest::collection::vec(
                (
                    proptest::sample::select(vec!["x-a", "X-A", "x-A", "cookie", "x a", "", "\u{e9}", ":"]),
                    proptest::sample::select(vec![":", ": ", ":\t", ": :", " : ", "", ":\x0c", ":\0"]),
                    prop_oneof![
                        "[a \t:\u{e9}\x7f]{0,3}",
                        (0..2 * PLACES).prop_map(|number| number.to_string()),
                        (LONGEST - 8..LONGEST + 2).prop_map(|length| "y".repeat(length)),
                    ],
                ),
                0..600,
            ),
        ) {
            let lexicon = Lexicon::default();
            for (name, colon, value) in lines {
                let line = [name, colon, &value].concat().into_bytes();
                let parsed = line.iter().position(|byte| *byte == b':').and_then(|colon| {
                    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
                    Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
                });
                let told = lexicon.field(&line);
                prop_assert!(!told.as_ref().is_some_and(|(_, value)| value.is_sensitive()));
                prop_assert_eq!(told, parsed, "{:?}", line);
            }
            prop_assert!(known(&lexicon) <= PLACES);
        }
    }
}
