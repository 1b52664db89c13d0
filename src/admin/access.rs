//! Who may call from elsewhere: by which token or certificate, and what each of them may do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::caller::Caller;
use crate::release::Scopes;

/// How often the clock is looked at that certificates expire by.
const CLOCK_LOOK: Duration = Duration::from_secs(60);

/// The TCP listener as the configuration has it now; replaced on a reload.
#[derive(Debug, Clone)]
pub struct Door {
    /// How its TLS is done; `None`: clear text.
    pub tls: Option<Arc<ServerConfig>>,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Who is let in.
    pub access: Access,
    /// Cancelled when its TLS is another: whose request came by the old one is let finish, and everybody has to come again.
    pub replaced: CancellationToken,
    /// Cancelled when other authorities are believed: what clients' certificates have shown until then counts no more.
    pub doubted: CancellationToken,
}

/// Everybody who is known, in the order of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Access(Vec<Arc<Known>>);

/// Somebody who is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// As changes record it.
    pub name: String,
    /// What it is known by.
    pub proof: Proof,
    /// What it may do.
    pub scopes: Scopes,
}

/// What somebody is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A token of this SHA-256.
    Token([u8; 32]),
    /// A verified certificate for this name.
    Certificate(Name),
}

/// An alternative name of a certificate's subject (RFC 5280 §4.2.1.6). Its common name is none: authorities' name constraints
/// do not hold for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// A DNS name, in lower case.
    Dns(String),
    /// A URI, as it is: `spiffe://example.com/shop-cd`.
    Uri(String),
}

impl Access {
    /// These; of several that a certificate is for, the first counts.
    #[must_use]
    pub fn of(known: Vec<Known>) -> Self {
        Self(known.into_iter().map(Arc::new).collect())
    }

    /// Takes as long whichever it is, and whether there is one: nothing can be told from that.
    fn by_token(&self, token: &[u8]) -> Option<&Arc<Known>> {
        let shown = digest(&SHA256, token);
        let mut found = None;
        for known in &self.0 {
            if let Proof::Token(sum) = &known.proof
                && verify_slices_are_equal(shown.as_ref(), sum).is_ok()
            {
                found = Some(known);
            }
        }
        found
    }

    fn by_certificate(&self, shown: &Shown) -> Option<&Arc<Known>> {
        let is_for = |known: &&Arc<Known>| match &known.proof {
            Proof::Token(_) => false,
            Proof::Certificate(name) => shown.names.contains(name),
        };
        self.0.iter().find(is_for).filter(|_| shown.is_valid(UnixTime::now()))
    }

    fn has(&self, known: &Known) -> bool {
        self.0.iter().any(|other| **other == *known)
    }
}

/// A certificate that was verified in a handshake.
#[derive(Debug)]
pub(super) struct Shown {
    names: Vec<Name>,
    not_after: i64,
}

impl Shown {
    /// `None` for one that cannot be read.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let alternative = parsed.subject_alternative_name().ok()?;
        let names = alternative.iter().flat_map(|names| &names.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(Name::Dns(name.to_ascii_lowercase())),
            GeneralName::URI(uri) => Some(Name::Uri((*uri).to_owned())),
            _ => None,
        });
        Some(Self { names: names.collect(), not_after: parsed.validity().not_after.timestamp() })
    }

    /// A connection, or the ticket that it was resumed by, may outlive a certificate.
    fn is_valid(&self, now: UnixTime) -> bool {
        self.left(now).is_some()
    }

    fn left(&self, now: UnixTime) -> Option<Duration> {
        let now = i64::try_from(now.as_secs()).ok()?;
        // Its last second belongs to it (RFC 5280 §4.1.2.5).
        let left = self.not_after.checked_sub(now)?.checked_add(1)?;
        u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_secs)
    }

    /// Until it is not valid any more. Cancel-safe.
    async fn expired(&self) {
        while let Some(left) = self.left(UnixTime::now()) {
            // The clock that it is judged by may be set.
            sleep(left.min(CLOCK_LOOK)).await;
        }
    }
}

