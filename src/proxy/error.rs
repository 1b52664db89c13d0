//! Answers that the proxy makes itself: a status, a stable reason, no addresses.

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::headers;
use crate::metrics::Reason;

/// The field that names the reason in every answer of the proxy's own.
pub const REASON: HeaderName = HeaderName::from_static("switchback-reason");
/// The field with the epoch a request was admitted under, where the operator turns it on.
pub const EPOCH: HeaderName = HeaderName::from_static("switchback-epoch");

/// The methods that are served, in `Allow`.
pub const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// The proxy's answer for `reason`: problem details (RFC 9457) when the client takes them, else plain text.
#[must_use]
pub fn answer(reason: Reason, asked: &HeaderMap) -> Response<Bytes> {
    let status = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let title = sentence(reason);
    let (kind, body) = if takes_problems(asked) {
        let token = reason.token();
        let status = status.as_u16();
        // The parts are constants without anything to escape.
        let body = format!(
            r#"{{"type":"urn:switchback:reason:{token}","title":"{title}","status":{status},"reason":"{token}"}}"#
        );
        ("application/problem+json", body + "\n")
    } else {
        ("text/plain; charset=utf-8", format!("{} {title}\n", status.as_u16()))
    };
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(REASON, HeaderValue::from_static(reason.token()));
    if in_doubt(reason) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            // Where nothing better is known.
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"))
        }
        StatusCode::METHOD_NOT_ALLOWED => headers.insert(ALLOW, ALLOWED),
        _ => None,
    };
    response
}

/// A whole answer for a client whose request never became one, with this [`Date`](super::worker::Worker::date).
#[must_use]
pub fn refusal(reason: Reason, date: &[u8]) -> Vec<u8> {
    let answer = answer(reason, &HeaderMap::new());
    let status = answer.status();
    let mut text =
        format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or("")).into_bytes();
    for (name, value) in answer.headers() {
        headers::append(&mut text, name.as_str().as_bytes(), value.as_bytes());
    }
    headers::append(&mut text, b"content-length", answer.body().len().to_string().as_bytes());
    headers::append(&mut text, b"date", date);
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(answer.body());
    text
}

/// True when it is not certain where the request ends, or nothing more is wanted: nothing more is read from that client.
fn in_doubt(reason: Reason) -> bool {
    use Reason::{
        BadRequest, Connections, Expectation, HeadTooLarge, HttpVersion, Method, Overload, RequestBody,
        RequestTimeout, RequestTooLarge, ShuttingDown, TargetTooLong,
    };
    matches!(
        reason,
        BadRequest
            | Connections
            | Expectation
            | HeadTooLarge
            | HttpVersion
            | Method
            | Overload
            | RequestBody
            | RequestTimeout
            | RequestTooLarge
            | ShuttingDown
            | TargetTooLong
    )
}

/// What a person reads.
#[must_use]
pub fn sentence(reason: Reason) -> &'static str {
    match reason {
        Reason::NoRoute => "no service answers here",
        Reason::NoEndpoint => "the service has nowhere to send this",
        Reason::ConnectFailed => "the service does not accept connections",
        Reason::UpstreamTls => "the service did not prove who it is",
        Reason::ConnectTimeout => "the service did not accept the connection in time",
        Reason::UpstreamClosed => "the service closed the connection without an answer",
        Reason::UpstreamProtocol => "the service's answer was not valid HTTP",
        Reason::NoWebsocket => "the service takes no WebSockets",
        Reason::ResponseTimeout => "the service did not answer in time",
        Reason::BodyStalled => "the service's answer stopped",
        Reason::BodyTruncated => "the service's answer broke off",
        Reason::RequestBody => "the request's body broke off",
        Reason::ClientGone => "the client went away",
        Reason::ClientStalled => "the client did not take the answer",
        Reason::BadRequest => "the request is malformed or ambiguous",
        Reason::HeadTooLarge => "the request's head is too large",
        Reason::TargetTooLong => "the request's target is too long",
        Reason::HttpVersion => "this version of HTTP is not spoken here",
        Reason::Method => "this method is not served",
        Reason::Expectation => "only 100-continue can be expected",
        Reason::RequestTimeout => "the request did not come in time",
        Reason::Overload => "the proxy is overloaded",
        Reason::ProxyProtocol => "no valid PROXY header",
        Reason::Connections => "this client has too many connections",
        Reason::Concurrency => "the service has too many requests at once",
        Reason::CircuitOpen => "the service has all the work it can take",
        Reason::Rate => "too many requests",
        Reason::RequestTooLarge => "the request's body is too large",
        Reason::ResponseTooLarge => "the service's answer is too large",
        Reason::Deadline => "the request took too long",
        Reason::DrainDeadline => "the service is being replaced",
        Reason::Flood => "the client sends too much of nothing",
        Reason::ShuttingDown => "shutting down",
        Reason::Misdirected => "the request is for another host than its connection",
        Reason::Internal => "a fault of the proxy's own",
    }
}

/// True when the client would rather have problem details than plain text (RFC 9110 §12.5.1); no `Accept` takes anything.
fn takes_problems(headers: &HeaderMap) -> bool {
    let mut ranges = headers.get_all(ACCEPT).iter().peekable();
    if ranges.peek().is_none() {
        return true;
    }
    let accepted: Vec<_> =
        ranges.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).collect();
    let quality = |kinds: [&str; 3]| {
        // The most specific range that is given decides.
        kinds.iter().find_map(|kind| accepted.iter().find_map(|range| quality_of(range, kind))).unwrap_or(0)
    };
    let json = quality(["application/problem+json", "application/*", "*/*"]).max(quality([
        "application/json",
        "application/json",
        "application/json",
    ]));
    json > 0 && json >= quality(["text/plain", "text/*", "*/*"])
}

/// The quality in thousandths that `range` gives to exactly `kind`.
fn quality_of(range: &str, kind: &str) -> Option<u32> {
    let mut parts = range.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(kind) {
        return None;
    }
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let thousandths = |text: &str| {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        format!("{digits:0<4}").get(..4).and_then(|digits| digits.parse().ok())
    };
    Some(quality.map_or(1000, |text| thousandths(text).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(accept: Option<&str>) -> String {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        }
        answer(Reason::NoRoute, &headers).headers()[CONTENT_TYPE].to_str().unwrap().to_owned()
    }

    #[test]
    fn problem_details_go_to_those_who_take_them() {
        for accept in
            [None, Some("*/*"), Some("application/json"), Some("application/problem+json, text/plain;q=0.5")]
        {
            assert_eq!(kind(accept), "application/problem+json", "{accept:?}");
        }
        for accept in ["text/plain", "text/html", "text/plain, */*;q=0.1", "application/problem+json;q=0", ""]
        {
            assert_eq!(kind(Some(accept)), "text/plain; charset=utf-8", "{accept:?}");
        }
    }

    #[test]
    fn every_answer_names_its_reason_and_is_valid_json() {
        for reason in Reason::ALL {
            let response = answer(reason, &HeaderMap::new());
            assert_eq!(response.headers()[REASON], reason.token());
            let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(body["status"], reason.status());
        }
    }
}
