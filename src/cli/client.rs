//! A small HTTP client over the admin socket, or TCP: one connection a call.

mod early;
mod place;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, IF_MATCH};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rand::RngExt;
use rand::rngs::SmallRng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use early::Early;
pub use place::{Credentials, Token};
use place::{NotConnected, Place};

use crate::admin::api::Problem;

/// How long an answer may take, beyond what the call itself waits for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes: 10,000 services with room to spare.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// How many processes in a row may take one another's place while one call is made.
const TAKE_OVERS: usize = 3;
/// What may stand in a path segment or a query value as it is.
const PLAIN: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b':').remove(b'@');

/// Talks to the switchback at one place.
#[derive(Debug, Clone)]
pub struct Client {
    place: Place,
}

/// Why there is no answer, or not the one hoped for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody is there.
    #[error("no switchback answers at {at}: is it running? (--socket, SWITCHBACK_SOCKET)")]
    Nobody {
        /// Where.
        at: String,
    },
    /// Nobody is there, or somebody in between lets nobody through.
    #[error(
        "no switchback answers at {at} ({why}): is [admin] listen set there, and may this machine connect to it? (--socket, SWITCHBACK_SOCKET)"
    )]
    Unreachable {
        /// Where.
        at: String,
        /// Why not.
        why: String,
    },
    /// The socket is there, but not for us.
    #[error("the socket {at} is not open to this user: use the account that switchback runs as, or sudo")]
    Forbidden {
        /// Where.
        at: String,
    },
    /// There is no secure connection.
    #[error(
        "there is no secure connection to {at}: {why} (--ca names who is believed, --cert and --key the certificate to show)"
    )]
    Insecure {
        /// Where.
        at: String,
        /// Why not.
        why: String,
    },
    /// The connection failed.
    #[error("the connection to {at} failed: {why}")]
    Broken {
        /// Where.
        at: String,
        /// How.
        why: String,
    },
    /// The connection failed after a change had been asked for.
    #[error(
        "the connection to {at} was lost before its answer ({why}): what was asked may have happened nevertheless"
    )]
    Lost {
        /// Where.
        at: String,
        /// How.
        why: String,
    },
    /// It does not answer.
    #[error("no answer from {at} within {seconds} s: what was asked may have happened nevertheless")]
    Silent {
        /// Where.
        at: String,
        /// How long was waited.
        seconds: u64,
    },
    /// It refused.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
}

impl Error {
    /// True when what was asked may have happened nevertheless.
    #[must_use]
    pub fn leaves_open(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Silent { .. })
    }

    /// True when another process may be about to answer.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        use Error::{Broken, Nobody, Silent, Unreachable};
        matches!(self, Nobody { .. } | Unreachable { .. } | Broken { .. } | Silent { .. })
    }
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    target: String,
    body: Bytes,
    if_epoch: Option<u64>,
    /// By which it is known for the same call when it is made again.
    key: Option<String>,
    patience: Duration,
}

impl Call {
    /// `method` on the path of these segments, each encoded as needed.
    #[must_use]
    pub fn new(method: Method, segments: &[&str]) -> Self {
        let target =
            segments.iter().map(|segment| format!("/{}", utf8_percent_encode(segment, &PLAIN))).collect();
        Self { method, target, body: Bytes::new(), if_epoch: None, key: None, patience: PATIENCE }
    }

    /// With this parameter in the query.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        let mark = if self.target.contains('?') { '&' } else { '?' };
        self.target.push_str(&format!("{mark}{name}={}", utf8_percent_encode(value, &PLAIN)));
        self
    }

    /// With this as its body.
    #[must_use]
    pub fn json(mut self, body: &impl Serialize) -> Self {
        // The wire types have string keys only, so this cannot fail.
        self.body = serde_json::to_vec(body).unwrap_or_default().into();
        self
    }

    /// Only if the service is at this epoch.
    #[must_use]
    pub fn if_epoch(mut self, epoch: Option<u64>) -> Self {
        self.if_epoch = epoch;
        self
    }

    /// The call itself waits for so long.
    #[must_use]
    pub fn waits(mut self, time: Duration) -> Self {
        self.patience += time;
        self
    }

    /// For machines the server waits, until that and for so long: one call, one document. Where another process takes its place
    /// meanwhile, that one is asked again for the same.
    #[must_use]
    pub fn waits_until(self, until: &str, time: Duration) -> Self {
        let key = format!("{:032x}", rand::make_rng::<SmallRng>().random::<u128>());
        let call = self.query("wait", until).query("timeout", &format!("{}ms", time.as_millis()));
        Self { key: Some(key), ..call.waits(time) }
    }

    /// True of a refusal after which another process gives the answer.
    fn is_for_another(&self, why: &Problem) -> bool {
        match why.token() {
            // Nothing was changed.
            "succeeded" => true,
            "left_behind" => self.key.is_some(),
            _ => false,
        }
    }

    fn request(self, place: &Place) -> http::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(self.method).uri(self.target);
        request = request.header(HOST, place.host()).header("switchback-client", "cli");
        if let Some(token) = place.authorization() {
            request = request.header(AUTHORIZATION, token);
        }
        if let Some(epoch) = self.if_epoch {
            request = request.header(IF_MATCH, format!("\"{epoch}\""));
        }
        if let Some(key) = self.key {
            request = request.header("idempotency-key", key);
        }
        if !self.body.is_empty() {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        request.body(Full::new(self.body))
    }
}

