//! Words of the contract that this build reads but does not act on yet; each use is a warning.

use super::walk::Node;

/// `sticky = { cookie = "sb_id", mint = true }`, `{ header = "x-user" }` or `{ client = true }` of a service.
pub(super) fn sticky(node: Node<'_>) {
    let Some(mut section) = node.section("`sticky`") else { return };
    let (cookie, mint) = (section.take("cookie"), section.take("mint"));
    let (header, client) = (section.take("header"), section.take("client"));
    section.finish();
    let expected = "a name of letters, digits and - _";
    for node in [cookie, header].into_iter().flatten() {
        let plain = |name: &&str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if let Some(text) = node.text(expected).filter(|text| !plain(text)) {
            node.at.error(format_args!("expected {expected}, found `{}`", text.escape_default()));
        }
    }
    for node in [mint, client].into_iter().flatten() {
        node.flag();
    }
    if let Some(node) = mint.filter(|_| cookie.is_none()) {
        node.at.error("`mint` is only of use with `cookie`");
    }
    if [cookie, header, client].into_iter().flatten().count() != 1 {
        let hint = "{ cookie = \"sb_id\", mint = true }, { header = \"x-user\" } or { client = true }";
        node.at.error_with("`sticky` is by exactly one of cookie, header and client", hint);
    }
    node.at.warn("`sticky` is not honoured by this build yet: every request is assigned by its own coin");
}
