//! What a deployment takes back that moves nothing: its own, as far as nobody else counts on it by now.

use anyhow::Context;
use http::Method;

use super::{CONFLICTS, Deployment, Put, TIMEOUT, is_conflict};
use crate::admin::api;
use crate::cli::args;
use crate::cli::client::{Call, Error};
use crate::cli::session::{Exit, Format, Session};

impl Deployment<'_> {
    /// The version is what it was: gone again, or with the pool that it had, unless that is not ours to say any more. What has
    /// become of it, as the end of a sentence.
    pub(super) async fn take_back(&self, session: &Session<'_>, reason: &str) -> anyhow::Result<String> {
        let version = &self.args.version;
        let Put::Ours(before) = &self.put else {
            return Ok(format!("{version} is left as it is: it was there already"));
        };
        let what = || format!("cannot take back what was done to `{version}`");
        for _ in 0..CONFLICTS {
            let (now, known) = self.look(session).await.with_context(what)?;
            let left_for = match &known {
                None => return Ok("nothing was moved, and somebody else has removed it".to_owned()),
                Some(known) if known.weight > 0 || known.targeted => Some("it carries traffic by now"),
                Some(_) if self.is_rolled_out(session).await.with_context(what)? => {
                    Some("a rollout of it is under way")
                }
                known if !self.is_as_put(known.as_ref()) => Some("somebody else has changed it"),
                Some(_) => None,
            };
            if let Some(why) = left_for {
                return Ok(format!("{version} is left as it is: {why}"));
            }
            let call = self.undo(before.as_ref(), reason, now.standing.epoch);
            let undone: anyhow::Result<api::ChangeAnswer> =
                session.client.send(call).await.with_context(what);
            match undone {
                Ok(_) if before.is_none() => {
                    return Ok("nothing was moved, and it is removed again".to_owned());
                }
                Ok(_) => return Ok("nothing was moved, and it is what it was before".to_owned()),
                Err(why) if is_conflict(&why) => {}
                Err(why) => return Err(why),
            }
        }
        anyhow::bail!("{}: somebody else changes the service again and again", what())
    }

    fn undo(&self, before: Option<&api::Version>, reason: &str, epoch: u64) -> Call {
        let args::Deploy { service, version, .. } = self.args;
        match before {
            None => Call::new(Method::DELETE, &["v1", "services", service, "versions", version])
                .query("reason", reason)
                .if_epoch(Some(epoch)),
            Some(before) => {
                Call::new(Method::POST, &["v1", "changes"]).json(&as_before(service, before, reason, epoch))
            }
        }
    }

    /// True while somebody's rollout is about the version, whether it has traffic yet or not.
    async fn is_rolled_out(&self, session: &Session<'_>) -> anyhow::Result<bool> {
        let args::Deploy { service, version, .. } = self.args;
        let rollout: api::Rollout = match session.client.get(&["v1", "services", service, "rollout"]).await {
            Err(Error::Refused(problem)) if problem.token() == "no_rollout" => return Ok(false),
            rollout => rollout?,
        };
        let is_underway = matches!(&*rollout.state, "running" | "reversing");
        Ok(is_underway && (rollout.to == *version || rollout.from == *version))
    }

    /// It was not ready in time.
    pub(super) async fn give_up(&self, session: &mut Session<'_>, why: &str) -> anyhow::Result<Exit> {
        let args::Deploy { service, version, timeout, .. } = self.args;
        let fate = self.take_back(session, &format!("{version} did not become ready")).await?;
        let seconds = timeout.unwrap_or(TIMEOUT).as_secs_f64();
        let detail = format!("{service}: {version} was not ready after {seconds} s ({why}); {fate}");
        match session.format {
            Format::Json => {
                let problem = api::Problem::new(504, "not_ready", detail);
                session.tell(&problem, |_, _| String::new())?;
            }
            Format::Text => {
                session.say(detail);
                let carrier = self.look(session).await?.0.standing.stable;
                session.say(format!("{carrier} carries the traffic: do not stop it"));
            }
        }
        Ok(Exit::TimedOut)
    }

    /// What a refusal to begin with the move says of this command.
    pub(super) async fn not_begun(&self, session: &Session<'_>, why: anyhow::Error) -> anyhow::Error {
        let mut problem = match why.downcast::<Error>() {
            Ok(Error::Refused(problem)) => problem,
            // It may have begun nevertheless.
            Ok(other) => return other.into(),
            Err(why) => return why,
        };
        let args::Deploy { service, version, .. } = self.args;
        let reason = format!("the move to {version} was refused ({})", problem.token());
        match self.take_back(session, &reason).await {
            Err(failed) => return failed.context(problem.detail),
            Ok(fate) => problem.detail.push_str(&format!("; {fate}")),
        }
        if matches!(problem.token(), "nobody_confirms" | "capacity") {
            problem.hint = Some("without `--rolling` the traffic goes over all at once".to_owned());
        }
        anyhow::Error::from(Error::Refused(problem))
            .context(format!("cannot deploy `{version}` of `{service}`"))
    }
}

/// A version's pool with all that was said of its endpoints, as one change. Those that were discovered are there as before, and
/// would be put there for good.
fn as_before(service: &str, before: &api::Version, reason: &str, epoch: u64) -> api::Batch {
    let edit = || api::Edit { service: service.to_owned(), if_epoch: Some(epoch), ..api::Edit::default() };
    let at = |endpoint: &api::Endpoint| api::EndpointEdit {
        version: before.name.clone(),
        endpoint: endpoint.address.clone(),
        ..api::EndpointEdit::default()
    };
    let own = || before.endpoints.iter().filter(|endpoint| !endpoint.discovered);
    let pool = api::VersionEdit {
        version: before.name.clone(),
        endpoints: own().map(|endpoint| endpoint.address.clone()).collect(),
        protocol: Some(crate::table::Protocol::from(before.protocol).token().to_owned()),
    };
    let mut changes = vec![api::Edit { put_version: Some(pool), ..edit() }];
    for endpoint in own() {
        let said = api::EndpointEdit {
            weight: Some(endpoint.weight.into()),
            zone: endpoint.zone.clone(),
            ..at(endpoint)
        };
        changes.push(api::Edit { put_endpoint: Some(said), ..edit() });
        if endpoint.draining {
            changes.push(api::Edit { drain_endpoint: Some(at(endpoint)), ..edit() });
        }
    }
    api::Batch { changes, reason: Some(reason.to_owned()), force: None }
}
