//! `sticky` of a service: by what its users stay with a version.

use std::time::Duration;

use super::balance::{is_true, token};
use super::walk::Node;
use crate::table::{ServiceName, StickyBy, StickyRules};

/// The shortest life of a cookie.
const LEAST: Duration = Duration::from_secs(1);
/// The longest salt.
const MOST_SALT: usize = 256;

/// `{ cookie = "sb_id", mint = true, max_age = "720h", salt = "shop" }`, `{ header = "x-user" }` or `{ client = true }`, of the
/// service with this name.
pub(super) fn read(node: Node<'_>, service: Option<&ServiceName>) -> Option<StickyRules> {
    let mut section = node.section("`sticky`")?;
    let keys = [section.take("cookie"), section.take("header"), section.take("client")];
    let (mint, max_age) = (section.take("mint"), section.take("max_age"));
    let default = service.map_or("", ServiceName::as_str);
    let salt = section.or("salt", default.into(), salt);
    section.finish();
    if let Some(node) = mint.filter(|_| keys[0].is_none()) {
        node.at.error("`mint` is only of use with `cookie`");
    }
    let mints = mint.map_or(Some(false), Node::flag);
    let needless = max_age.filter(|_| mints == Some(false));
    if let Some(node) = needless {
        node.at
            .error_with("`max_age` is that of a cookie that is minted", "add `mint = true`, or leave it out");
    }
    let max_age = max_age.map_or(Some(StickyBy::MAX_AGE), |node| node.duration(LEAST));
    let by = match keys {
        [Some(name), None, None] => {
            let name = token(name, "the name of a cookie such as \"sb_id\"");
            let mint = mints.zip(max_age).map(|(mints, age)| mints.then_some(age));
            name.zip(mint).map(|(name, mint)| StickyBy::Cookie { name: name.into(), mint })
        }
        [None, Some(node), None] => token(node, "the name of a header such as \"x-user\"").map(|name| {
            if name.contains('_') {
                node.at.warn("fields with an underscore are taken out unless [proxy] underscores_in_headers is \"allow\": write a hyphen");
            }
            StickyBy::Header(name.to_ascii_lowercase().into())
        }),
        [None, None, Some(flag)] => is_true(flag).map(|()| StickyBy::Client),
        _ => {
            let hint = "{ cookie = \"sb_id\", mint = true }, { header = \"x-user\" } or { client = true }";
            node.at.error_with("`sticky` is by exactly one of cookie, header and client", hint);
            None
        }
    };
    Some(StickyRules { by: by.filter(|_| mints.is_some() && needless.is_none())?, salt: salt? })
}

fn salt(node: Node<'_>) -> Option<Box<str>> {
    let expected = "a text of at most 256 bytes, the same for all instances";
    let text = node.text(expected)?;
    if (1..=MOST_SALT).contains(&text.len()) { Some(text.into()) } else { node.unexpected(expected) }
}
