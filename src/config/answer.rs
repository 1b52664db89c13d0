//! What is answered without asking a version: `redirect` and `answer` of a route, `error_pages` of a service or of all.

use std::io::{self, Read};
use std::path::Path;

use super::diagnostic::close_to;
use super::regular;
use super::walk::{Node, Section};
use crate::metrics::Reason;
use crate::table::{ErrorPage, On, OwnAnswer, Page, Part, Placeholder, Template};

/// Largest page, in bytes: they are kept in memory, and sent from there.
const MAX_PAGE: u64 = 1 << 20;

/// Reads `redirect` or `answer` off a route; `Some(None)` when it has neither.
pub(super) fn read(route: &mut Section<'_>, base: &Path) -> Option<Option<OwnAnswer>> {
    let (to, fixed) = (route.take("redirect"), route.take("answer"));
    match (to, fixed) {
        (None, None) => Some(None),
        (Some(node), None) => redirect(node).map(Some),
        (None, Some(node)) => answer(node, base).map(Some),
        (Some(_), Some(node)) => {
            node.at.error("a route has a `redirect` or an `answer`, not both");
            None
        }
    }
}

/// `{ to = "https://%{host}%{path}%{query}", status = 308 }`.
fn redirect(node: Node<'_>) -> Option<OwnAnswer> {
    let mut section = node.section("a redirect")?;
    let to = section.required("to", "to = \"https://%{host}%{path}%{query}\"").and_then(target);
    let status = section.or("status", 308, |node| {
        let statuses = [301, 302, 303, 307, 308];
        let status = node.count(&(301..=308))?;
        let status = u16::try_from(status).ok().filter(|status| statuses.contains(status));
        status.or_else(|| node.unexpected("301, 302, 303, 307 or 308"))
    });
    section.finish();
    Some(OwnAnswer::Redirect { status: status?, to: to? })
}

/// Where a redirect leads: nothing of the request but its host may come to stand where the host is read.
fn target(node: Node<'_>) -> Option<Template> {
    let text = node.text("a URL such as \"https://%{host}%{path}%{query}\"")?;
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`|".contains(&byte);
    if let Some(odd) = text.chars().find(|odd| !odd.is_ascii() || !is_plain(*odd as u8)) {
        let message = format_args!("`{}` cannot stand in a URL", odd.escape_debug()).to_string();
        node.at.error_with(message, "write it as it is sent, such as %20");
        return None;
    }
    let template: Template = text.parse().map_err(|why| node.at.error(why)).ok()?;
    let after_scheme = ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let Some(authority) = after_scheme else {
        if text.starts_with('/') && !text.starts_with("//") || text.starts_with("%{path}") {
            return Some(template);
        }
        let hint = "for example \"https://%{host}%{path}%{query}\", or \"/new%{query}\" on the same host";
        node.at.error_with("a redirect leads to https://…, http://… or a path that begins with /", hint);
        return None;
    };
    let authority: Template = authority.parse().ok()?;
    if is_open(&authority) {
        let hint = "put a / before it, such as \"https://shop.example.com/%{rest}%{query}\"";
        node.at.error_with("the client could choose the host that this redirect leads to", hint);
        return None;
    }
    Some(template)
}

/// True when something of the request other than its host could become part of the host.
fn is_open(after_scheme: &Template) -> bool {
    let mut has_host = false;
    for part in after_scheme.parts() {
        match part {
            Part::Text(text) if text.contains(['/', '?', '#']) => {
                return !has_host && text.starts_with(['/', '?', '#']);
            }
            Part::Text(_) | Part::Of(Placeholder::Host | Placeholder::Authority) => has_host = true,
            // Begins with `?`, or is not there.
            Part::Of(Placeholder::Query) => {}
            // Begins with `/`.
            Part::Of(Placeholder::Path) => return !has_host,
            Part::Of(_) => return true,
        }
    }
    !has_host
}

/// `{ status = 503, file = "maintenance.html" }`.
fn answer(node: Node<'_>, base: &Path) -> Option<OwnAnswer> {
    let mut section = node.section("an answer")?;
    let status = section.or("status", 200, |node| {
        let status = u16::try_from(node.count(&(200..=599))?).ok()?;
        if (300..400).contains(&status) {
            node.at.error_with("an answer is no redirect", "use `redirect = { to = \"https://…\" }`");
            return None;
        }
        Some(status)
    });
    let has_body = section.has("body") || section.has("file");
    let page = if has_body { page(&mut section, base) } else { Some(Page::new(PLAIN, Vec::new())) };
    if let Some(node) = section.take("content_type").filter(|_| !has_body) {
        node.at.error("`content_type` is only of use with `body` or `file`");
    }
    let (_, _) = (section.take("body"), section.take("file"));
    section.finish();
    let (status, page) = (status?, page?);
    if matches!(status, 204 | 205) && !page.bytes.is_empty() {
        node.at.error(format_args!("an answer with status {status} has no body"));
        return None;
    }
    Some(OwnAnswer::Fixed { status, page })
}

