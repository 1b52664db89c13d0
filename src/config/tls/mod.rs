//! `tls = { … }` of a listener: what it presents to clients, and whom it lets in.

mod certificate;
pub(super) mod pem;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, NamedGroup};

use super::diagnostic::did_you_mean;
use super::document::Place;
use super::file::SOME_TIME;
use super::walk::{Node, Section};

pub use certificate::Certificate;

/// How a listener's TLS is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The first one is for clients that name no host, or one that no certificate is for.
    pub certificates: Vec<Certificate>,
    /// The least version; default 1.2.
    pub min_version: TlsVersion,
    /// The cipher suites that may be used, the most wanted first; empty: all that are known.
    pub ciphers: Vec<CipherSuite>,
    /// The key exchange groups that may be used, the most wanted first; empty: the library's own choice.
    pub groups: Vec<NamedGroup>,
    /// Whether clients show certificates; default: they are not asked.
    pub client_auth: ClientAuth,
    /// The field in which endpoints are told the verified client's name; clients' own is always dropped.
    pub client_subject_header: Option<HeaderName>,
    /// Application protocols, the most wanted first; default `h2`, `http/1.1`.
    pub alpn: Vec<Alpn>,
    /// How long a handshake may take; default 10 s.
    pub handshake_timeout: Duration,
    /// Whether clients may resume sessions by tickets; default true.
    pub tickets: bool,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// An application protocol (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// `h2`.
    Http2,
    /// `http/1.1`.
    Http11,
}

impl Alpn {
    /// All of them, the most wanted first.
    pub const ALL: [Self; 2] = [Self::Http2, Self::Http11];

    /// Its name on the wire.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Http2 => "h2",
            Self::Http11 => "http/1.1",
        }
    }
}

/// A bundle of authorities that sign certificates.
pub(super) type Authorities = Arc<[CertificateDer<'static>]>;

/// Whether clients show a certificate, and who has to have signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// One that is shown has to be good.
    Optional(Authorities),
    /// There has to be one.
    Required(Authorities),
}

const EXAMPLE: &str = "certificates = [{ cert = \"shop.pem\", key = \"shop.key\" }]";

/// Reads a listener's `tls`, and the files that it names.
pub(super) fn read(node: Node<'_>, base: &Path) -> Option<Tls> {
    let mut section = node.section("`tls`")?;
    let certificates = certificates(&mut section, base);
    let min_version = section.or("min_version", TlsVersion::Tls12, version);
    let ciphers = section.take("ciphers");
    let ciphers = ciphers.map_or(Some(Vec::new()), |node| suites(node, min_version?));
    let groups = section.or("groups", Vec::new(), |node| names(node, &GROUPS, "key exchange group"));
    let client_auth = client_auth(&mut section, base);
    let subject = section.take("client_subject_header");
    let alpn = section.or("alpn", Alpn::ALL.to_vec(), |node| {
        names(node, &Alpn::ALL.map(|alpn| (alpn.token(), alpn)), "application protocol")
    });
    let handshake_timeout =
        section.or("handshake_timeout", Duration::from_secs(10), |node| node.duration(SOME_TIME));
    let tickets = section.or("tickets", true, Node::flag);
    section.finish();
    let client_subject_header = match subject {
        Some(node) => Some(subject_header(node, client_auth.as_ref())?),
        None => None,
    };
    Some(Tls {
        certificates: certificates?,
        min_version: min_version?,
        ciphers: ciphers?,
        groups: groups?,
        client_auth: client_auth?,
        client_subject_header,
        alpn: alpn?,
        handshake_timeout: handshake_timeout?,
        tickets: tickets?,
    })
}

/// Every file that the `tls` of a listener names, there or not, right or wrong: what is to be watched.
pub(super) fn files(node: Node<'_>, base: &Path) -> Vec<PathBuf> {
    let Some(mut section) = node.section("`tls`") else { return Vec::new() };
    let mut found: Vec<_> = section.take("client_ca").into_iter().collect();
    let list = section.take("certificates").and_then(|node| node.list("")).unwrap_or_default();
    for mut certificate in list.into_iter().filter_map(|node| node.section("")) {
        found.extend(["cert", "key", "ocsp"].into_iter().filter_map(|key| certificate.take(key)));
    }
    found.into_iter().filter_map(|node| node.path(base, "")).collect()
}

fn certificates(section: &mut Section<'_>, base: &Path) -> Option<Vec<Certificate>> {
    let node = section.required("certificates", EXAMPLE)?;
    let list = node.list("a list of { cert = …, key = … }")?;
    if list.is_empty() {
        node.at.error_with("there has to be at least one certificate", format!("for example: {EXAMPLE}"));
        return None;
    }
    let mut taken = HashMap::new();
    let read = list.into_iter().enumerate().map(|(index, node)| {
        let certificate = certificate::read(node, base)?;
        is_of_use(node, &certificate, index, &mut taken).then_some(certificate)
    });
    // All are read, whether or not one of them is wrong.
    let read: Vec<_> = read.collect();
    read.into_iter().collect()
}

/// Which names have a certificate already, by name and kind of key.
type Taken = HashMap<(String, String), (PathBuf, Place)>;

