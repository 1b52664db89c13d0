//! One call, read strictly: who asks, what the path, the query, the headers and the body say.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::EXPECT;
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use serde::de::DeserializeOwned;

use super::api::Problem;
use super::caller::Caller;
use super::objects::Objects;
use super::room::Guest;
use super::{App, remote};
use crate::release::{Actor, ActorKind};
use crate::table::{EndpointAddr, Invalid, ServiceName, VersionName, VersionRef};

/// The largest body that is read, in bytes.
const MAX_BODY: usize = 1024 * 1024;
/// For the whole of a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a body that is refused is still taken, in bytes.
const MOST_PASSED_OVER: usize = 16 * 1024 * 1024;
/// And for how long.
const LINGER: Duration = Duration::from_secs(2);
/// Our own command line says so; everybody else is a controller.
pub(super) const CLIENT_HEADER: &str = "switchback-client";

/// A call, its body read.
pub(super) struct Call {
    pub(super) app: Arc<App>,
    pub(super) parts: Parts,
    pub(super) caller: Caller,
    names: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl FromRequest<Arc<App>> for Call {
    type Rejection = Box<Problem>;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Box<Problem>> {
        let (mut parts, body) = request.into_parts();
        let names = RawPathParams::from_request_parts(&mut parts, app).await;
        let names = names.map_err(|why| Problem::new(400, "bad_path", why.to_string()))?;
        let names = names.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let body = body.collect().await;
        let body = body.map_err(|why| Problem::new(400, "bad_body", format!("the body broke off: {why}")))?;
        let body = body.to_bytes();
        let caller = parts.extensions.get::<Caller>().cloned().unwrap_or_else(Caller::nobody);
        Ok(Self { app: Arc::clone(app), parts, caller, names, body })
    }
}

/// Reads the body before anything is answered: who still sends it when the connection closes may not see the answer. Until
/// it has come, the guest is waited for.
pub(super) async fn hear(Extension(guest): Extension<Guest>, request: Request, next: Next) -> Response {
    let (parts, mut body) = request.into_parts();
    // Who asks first sends nothing of what is too large.
    if parts.headers.contains_key(EXPECT) && body.size_hint().lower() > MAX_BODY as u64 {
        return too_large().into_response();
    }
    guest.is_waited_for();
    let read = tokio::time::timeout(BODY_TIMEOUT, read(&mut body)).await;
    match read.unwrap_or_else(|_| Err(Problem::new(408, "body_timeout", "the body did not come in 30 s"))) {
        Ok(read) => {
            guest.has_acted();
            // It may have been long on its way.
            if parts.extensions.get::<Caller>().is_some_and(|caller| !caller.is_known()) {
                return remote::unknown();
            }
            next.run(Request::from_parts(parts, Body::from(read))).await
        }
        Err(problem) => {
            linger(&mut body).await;
            problem.into_response()
        }
    }
}

/// Takes what is still coming of a body that is refused, for a while.
pub(super) async fn linger(body: &mut Body) {
    tokio::time::timeout(LINGER, pass_over(body)).await.ok();
}

async fn read(body: &mut Body) -> Result<Bytes, Box<Problem>> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(read) => Ok(read.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Err(too_large()),
        Err(error) => Err(Problem::new(400, "bad_body", format!("the body broke off: {error}"))),
    }
}

fn too_large() -> Box<Problem> {
    Problem::new(413, "body_too_large", "the body is over 1 MiB")
}

/// Takes what is still coming of a body, as far as [`MOST_PASSED_OVER`].
async fn pass_over(body: &mut Body) {
    let mut left = MOST_PASSED_OVER;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

impl Call {
    /// Who asks.
    pub(super) fn actor(&self) -> Actor {
        let cli = self.parts.headers.get(CLIENT_HEADER).is_some_and(|client| client == "cli");
        let kind = if cli { ActorKind::Operator } else { ActorKind::Controller };
        Actor { kind, name: self.caller.name().to_owned() }
    }

    /// The service of the path.
    pub(super) fn service(&self) -> Result<ServiceName, Box<Problem>> {
        self.named("service")
    }

    /// The version of the path, by its label.
    pub(super) fn version(&self) -> Result<VersionName, Box<Problem>> {
        self.named("version")
    }

    /// The version of the path, by its label or its part.
    pub(super) fn version_ref(&self) -> Result<VersionRef, Box<Problem>> {
        self.named("version")
    }

    /// The endpoint of the path.
    pub(super) fn endpoint(&self) -> Result<EndpointAddr, Box<Problem>> {
        self.named("endpoint")
    }

    fn named<T: FromStr<Err = Invalid>>(&self, name: &str) -> Result<T, Box<Problem>> {
        let value = self.names.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value);
        parse(name, value)
    }

    /// The query; parameters that are not known are refused.
    pub(super) fn query<T: DeserializeOwned>(&self) -> Result<T, Box<Problem>> {
        let Query(query) = Query::try_from_uri(&self.parts.uri).map_err(|rejection| {
            let why = std::error::Error::source(&rejection)
                .map_or_else(|| rejection.to_string(), ToString::to_string);
            let problem = Problem::new(400, "bad_query", format!("the query is not understood: {why}"));
            // Either `dry_run: …`, or about a member that serde quotes.
            let field = member(&why).or_else(|| why.split_once(':').map(|(field, _)| field));
            match field {
                Some(field) => problem.at(field),
                None => problem,
            }
        })?;
        Ok(query)
    }

    /// The body as JSON; members that are not known are refused.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Box<Problem>> {
        from_json(&self.body)
    }

    /// The body as JSON, or the default when there is none, or `null`.
    pub(super) fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Box<Problem>> {
        if self.body.is_empty() { Ok(T::default()) } else { self.json().map(Option::unwrap_or_default) }
    }
}

/// Reads JSON and nothing behind it; no array where an object is expected.
pub(super) fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Box<Problem>> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(Objects(&mut json));
    let value = read.map_err(|error| bad_json(&error.path().to_string(), error.inner()))?;
    json.end().map_err(|error| bad_json(".", &error))?;
    Ok(value)
}

/// Reads a word of the contract; what it says wrong is told with the name of the field.
pub(super) fn parse<T: FromStr<Err = Invalid>>(field: &str, text: &str) -> Result<T, Box<Problem>> {
    text.parse().map_err(|Invalid(why)| Problem::new(400, "bad_value", why).at(field))
}

fn bad_json(path: &str, error: &serde_json::Error) -> Box<Problem> {
    let why = error.to_string();
    // Where the text is no JSON, no member is at fault.
    let path = if error.is_data() { path } else { "." };
    let problem = Problem::new(400, "bad_json", format!("the body is not what is expected: {why}"));
    match (path, member(&why)) {
        // The path of an unknown member contains it already; that of a missing one ends at its parent.
        (path, Some(member)) if path == member || path.ends_with(&format!(".{member}")) => problem.at(path),
        (".", Some(member)) => problem.at(member),
        (path, Some(member)) => problem.at(format!("{path}.{member}")),
        (".", None) => problem,
        (path, None) => problem.at(path),
    }
}

/// The member that serde's message says is unknown or missing.
fn member(why: &str) -> Option<&str> {
    let quoted = ["unknown field `", "missing field `"].iter().find_map(|what| why.split_once(what));
    quoted.and_then(|(_, rest)| rest.split('`').next())
}
