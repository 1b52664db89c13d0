//! By what a request is known on its whole way: `x-request-id`, and W3C trace context.

use super::head::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::connection::Client;
use super::headers::{self, is_nominated, only};

/// The field with a request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest id that is taken over from others.
const MAX_ID: usize = 128;
/// Most members of a `tracestate` (Trace Context §3.3.1.1).
const MAX_MEMBERS: usize = 32;

/// What the operator may set about it; nothing by default: the fields then pass as any other does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Identity {
    /// Every request has an id.
    pub request_id: Option<RequestIds>,
    /// Every request has a valid trace context, or none.
    pub trace: Option<Traces>,
}

/// How requests get their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestIds {
    /// Whose ids are taken over.
    pub accept: Accept,
    /// Answers carry the id too.
    pub answer: bool,
}

/// Whose word is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// That of trusted proxies.
    Trusted,
    /// Everybody's.
    Always,
    /// Nobody's.
    Never,
}

/// How requests get their traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traces {
    /// One is started where there is none.
    pub start: bool,
    /// The flag `sampled` of those that are started.
    pub sampled: bool,
}

/// What a request is known by from here on: it is written into its head once its version is chosen, so that routes, targeting rules and
/// users' keys go by what came.
#[derive(Debug)]
pub struct Marks {
    /// Its id, where requests have one.
    pub id: Option<HeaderValue>,
    trace: Trace,
}

/// What becomes of `traceparent` and `tracestate`.
#[derive(Debug, PartialEq, Eq)]
enum Trace {
    /// Both pass.
    Kept,
    /// The first one passes alone.
    Stateless,
    /// This one is in the place of both, if any.
    Instead(Option<HeaderValue>),
}

impl Marks {
    /// The id and the trace of the request `head`, as the settings say; `None` where they say nothing.
    pub fn of(client: &Client, head: &Parts) -> Option<Box<Self>> {
        let Identity { request_id, trace } = client.settings().identity;
        if request_id.is_none() && trace.is_none() {
            return None;
        }
        let (headers, mut dice) = (&head.headers, || client.worker.dice());
        let trace = trace.map_or(Trace::Kept, |traces| Trace::of(headers, traces, &mut dice));
        let id = request_id.map(|ids| {
            let believed = match ids.accept {
                Accept::Trusted => client.arrival.peer.is_trusted(),
                Accept::Always => true,
                Accept::Never => false,
            };
            let sent = end_to_end(headers, &REQUEST_ID).filter(|id| believed && is_sane(id));
            sent.cloned().unwrap_or_else(|| minted(dice()))
        });
        Some(Box::new(Self { id, trace }))
    }

    /// Puts them into the fields that are sent on.
    pub fn write(&self, headers: &mut HeaderMap) {
        // Else `Connection: x-request-id` would take away what is put there now.
        headers::drop_nominated(headers);
        self.trace.write(headers);
        if let Some(id) = &self.id {
            headers.insert(REQUEST_ID, id.clone());
        }
    }

    /// The field `name` of a request that came with `headers`, as it is sent on; of several the first.
    pub fn field<'f>(&'f self, headers: &'f HeaderMap, name: &HeaderName) -> Option<&'f HeaderValue> {
        match (&self.id, &self.trace) {
            (Some(id), _) if *name == REQUEST_ID => Some(id),
            (_, Trace::Instead(parent)) if *name == TRACEPARENT => parent.as_ref(),
            (_, Trace::Instead(_) | Trace::Stateless) if *name == TRACESTATE => None,
            _ => headers.get(name),
        }
    }
}

/// The value of a field that is there once, and not for this connection alone.
fn end_to_end<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    only(headers, name).filter(|_| !is_nominated(headers, name))
}

/// Visible ASCII of a length that every log can hold.
fn is_sane(id: &HeaderValue) -> bool {
    (1..=MAX_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// 128 random bits in hexadecimal.
fn minted(bits: u128) -> HeaderValue {
    let mut digits = [0; 32];
    write_hex(&mut digits, bits);
    field(&digits)
}

/// Digits and dashes are always a value.
fn field(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).unwrap_or(HeaderValue::from_static(""))
}

/// Fills `out` with the last digits of `bits`.
pub(super) fn write_hex(out: &mut [u8], mut bits: u128) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(bits & 0xf) as usize];
        bits >>= 4;
    }
}

impl Trace {
    /// A valid context stays as it is: we take no part in the trace (Trace Context §4.3). An invalid one is replaced, together
    /// with its `tracestate`, which is of no meaning without it (§3.3); an invalid `tracestate` alone is dropped.
    fn of(headers: &HeaderMap, traces: Traces, mut dice: impl FnMut() -> u128) -> Self {
        let parent = end_to_end(headers, &TRACEPARENT);
        match parent.is_some_and(|parent| is_traceparent(parent.as_bytes())) {
            true if is_tracestate(headers) => Self::Kept,
            true => Self::Stateless,
            false => Self::Instead(traces.start.then(|| started(traces.sampled, dice(), dice()))),
        }
    }

