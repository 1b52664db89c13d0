//! `history`: past changes.

use http::Method;

use super::args;
use super::client::Call;
use super::render;
use super::session::{Exit, Session};
use crate::admin::api;

/// `switchback history [SERVICE]`.
pub(super) async fn run(session: &mut Session<'_>, args: &args::History) -> anyhow::Result<Exit> {
    let mut call = Call::new(Method::GET, &["v1", "changes"]).query("limit", &args.limit.to_string());
    if let Some(service) = &args.service {
        call = call.query("service", service);
    }
    if let Some(before) = args.before {
        call = call.query("before", &before.to_string());
    }
    let history: api::History = session.client.send(call).await?;
    session.tell(&history, render::history)?;
    Ok(Exit::Done)
}
