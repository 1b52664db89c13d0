//! `rules`: the targeting rules of a service, shown or set.

use std::io::Read as _;

use anyhow::{Context, bail};
use http::Method;

use super::args;
use super::change;
use super::client::Call;
use super::render;
use super::session::{Exit, Session};
use crate::admin::api::{Rule, Service};
use crate::table::Conditions;

/// The longest list that is read: as much as the API takes.
const MOST: u64 = 1024 * 1024;

/// `switchback rules SERVICE [RULE…]`.
pub(super) async fn run(session: &mut Session<'_>, args: &args::Rules) -> anyhow::Result<Exit> {
    let name = &args.service;
    let what = format!("cannot set the rules of `{name}`");
    let rules = match &args.set {
        Some(file) => from_file(file).with_context(|| what.clone())?,
        None if args.rules.is_empty() && !args.clear => return show(session, name).await,
        None => args.rules.clone(),
    };
    let mut call = Call::new(Method::PUT, &["v1", "services", name, "rules"]).json(&rules);
    if args.force {
        call = call.query("force", "true");
    }
    change::perform(session, call, &args.change, &args.wait, what, change::Moves::Pools).await
}

async fn show(session: &mut Session<'_>, name: &str) -> anyhow::Result<Exit> {
    let service: Service = session
        .client
        .get(&["v1", "services", name])
        .await
        .with_context(|| format!("cannot show the rules of `{name}`"))?;
    let standing = &service.standing;
    session.tell(&standing.rules_asked(), |_, style| render::rules(name, standing, style))?;
    Ok(Exit::Done)
}

/// JSON, as `--json` shows it, or a rule a line as on the command line; `-` is standard input. Nothing is no list: whoever was to
/// write it may have failed.
fn from_file(file: &str) -> anyhow::Result<Vec<Rule>> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().lock().take(MOST + 1).read_to_string(&mut text),
        file => std::fs::File::open(file).and_then(|open| open.take(MOST + 1).read_to_string(&mut text)),
    };
    let place = if file == "-" { "standard input" } else { file };
    read.with_context(|| format!("cannot read {place}"))?;
    if text.len() as u64 > MOST {
        bail!("{place} is over 1 MiB");
    }
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(&text).with_context(|| format!("{place} is no list of rules"));
    }
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    let rules = lines.map(|(index, line)| {
        let read =
            Conditions::read_rule(line).map_err(|why| anyhow::anyhow!("{place}:{}: {why}", index + 1))?;
        Ok(Rule::new(&read.0, &read.1))
    });
    let rules = rules.collect::<anyhow::Result<Vec<_>>>()?;
    if rules.is_empty() {
        bail!("{place} has no rule: `--clear`, or `[]`, takes all away");
    }
    Ok(rules)
}
