//! `[admin]`: where the switch is worked, and by whom from elsewhere.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use super::document::{Place, Spot};
use super::file::{Taken, fits_a_socket};
use super::tls::pem::Named;
use super::walk::{Node, Section};
use super::{ClientAuth, Host, ListenAddr, Tls, tls};
use crate::release::{Scope, Scopes};

/// The admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Its socket; default [`Host::admin_socket`].
    pub socket: PathBuf,
    /// Where it is served over TCP besides; default: nowhere.
    pub remote: Option<Remote>,
}

/// The admin API over TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its address; without TLS a loopback one.
    pub listen: SocketAddr,
    /// How its TLS is done; `None`: clear text.
    pub tls: Option<Tls>,
    /// Who is let in, at least one.
    pub known: Vec<Authorized>,
}

impl Remote {
    /// True where nobody else reads what is sent to `address`: it is secured, or stays on the machine.
    #[must_use]
    pub fn may_be_at(&self, address: SocketAddr) -> bool {
        self.tls.is_some() || address.ip().to_canonical().is_loopback()
    }
}

/// Somebody who may work the switch from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorized {
    /// As the history tells it; nobody else's.
    pub name: String,
    /// What it is known by; nobody else is.
    pub proof: Proof,
    /// What it may do.
    pub scopes: Scopes,
}

/// What somebody is known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Proof {
    /// A token of this SHA-256.
    Token([u8; 32]),
    /// A certificate for this name, by one of the authorities of `client_ca`.
    Certificate(CertificateName),
}

/// An alternative name of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CertificateName {
    /// A DNS name, in lower case.
    Dns(String),
    /// A URI.
    Uri(String),
}

/// The most tokens, and the most certificates.
const MOST: usize = 1024;
/// How long a token is: long enough that nobody guesses one, whatever the alphabet.
const TOKEN: std::ops::RangeInclusive<usize> = 32..=512;
/// What makes one.
const MAKE: &str = "`openssl rand -hex 32 > shop-ci.token` makes one";

/// Reads the section, and the files that it names.
pub(super) fn read(root: &mut Section<'_>, base: &Path, host: &Host, taken: &mut Taken) -> Option<Admin> {
    let Some(node) = root.take("admin") else {
        return Some(Admin { socket: default_socket(root.at, host)?, remote: None });
    };
    let mut section = node.section("[admin]")?;
    let socket = match section.take("socket") {
        Some(node) => {
            node.path(base, "the path of a Unix socket").filter(|path| fits_a_socket(node, path).is_some())
        }
        None => default_socket(section.at, host),
    };
    let remote = remote(&mut section, base, taken);
    section.finish();
    Some(Admin { socket: socket?, remote: remote? })
}

/// Every file that it names, there or not: what is to be watched.
pub(super) fn files(root: &mut Section<'_>, base: &Path) -> Vec<PathBuf> {
    let Some(mut section) = root.take("admin").and_then(|node| node.section("")) else { return Vec::new() };
    let tls = section.take("tls").map(|node| tls::files(node, base)).unwrap_or_default();
    let tokens = section.take("tokens").and_then(|node| node.list("")).unwrap_or_default();
    let tokens = tokens.into_iter().filter_map(|node| node.section("")?.take("file")?.path(base, ""));
    tls.into_iter().chain(tokens).collect()
}

fn default_socket(at: Spot<'_>, host: &Host) -> Option<PathBuf> {
    let default = host.admin_socket();
    if default.is_none() {
        at.missing(
            "there is no place for the admin socket: XDG_RUNTIME_DIR is not set",
            "name one: [admin] socket = \"/path/to/admin.sock\"",
        );
    }
    default
}

