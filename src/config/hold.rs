//! `hold` of a service: what its holds are bounded by.

use super::file::SOME_TIME;
use super::size;
use super::walk::Node;
use crate::table::{HoldLimits, LONGEST_HOLD, duration};

/// Most paths of health checks.
const MOST_PATHS: usize = 16;

/// `hold = { requests = 1_000, bytes = "8MiB", timeout = "10s", answer = ["/healthz"] }`.
pub(super) fn read(node: Node<'_>) -> Option<HoldLimits> {
    let mut section = node.section("`hold` of a service")?;
    let default = HoldLimits::default();
    let requests = section.or("requests", default.requests, |node| node.count(&(1..=10_000_000)));
    let bytes = section.or("bytes", default.bytes, bytes);
    let timeout = section.or("timeout", default.timeout, |node| {
        let timeout = node.duration(SOME_TIME)?;
        if timeout > LONGEST_HOLD {
            let longest = duration::text(LONGEST_HOLD);
            node.at.error(format_args!("{} is too long: at most {longest}", duration::text(timeout)));
            return None;
        }
        Some(timeout)
    });
    let answer = section.or("answer", default.answer, paths);
    section.finish();
    Some(HoldLimits { requests: requests?, bytes: bytes?, timeout: timeout?, answer: answer? })
}

fn bytes(node: Node<'_>) -> Option<u64> {
    size::parse(node.text("a size such as \"8MiB\"")?).map_err(|why| node.at.error(why)).ok()
}

fn paths(node: Node<'_>) -> Option<Vec<Box<str>>> {
    let list = node.list("a list of paths such as [\"/healthz\"]")?;
    if list.len() > MOST_PATHS {
        node.at.error(format_args!("{} paths are too many: at most {MOST_PATHS}", list.len()));
        return None;
    }
    let paths: Vec<_> = list.into_iter().map(path).collect();
    paths.into_iter().collect()
}

fn path(node: Node<'_>) -> Option<Box<str>> {
    let expected = "an exact path such as \"/healthz\", without a query";
    let text = node.text(expected)?;
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
    if text.starts_with('/') && text.bytes().all(is_plain) {
        Some(text.into())
    } else {
        node.unexpected(expected)
    }
}
