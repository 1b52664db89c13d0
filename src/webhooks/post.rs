//! One POST over a connection of its own, in clear text or over TLS. Redirects are not followed: they would take the
//! event somewhere that the file does not name.

use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::config::Webhook;
use crate::proxy::upstream::Dial;

/// What is read of an answer's body at most; nobody looks at it.
const MOST_ANSWER: usize = 64 * 1024;

/// Where a webhook's events go.
pub(super) struct Target {
    of: Rc<Webhook>,
    dial: Dial,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// # Errors
    /// When its TLS cannot be set up.
    pub(super) fn of(webhook: &Rc<Webhook>) -> Result<Self, String> {
        let tls = match webhook.url.scheme_str() {
            Some("https") => Some((connector(webhook.authorities.as_deref())?, server_name(&webhook.url)?)),
            _ => None,
        };
        let usual = if tls.is_some() { 443 } else { 80 };
        let dial = Dial::to(host(&webhook.url), webhook.url.port_u16().unwrap_or(usual));
        Ok(Self { of: Rc::clone(webhook), dial, tls })
    }

    /// True when it is as the file says.
    pub(super) fn is_of(&self, webhook: &Rc<Webhook>) -> bool {
        Rc::ptr_eq(&self.of, webhook)
    }

    /// Posts it, and gives the status and the headers of the answer; the answer's body may take the rest of the time.
    ///
    /// # Errors
    /// When there is no answer, or its head is not there in time.
    pub(super) async fn post(
        &self,
        headers: HeaderMap,
        body: Bytes,
        time: Duration,
    ) -> Result<(StatusCode, HeaderMap), String> {
        let request = self.request(headers, body)?;
        let end = Instant::now() + time;
        let stream = within(end, self.dial.reach()).await?;
        let stream = stream.map_err(|why| format!("cannot connect: {why}"))?;
        match &self.tls {
            None => exchange(stream, request, end).await,
            Some((connector, name)) => {
                let secured = within(end, connector.connect(name.clone(), stream)).await?;
                let secured = secured.map_err(|why| format!("cannot connect over TLS: {why}"))?;
                exchange(secured, request, end).await
            }
        }
    }

    fn request(&self, headers: HeaderMap, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
        let url = &self.of.url;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = origin_form(url).parse().map_err(|why| format!("{why}"))?;
        *request.headers_mut() = headers;
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let authority = HeaderValue::try_from(authority).map_err(|why| why.to_string())?;
        request.headers_mut().insert(HOST, authority);
        Ok(request)
    }
}

/// Path and query as they stand in a request: a URL without a path has the path `/` there (RFC 9112 §3.2.1).
fn origin_form(url: &Uri) -> String {
    let query = url.query().map(|query| format!("?{query}"));
    format!("{}{}", url.path(), query.unwrap_or_default())
}

/// The host without the brackets of an IPv6 address.
fn host(url: &Uri) -> &str {
    url.host().unwrap_or("").trim_start_matches('[').trim_end_matches(']')
}

fn server_name(url: &Uri) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host(url).to_owned()).map_err(|why| why.to_string())
}

/// Believes the authorities of this PEM text, or the system's.
fn connector(authorities: Option<&[u8]>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|why| why.to_string())?;
                roots.add(certificate).map_err(|why| why.to_string())?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|why| why.to_string())?.with_root_certificates(roots);
    Ok(TlsConnector::from(Arc::new(config.with_no_client_auth())))
}

async fn within<T>(end: Instant, answer: impl Future<Output = T>) -> Result<T, String> {
    timeout_at(end, answer).await.map_err(|_| "no answer in time".to_owned())
}

async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    end: Instant,
) -> Result<(StatusCode, HeaderMap), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |why: hyper::Error| match why.source() {
        Some(cause) => format!("the connection failed: {cause}"),
        None => format!("the connection failed: {why}"),
    };
    let (mut sender, connection) =
        within(end, http1::handshake(TokioIo::new(stream))).await?.map_err(broken)?;
    let answer = async move {
        let (head, body) = within(end, sender.send_request(request)).await?.map_err(broken)?.into_parts();
        // The head says it all: a body that breaks off, is long or never ends changes nothing.
        let _ = timeout_at(end, Limited::new(body, MOST_ANSWER).collect()).await;
        Ok((head.status, head.headers))
    };
    // How it ended is told to the answer.
    let connected = async {
        drop(connection.await);
        std::future::pending().await
    };
    tokio::select! {
        answer = answer => answer,
        never = connected => never,
    }
}
