//! From what the file says of a listener to what the data plane makes of those who come to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use http::{HeaderName, StatusCode};

use super::address;
use crate::config::{self, Certificate, ClientAuth, Config, Listener, TlsVersion};
use crate::metrics;
use crate::proxy::entrance::{Entrance, Redirect};
use crate::proxy::listener::ListenAddr;
use crate::proxy::tls::{Identity, Plan, Tls};

/// Each listener's entrance, as the file and the files that it names were read.
///
/// A listener whose TLS is the same as in the file before keeps what was made of it then, and so its sessions.
pub(super) struct Entrances(Vec<(Listener, Arc<Entrance>)>);

impl Entrances {
    /// Those of `config`; `before` are the ones that were in force so far.
    ///
    /// # Errors
    /// What of a listener's TLS cannot be done.
    pub(super) fn of(config: &Config, before: Option<&Self>) -> Result<Self> {
        let made = config.listeners.iter().map(|listener| {
            let entrance = Arc::new(Entrance {
                tls: tls(listener, before)?,
                redirect: listener.redirect_to_https.map(redirect).transpose()?,
                hsts: listener.hsts.clone(),
            });
            Ok((listener.clone(), entrance))
        });
        made.collect::<Result<_>>().map(Self)
    }

    /// By listener, as the workers look them up.
    pub(super) fn by_address(&self) -> BTreeMap<ListenAddr, Arc<Entrance>> {
        self.0.iter().map(|(listener, entrance)| (address(listener), Arc::clone(entrance))).collect()
    }

    /// The fields in which any of them tells whose certificate was verified.
    pub(super) fn subject_headers(&self) -> Arc<[HeaderName]> {
        let tls = self.0.iter().filter_map(|(listener, _)| listener.tls.as_ref());
        tls.filter_map(|tls| tls.client_subject_header.clone()).collect()
    }

    /// What is presented to clients, for the metrics.
    pub(super) fn certificates(&self) -> Vec<metrics::Certificate> {
        let tls = self.0.iter().filter_map(|(listener, _)| Some((listener, listener.tls.as_ref()?)));
        let certificates = tls.flat_map(|(listener, tls)| {
            tls.certificates.iter().map(|certificate| metrics::Certificate {
                listener: listener.listen.to_string(),
                file: certificate.cert.display().to_string(),
                not_after: certificate.not_after,
            })
        });
        let mut certificates: Vec<_> = certificates.collect();
        // The same file may be there twice, with two keys of the same name only by mistake: one series.
        certificates.dedup_by(|a, b| (&a.listener, &a.file) == (&b.listener, &b.file));
        certificates
    }
}

fn tls(listener: &Listener, before: Option<&Entrances>) -> Result<Option<Arc<Tls>>> {
    let Some(wanted) = &listener.tls else { return Ok(None) };
    let same = before.and_then(|before| {
        let is_same = |(old, _): &&(Listener, _)| old.listen == listener.listen && old.tls == listener.tls;
        before.0.iter().find(is_same)?.1.tls.clone()
    });
    if same.is_some() {
        return Ok(same);
    }
    let made = Tls::build(&plan(wanted));
    let made = made.with_context(|| format!("listener {} cannot do its TLS", listener.listen))?;
    Ok(Some(Arc::new(made)))
}

/// What the data plane makes of a listener's `tls`.
pub(super) fn plan(tls: &config::Tls) -> Plan {
    let (client_authorities, requires_client) = match &tls.client_auth {
        ClientAuth::None => (None, false),
        ClientAuth::Optional(authorities) => (Some(Arc::clone(authorities)), false),
        ClientAuth::Required(authorities) => (Some(Arc::clone(authorities)), true),
    };
    Plan {
        identities: tls.certificates.iter().map(identity).collect(),
        tls13_only: tls.min_version == TlsVersion::Tls13,
        ciphers: tls.ciphers.clone(),
        groups: tls.groups.clone(),
        client_authorities,
        requires_client,
        subject_header: tls.client_subject_header.clone(),
        alpn: tls.alpn.iter().map(|alpn| alpn.token()).collect(),
        timeout: tls.handshake_timeout,
        tickets: tls.tickets,
    }
}

fn identity(certificate: &Certificate) -> Identity {
    Identity {
        names: certificate.names.clone(),
        chain: certificate.chain.clone(),
        key: Arc::clone(&certificate.key),
        ocsp: certificate.ocsp.clone(),
    }
}

fn redirect(redirect: config::Redirect) -> Result<Redirect> {
    let config::Redirect { port, status, exempt_acme } = redirect;
    Ok(Redirect { port, status: StatusCode::from_u16(status)?, exempts_acme: exempt_acme })
}