/// False, and noted, when clients could never tell which of two certificates they get.
fn is_of_use(node: Node<'_>, certificate: &Certificate, index: usize, taken: &mut Taken) -> bool {
    if certificate.names.is_empty() && index > 0 {
        node.at.warn(format_args!(
            "{} is for no DNS name, and not the first: no client will get it",
            certificate.cert.display()
        ));
    }
    let mut is_new = true;
    for name in &certificate.names {
        let key = (name.clone(), certificate.key_kind.clone());
        if let Some((first, place)) = taken.get(&key) {
            node.at.error_with(
                format_args!(
                    "{} is for `{name}`, and so is {}, with the same kind of key: {place}",
                    certificate.cert.display(),
                    first.display()
                ),
                "one certificate for each name and kind of key: ECDSA and RSA may stand side by side",
            );
            is_new = false;
        } else {
            taken.insert(key, (certificate.cert.clone(), node.at.place()));
        }
    }
    is_new
}

fn version(node: Node<'_>) -> Option<TlsVersion> {
    let expected = "\"1.2\" or \"1.3\"";
    match node.text(expected)? {
        "1.2" => Some(TlsVersion::Tls12),
        "1.3" => Some(TlsVersion::Tls13),
        _ => node.unexpected(expected),
    }
}

/// By their IANA names; those of TLS 1.3 first.
const SUITES: [(&str, CipherSuite); 9] = [
    ("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
    ("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// How many of [`SUITES`] are TLS 1.3's.
const OF_TLS13: usize = 3;

const GROUPS: [(&str, NamedGroup); 4] = [
    ("X25519MLKEM768", NamedGroup::X25519MLKEM768),
    ("X25519", NamedGroup::X25519),
    ("secp256r1", NamedGroup::secp256r1),
    ("secp384r1", NamedGroup::secp384r1),
];

fn suites(node: Node<'_>, min_version: TlsVersion) -> Option<Vec<CipherSuite>> {
    let chosen = names(node, &SUITES, "cipher suite")?;
    let has_tls13 = SUITES[..OF_TLS13].iter().any(|(_, suite)| chosen.contains(suite));
    if min_version == TlsVersion::Tls13 && !has_tls13 {
        let known: Vec<_> = SUITES[..OF_TLS13].iter().map(|(name, _)| *name).collect();
        let hint = format!("those of TLS 1.3 are: {}", known.join(", "));
        node.at.error_with("none of these cipher suites is for TLS 1.3, the `min_version`", hint);
        return None;
    }
    Some(chosen)
}

/// A list of names that are `known`, each once and at least one.
fn names<T: Copy>(node: Node<'_>, known: &[(&str, T)], what: &str) -> Option<Vec<T>> {
    let list = node.list(&format!("a list of {what}s such as [\"{}\"]", known[0].0))?;
    if list.is_empty() {
        node.at.error_with(format_args!("there has to be at least one {what}"), "or leave the key out");
        return None;
    }
    let mut seen = Vec::new();
    let read = list.into_iter().map(|node| {
        let text = node.text(&format!("a {what}"))?;
        if seen.contains(&text) {
            node.at.error(format_args!("`{}` is listed twice", text.escape_debug()));
            return None;
        }
        seen.push(text);
        let found = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        if found.is_none() {
            let all = known.iter().map(|(name, _)| *name);
            let hint = did_you_mean(text, all, &format!("the {what}s are"));
            node.at.error_with(format_args!("`{}` is not a known {what}", text.escape_debug()), hint);
        }
        found.map(|(_, value)| *value)
    });
    let read: Vec<_> = read.collect();
    read.into_iter().collect()
}

fn client_auth(section: &mut Section<'_>, base: &Path) -> Option<ClientAuth> {
    let (mode, bundle) = (section.take("client_auth"), section.take("client_ca"));
    let expected = "\"none\", \"optional\" or \"required\"";
    let verify: Option<fn(Authorities) -> ClientAuth> = match mode {
        None => None,
        Some(node) => match node.text(expected)? {
            "none" => None,
            "optional" => Some(ClientAuth::Optional),
            "required" => Some(ClientAuth::Required),
            _ => return node.unexpected(expected),
        },
    };
    match (verify, bundle) {
        (None, None) => Some(ClientAuth::None),
        (Some(verify), Some(bundle)) => Some(verify(certificate::authorities(bundle, base)?.into())),
        (None, Some(bundle)) => {
            let hint = "add client_auth = \"required\" or \"optional\", or take it away";
            bundle.at.error_with("`client_ca` is only of use with `client_auth`", hint);
            None
        }
        (Some(_), None) => {
            let hint =
                "for example: client_ca = \"clients.pem\", a bundle of the authorities that sign clients";
            section.at.missing("`client_auth` needs a `client_ca`", hint);
            None
        }
    }
}

/// Fields that route, frame or say who is asking: ours to set, or the client's to send.
const TAKEN_HEADERS: [&str; 8] =
    ["host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "via", "forwarded"];

fn subject_header(node: Node<'_>, auth: Option<&ClientAuth>) -> Option<HeaderName> {
    let text = node.text("a header's name such as \"x-client-subject\"")?;
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    let is_free = |name: &HeaderName| {
        !TAKEN_HEADERS.contains(&name.as_str())
            && !["x-forwarded-", "switchback-"].iter().any(|own| name.as_str().starts_with(own))
    };
    let Some(name) = name.filter(is_free) else {
        let message = format!("`{}` cannot be the client's subject header", text.escape_debug());
        node.at.error_with(message, "take a name of your own, such as x-client-subject");
        return None;
    };
    if matches!(auth, Some(ClientAuth::None)) {
        let hint = "add client_auth = \"required\" and client_ca, or take it away";
        node.at.error_with("`client_subject_header` is only of use with `client_auth`", hint);
        return None;
    }
    Some(name)
}