impl Client {
    /// A client of the switchback behind `socket`; connects when called.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { place: Place::Socket(socket.into()) }
    }

    /// A client of the switchback at a socket's path or a URL; connects when called.
    ///
    /// # Errors
    /// What is wrong with the URL, or with the files of `credentials`.
    pub fn at(place: &Path, credentials: &Credentials) -> anyhow::Result<Self> {
        Ok(Self { place: Place::of(place, credentials)? })
    }

    /// True for a URL.
    #[must_use]
    pub fn is_remote(place: &Path) -> bool {
        place::url(place).is_some()
    }

    /// True when it is the socket of a process on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.place, Place::Socket(_))
    }

    /// Reads what is at the path of these segments.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get<T: DeserializeOwned>(&self, segments: &[&str]) -> Result<T, Error> {
        self.send(Call::new(Method::GET, segments)).await
    }

    /// Reads the text at the path of these segments.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn text(&self, segments: &[&str]) -> Result<String, Error> {
        let text = self.answer(Call::new(Method::GET, segments)).await?;
        String::from_utf8(text.into()).map_err(|why| self.broken(why))
    }

    /// Makes the call and reads its answer.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Refused`] when the answer is a problem.
    pub async fn send<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        let is_change = call.method != Method::GET;
        let answer = self.answer(call).await?;
        serde_json::from_slice(&answer)
            .map_err(|why| if is_change { self.lost(why) } else { self.broken(why) })
    }

    async fn answer(&self, mut call: Call) -> Result<Bytes, Error> {
        let (since, patience) = (Instant::now(), call.patience);
        for _ in 0..TAKE_OVERS {
            match self.try_answer(call.clone()).await {
                Err(Error::Refused(problem)) if call.is_for_another(&problem) => {
                    // What the call itself waits for has begun.
                    call.patience = patience.saturating_sub(since.elapsed()).max(PATIENCE);
                }
                answer => return answer,
            }
        }
        self.try_answer(call).await
    }

    async fn try_answer(&self, call: Call) -> Result<Bytes, Error> {
        let (patience, is_change) = (call.patience, call.method != Method::GET);
        let request = call.request(&self.place).map_err(|why| self.broken(why))?;
        let answered = tokio::time::timeout(patience, self.exchange(request, is_change)).await;
        let silent = |_| Error::Silent { at: self.place.to_string(), seconds: patience.as_secs() };
        let response = answered.map_err(silent)??;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        let problem = serde_json::from_slice(response.body());
        Err(problem.map(Error::Refused).unwrap_or_else(|_| self.broken(plain(&response))))
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        is_change: bool,
    ) -> Result<Response<Bytes>, Error> {
        let stream = self.place.connect().await.map_err(|why| self.unreachable(why))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(Early::of(stream))).await.map_err(|why| self.broken(why))?;
        // The sender goes with the answer, which ends the connection: both halves end.
        let answer = async move {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Response::from_parts(head, body))
        };
        let (answer, _) = futures_util::join!(answer, connection);
        answer.map_err(|why| if is_change { self.lost(why) } else { self.broken(why) })
    }

    fn unreachable(&self, why: NotConnected) -> Error {
        let at = self.place.to_string();
        match (&self.place, why) {
            (_, NotConnected::Tls(why)) => Error::Insecure { at, why: insecure(&why.to_string()) },
            (Place::Remote(_), NotConnected::Io(why)) => Error::Unreachable { at, why: why.to_string() },
            (Place::Socket(_), NotConnected::Io(why)) => match why.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::Nobody { at },
                io::ErrorKind::PermissionDenied => Error::Forbidden { at },
                _ => self.broken(why),
            },
        }
    }

    fn lost(&self, why: impl ToString) -> Error {
        Error::Lost { at: self.place.to_string(), why: why.to_string() }
    }

    fn broken(&self, why: impl ToString) -> Error {
        Error::Broken { at: self.place.to_string(), why: why.to_string() }
    }
}

/// What `openssl req -x509` makes unless told otherwise is refused in words that nobody knows.
fn insecure(why: &str) -> String {
    if why.contains("CaUsedAsEndEntity") {
        return "its certificate is an authority's own; it needs one that an authority has signed, or a self-signed one with CA:FALSE".to_owned();
    }
    why.to_owned()
}

/// What an answer that is no problem document says.
fn plain(response: &Response<Bytes>) -> String {
    let text = String::from_utf8_lossy(response.body());
    format!("it answered {}: {}", response.status(), text.chars().take(200).collect::<String>())
}
