//! What each call needs, and whether who asks may: the one place where that is decided, before a handler runs.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::Method;
use http_body_util::BodyExt;

use super::App;
use super::api::Problem;
use super::caller::{Caller, out_of_scope};
use super::edit::Edits;
use super::refusal::{self, Blame};
use crate::control::Failed;
use crate::release::Scopes;

/// What a call needs. Every route has one; `admin` is enough for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// To be known: it tells nothing of any service.
    Nothing,
    /// `read`: it tells of every service at once.
    Read,
    /// `read`, or `operate` of some service: its handler tells of those alone that may be looked at.
    ReadOwn,
    /// `read`, or `operate` of the path's service.
    ReadService,
    /// `operate` of the path's service.
    Operate,
    /// `operate` of every service that the body names.
    OperateNamed,
    /// `operate` of every service that turns out to change, which control knows.
    OperateChanged,
    /// `admin`.
    Admin,
}

impl Need {
    /// The scopes that it may be met with, as the OpenAPI document tells them.
    pub(super) fn told(self) -> &'static [&'static str] {
        match self {
            Self::Nothing => &[],
            Self::Read => &["read"],
            Self::ReadOwn | Self::ReadService => &["read", "operate:{service}"],
            Self::Operate | Self::OperateNamed | Self::OperateChanged => &["operate:{service}"],
            Self::Admin => &["admin"],
        }
    }

    /// Whether it is met, of a call on the path's `service` that names the services `named`.
    ///
    /// # Errors
    /// What is missing, as a problem.
    pub(super) fn check(self, scopes: &Scopes, service: &str, named: &[&str]) -> Result<(), Box<Problem>> {
        let refused = |why: &str, needed: Vec<String>| Err(out_of_scope(why, &needed));
        let operate = |service: &str| format!("operate:{service}");
        match self {
            Self::Nothing => Ok(()),
            Self::Read if scopes.read_all() => Ok(()),
            Self::Read => refused("it tells of every service", vec!["read".to_owned()]),
            Self::ReadOwn if scopes.read_all() || scopes.operate_some() => Ok(()),
            Self::ReadOwn => refused("nothing may be looked at", vec!["read".to_owned()]),
            Self::ReadService if scopes.read(service) => Ok(()),
            Self::ReadService => refused("the service may not be looked at", vec![operate(&shown(service))]),
            Self::Operate if scopes.operate(service) => Ok(()),
            Self::Operate => refused("the service may not be changed", vec![operate(&shown(service))]),
            Self::OperateNamed if !scopes.operate_some() => {
                refused("nothing may be changed", vec![operate("SERVICE")])
            }
            Self::OperateNamed => {
                let missing = named.iter().filter(|name| !scopes.operate(name));
                let missing: Vec<_> = missing.map(|name| operate(name)).collect();
                if missing.is_empty() {
                    return Ok(());
                }
                refused("not all of these services may be changed", missing)
            }
            Self::OperateChanged if scopes.operate_some() => Ok(()),
            Self::OperateChanged => refused("nothing may be changed", vec![operate("SERVICE")]),
            Self::Admin if scopes.are_all() => Ok(()),
            Self::Admin => refused("it is about the process itself", vec!["admin".to_owned()]),
        }
    }
}

/// A path may name anything; what is told of it fits a line.
fn shown(service: &str) -> String {
    service.escape_default().take(64).collect()
}

/// Lets the call through to its handler if its caller may make it.
pub(super) async fn authorize(need: Need, app: Arc<App>, request: Request, next: Next) -> Response {
    let is_read = request.method() == Method::GET && need != Need::Nothing;
    match allowed(need, &app, request).await {
        Ok(request) => {
            let answer = next.run(request).await;
            // Behind it: what was read before that is no news of what the other process knows since.
            if is_read && app.control.is_past() {
                return refusal::failed(&app, Failed::Succeeded, &Blame::Path).into_response();
            }
            answer
        }
        Err(problem) => problem.into_response(),
    }
}

async fn allowed(need: Need, app: &Arc<App>, request: Request) -> Result<Request, Box<Problem>> {
    let (mut parts, mut body) = request.into_parts();
    let caller = parts.extensions.get::<Caller>().cloned().unwrap_or_else(Caller::nobody);
    let names = RawPathParams::from_request_parts(&mut parts, app).await;
    let names = names.map_err(|why| Problem::new(400, "bad_path", why.to_string()))?;
    let service = names.iter().find(|(name, _)| *name == "service").map_or("", |(_, value)| value);
    let mut named = Edits::default();
    // Who may do everything is spared the second reading.
    if need == Need::OperateNamed && !caller.scopes().are_all() {
        // It is there: `call::hear` has read it.
        let read = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        // What is wrong with it is for the handler to say.
        named = Edits::read(&read).unwrap_or_default();
        body = Body::from(read);
    }
    let named: Vec<_> = named.services.iter().map(crate::table::ServiceName::as_str).collect();
    need.check(caller.scopes(), service, &named)?;
    Ok(Request::from_parts(parts, body))
}
