//! `If-Match` and `Idempotency-Key`: on what understanding a change is asked for, and whether it was asked before.

use http::HeaderMap;
use http::header::IF_MATCH;

use super::api::Problem;
use super::call::Call;
use crate::table::Epoch;
use crate::table::fnv::Fnv;

/// The header that makes a repeated call one change.
pub(super) const KEY_HEADER: &str = "idempotency-key";
/// Set on an answer that was given before.
pub(super) const REPLAYED_HEADER: &str = "idempotent-replayed";
/// The longest idempotency key, in bytes.
const MAX_KEY: usize = 255;

/// The epochs that `If-Match` allows; empty when it allows any.
///
/// # Errors
/// 400 when it is not `*` or a list of this API's entity tags.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Vec<Epoch>, Box<Problem>> {
    let mut epochs = Vec::new();
    for value in headers.get_all(IF_MATCH) {
        let text = value.to_str().map_err(|_| malformed("?"))?;
        if text.trim() == "*" {
            return Ok(Vec::new());
        }
        for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            let digits = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            let epoch = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
            epochs.push(Epoch(epoch.and_then(|digits| digits.parse().ok()).ok_or_else(|| malformed(tag))?));
        }
    }
    if epochs.is_empty() && headers.contains_key(IF_MATCH) {
        return Err(malformed(""));
    }
    Ok(epochs)
}

fn malformed(tag: &str) -> Box<Problem> {
    // Visible ASCII, as a header is: quotes stay as they came.
    let detail = format!("`{tag}` is not an entity tag of this API");
    Problem::new(400, "bad_if_match", detail)
        .hint("send the `etag` of an answer as it was, such as \"41\", or *")
        .at("if-match")
}

/// The idempotency key with a digest of what is asked.
///
/// # Errors
/// 400 when the key is empty, too long, or not visible ASCII.
pub(super) fn idempotency(call: &Call) -> Result<Option<(String, String)>, Box<Problem>> {
    let Some(key) = call.parts.headers.get(KEY_HEADER) else { return Ok(None) };
    let key = key.as_bytes();
    let visible = key.iter().all(u8::is_ascii_graphic);
    if key.is_empty() || key.len() > MAX_KEY || !visible {
        let detail = format!("an idempotency key is 1 to {MAX_KEY} visible ASCII characters");
        return Err(Problem::new(400, "bad_idempotency_key", detail).at(KEY_HEADER));
    }
    Ok(Some((call.caller.own_key(&String::from_utf8_lossy(key)), fingerprint(call))))
}

/// Method, path, query, and length and FNV-1a of the body: enough to notice a key that was used for something else,
/// which is the caller's mistake and not an attack. Kept in the store, so it must not change with a release.
fn fingerprint(call: &Call) -> String {
    let (parts, digest) = (&call.parts, Fnv::of(&call.body));
    format!("{} {} {}:{digest:016x}", parts.method, parts.uri, call.body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &'static str) -> Result<Vec<u64>, u16> {
        let headers = HeaderMap::from_iter([(IF_MATCH, value.parse().unwrap())]);
        if_match(&headers)
            .map(|epochs| epochs.iter().map(|epoch| epoch.0).collect())
            .map_err(|why| why.status)
    }

    #[test]
    fn if_match_is_a_star_or_a_list_of_epochs() {
        assert_eq!(read("\"41\""), Ok(vec![41]));
        assert_eq!(read("\"41\", \"42\""), Ok(vec![41, 42]));
        assert_eq!(read("*"), Ok(vec![]));
        for bad in ["41", "W/\"41\"", "\"\"", "\"x\"", "", "\"41", "\"-1\"", "\"99999999999999999999\""] {
            assert_eq!(read(bad), Err(400), "{bad}");
        }
    }
}
