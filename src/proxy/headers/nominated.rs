//! The fields that a `Connection` names: they are for that connection only (RFC 9110 §7.6.1).

use std::collections::HashSet;

use http::header::{CONNECTION, TE, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{ConnectionOption, is_protected};

/// Takes the fields away that `Connection` names; afterwards it names none.
pub fn drop_nominated(headers: &mut HeaderMap) {
    let (kept, named): (Vec<_>, Vec<_>) = said_of_connection(headers).partition(|said| is_option(said));
    if named.is_empty() {
        return;
    }
    let kept = kept.join(&b", "[..]);
    let names: Vec<_> = Nominated::of(headers).0.into_iter().map(HeaderName::from_bytes).collect();
    match HeaderValue::from_bytes(&kept) {
        Ok(kept) if !kept.is_empty() => drop(headers.insert(CONNECTION, kept)),
        Ok(_) | Err(_) => drop(headers.remove(CONNECTION)),
    }
    let is_kept = |name: &HeaderName| *name == UPGRADE || *name == TE;
    for name in names.into_iter().flatten().filter(|name| !is_kept(name)) {
        headers.remove(name);
    }
}

/// True when `Connection` names the field, which does not pass then.
#[must_use]
pub fn is_nominated(headers: &HeaderMap, name: &HeaderName) -> bool {
    Nominated::of(headers).contains(name)
}

/// What `Connection` says, one after the other.
fn said_of_connection(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(CONNECTION).into_iter();
    let said = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    said.map(<[u8]>::trim_ascii).filter(|said| !said.is_empty())
}

/// True for what it says of the connection itself, and of fields that never pass.
fn is_option(said: &[u8]) -> bool {
    ConnectionOption::of(said).is_some() || said.eq_ignore_ascii_case(b"te")
}

/// What a request's `Connection` names: fields.
pub(super) struct Nominated<'h>(Vec<&'h [u8]>);

/// As many names are compared with each field as they are; of more only those that are fields, which are few.
const FEW_NAMES: usize = 16;

impl<'h> Nominated<'h> {
    pub(super) fn of(headers: &'h HeaderMap) -> Self {
        let mut names: Vec<_> = said_of_connection(headers).filter(|said| !is_option(said)).collect();
        if names.len() > FEW_NAMES {
            names = fields_among(&names, headers);
        }
        names.retain(|name| !is_protected(name));
        Self(names)
    }

    pub(super) fn contains(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|named| name.as_str().as_bytes().eq_ignore_ascii_case(named))
    }
}

/// The fields that are among `names`, each once.
fn fields_among<'h>(names: &[&[u8]], headers: &'h HeaderMap) -> Vec<&'h [u8]> {
    let fields = headers.keys().map(|name| name.as_str().as_bytes());
    let mut fields: HashSet<_, ahash::RandomState> = fields.collect();
    let mut lower = Vec::new();
    let of_name = |name: &&[u8]| {
        lower.clear();
        lower.extend(name.iter().map(u8::to_ascii_lowercase));
        fields.take(&lower[..])
    };
    names.iter().filter_map(of_name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nominated(connection: &str) -> (HeaderMap, usize) {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_str(connection).unwrap());
        for name in ["host", "x-one", "x-two", "x-three"] {
            headers.append(name, HeaderValue::from_static("x"));
        }
        let most = Nominated::of(&headers).0.len();
        (headers, most)
    }

    #[test]
    fn thousands_of_names_are_no_more_than_the_fields_that_they_name() {
        let (mut headers, most) =
            nominated(&format!("keep-alive, {} X-Two, host, x-two", "_, x-one,".repeat(4_000)));
        assert_eq!(most, 2, "all that any field is compared with");
        let named = ["x-one", "x-two", "x-three", "host"]
            .map(|name| is_nominated(&headers, &HeaderName::from_static(name)));
        assert_eq!(named, [true, true, false, false]);
        drop_nominated(&mut headers);
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(
            (left, &headers[CONNECTION]),
            (vec!["connection", "host", "x-three"], &HeaderValue::from_static("keep-alive"))
        );
    }
}
