//! A change in one line for people, as the history shows it.

use super::deployment::Deployment;
use super::history::{ServiceRecord, Standing};
use super::ramp::{Ramp, RampEnd, Ramped};
use super::retire::{Retired, Retirement};
use super::trial::Trial;
use crate::table::{EndpointAddr, Hold, HoldScope, Holder, Holds, Service, Targeting, VersionSpec, Watch};

/// The most services that a line of history names.
const MOST: usize = 8;

/// `shop: blue 95 %, green 5 %; cart: dropped`.
pub(super) fn summarise(mut lines: Vec<String>) -> String {
    let more = lines.len().saturating_sub(MOST);
    lines.truncate(MOST);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.join("; ")
}

/// `shop: v3 added, blue 95 %, v3 5 %`: what happened to a service since it was `old` in the table and `before` in
/// the history.
pub(super) fn describe(
    old: Option<&Service>,
    before: Option<&ServiceRecord>,
    (new, deployment): (&Service, &Deployment),
) -> String {
    let standing = before.and_then(|before| before.standing.as_ref());
    let mut parts = old.map_or_else(Vec::new, |old| versions(old, new));
    if standing.is_none_or(|standing| !standing.split.weighs_as(&new.split)) {
        parts.push(new.split.to_string());
    }
    parts.extend(ramping(standing, deployment));
    parts.extend(retiring(standing, deployment));
    parts.extend(holding(old.map(|old| old.holds).unwrap_or_default(), new.holds));
    if parts.is_empty() {
        parts.extend(suspected(standing, deployment));
    }
    if parts.is_empty() {
        parts.extend(compared(old.and_then(|old| old.watch.as_ref()), new.watch.as_ref()));
    }
    parts.extend(targeting(standing, (new, deployment)));
    if parts.is_empty() {
        parts.push("as the file says now".to_owned());
    }
    format!("{}: {}", new.name, parts.join(", "))
}

/// `1 rule (header x-beta=yes -> green)`, `no rules`, the same `once supervision suspects green no more`; `rules to green are passed over`.
fn targeting(before: Option<&Standing>, (new, now): (&Service, &Deployment)) -> Option<String> {
    let none = Targeting::default();
    let was_asked = before
        .map_or(&none, |before| before.trial.as_ref().map_or(&before.split, |trial| &trial.asked).rules());
    let (held, hold) = (before.map_or(&none, |before| before.split.rules()), new.split.rules());
    let passed_over = now.trial.as_ref().filter(|trial| trial.asked.rules() != hold);
    match passed_over {
        Some(Trial { asked, candidate, .. }) if asked.rules() != was_asked => {
            Some(format!("{}, once supervision suspects {candidate} no more", asked.rules()))
        }
        Some(Trial { candidate, .. }) if held != hold => {
            Some(format!("rules to {candidate} are passed over"))
        }
        Some(_) => None,
        None => (held != hold || was_asked != hold).then(|| hold.to_string()),
    }
}

/// `ramp to green, step 2 of 5`, `the ramp to green is frozen`, `the ramp to green goes on`, `the ramp to green is over (superseded)`.
fn ramping(before: Option<&Standing>, now: &Deployment) -> Option<String> {
    let was = before.and_then(|before| before.ramp.as_ref());
    match (&now.ramp, &now.ramped) {
        (Some(ramp), _) => {
            let Ramp { to, step, steps, is_frozen, .. } = ramp;
            let same = was.filter(|was| (was.begun, was.step) == (ramp.begun, *step));
            match same.map(|was| was.is_frozen) {
                None => Some(format!("ramp to {to}, step {} of {}", step + 1, steps.all().len())),
                Some(was_frozen) if was_frozen == *is_frozen => None,
                Some(true) => Some(format!("the ramp to {to} goes on")),
                Some(false) => Some(format!("the ramp to {to} is frozen")),
            }
        }
        (None, Some(ramped)) if before.and_then(|before| before.ramped.as_ref()) != Some(ramped) => {
            let Ramped { to, how, .. } = ramped;
            Some(format!("the ramp to {to} is over ({})", how.token()))
        }
        (None, _) => None,
    }
}

/// `green is retiring`, `green is retired`, `the retirement of green is over (aborted)`.
fn retiring(before: Option<&Standing>, now: &Deployment) -> Option<String> {
    let was = before.and_then(|before| before.retirement.as_ref());
    match (&now.retirement, &now.retired) {
        (Some(now), _) if was.is_some_and(|was| was.begun == now.begun) => {
            let limits = |of: &Retirement| (of.quiet, of.until);
            (was.map(limits) != Some(limits(now)))
                .then(|| format!("{} is retiring, otherwise than before", now.version))
        }
        (Some(now), _) => Some(format!("{} is retiring", now.version)),
        (None, Some(retired)) if before.and_then(|before| before.retired.as_ref()) != Some(retired) => {
            let Retired { version, how, .. } = retired;
            Some(match how {
                RampEnd::Finished => format!("{version} is retired"),
                RampEnd::Aborted | RampEnd::Reverted | RampEnd::Superseded => {
                    format!("the retirement of {version} is over ({})", how.token())
                }
            })
        }
        (None, _) => None,
    }
}

