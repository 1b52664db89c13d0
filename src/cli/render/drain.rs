//! What is left, and what is safe to stop.

use std::collections::BTreeSet;
use std::time::Duration;

use super::change::named;
use crate::admin::api::{AlsoUsedBy, Drains, EndpointDrain, EndpointLeft, Measure, Remaining, VersionLeft};
use crate::cli::args::VersionOf;
use crate::cli::drain::State;
use crate::cli::style::{Style, Tone, and, counted, line, percent, span};

/// The last line: what is safe to stop, and what is not.
pub(in crate::cli) fn safety(states: &[(VersionOf, State)], style: Style) -> String {
    let unsafe_ones: Vec<_> =
        states.iter().filter_map(|(version, state)| objection(states, version, state)).collect();
    if !unsafe_ones.is_empty() {
        return style.paint(Tone::Bad, &unsafe_ones.join("; "));
    }
    let names: Vec<_> = states.iter().map(|(version, _)| name(states, version)).collect();
    let text = match &names[..] {
        [one] => format!("{one} is safe to stop: nothing is left on it"),
        more => format!("{} are safe to stop: nothing is left on them", and(more)),
    };
    style.paint(Tone::Good, &text)
}

fn objection(states: &[(VersionOf, State)], version: &VersionOf, state: &State) -> Option<String> {
    let name = name(states, version);
    match state {
        State::Empty => None,
        State::Left(left) if left.is_empty() => Some(format!("{name} is still draining: do not stop it yet")),
        State::Left(left) => Some(format!("{name} still has {}: do not stop it yet", in_flight(left))),
        State::Shared(users) => {
            Some(format!("nothing of {name} is left, but {}: do not stop it", also_used(users)))
        }
        State::Carries(points) => {
            Some(format!("{name} carries {} of the traffic: do not stop it", percent(*points)))
        }
        State::Targeted => Some(format!("a targeting rule leads to {name}: do not stop it")),
        State::Mirrored => {
            Some(format!("the mirror leads to {name}: copies may come at any time, do not stop it"))
        }
        State::Retiring => {
            Some(format!("{name} is retiring: who is on it may still come, do not stop it yet"))
        }
        State::Measure(measure) => Some(is_measure(&name, measure)),
    }
}

/// Why nobody stops what supervision may go back to.
pub(super) fn is_measure(version: &str, measure: &Measure) -> String {
    let candidate = line(&measure.candidate, usize::MAX);
    let until = measure.until.as_ref().map(|until| format!(" until {}", line(until, usize::MAX)));
    let until = until.unwrap_or_default();
    format!(
        "{candidate} is compared with {version}{until}: traffic may go back to {version} by itself, do not stop it"
    )
}

/// What a wait is waiting for.
pub(in crate::cli) fn waiting(states: &[(VersionOf, State)], style: Style) -> String {
    let left = states.iter().filter_map(|(version, state)| match state {
        State::Left(left) if left.is_empty() => Some(format!("{} is draining", name(states, version))),
        State::Left(left) => Some(format!("{} has {}", name(states, version), in_flight(left))),
        State::Retiring => Some(format!("{} is retiring", name(states, version))),
        State::Empty
        | State::Shared(_)
        | State::Carries(_)
        | State::Targeted
        | State::Mirrored
        | State::Measure(_) => None,
    });
    style.paint(Tone::Faint, &format!("waiting: {}", left.collect::<Vec<_>>().join("; ")))
}

/// `api/v1 uses 127.0.0.1:9001 too`, `api/v1 and cart/v2 use 3 of its addresses too`.
pub(super) fn also_used(users: &[AlsoUsedBy]) -> String {
    let addresses: BTreeSet<_> = users.iter().map(|user| &*user.address).collect();
    let addresses = match addresses.first() {
        Some(one) if addresses.len() == 1 => line(one, usize::MAX),
        _ => format!("{} of its addresses", addresses.len()),
    };
    let names = users.iter().map(|user| named(false, &user.service, &user.version));
    let names: Vec<_> = names.collect::<BTreeSet<_>>().into_iter().collect();
    let verb = if names.len() == 1 { "uses" } else { "use" };
    format!("{} {verb} {addresses} too", and(&names))
}

fn name(states: &[(VersionOf, State)], version: &VersionOf) -> String {
    let is_alone = states.iter().all(|(other, _)| other.service == version.service);
    named(is_alone, &version.service, &version.version)
}