/// The TCP listener, if there is one.
fn remote(section: &mut Section<'_>, base: &Path, taken: &mut Taken) -> Option<Option<Remote>> {
    let (listen, tls_at) = (section.take("listen"), section.take("tls"));
    let (tokens, certificates) = (section.take("tokens"), section.take("certificates"));
    let Some(listen_at) = listen else {
        let rest = [("tls", tls_at), ("tokens", tokens), ("certificates", certificates)];
        let alone = rest.into_iter().find_map(|(key, node)| Some((key, node?)));
        let Some((key, node)) = alone else { return Some(None) };
        let hint = "say where it is listened over TCP, listen = \"127.0.0.1:9901\", or take it away";
        node.at.error_with(format_args!("`{key}` is only of use with `listen`"), hint);
        return None;
    };
    let listen = address(listen_at, taken);
    let tls = tls_at.map_or(Some(None), |node| of_admin(node, base).map(Some));
    let mut all = Known::default();
    let tokens_read = tokens.map_or(Some(()), |node| list(node, "tokens", |node| all.token(node, base)));
    let certificates_read =
        certificates.map_or(Some(()), |node| list(node, "certificates", |node| all.certificate(node)));
    let (listen, tls) = (listen?, tls?);
    tokens_read.and(certificates_read)?;
    let asks = tls.as_ref().is_some_and(|tls| tls.client_auth != ClientAuth::None);
    if let Some(node) = certificates.filter(|_| !asks) {
        let hint = "tls = { certificates = […], client_auth = \"required\", client_ca = \"clients.pem\" }; or \"optional\" beside tokens";
        node.at.error_with("`certificates` needs a `tls` that asks clients for theirs", hint);
        return None;
    }
    if all.known.is_empty() {
        let hint = "[[admin.tokens]] name = \"shop-ci\", scopes = [\"operate:shop\"], file = \"shop-ci.token\"; or `tls` with `client_ca`, and [[admin.certificates]]";
        listen_at
            .at
            .error_with("nobody could be known there: there are neither `tokens` nor `certificates`", hint);
        return None;
    }
    let remote = Remote { listen, tls, known: all.known };
    if !remote.may_be_at(listen) {
        let hint = "add tls = { certificates = [{ cert = \"admin.pem\", key = \"admin.key\" }] }, or listen on 127.0.0.1";
        listen_at.at.error_with("tokens would pass readable for everybody on the way: without `tls` only a loopback address is listened on", hint);
        return None;
    }
    Some(Some(remote))
}

fn address(node: Node<'_>, taken: &mut Taken) -> Option<SocketAddr> {
    let expected = "an address such as \"127.0.0.1:9901\"";
    let listen = node.text(expected)?.parse::<SocketAddr>().ok();
    let listen = listen.or_else(|| node.unexpected(expected))?;
    taken.claim(node, &ListenAddr::Tcp(listen));
    Some(listen)
}

/// As a listener's, but for what is about endpoints, and what is not spoken.
fn of_admin(node: Node<'_>, base: &Path) -> Option<Tls> {
    let read = tls::read(node, base)?;
    let mut section = node.section("`tls`")?;
    let of_no_use =
        [("alpn", "HTTP/1.1 is spoken there"), ("client_subject_header", "there are no endpoints to tell")];
    for (key, why) in of_no_use {
        if let Some(node) = section.take(key) {
            node.at.error_with(format_args!("`{key}` is of no use in [admin]: {why}"), "take it away");
            return None;
        }
    }
    Some(read)
}

/// All are read, whether or not one of them is wrong.
fn list<'a>(node: Node<'a>, key: &str, mut read: impl FnMut(Node<'a>) -> Option<()>) -> Option<()> {
    let list = node.list(&format!("one or more [[admin.{key}]]"))?;
    if list.len() > MOST {
        node.at.error(format_args!("{} {key} are too many: at most {MOST}", list.len()));
        return None;
    }
    list.into_iter().map(&mut read).fold(Some(()), Option::and)
}

/// Those who were read so far.
#[derive(Default)]
struct Known {
    known: Vec<Authorized>,
    names: HashMap<String, Place>,
    /// What each is known by, which makes nobody two.
    proofs: HashMap<Proof, Place>,
}

impl Known {
    fn token(&mut self, node: Node<'_>, base: &Path) -> Option<()> {
        let mut section = node.section("a token")?;
        let (name, scopes) = common(&mut section);
        let (file, sum) = (section.take("file"), section.take("sha256"));
        let sum = match (file, sum) {
            (Some(node), None) => in_file(node, base),
            (None, Some(node)) => sha256(node),
            (None, None) => {
                let hint = format!("file = \"shop-ci.token\", or the SHA-256 of it, sha256 = \"…\"; {MAKE}");
                section.at.missing("a token has neither `file` nor `sha256`", hint);
                None
            }
            (Some(_), Some(node)) => {
                node.at.error_with("`file` and `sha256` do not go together", "leave one of them out");
                None
            }
        };
        section.finish();
        self.add(node, name?, Proof::Token(sum?), scopes?)
    }

