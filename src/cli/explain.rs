//! `explain`: which version would get a request, and why.

use std::collections::BTreeMap;

use anyhow::Context;
use http::Method;

use super::args;
use super::client::Call;
use super::render;
use super::session::{Exit, Session};
use crate::admin::api;

/// `switchback explain URL`; exit status 1 when no route matches.
pub(super) async fn run(session: &mut Session<'_>, args: &args::Explain) -> anyhow::Result<Exit> {
    let mut headers = BTreeMap::<_, Vec<_>>::new();
    for (name, line) in &args.headers {
        headers.entry(name.to_ascii_lowercase()).or_default().push(line.clone());
    }
    let body = api::Explain {
        method: Some(args.method.clone()),
        uri: args.url.clone(),
        headers: headers.into_iter().map(|(name, lines)| (name, lines.into())).collect(),
        client: args.client.clone(),
    };
    let call = Call::new(Method::POST, &["v1", "explain"]).json(&body);
    let explained: api::Explained =
        session.client.send(call).await.with_context(|| format!("cannot explain {}", args.url))?;
    session.tell(&explained, |explained, style| render::explained(&args.url, explained, style))?;
    Ok(if explained.reason == api::Reason::NoRoute { Exit::Failed } else { Exit::Done })
}
