//! Answers that a route gives by itself: redirects, and fixed ones such as a maintenance page.

use super::head::Parts;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::rewrite::Values;
use crate::table::{OwnAnswer, Page, Template};

/// The route's answer to the request `head`.
#[must_use]
pub fn of(own: &OwnAnswer, head: &Parts, values: &Values<'_>) -> Response<Bytes> {
    match own {
        OwnAnswer::Redirect { status, to } => redirect(*status, to, values),
        OwnAnswer::Fixed { status, page } => fixed(*status, page, head),
    }
}

fn redirect(status: u16, to: &Template, values: &Values<'_>) -> Response<Bytes> {
    let mut location = Vec::new();
    to.write(&mut location, |placeholder, out| values.write(placeholder, out));
    // `//elsewhere` is another host to a browser, and so is `/\elsewhere`: a path stays one.
    if location.first() == Some(&b'/') {
        let slashes = location.iter().take_while(|byte| b"/\\".contains(byte)).count();
        location.drain(..slashes - 1);
        location[0] = b'/';
    }
    let mut response = with_status(status, Bytes::new());
    if let Ok(location) = HeaderValue::from_maybe_shared(Bytes::from(location)) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// A page with status 200 has a tag, so that a client that has it already is told so (RFC 9110 §13.1.2); preconditions of
/// other answers are to be ignored (§13.2.1).
fn fixed(status: u16, page: &Page, head: &Parts) -> Response<Bytes> {
    let may_be_kept = status == 200 && matches!(head.method, Method::GET | Method::HEAD);
    if may_be_kept && has_already(&head.headers, &page.tag) {
        let mut response = with_status(304, Bytes::new());
        put(response.headers_mut(), ETAG, &page.tag);
        return response;
    }
    // Shared by all workers, unlike most of what they touch: one count a page is cheaper than a copy of it.
    let mut response = with_status(status, page.bytes.clone());
    if !page.bytes.is_empty() {
        put(response.headers_mut(), CONTENT_TYPE, &page.content_type);
    }
    if may_be_kept {
        put(response.headers_mut(), ETAG, &page.tag);
    }
    response
}

fn with_status(status: u16, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

fn put(headers: &mut HeaderMap, name: http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// True when `If-None-Match` names the tag; weak comparison.
fn has_already(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter();
    let mut tags =
        values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    tags.any(|known| known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == tag.as_bytes())
}

/// Puts `page` in the place of the body of an answer of the proxy's own.
pub fn put_page(response: &mut Response<Bytes>, page: &Page) {
    *response.body_mut() = page.bytes.clone();
    put(response.headers_mut(), CONTENT_TYPE, &page.content_type);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values<'static> {
        Values {
            client: "".into(),
            scheme: "http",
            asked: None,
            prefix: 0,
            service: "s",
            version: "",
            epoch: 1,
            request_id: b"",
        }
    }

    fn asking(method: &str, tag: Option<&str>) -> Parts {
        let request = http::Request::builder().method(method).uri("/");
        let request = tag.into_iter().fold(request, |request, tag| request.header(IF_NONE_MATCH, tag));
        request.body(()).unwrap().into_parts().0.into()
    }

    #[test]
    fn a_client_that_has_the_page_is_told_so() {
        let page = Page::new("text/html", b"closed".to_vec());
        let tag = page.tag.to_string();
        let answer = |status, method, known: Option<&str>| {
            let own = OwnAnswer::Fixed { status, page: page.clone() };
            let response = of(&own, &asking(method, known), &values());
            (response.status().as_u16(), response.into_body().len())
        };
        assert_eq!(answer(200, "GET", None), (200, 6));
        assert_eq!(answer(200, "GET", Some("\"x\"")), (200, 6));
        for known in [&*tag, &format!("\"x\", W/{tag}"), "*"] {
            assert_eq!(answer(200, "HEAD", Some(known)), (304, 0), "{known}");
        }
        assert_eq!(answer(200, "POST", Some(&tag)), (200, 6));
        assert_eq!(answer(503, "GET", Some(&tag)), (503, 6));
    }

    #[test]
    fn a_redirect_to_a_path_stays_on_this_host() {
        for (to, location) in [
            ("/a", "/a"),
            ("//evil.test/", "/evil.test/"),
            ("/\\evil", "/evil"),
            ("https://a//b", "https://a//b"),
        ] {
            let own = OwnAnswer::Redirect { status: 302, to: to.parse().unwrap() };
            let response = of(&own, &asking("GET", None), &values());
            assert_eq!(
                (response.status().as_u16(), &response.headers()[LOCATION]),
                (302, &HeaderValue::from_static(location))
            );
        }
    }
}
