//! What a listener does to bring clients to TLS and keep them there: `redirect_to_https` and `hsts`.

use http::HeaderValue;

use super::walk::{Node, Section};

/// A clear-text listener's answer to everything: come again by https.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// The port clients come to; default 443, which is left out.
    pub port: u16,
    /// 301, 302, 307 or 308; default 308, which keeps the method.
    pub status: u16,
    /// Requests below `/.well-known/acme-challenge/` are served all the same; default true.
    pub exempt_acme: bool,
}

impl Default for Redirect {
    fn default() -> Self {
        Self { port: 443, status: 308, exempt_acme: true }
    }
}

/// Reads a listener's `redirect_to_https`, which only makes sense without TLS.
pub(super) fn redirect(section: &mut Section<'_>, has_tls: bool) -> Option<Option<Redirect>> {
    let Some(node) = section.take("redirect_to_https") else { return Some(None) };
    if has_tls {
        node.at.error_with(
            "a listener with `tls` cannot redirect to itself",
            "put it on the clear-text listener",
        );
        return None;
    }
    if node.is_flag() {
        return node.flag().map(|on| on.then(Redirect::default));
    }
    let mut section = node.section("`redirect_to_https`, or true")?;
    let default = Redirect::default();
    let port = section
        .or("port", default.port, |node| node.count(&(1..=65_535)).and_then(|port| u16::try_from(port).ok()));
    let status = section.or("status", default.status, status);
    let exempt_acme = section.or("exempt_acme", default.exempt_acme, Node::flag);
    section.finish();
    Some(Some(Redirect { port: port?, status: status?, exempt_acme: exempt_acme? }))
}

fn status(node: Node<'_>) -> Option<u16> {
    let status = node.count(&(301..=308)).and_then(|status| u16::try_from(status).ok())?;
    if [301, 302, 307, 308].contains(&status) {
        return Some(status);
    }
    let hint = "308 and 307 keep the method, 301 and 302 do not";
    node.at.error_with(format_args!("{status} is not one of 301, 302, 307 and 308"), hint);
    None
}

/// Reads a listener's `hsts` (RFC 6797), which only makes sense with TLS.
pub(super) fn hsts(section: &mut Section<'_>, has_tls: bool) -> Option<Option<HeaderValue>> {
    let Some(node) = section.take("hsts") else { return Some(None) };
    if !has_tls {
        let hint = "browsers ignore it there: put it on the listener with `tls`";
        node.at.error_with("`hsts` is only of use on a listener with `tls`", hint);
        return None;
    }
    let text = if node.is_text() { node.text("")?.to_owned() } else { structured(node)? };
    if !is_policy(&text) {
        let message = format!("`{}` is not an HSTS policy", text.escape_debug());
        node.at.error_with(message, "for example: hsts = \"max-age=31536000; includeSubDomains\"");
        return None;
    }
    HeaderValue::from_str(&text).ok().map(Some)
}

/// `{ max_age = "8760h", include_subdomains = true, preload = true }`.
fn structured(node: Node<'_>) -> Option<String> {
    let mut section = node.section("`hsts`, or the header's text")?;
    let max_age = section.required("max_age", "max_age = \"8760h\"");
    let max_age = max_age.and_then(|node| node.duration(std::time::Duration::ZERO));
    let subdomains = section.or("include_subdomains", false, Node::flag);
    let preload = section.or("preload", false, Node::flag);
    section.finish();
    let mut text = format!("max-age={}", max_age?.as_secs());
    for (is_on, directive) in [(subdomains?, "; includeSubDomains"), (preload?, "; preload")] {
        text.push_str(if is_on { directive } else { "" });
    }
    Some(text)
}

/// Directives apart by semicolons, among them `max-age` once, with a number.
fn is_policy(text: &str) -> bool {
    let max_age = |directive: &str| {
        let (name, value) = directive.split_once('=')?;
        name.trim().eq_ignore_ascii_case("max-age").then(|| value.trim().trim_matches('"').to_owned())
    };
    let ages: Vec<_> = text.split(';').filter_map(max_age).collect();
    let is_number = |age: &String| !age.is_empty() && age.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    is_plain && ages.len() == 1 && ages.iter().all(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_its_age_once() {
        for good in ["max-age=31536000", "max-age=0; includeSubDomains", "Max-Age=\"1\"; preload"] {
            assert!(is_policy(good), "{good}");
        }
        for bad in
            ["", "includeSubDomains", "max-age", "max-age=1y", "max-age=1; max-age=2", "max-age=1\r\nx: y"]
        {
            assert!(!is_policy(bad), "{bad}");
        }
    }
}