    fn certificate(&mut self, node: Node<'_>) -> Option<()> {
        let mut section = node.section("a certificate")?;
        let (name, scopes) = common(&mut section);
        let (dns, uri) = (section.take("dns"), section.take("uri"));
        let of = match (dns, uri) {
            (Some(node), None) => dns_name(node).map(CertificateName::Dns),
            (None, Some(node)) => uri_name(node).map(CertificateName::Uri),
            (None, None) => {
                let hint = "one of its alternative names: uri = \"spiffe://example.com/shop-cd\", or dns = \"shop-cd.example.com\"";
                section.at.missing("a certificate has neither `uri` nor `dns`", hint);
                None
            }
            (Some(_), Some(node)) => {
                node.at.error_with("`dns` and `uri` do not go together", "leave one of them out");
                None
            }
        };
        section.finish();
        self.add(node, name?, Proof::Certificate(of?), scopes?)
    }

    fn add(&mut self, node: Node<'_>, name: String, proof: Proof, scopes: Scopes) -> Option<()> {
        if let Some(first) = self.names.insert(name.clone(), node.at.place()) {
            let message = format!("`{name}` is already somebody: {first}");
            node.at.error_with(message, "give it another name: the history tells them apart by it");
            return None;
        }
        if let Some(first) = self.proofs.insert(proof.clone(), node.at.place()) {
            let message = format!("`{name}` is known by the same as somebody else: {first}");
            node.at.error_with(message, "each needs a token or a certificate of its own");
            return None;
        }
        self.known.push(Authorized { name, proof, scopes });
        Some(())
    }
}

fn common(section: &mut Section<'_>) -> (Option<String>, Option<Scopes>) {
    let name = section.required("name", "name = \"shop-ci\"").and_then(|node| {
        let expected = "a name of letters, digits and - . _";
        let text = node.text(expected)?;
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if plain && (1..=63).contains(&text.len()) {
            Some(text.to_owned())
        } else {
            node.unexpected(expected)
        }
    });
    let scopes = section.required("scopes", "scopes = [\"read\", \"operate:shop-*\"]").and_then(|node| {
        let expected = "a list of scopes such as [\"read\", \"operate:shop-*\"]";
        let list = node.list(expected)?;
        if list.is_empty() {
            node.at.error_with("without a scope nothing may be done", "read, operate:SERVICE or admin");
            return None;
        }
        let read: Vec<_> = list.into_iter().map(|node| node.parse::<Scope>(expected)).collect();
        read.into_iter().collect::<Option<Vec<_>>>().map(Scopes::of)
    });
    (name, scopes)
}

/// The token in a file of its own; what is wrong with it is not told with it.
fn in_file(node: Node<'_>, base: &Path) -> Option<[u8; 32]> {
    let file = Named::read(node, base)?;
    let (token, path) = (file.bytes.trim_ascii(), file.path.display());
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    if !TOKEN.contains(&token.len()) || !token.iter().all(is_plain) {
        let message = format!(
            "{path} holds no token: expected {} to {} letters, digits and - . _ ~ + / =",
            TOKEN.start(),
            TOKEN.end()
        );
        node.at.error_with(message, MAKE);
        return None;
    }
    let mode = std::fs::metadata(&file.path).map(|file| file.permissions().mode()).unwrap_or_default();
    if mode & 0o077 != 0 {
        node.at
            .warn(format_args!("{path} can be read by others (mode {:04o}): `chmod 600` it", mode & 0o7777));
    }
    digest(&SHA256, token).as_ref().try_into().ok()
}

fn sha256(node: Node<'_>) -> Option<[u8; 32]> {
    let expected = "the SHA-256 of a token, 64 hexadecimal digits: `printf %s \"$TOKEN\" | sha256sum`";
    let text = node.text(expected)?;
    let is_sum = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let byte = |at: usize| text.get(2 * at..2 * at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let sum = is_sum.then(|| std::array::from_fn(|at| byte(at).unwrap_or_default()));
    if sum.is_none() {
        // Without what was found: it may be the token itself.
        node.at.error_with(format_args!("expected {expected}"), "what stands here is not shown");
    }
    sum
}

fn dns_name(node: Node<'_>) -> Option<String> {
    let expected = "a DNS name of a certificate such as \"shop-cd.example.com\"";
    let text = node.text(expected)?;
    let is_name = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if is_name { Some(text.to_ascii_lowercase()) } else { node.unexpected(expected) }
}

fn uri_name(node: Node<'_>) -> Option<String> {
    let expected = "a URI of a certificate such as \"spiffe://example.com/shop-cd\"";
    let text = node.text(expected)?;
    let is_uri = text.contains(':') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_uri { Some(text.to_owned()) } else { node.unexpected(expected) }
}