/// `3 requests and 1 websocket`.
pub(super) fn amounts(left: &[Remaining]) -> String {
    let noun = |kind: &str| match kind {
        "sse" => "event stream".to_owned(),
        "grpc" => "gRPC call".to_owned(),
        other => line(other, 32),
    };
    and(&left.iter().map(|left| counted(left.count, &noun(&left.kind))).collect::<Vec<_>>())
}

/// `3 requests in flight, the oldest for 12 s`.
fn in_flight(left: &[Remaining]) -> String {
    let oldest = left.iter().filter_map(|left| left.oldest_seconds).reduce(f64::max);
    // Below a second nobody cares.
    let oldest = oldest.filter(|seconds| *seconds >= 1.0);
    let oldest = oldest.map(|seconds| {
        format!(
            ", the oldest for {}",
            span(Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs())
        )
    });
    format!("{} in flight{}", amounts(left), oldest.unwrap_or_default())
}

/// One endpoint's line of a version's drain.
pub(in crate::cli) fn endpoint_left(left: &EndpointLeft) -> String {
    format!("  {}  {}", line(&left.endpoint, usize::MAX), in_flight(&left.remaining))
}

/// Whether an endpoint is safe to stop.
pub(in crate::cli) fn endpoint_safety(endpoint: &str, drain: &EndpointDrain, style: Style) -> String {
    let endpoint = line(endpoint, usize::MAX);
    let (tone, text) = match drain {
        EndpointDrain { drained: true, measure: Some(measure), .. } => {
            (Tone::Bad, is_measure("this version", measure))
        }
        drain if drain.drained && !drain.also_used_by.is_empty() => {
            let others = also_used(&drain.also_used_by);
            (Tone::Bad, format!("nothing of this version is left there, but {others}: do not stop it"))
        }
        drain if drain.drained => (Tone::Good, format!("{endpoint} is safe to stop: nothing is left on it")),
        drain if drain.mirrored => (
            Tone::Bad,
            format!("the mirror leads to {endpoint}: copies may come at any time, do not stop it"),
        ),
        drain if drain.in_pool && !drain.draining => {
            (Tone::Bad, format!("{endpoint} gets requests again: do not stop it"))
        }
        drain if drain.remaining.is_empty() => {
            (Tone::Bad, format!("{endpoint} is still draining: do not stop it yet"))
        }
        drain => {
            let left = in_flight(&drain.remaining);
            (Tone::Bad, format!("{endpoint} still has {left}: do not stop it yet"))
        }
    };
    style.paint(tone, &text)
}

/// What a wait for an endpoint is waiting for.
pub(in crate::cli) fn waiting_for_endpoint(endpoint: &str, drain: &EndpointDrain, style: Style) -> String {
    let endpoint = line(endpoint, usize::MAX);
    let text = match &drain.remaining[..] {
        [] => format!("waiting: {endpoint} is draining"),
        left => format!("waiting: {endpoint} has {}", in_flight(left)),
    };
    style.paint(Tone::Faint, &text)
}

fn all_states(drains: &Drains) -> Vec<(VersionOf, State)> {
    let of = |left: &VersionLeft| VersionOf { service: left.service.clone(), version: left.version.clone() };
    let left = drains.versions.iter().map(|left| (of(left), State::Left(left.drain.remaining.clone())));
    let shared = drains.shared.iter().map(|left| (of(left), State::Shared(left.drain.also_used_by.clone())));
    let mirrored = drains.mirrored.iter().map(|left| (of(left), State::Mirrored));
    left.chain(shared).chain(mirrored).collect()
}

/// What a wait for everything is waiting for.
pub(in crate::cli) fn waiting_for_all(drains: &Drains, style: Style) -> String {
    match &all_states(drains)[..] {
        [] => style.paint(Tone::Faint, "waiting: the proxy is stopping"),
        states => waiting(states, style),
    }
}

/// The answer about everything.
pub(in crate::cli) fn all_left(drains: &Drains, style: Style) -> String {
    match (drains.drained, drains.stopping, &all_states(drains)[..]) {
        (true, true, _) => style.paint(Tone::Good, "the proxy has ended: nothing is left"),
        (true, false, _) if !drains.kept.is_empty() => {
            let kept = drains.kept.iter().map(|kept| {
                let version = VersionOf { service: kept.service.clone(), version: kept.version.clone() };
                (version, State::Measure(kept.measure.clone()))
            });
            safety(&all_states(drains).into_iter().chain(kept).collect::<Vec<_>>(), style)
        }
        (true, false, []) => {
            style.paint(Tone::Good, "every version without traffic is safe to stop: nothing is left on any")
        }
        (false, _, []) => style.paint(Tone::Bad, "the proxy is stopping: do not stop anything yet"),
        (_, _, states) => safety(states, style),
    }
}
