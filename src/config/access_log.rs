//! `[access_log]`: what is written about requests, and where.

use std::path::Path;

use super::walk::Node;
use super::{AccessLog, LogTarget};
use crate::table::BasisPoints;

/// Most request headers that are written.
const MAX_HEADERS: usize = 32;

pub(super) fn read(node: Node<'_>, base: &Path) -> Option<AccessLog> {
    let mut section = node.section("[access_log]")?;
    let to_file = section.or("target", false, |node| match node.text("\"stdout\" or \"file\"")? {
        "stdout" => Some(false),
        "file" => Some(true),
        _ => node.unexpected("\"stdout\" or \"file\""),
    });
    let path = section.take("path");
    let target = match (to_file?, path) {
        (false, None) => Some(LogTarget::Stdout),
        (true, Some(node)) => node.path(base, "a file's path").map(LogTarget::File),
        (false, Some(node)) => {
            node.at.error_with("`path` is only of use with a file", "add target = \"file\"");
            None
        }
        (true, None) => {
            section.at.missing("[access_log] has no `path`", "for example: path = \"access.log\"");
            None
        }
    };
    let default = AccessLog::default();
    let sample = section.or("sample", default.sample, |node| {
        let text = node.number_or_text("a percentage such as \"100%\" or 0.25")?;
        text.parse::<BasisPoints>().ok().or_else(|| node.unexpected("a percentage such as \"100%\" or 0.25"))
    });
    let errors = section.or("errors", default.errors, Node::flag);
    let query = section.or("query", default.query, Node::flag);
    let headers = section.or("headers", Vec::new(), headers);
    section.finish();
    Some(AccessLog { target: target?, sample: sample?, errors: errors?, query: query?, headers: headers? })
}

/// Names in lower case, each once. Those that carry credentials are refused: a log is read by many.
fn headers(node: Node<'_>) -> Option<Vec<String>> {
    let list = node.list("a list of header names such as [\"user-agent\"]")?;
    if list.len() > MAX_HEADERS {
        node.at.error(format_args!("{} headers are too many for a line: at most {MAX_HEADERS}", list.len()));
        return None;
    }
    let names: Vec<_> = list.into_iter().map(header).collect();
    let mut names: Vec<_> = names.into_iter().collect::<Option<_>>()?;
    names.sort();
    names.dedup();
    Some(names)
}

fn header(node: Node<'_>) -> Option<String> {
    let text = node.text("a header name such as \"user-agent\"")?;
    let Ok(name) = http::HeaderName::from_bytes(text.as_bytes()) else {
        node.at.error(format_args!("`{}` is not a header name", text.escape_debug()));
        return None;
    };
    if matches!(name.as_str(), "authorization" | "proxy-authorization" | "cookie" | "set-cookie") {
        node.at.error(format_args!("`{name}` carries secrets, which do not belong in a log"));
        return None;
    }
    Some(name.as_str().to_owned())
}
