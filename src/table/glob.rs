//! Names by a pattern: `shop`, `shop-*`, `*`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::name::{Invalid, MAX_NAME};

/// A pattern of service names: a name in which each `*` stands for any number of characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Glob(Arc<str>);

impl Glob {
    /// True for a name of this pattern.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let (mut pieces, mut rest) = (self.0.split('*'), name);
        let Some(after) = pieces.next().and_then(|first| rest.strip_prefix(first)) else { return false };
        rest = after;
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        // The first place where a piece fits leaves the most to the others.
        for piece in pieces {
            let Some((_, after)) = rest.split_once(piece) else { return false };
            rest = after;
        }
        rest.ends_with(last)
    }
}

impl FromStr for Glob {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'*'));
        if plain && !text.is_empty() && text.len() <= MAX_NAME {
            return Ok(Self(text.into()));
        }
        Err(Invalid(format!(
            "`{}` is no pattern of service names: expected letters, digits, - _ . and * for anything",
            text.escape_default()
        )))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(glob: &str, name: &str) -> bool {
        glob.parse::<Glob>().unwrap().matches(name)
    }

    #[test]
    fn a_star_is_anything_and_the_rest_is_itself() {
        for (glob, name) in [
            ("*", "shop"),
            ("shop", "shop"),
            ("shop-*", "shop-eu"),
            ("*-eu", "shop-eu"),
            ("s*p*u", "shop-eu"),
            ("shop*", "shop"),
            ("a*a", "aa"),
            ("**", ""),
        ] {
            assert!(matches(glob, name), "{glob} {name}");
        }
        for (glob, name) in
            [("shop", "shop-eu"), ("shop", "sho"), ("shop-*", "shop"), ("a*a", "a"), ("s*x*u", "shop-eu")]
        {
            assert!(!matches(glob, name), "{glob} {name}");
        }
        for bad in ["", "a b", "a?", "[a]", &"x".repeat(64)] {
            assert!(bad.parse::<Glob>().is_err(), "{bad}");
        }
    }

    /// Plain and slow: every way to give a star its part.
    fn model(glob: &[u8], name: &[u8]) -> bool {
        match glob {
            [] => name.is_empty(),
            [b'*', rest @ ..] => (0..=name.len()).any(|at| model(rest, &name[at..])),
            [byte, rest @ ..] => {
                name.split_first().is_some_and(|(first, name)| first == byte && model(rest, name))
            }
        }
    }

    proptest! {
        #[test]
        fn it_matches_as_the_slow_way_does(glob in "[ab*]{1,8}", name in "[ab]{0,8}") {
            prop_assert_eq!(matches(&glob, &name), model(glob.as_bytes(), name.as_bytes()));
        }
    }
}
