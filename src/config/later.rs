//! Words of the contract that this build reads but does not act on yet; each use is a warning.

use std::path::Path;

use super::ListenAddr;
use super::walk::{Node, Section};

/// `tls = { certificates = [{ cert = "shop.pem", key = "shop.key" }] }` of a listener.
pub(super) fn tls(node: Node<'_>, base: &Path, listener: &Section<'_>, listen: Option<&ListenAddr>) {
    let Some(mut section) = node.section("`tls`") else { return };
    let example = "certificates = [{ cert = \"shop.pem\", key = \"shop.key\" }]";
    let certificates = section.required("certificates", example);
    let list = certificates.and_then(|node| node.list("a list of { cert = …, key = … }")).unwrap_or_default();
    if let Some(node) = certificates.filter(|_| list.is_empty()) {
        node.at.error_with("there has to be at least one certificate", format!("for example: {example}"));
    }
    list.into_iter().for_each(|node| certificate(node, base));
    section.finish();
    if let Some(listen) = listen {
        listener
            .at
            .warn(format_args!("listener {listen} is not opened: TLS is not served by this build yet"));
    }
}

fn certificate(node: Node<'_>, base: &Path) {
    let Some(mut section) = node.section("a certificate") else { return };
    for (key, example) in [("cert", "cert = \"shop.pem\""), ("key", "key = \"shop.key\"")] {
        let path =
            section.required(key, example).and_then(|node| Some((node, node.path(base, "a file's path")?)));
        if let Some((node, path)) = path.filter(|(_, path)| !path.exists()) {
            node.at.warn(format_args!("{} does not exist", path.display()));
        }
    }
    section.finish();
}

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
