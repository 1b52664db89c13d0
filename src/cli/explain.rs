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
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in &args.headers {
        // As one line, where there are several (RFC 9110 §5.3; cookies: RFC 9113 §8.2.3).
        let comma = if name.eq_ignore_ascii_case("cookie") { "; " } else { ", " };
        let line = headers.entry(name.to_ascii_lowercase()).or_default();
        *line = if line.is_empty() { value.clone() } else { format!("{line}{comma}{value}") };
    }
    let body = api::Explain {
        method: Some(args.method.clone()),
        uri: args.url.clone(),
        headers,
        client: args.client.clone(),
    };
    let call = Call::new(Method::POST, &["v1", "explain"]).json(&body);
    let explained: api::Explained =
        session.client.send(call).await.with_context(|| format!("cannot explain {}", args.url))?;
    session.tell(&explained, |explained, style| render::explained(&args.url, explained, style))?;
    Ok(if explained.reason == api::Reason::NoRoute { Exit::Failed } else { Exit::Done })
}
