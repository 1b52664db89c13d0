//! `POST /v1/upgrade`: another process takes the place of this one. What is asked is read here; the wiring does it.
#![allow(unused_qualifications, reason = "what `utoipa::path` expands to")]

use std::path::PathBuf;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use tokio::sync::{mpsc, oneshot};

use super::api::{Problem, Upgrade, Upgraded, text};
use super::call::Call;
use super::openapi::UpgradeResponses;
use super::read::Nothing;

/// How long the new process may take unless told.
const TIMEOUT: Duration = Duration::from_secs(30);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(600);

/// An upgrade that is wanted; the wiring takes it.
#[derive(Debug)]
pub struct UpgradeOrder {
    /// The program; `None`: the same one.
    pub binary: Option<PathBuf>,
    /// How long it may take until it is ready.
    pub timeout: Duration,
    /// What became of it.
    pub reply: oneshot::Sender<Result<Upgraded, NotUpgraded>>,
}

/// Why this process goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotUpgraded {
    /// Not now: why, and what to do about it.
    Refused {
        /// Why not.
        why: String,
        /// What to do.
        hint: String,
    },
    /// The new process has failed, with these last words.
    Failed(String),
    /// It was not ready in time; its last words.
    Late(String),
}

/// Takes upgrades, one at a time.
pub type Upgrades = mpsc::Sender<UpgradeOrder>;

/// Another process takes the place of this one, with its sockets and its store; it answers when that one serves.
#[utoipa::path(post, path = "/v1/upgrade", tag = "proxy", request_body = Option<Upgrade>, responses(UpgradeResponses))]
pub(super) async fn upgrade(call: Call) -> Result<Response, Box<Problem>> {
    call.query::<Nothing>()?;
    let wanted: Upgrade = call.json_or_default()?;
    let (reply, answer) = oneshot::channel();
    let order = UpgradeOrder { binary: binary(wanted.binary)?, timeout: timeout(wanted.timeout)?, reply };
    let busy = |_| {
        Problem::new(409, "upgrade_refused", "an upgrade is under way, or the proxy stops")
            .hint("try again when it is over; `switchback status` tells which process serves")
    };
    call.app.upgrades.try_send(order).map_err(busy)?;
    let stopped = |_| Problem::new(503, "shutting_down", "the proxy stops");
    answer.await.map_err(stopped)?.map(|done| Json(done).into_response()).map_err(problem)
}

fn binary(path: Option<String>) -> Result<Option<PathBuf>, Box<Problem>> {
    let path = path.map(PathBuf::from);
    match &path {
        Some(given) if !given.is_absolute() => {
            let detail = format!("`{}` is no absolute path", given.display());
            Err(Problem::new(400, "bad_value", detail).at("binary"))
        }
        Some(_) | None => Ok(path),
    }
}

fn timeout(given: Option<String>) -> Result<Duration, Box<Problem>> {
    let Some(given) = given else { return Ok(TIMEOUT) };
    let bad = |why: String| Problem::new(400, "bad_value", why).at("timeout");
    let timeout = text::duration(&given).map_err(|why| bad(why.0))?;
    if !(SHORTEST..=LONGEST).contains(&timeout) {
        return Err(bad("timeout is 1s to 10m".to_owned()));
    }
    Ok(timeout)
}

fn problem(why: NotUpgraded) -> Box<Problem> {
    const ON: &str = "this process goes on as before";
    match why {
        NotUpgraded::Refused { why, hint } => Problem::new(409, "upgrade_refused", why).hint(hint),
        NotUpgraded::Failed(words) => {
            Problem::new(422, "upgrade_failed", format!("the new process has failed, and {ON}: {words}"))
                .hint("`switchback check` tells what is wrong with a configuration")
        }
        NotUpgraded::Late(words) => Problem::new(
            504,
            "upgrade_late",
            format!("the new process was not ready in time, and {ON}: {words}"),
        )
        .hint("`--timeout` gives it more time"),
    }
}
