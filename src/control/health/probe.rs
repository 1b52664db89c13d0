//! One look at one endpoint: over connections of its own, as a request would come, within the time that is given.

mod grpc;
mod http1;
mod http2;

use std::cell::Cell;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request, Uri, Version};
use memchr::memmem;

use crate::proxy::upstream::{Dial, NotConnected};
use crate::table::{
    EndpointAddr, HealthCheck, HttpProbe, Probe, Protocol, ProxyHeader, UpstreamTls, VersionSpec,
};

/// As much of a body is looked at.
const MOST_BODY: usize = 64 * 1024;
/// After so many checks over one connection the next one opens another: who does not accept any more is found out.
const MOST_CHECKS: u32 = 10;
/// Who asks.
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("switchback/", env!("CARGO_PKG_VERSION"), " (health check)"));

/// How one endpoint is checked, with all that does not change from one check to the next.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) rules: Arc<HealthCheck>,
    /// What the version's requests speak.
    pub(super) protocol: Protocol,
    tls: Option<Arc<UpstreamTls>>,
    proxy_header: Option<ProxyHeader>,
    dial: Dial,
    /// What is spoken.
    spoken: Protocol,
    authority: HeaderValue,
    /// The connection of the last check, if it is good for another, and how many checks it has served.
    kept: Mutex<Option<(Connection, u32)>>,
}

/// An open connection. Boxed: most of the time there is none.
enum Connection {
    Http1(Box<http1::Connection>),
    Http2(Box<http2::Connection>),
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1(_) => "Http1",
            Self::Http2(_) => "Http2",
        })
    }
}

/// What a check found: what the endpoint said that was good, or why it is not.
pub(super) type Found = Result<Said, Unwell>;

/// A good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// This status.
    Status(u16),
    /// It accepted the connection.
    Connected,
    /// The gRPC service serves.
    Serving,
}

/// Why an endpoint is not well.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwell {
    #[error(transparent)]
    NotConnected(#[from] NotConnected),
    #[error("{stage} within {} ms", .limit.as_millis())]
    Late { stage: Stage, limit: std::time::Duration },
    #[error("it broke off: {0}")]
    Broken(String),
    #[error("status {0}")]
    Status(u16),
    #[error("status {status}, but the body does not contain `{wanted}`")]
    Body { status: u16, wanted: Arc<str> },
    #[error("the health service says {0}")]
    NotServing(&'static str),
    #[error("the health service answers with gRPC status {0}")]
    GrpcStatus(u32),
}

/// What was waited for when the time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Connection,
    Answer,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "no connection",
            Self::Answer => "no answer",
        })
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Connected => f.write_str("connected"),
            Self::Serving => f.write_str("serving"),
        }
    }
}

impl Check {
    /// How the endpoint of `version` at `address` is checked.
    pub(super) fn new(rules: &Arc<HealthCheck>, version: &VersionSpec, address: &EndpointAddr) -> Self {
        let protocol = version.protocol;
        let spoken = rules.protocol.unwrap_or(protocol);
        let spoken = match (&rules.probe, spoken.is_tls()) {
            (Probe::Grpc(_), true) => Protocol::H2,
            (Probe::Grpc(_), false) => Protocol::H2c,
            (Probe::Http(_) | Probe::Tcp, _) => spoken,
        };
        let (tls, proxy_header) = (version.tls.clone(), version.proxy_header);
        let address = at_port(address, rules.port);
        let authority = authority(&address);
        let dial = Dial::new(address, spoken, tls.as_ref(), proxy_header);
        let (rules, kept) = (Arc::clone(rules), Mutex::default());
        Self { rules, protocol, tls, proxy_header, dial, spoken, authority, kept }
    }

    /// True when the endpoint of `version` would be checked in just this way.
    pub(super) fn is_as(&self, rules: &Arc<HealthCheck>, version: &VersionSpec) -> bool {
        self.rules == *rules
            && (self.protocol, self.proxy_header) == (version.protocol, version.proxy_header)
            && self.tls == version.tls
    }

    /// Looks at the endpoint, within the time that the rules give.
    pub(super) async fn look(&self) -> Found {
        let stage = Cell::new(Stage::Connection);
        let limit = self.rules.timeout;
        let looked = tokio::time::timeout(limit, self.try_look(&stage)).await;
        looked.unwrap_or_else(|_| Err(Unwell::Late { stage: stage.get(), limit }))
    }

    async fn try_look(&self, stage: &Cell<Stage>) -> Found {
        if self.rules.probe == Probe::Tcp {
            return self.dial.connect().await.map(|_| Said::Connected).map_err(Unwell::from);
        }
        let kept = self.kept().take();
        if let Some((connection, served)) = kept.filter(|(_, served)| *served < MOST_CHECKS) {
            stage.set(Stage::Answer);
            match self.ask(connection, served).await {
                // It had been closed meanwhile: that says nothing.
                Err(Unwell::Broken(_)) => stage.set(Stage::Connection),
                found => return found,
            }
        }
        let stream = self.dial.connect().await?;
        stage.set(Stage::Answer);
        let connection = match self.spoken.is_http2() {
            true => Connection::Http2(Box::new(Box::pin(http2::Connection::open(stream)).await?)),
            false => Connection::Http1(Box::new(http1::Connection::open(stream).await?)),
        };
        self.ask(connection, 0).await
    }