/// A connection to the TCP listener: all that its requests are told apart by.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) peer: SocketAddr,
    /// The client's certificate, if one was verified.
    pub(super) shown: Option<Shown>,
    pub(super) door: watch::Receiver<Arc<Door>>,
    /// Cancelled when the certificate does not count any more.
    pub(super) doubted: CancellationToken,
    /// Cancelled when the connection has to end.
    pub(super) end: CancellationToken,
}

impl Arrival {
    /// Who asks, by what is known now: the token, where one comes with the request, else the certificate.
    pub(super) fn caller(self: &Arc<Self>, headers: &HeaderMap) -> Option<Caller> {
        let door = Arc::clone(&self.door.borrow());
        let known = match token(headers) {
            Ok(Some(token)) => door.access.by_token(token),
            Ok(None) => self.certificate().and_then(|shown| door.access.by_certificate(shown)),
            Err(Unreadable) => None,
        };
        known.map(|known| Caller::remote(Arc::clone(known), Arc::clone(self)))
    }

    /// The client's certificate, while it counts.
    fn certificate(&self) -> Option<&Shown> {
        self.shown.as_ref().filter(|_| !self.doubted.is_cancelled())
    }

    /// True while `known`, who has asked by this connection, is known as it was.
    pub(super) fn knows(&self, known: &Known) -> bool {
        let counts = match known.proof {
            Proof::Token(_) => true,
            Proof::Certificate(_) => self.certificate().is_some_and(|shown| shown.is_valid(UnixTime::now())),
        };
        counts && self.door.borrow().access.has(known)
    }

    /// Until `known` is known no more, or not as it was, or the connection has to end. Cancel-safe.
    pub(super) async fn until_gone(&self, known: &Known) {
        let mut door = self.door.clone();
        let gone = async {
            while door.borrow_and_update().access.has(known) {
                if door.changed().await.is_err() {
                    // Nothing is read any more: the process ends.
                    return std::future::pending().await;
                }
            }
        };
        let expired = async {
            match (&known.proof, &self.shown) {
                (Proof::Certificate(_), Some(shown)) => shown.expired().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = gone => {}
            () = expired => {}
            () = self.end.cancelled() => {}
        }
    }
}

/// There is more than one token, or something else than one.
struct Unreadable;

/// The token of `Authorization: Bearer …` (RFC 6750 §2.1).
fn token(headers: &HeaderMap) -> Result<Option<&[u8]>, Unreadable> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    let (scheme, token) = field.as_bytes().split_at_checked(7).ok_or(Unreadable)?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer ") && fields.next().is_none();
    is_bearer.then_some(Some(token.trim_ascii())).ok_or(Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_showed_a_certificate_is_gone_when_it_expires_and_who_showed_a_token_is_not() {
        let by = |proof| Known { name: "cd".to_owned(), proof, scopes: Scopes::all() };
        let name = Name::Uri("spiffe://example.com/cd".to_owned());
        let (certificate, token) = (by(Proof::Certificate(name.clone())), by(Proof::Token([0; 32])));
        let door = Door {
            tls: None,
            handshake_timeout: Duration::ZERO,
            access: Access::of(vec![certificate.clone(), token.clone()]),
            replaced: CancellationToken::new(),
            doubted: CancellationToken::new(),
        };
        let (doubted, end) = (door.doubted.clone(), CancellationToken::new());
        let (_door, seen) = watch::channel(Arc::new(door));
        let not_after = i64::try_from(UnixTime::now().as_secs()).unwrap() + 1;
        let shown = Some(Shown { names: vec![name], not_after });
        let peer = SocketAddr::from(([192, 0, 2, 1], 1));
        let arrival = Arc::new(Arrival { peer, shown, door: seen, doubted, end });
        assert!(arrival.caller(&HeaderMap::new()).is_some() && arrival.knows(&certificate));
        tokio::select! {
            () = arrival.until_gone(&token) => panic!("a token does not expire"),
            () = arrival.until_gone(&certificate) => {}
        }
        assert!(arrival.caller(&HeaderMap::new()).is_none() && !arrival.knows(&certificate));
        assert!(arrival.knows(&token));
    }
}