    fn write(&self, headers: &mut HeaderMap) {
        match self {
            Self::Kept => {}
            Self::Stateless => drop(headers.remove(TRACESTATE)),
            Self::Instead(parent) => {
                headers.remove(TRACESTATE);
                match parent {
                    Some(parent) => drop(headers.insert(TRACEPARENT, parent.clone())),
                    None => drop(headers.remove(TRACEPARENT)),
                }
            }
        }
    }
}

/// The context of a new trace (Trace Context §3.2.2); ids of zero are invalid.
fn started(is_sampled: bool, trace: u128, parent: u128) -> HeaderValue {
    let mut text = *b"00-................................-................-00";
    write_hex(&mut text[3..35], trace.max(1));
    write_hex(&mut text[36..52], (parent & u128::from(u64::MAX)).max(1));
    text[54] = if is_sampled { b'1' } else { b'0' };
    field(&text)
}

/// A `traceparent` of version 00, or of a later one that begins as that does (Trace Context §3.2, §4.3).
fn is_traceparent(text: &[u8]) -> bool {
    let is_hex = |part: &[u8]| part.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
    let is_id = |part: &[u8]| is_hex(part) && part.iter().any(|byte| *byte != b'0');
    let Some((known, more)) = text.split_at_checked(55) else { return false };
    let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
    let version = &known[..2];
    let fits = more.is_empty() || (version != b"00" && more[0] == b'-');
    dashes
        && fits
        && is_hex(version)
        && version != b"ff"
        && is_id(&known[3..35])
        && is_id(&known[36..52])
        && is_hex(&known[53..])
}

/// A list of `key=value` (Trace Context §3.3.1); none at all is one too.
fn is_tracestate(headers: &HeaderMap) -> bool {
    let values = headers.get_all(TRACESTATE).iter();
    let members = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut members = members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty()).peekable();
    let is_key = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(byte);
    let is_value = |byte: &u8| (b' '..=b'~').contains(byte) && *byte != b'=';
    let mut count = 0;
    members.all(|member| {
        count += 1;
        let Some(equals) = member.iter().position(|byte| *byte == b'=') else { return false };
        let (key, value) = (&member[..equals], &member[equals + 1..]);
        count <= MAX_MEMBERS
            && (1..=256).contains(&key.len())
            && (1..=256).contains(&value.len())
            && key.iter().all(is_key)
            && value.iter().all(is_value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_what_the_standard_says() {
        let future = GOOD.replacen("00", "cc", 1);
        for good in [GOOD, &future, &format!("{future}-what-will-come")] {
            assert!(is_traceparent(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            &GOOD[1..],
            &format!("{GOOD}-"),
            &format!("{future}."),
            &GOOD.to_ascii_uppercase(),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace('-', "_"),
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
        }
    }

    fn followed(fields: &[(&'static str, &str)], traces: Traces) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        Trace::of(&headers, traces, || 0xabc).write(&mut headers);
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn a_trace_is_followed_started_or_replaced() {
        let traces = Traces { start: true, sampled: true };
        let fresh = format!("00-{:032x}-{:016x}-01", 0xabc, 0xabc);
        let fresh = vec![("traceparent".to_owned(), fresh)];
        let kept = [("traceparent", GOOD), ("tracestate", "a=1, b@c=2,")];
        let owned = |fields: &[(&str, &str)]| -> Vec<_> {
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(followed(&kept, traces), owned(&kept));
        assert_eq!(followed(&[], traces), fresh);
        assert_eq!(followed(&[("traceparent", "00-1-2-3"), ("tracestate", "a=1")], traces), fresh);
        assert_eq!(followed(&[("traceparent", GOOD), ("traceparent", GOOD)], traces), fresh);
        assert_eq!(followed(&[("traceparent", GOOD), ("tracestate", "A")], traces), owned(&kept[..1]));
        let never = Traces { start: false, sampled: false };
        assert_eq!(followed(&[], never), []);
        assert_eq!(followed(&[("traceparent", "no"), ("tracestate", "a=1")], never), []);
    }

    #[test]
    fn an_id_is_short_and_visible() {
        let sane = |text: &str| is_sane(&HeaderValue::from_bytes(text.as_bytes()).unwrap());
        assert!(sane("a-1.{\"}") && sane(&"x".repeat(128)));
        assert!(!sane("") && !sane("a b") && !sane("ä") && !sane(&"x".repeat(129)));
    }

    proptest! {
        #[test]
        fn what_is_started_is_valid(sampled: bool, trace: u128, parent: u128) {
            let value = started(sampled, trace, parent);
            prop_assert!(is_traceparent(value.as_bytes()), "{:?}", value);
            prop_assert!(is_sane(&minted(trace)));
        }
    }
}