/// `requests held for at most 10 s`, `writes held for at most 10 s`, `released`, `requests held as before`.
fn holding(old: Holds, new: Holds) -> Option<String> {
    let changed = Holder::ALL.into_iter().find(|holder| old.of(*holder) != new.of(*holder))?;
    let (hold, says_how_long) = match new.of(changed) {
        Some(begun) => (begun, true),
        None => match new.iter().next() {
            Some(other) => (other, false),
            None => return Some("released".to_owned()),
        },
    };
    let Hold { scope, timeout, .. } = hold;
    let what = match scope {
        HoldScope::All => "requests",
        HoldScope::Writes => "writes",
    };
    Some(match says_how_long {
        true => format!("{what} held for at most {} s", timeout.as_secs_f64()),
        false => format!("{what} held as before"),
    })
}

/// `green is suspect`, `green is suspect no more`.
fn suspected(before: Option<&Standing>, now: &Deployment) -> Option<String> {
    let (was, now) = (before?.trial.as_ref()?, now.trial.as_ref()?);
    let no_more = if now.is_suspect { "" } else { " no more" };
    let is_news = was.stage == now.stage && was.is_suspect != now.is_suspect;
    is_news.then(|| format!("{} is suspect{no_more}", now.candidate))
}

/// `green is compared with blue`, `nothing is compared any more`.
fn compared(old: Option<&Watch>, new: Option<&Watch>) -> Option<String> {
    let pair = |watch: Option<&Watch>| {
        watch.and_then(|watch| {
            Some(((watch.stage, watch.generation), watch.candidate.clone()?, watch.baseline.clone()))
        })
    };
    match (pair(old), pair(new)) {
        (old, new) if old == new => None,
        (_, Some((_, candidate, baseline))) => Some(format!("{candidate} is compared with {baseline}")),
        (_, None) => Some("nothing is compared any more".to_owned()),
    }
}

/// The versions that came, changed and went.
fn versions(old: &Service, new: &Service) -> Vec<String> {
    let gone = old.versions.iter().filter(|version| new.version(&version.name).is_none());
    let gone = gone.map(|version| format!("{} removed", version.name));
    let came_or_changed = new.versions.iter().filter_map(|version| match old.version(&version.name) {
        None => Some(format!("{} added with {}", version.name, endpoints(version.endpoints.len()))),
        Some(same) if same == version => None,
        Some(before) => Some(pool(before, version)),
    });
    came_or_changed.chain(gone).collect()
}

/// `green +127.0.0.1:9102 -127.0.0.1:9101`.
fn pool(old: &VersionSpec, new: &VersionSpec) -> String {
    let came =
        new.endpoints.iter().filter(|endpoint| !old.endpoints.contains(endpoint)).map(|e| format!("+{e}"));
    let went =
        old.endpoints.iter().filter(|endpoint| !new.endpoints.contains(endpoint)).map(|e| format!("-{e}"));
    let is_new = |list: &[EndpointAddr], endpoint: &&EndpointAddr| !list.contains(endpoint);
    let drains = new.draining.iter().filter(|endpoint| is_new(&old.draining, endpoint));
    let serves = old.draining.iter().filter(|endpoint| new.serving().any(|serving| serving == *endpoint));
    let is_absent =
        |endpoint: &&EndpointAddr| !new.endpoints.contains(endpoint) && !old.endpoints.contains(endpoint);
    let ends = old.draining.iter().filter(|endpoint| is_new(&new.draining, endpoint)).filter(is_absent);
    let drains = drains.map(|endpoint| format!("{endpoint} draining"));
    let ends = ends.map(|endpoint| format!("{endpoint} drains no more"));
    let serves = serves.map(|endpoint| format!("{endpoint} serving again"));
    let said = new.endpoints.iter().filter_map(|endpoint| traits(old, new, endpoint));
    let moves: Vec<_> = came.chain(went).chain(drains).chain(serves).chain(ends).chain(said).collect();
    match moves.len() {
        0 => format!("{} redefined", new.name),
        few if few <= MOST => format!("{} {}", new.name, moves.join(" ")),
        _ => format!("{} now with {}", new.name, endpoints(new.endpoints.len())),
    }
}

/// `127.0.0.1:9102 weight 2 zone a`, where that is new.
fn traits(old: &VersionSpec, new: &VersionSpec, endpoint: &EndpointAddr) -> Option<String> {
    let (before, now) = (old.traits.of(endpoint), new.traits.of(endpoint));
    let weight = (before.weight != now.weight).then(|| format!(" weight {}", now.weight.number()));
    let zone = now.zone.filter(|zone| before.zone.as_ref() != Some(zone)).map(|zone| format!(" zone {zone}"));
    let told: String = weight.into_iter().chain(zone).collect();
    (!told.is_empty()).then(|| format!("{endpoint}{told}"))
}

fn endpoints(count: usize) -> String {
    if count == 1 { "1 endpoint".to_owned() } else { format!("{count} endpoints") }
}