    /// Asks, and keeps the connection if it is good for another check and there is room for it.
    async fn ask(&self, mut connection: Connection, served: u32) -> Found {
        let (found, is_good) = match (&self.rules.probe, &mut connection) {
            (Probe::Http(asked), Connection::Http1(http1)) => {
                let (status, body, is_good) = http1.ask(self.request(asked)?, asked.body.is_some()).await?;
                (judge(asked, status, &body), is_good)
            }
            (Probe::Http(asked), Connection::Http2(http2)) => {
                let reads_body = asked.body.is_some();
                let answer = Box::pin(http2.ask(self.request(asked)?, None, reads_body)).await?;
                (judge(asked, answer.status, &answer.body), true)
            }
            (Probe::Grpc(service), Connection::Http2(http2)) => {
                let (request, message) = self.call(service)?;
                (grpc::read(&Box::pin(http2.ask(request, Some(message), true)).await?), true)
            }
            // Not opened for these.
            (Probe::Grpc(_), Connection::Http1(_)) | (Probe::Tcp, _) => (Ok(Said::Connected), false),
        };
        if is_good && self.rules.reuse && Dial::may_be_kept() {
            *self.kept() = Some((connection, served + 1));
        }
        found
    }

    /// Closes the connection of the last check.
    pub(super) fn close(&self) {
        drop(self.kept().take());
    }

    fn kept(&self) -> MutexGuard<'_, Option<(Connection, u32)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self, asked: &HttpProbe) -> Result<Request<()>, Unwell> {
        let host = asked.host.as_ref().unwrap_or(&self.authority);
        let mut request = Request::new(());
        *request.method_mut() = asked.method.clone();
        *request.uri_mut() = self.uri(host, &asked.path)?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, AGENT);
        for (name, value) in &asked.headers {
            headers.insert(name, value.clone());
        }
        if self.spoken.is_http2() {
            *request.version_mut() = Version::HTTP_2;
        } else {
            headers.insert(HOST, host.clone());
            if !self.rules.reuse {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        Ok(request)
    }

    /// The whole of it where that is how it is sent.
    fn uri(&self, host: &HeaderValue, path: &str) -> Result<Uri, Unwell> {
        let broken = |why: http::Error| Unwell::Broken(why.to_string());
        if !self.spoken.is_http2() {
            return Uri::builder().path_and_query(path).build().map_err(broken);
        }
        let scheme = if self.spoken.is_tls() { "https" } else { "http" };
        Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(path).build().map_err(broken)
    }
}

/// What an answer says.
fn judge(asked: &HttpProbe, status: u16, body: &[u8]) -> Found {
    if !asked.status.iter().any(|(first, last)| (*first..=*last).contains(&status)) {
        return Err(Unwell::Status(status));
    }
    match &asked.body {
        Some(wanted) if memmem::find(body, wanted.as_bytes()).is_none() => {
            Err(Unwell::Body { status, wanted: Arc::clone(wanted) })
        }
        Some(_) | None => Ok(Said::Status(status)),
    }
}

/// What is at another port of the same host.
fn at_port(address: &EndpointAddr, port: Option<u16>) -> EndpointAddr {
    match (address, port) {
        (EndpointAddr::Tcp(address), Some(port)) => {
            let mut address = *address;
            address.set_port(port);
            EndpointAddr::Tcp(address)
        }
        (EndpointAddr::Named { host, .. }, Some(port)) => {
            EndpointAddr::Named { host: Arc::clone(host), port }
        }
        (EndpointAddr::Unix(_), _) | (_, None) => address.clone(),
    }
}

fn authority(address: &EndpointAddr) -> HeaderValue {
    let localhost = HeaderValue::from_static("localhost");
    match address {
        EndpointAddr::Unix(_) => localhost,
        EndpointAddr::Tcp(_) | EndpointAddr::Named { .. } => {
            HeaderValue::try_from(address.to_string()).unwrap_or(localhost)
        }
    }
}

/// What `exchange` comes to, while `connection` moves its bytes; `None` when that `is_over` before.
async fn driven<T>(
    connection: impl Future,
    is_over: &mut bool,
    exchange: impl Future<Output = T>,
) -> Option<T> {
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    std::future::poll_fn(|cx| {
        // Twice: what the exchange sends is on its way before anybody waits for the answer.
        for _ in 0..2 {
            if !*is_over {
                *is_over = connection.as_mut().poll(cx).is_ready();
            }
            if let Poll::Ready(done) = exchange.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
        }
        if *is_over { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

fn ended() -> Unwell {
    Unwell::Broken("the connection has ended".to_owned())
}

/// Why an exchange broke off, with its cause.
fn broken(error: &dyn std::error::Error) -> Unwell {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    Unwell::Broken(text)
}