/// `[{ on = ["502", "5xx", "no_endpoint"], file = "sorry.html" }]`.
pub(super) fn pages(node: Node<'_>, base: &Path) -> Option<Vec<ErrorPage>> {
    let list = node.list("a list of pages such as [{ on = [\"5xx\"], file = \"sorry.html\" }]")?;
    let pages: Vec<_> = list.into_iter().map(|node| error_page(node, base)).collect();
    pages.into_iter().collect()
}

fn error_page(node: Node<'_>, base: &Path) -> Option<ErrorPage> {
    let mut section = node.section("an error page")?;
    let list = section.required("on", "on = [502, \"5xx\", \"no_endpoint\"]").and_then(|node| {
        let list =
            node.list("a list of statuses, classes and reasons such as [502, \"5xx\", \"no_endpoint\"]")?;
        let on: Vec<_> = list.into_iter().map(occasion).collect();
        on.into_iter().collect::<Option<Vec<_>>>()
    });
    let page = page(&mut section, base);
    section.finish();
    Some(ErrorPage { on: list?.into(), page: page? })
}

fn occasion(node: Node<'_>) -> Option<On> {
    let text = node.number_or_text("a status such as 502, a class such as \"5xx\" or a reason")?;
    let status = text.parse().ok().filter(|status| (400..600).contains(status)).map(On::Status);
    let class = match text.as_str() {
        "4xx" => Some(On::Class(4)),
        "5xx" => Some(On::Class(5)),
        _ => None,
    };
    let reason = Reason::ALL.into_iter().find(|reason| reason.token() == text);
    let found = status.or(class).or(reason.map(|reason| On::Reason(reason.token())));
    if found.is_none() {
        let tokens = Reason::ALL.map(Reason::token);
        let hint = close_to(&text, tokens).unwrap_or_else(|| {
            "a status from 400 to 599, 4xx, 5xx, or a token of switchback-reason such as no_endpoint"
                .to_owned()
        });
        node.at.error_with(format_args!("`{}` is no error of the proxy's", text.escape_debug()), hint);
    }
    found
}

const PLAIN: &str = "text/plain; charset=utf-8";

/// The body that `section` gives, as text or as a file, with its type.
fn page(section: &mut Section<'_>, base: &Path) -> Option<Page> {
    let (body, file) = (section.take("body"), section.take("file"));
    let given = section.or("content_type", None, |node| content_type(node).map(Some));
    let (bytes, guess) = match (body, file) {
        (Some(node), None) => (node.text("the body, as text")?.as_bytes().to_vec(), PLAIN),
        (None, Some(node)) => {
            let path = node.path(base, "a file's path")?;
            (read_page(node, &path)?, guessed(&path))
        }
        (Some(node), Some(_)) => {
            node.at.error("the body is given by `body` or by `file`, not by both");
            return None;
        }
        (None, None) => {
            section.at.missing(
                format_args!("{} has no body", section.what),
                "body = \"…\", or file = \"sorry.html\"",
            );
            return None;
        }
    };
    Some(Page::new(given?.unwrap_or(guess), bytes))
}

fn content_type(node: Node<'_>) -> Option<&str> {
    let expected = "a media type such as \"text/html; charset=utf-8\"";
    let text = node.text(expected)?;
    let is_type = text.contains('/') && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if is_type && text.trim() == text { Some(text) } else { node.unexpected(expected) }
}

fn read_page(node: Node<'_>, path: &Path) -> Option<Vec<u8>> {
    let read = || {
        let (file, mut bytes) = (regular::open(path)?, Vec::new());
        let mut length = file.metadata()?.len();
        if length <= MAX_PAGE {
            // It may have grown since.
            length = file.take(MAX_PAGE + 1).read_to_end(&mut bytes)? as u64;
        }
        Ok::<_, io::Error>((length, bytes))
    };
    match read() {
        Ok((length, _)) if length > MAX_PAGE => {
            let message = format!("{} has {length} bytes: a page is at most {MAX_PAGE}", path.display());
            node.at.error_with(message, "serve larger ones from a version");
        }
        Ok((_, bytes)) => return Some(bytes),
        Err(why) => node.at.error(format_args!("{} cannot be read: {why}", path.display())),
    }
    None
}

/// The media type that a file's name suggests.
fn guessed(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        _ => PLAIN,
    }
}
