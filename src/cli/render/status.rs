//! The picture of `status`: for each service what it is, who carries it, what is in flight, what was done last, and
//! what can be done next.

use super::change::{exclusive_back, numbered, split};
use super::drain::{also_used, amounts, is_measure};
use super::{health, verdict};
use crate::admin::api::{self, Change, Holding, Measure, Mirroring, Phase, Service, Version, text};
use crate::cli::status::Picture;
use crate::cli::style::{Style, Tone, and, counted, line, percent, span};

/// The whole picture.
pub(in crate::cli) fn status(picture: &Picture, style: Style) -> String {
    let mut blocks = vec![proxy(&picture.proxy, style)];
    blocks.extend(picture.warning.iter().map(|text| {
        style.paint(Tone::Bad, &format!("the history is not shown: {}", line(text, usize::MAX)))
    }));
    for service in &picture.services {
        let last = picture.changes.iter().find(|change| change.services.contains_key(&service.name));
        blocks.push(block(service, last, picture, style));
    }
    if picture.services.is_empty() {
        blocks.push("there are no services: name some in the configuration file".to_owned());
    }
    blocks.join("\n\n")
}

fn proxy(proxy: &api::Status, style: Style) -> String {
    let ready =
        if proxy.ready { style.paint(Tone::Good, "ready") } else { style.paint(Tone::Bad, "not ready") };
    let mut workers = counted(proxy.workers as u64, "worker");
    if !proxy.cpus.is_empty() {
        let cpus: Vec<_> = proxy.cpus.iter().map(ToString::to_string).collect();
        workers.push_str(&format!(" on CPU {}", cpus.join(", ")));
    }
    let mut listeners: Vec<_> = proxy.listeners.iter().map(|listener| listener.bound.as_str()).collect();
    if listeners.is_empty() {
        listeners.push("no listeners");
    }
    let generation =
        if proxy.generation > 1 { format!(" · generation {}", proxy.generation) } else { String::new() };
    let mut lines = vec![format!(
        "switchback {} · {ready} · epoch {} · up {} · {workers} · pid {}{generation} · {}",
        line(&proxy.version, 32),
        proxy.epoch,
        span(proxy.uptime_seconds),
        proxy.pid,
        listeners.join(", "),
    )];
    let before = proxy.predecessors.iter().map(|old| style.paint(Tone::Moving, &predecessor(old)));
    lines.extend(before);
    lines.join("\n")
}

fn predecessor(old: &api::Predecessor) -> String {
    let who = match (old.generation, &old.version) {
        (Some(generation), Some(version)) => format!(" (generation {generation}, {})", line(version, 32)),
        _ => String::new(),
    };
    let what = if old.quiet { "finishes" } else { "hands over, and finishes" };
    let work = match (old.in_flight, old.connections) {
        (Some(in_flight), Some(connections)) => {
            format!("{in_flight} in flight on {}", counted(connections, "connection"))
        }
        _ => "work that this one cannot see: nothing is safe to stop before it ends".to_owned(),
    };
    format!("  before: pid {}{who} {what} {work}", old.pid)
}

fn block(service: &Service, last: Option<&Change>, picture: &Picture, style: Style) -> String {
    let (now, known) = (picture.at, picture.supervision.as_ref());
    let mut lines = vec![head(service, style), table(service, style)];
    lines.extend(service.sticky.as_ref().map(|sticky| indent(&stays(sticky), Tone::Faint, style)));
    lines.extend(shield(service).map(|text| indent(&text, Tone::Faint, style)));
    lines.extend(mirror(service).map(|text| indent(&text, Tone::Faint, style)));
    lines.extend(numbered(&service.standing).map(|rule| indent(&rule, Tone::Faint, style)));
    lines.extend(health::lines(service, now, style));
    lines.extend(verdict::lines(service, known, now, style));
    lines.extend(last.map(|change| indent(&what_happened(service, change, now), Tone::Faint, style)));
    lines.extend(next(service).into_iter().map(|text| format!("  {text}")));
    lines.extend(stops(service).map(|(tone, text)| format!("  stop: {}", style.paint(tone, &text))));
    lines.join("\n")
}

fn head(service: &Service, style: Style) -> String {
    let phase = service.standing.phase;
    let tone = match phase {
        Phase::Steady => Tone::Good,
        Phase::Canary
        | Phase::Draining
        | Phase::Supervising
        | Phase::Ramping
        | Phase::Frozen
        | Phase::Retiring
        | Phase::Holding => Tone::Moving,
    };
    let name = style.paint(Tone::Strong, &service.name);
    let begin = format!("{name} · {} · epoch {}", style.paint(tone, phase.token()), service.standing.epoch);
    let routes: Vec<_> = service.routes.iter().map(route).collect();
    let used = service.name.len() + phase.token().len() + service.standing.epoch.to_string().len() + 15;
    let routes = line(&routes.join(", "), style.width.saturating_sub(used).max(12));
    format!("{begin} · {}", style.paint(Tone::Faint, &routes))
}

/// `sticky: users stay with a version by the cookie sb_id, which they are given`.
fn stays(sticky: &api::Sticky) -> String {
    let given = if sticky.mint { ", which they are given" } else { "" };
    format!("sticky: users stay with a version by {}{given}", sticky.what())
}

/// `shield: what another version fails is answered by blue (12 so far)`.
fn shield(service: &Service) -> Option<String> {
    let shield = service.shield.as_ref()?;
    let stable = line(&service.standing.stable, 64);
    Some(format!("shield: what another version fails is answered by {stable} ({} so far)", shield.answered))
}

/// `mirror: 5 % of GET, HEAD, OPTIONS are copied to green (120 so far, 3 answered otherwise)`.
fn mirror(service: &Service) -> Option<String> {
    let mirror = service.mirror.as_ref()?;
    let (to, methods) = (line(&mirror.to, 64), line(&mirror.methods.join(", "), 64));
    let counts = format!("{} so far, {} answered otherwise", mirror.mirrored, mirror.differences);
    Some(match mirror.state {
        Mirroring::On => {
            format!("mirror: {} of {methods} are copied to {to} ({counts})", percent(mirror.share))
        }
        Mirroring::Held => format!("mirror: nothing is copied to {to} while the service is held ({counts})"),
        Mirroring::Over => format!("mirror: nothing is copied to {to} any more ({counts})"),
    })
}

fn route(route: &api::Route) -> String {
    let headers: String = route.headers.iter().map(|(name, value)| format!(" [{name}: {value}]")).collect();
    format!("{}{}{headers}", route.host, route.path)
}

/// The versions of one service, as `switchback versions` lists them.
pub(in crate::cli) fn versions(service: &Service, style: Style) -> String {
    format!("{}\n{}", head(service, style), table(service, style))
}

/// Below this many columns a row tells fewer details.
const ROOMY: usize = 80;
/// Below this many columns a row has no bar.
const NARROW: usize = 70;

/// One line a version: name, weight, bar, in flight, part, endpoints.
fn table(service: &Service, style: Style) -> String {
    let names = service.versions.iter().map(|version| version.name.chars().count());
    let name_width = names.max().unwrap_or(0).max(4);
    let in_flight: Vec<_> = service.versions.iter().map(|version| flying(version, style)).collect();
    let flying_width = in_flight.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    let bar_width = if style.width < NARROW { 0 } else { (style.width / 5).min(20) };
    let rows = service.versions.iter().zip(in_flight).map(|(version, in_flight)| {
        let (part, tone) = part(service, version);
        let begin = format!("  {:<name_width$}  {:>7}  ", version.name, percent(version.weight));
        let rest = format!("  {in_flight:>flying_width$}  {part:<9}  ");
        let used = begin.chars().count() + bar_width + rest.chars().count();
        let endpoints = pool(version, style.width.saturating_sub(used));
        let bar = style.paint(tone, &bar(version.weight, bar_width));
        format!("{begin}{bar}{rest}{}", style.paint(Tone::Faint, &endpoints)).trim_end().to_owned()
    });
    rows.collect::<Vec<_>>().join("\n")
}

/// A weight above 0 shows at least one block, one below 100 % at least one gap: the ends mean none and all.
fn bar(weight: u16, width: usize) -> String {
    let filled = match weight {
        0 => 0,
        10_000 => width,
        some => (usize::from(some) * width / 10_000).clamp(1, width.saturating_sub(1).max(1)),
    };
    format!("{}{}", "█".repeat(filled), "·".repeat(width.saturating_sub(filled)))
}

fn flying(version: &Version, style: Style) -> String {
    let total = version.in_flight.total;
    let others = version.in_flight.by_kind.iter().filter(|(kind, _)| *kind != "request");
    let others: Vec<_> = others
        .map(|(kind, count)| api::Remaining { kind: kind.clone(), count: *count, oldest_seconds: None })
        .collect();
    if others.is_empty() || style.width < ROOMY {
        format!("{total} in flight")
    } else {
        format!("{total} in flight ({})", amounts(&others))
    }
}

fn part(service: &Service, version: &Version) -> (&'static str, Tone) {
    let standing = &service.standing;
    if standing.leaving.contains(&version.name) {
        ("leaving", Tone::Moving)
    } else if standing.stable == version.name {
        ("stable", Tone::Good)
    } else if standing.candidate.as_ref() == Some(&version.name) {
        ("candidate", Tone::Moving)
    } else {
        ("", Tone::Faint)
    }
}

/// All addresses if there is room, else the first ones, else how many there are.
fn pool(version: &Version, width: usize) -> String {
    let all: Vec<_> = version.endpoints.iter().map(endpoint).collect();
    let shown = |shown: usize| match all.len() - shown {
        0 => all.join(", "),
        more => format!("{} +{more}", all[..shown].join(", ")),
    };
    let fitting = (1..=all.len()).rev().map(shown).find(|text| text.chars().count() <= width);
    let number =
        || if all.is_empty() { "no endpoints".to_owned() } else { counted(all.len() as u64, "endpoint") };
    line(&fitting.unwrap_or_else(number), usize::MAX)
}

/// `127.0.0.1:9002 (weight 2, zone a, draining)`.
fn endpoint(endpoint: &api::Endpoint) -> String {
    let weight = (endpoint.weight != 1).then(|| format!("weight {}", endpoint.weight));
    let zone = endpoint.zone.as_ref().map(|zone| format!("zone {zone}"));
    let state = match (endpoint.draining, health::trouble(endpoint)) {
        (true, _) => Some("draining".to_owned()),
        (false, trouble) => trouble.map(|state| state.token().to_owned()),
    };
    let told: Vec<_> = weight.into_iter().chain(zone).chain(state).collect();
    if told.is_empty() {
        endpoint.address.clone()
    } else {
        format!("{} ({})", endpoint.address, told.join(", "))
    }
}

/// `flip 12 s ago by operator uid=0 gid=0 pid=4711: v2 is out`.
fn what_happened(service: &Service, change: &Change, now: u64) -> String {
    let at = text::millis(&change.at).unwrap_or(now);
    let ago = span(now.saturating_sub(at) / 1000);
    let own = if change.epoch == service.standing.epoch { "" } else { "before: " };
    let why = if change.reason.is_empty() { String::new() } else { format!(": {}", change.reason) };
    format!("{own}{} {ago} ago by {} {}{why}", change.kind, change.actor.kind, change.actor.name)
}

fn indent(text: &str, tone: Tone, style: Style) -> String {
    format!("  {}", style.paint(tone, &line(text, style.width.saturating_sub(2).max(20))))
}

/// What can be done next.
fn next(service: &Service) -> Vec<String> {
    let (name, standing) = (&service.name, &service.standing);
    let mut all = held(service);
    // All else is refused until then.
    let is_barred = standing.holds.iter().any(|hold| hold.by == "exclusive");
    if let Some(ramp) = &standing.ramp {
        let verb = if ramp.frozen { "resume" } else { "freeze" };
        let on = format!("   (switchback promote|{verb} {name})");
        let on = if is_barred { "" } else { &on };
        all.push(format!("ramp: to {}, {}{on}", line(&ramp.to, 64), super::ramp_stands(ramp)));
    }
    if is_barred {
        all.push(format!(
            "back: switchback revert {name}   (calls the exclusive flip off; one of supervision's is made at once)"
        ));
        return all;
    }
    if let Some(retirement) = &standing.retirement {
        all.push(format!("retiring: {}", super::retirement(retirement)));
    }
    if let Some(previous) = &standing.previous {
        let serves = |of: &&String| {
            let mut versions = service.versions.iter().filter(|version| version.name == **of);
            versions.any(|version| version.endpoints.iter().any(|endpoint| !endpoint.draining))
        };
        let empty = previous.weights.keys().find(|of| !serves(of));
        all.push(match (empty, exclusive_back(name, standing)) {
            (None, Some(back)) => format!("back: {back}"),
            (None, None) if standing.ramp.is_some() || standing.retirement.is_some() => {
                format!("back: switchback abort {name}   (to {})", split(&previous.weights))
            }
            (None, None) => format!("back: switchback revert {name}   (to {})", split(&previous.weights)),
            (Some(empty), _) => format!(
                "back: not while no endpoint of {empty} serves   (switchback endpoints add {name}/{empty} HOST:PORT)"
            ),
        });
    }
    if let Some(candidate) = standing.candidate.as_ref().filter(|_| standing.ramp.is_none()) {
        all.push(format!("on:   switchback flip {name} --to {candidate}"));
    }
    all
}

/// Who waits, and what lets them go; of two holds the one of more requests first.
fn held(service: &Service) -> Vec<String> {
    let waiting = service.held_requests.unwrap_or_default();
    let mut holds: Vec<_> = service.standing.holds.iter().collect();
    holds.sort_by_key(|hold| hold.scope == "writes");
    let one = |(index, hold): (usize, &Holding)| {
        let what = if hold.scope == "writes" { "writes" } else { "requests" };
        let how = if index == 0 { format!(", {waiting} waiting") } else { " as well".to_owned() };
        let on = if hold.by == "exclusive" {
            "until an exclusive flip is made, or called off".to_owned()
        } else {
            format!("on: switchback release {}", service.name)
        };
        format!("held: {what}{how}   ({on})")
    };
    holds.into_iter().enumerate().map(one).collect()
}

/// What may be stopped, and what not yet; nothing when every version has weight.
fn stops(service: &Service) -> impl Iterator<Item = (Tone, String)> {
    let leaving = &service.standing.leaving;
    let runs = |version: &&Version| !version.endpoints.is_empty() || version.in_flight.total > 0;
    let weightless =
        service.versions.iter().filter(|version| version.weight == 0 && !version.targeted).filter(runs);
    let (mirrored, weightless): (Vec<_>, Vec<_>) = weightless.partition(|version| version.mirrored);
    let mirrored = mirrored
        .into_iter()
        .map(|version| (Tone::Bad, format!("the mirror leads to {}: do not stop it", version.name)));
    let (busy, empty): (Vec<_>, Vec<_>) = weightless
        .into_iter()
        .partition(|version| version.in_flight.total > 0 || leaving.contains(&version.name));
    let busy = busy.into_iter().map(|version| {
        let left: Vec<_> = version.in_flight.clone().remaining();
        let how = if left.is_empty() {
            "is still draining".to_owned()
        } else {
            format!("still has {} in flight", amounts(&left))
        };
        (Tone::Bad, format!("{} {how}: do not stop it yet", version.name))
    });
    let is_gone = |name: &&String| service.versions.iter().all(|version| version.name != **name);
    let gone = leaving.iter().filter(is_gone);
    let gone = gone.map(|name| {
        (Tone::Bad, format!("{name} is removed and still has work in flight: do not stop it yet"))
    });
    let measure = |version: &Version| Measure::of(service.standing.supervision.as_ref()?, &version.name);
    let (kept, empty): (Vec<_>, Vec<_>) = empty.into_iter().partition(|version| measure(version).is_some());
    let kept = kept.into_iter().filter_map(|version| Some(is_measure(&version.name, &measure(version)?)));
    let kept: Vec<_> = kept.map(|why| (Tone::Bad, why)).collect();
    let (safe, shared): (Vec<_>, Vec<_>) =
        empty.into_iter().partition(|version| version.also_used_by.is_empty());
    let shared = shared.into_iter().map(|version| {
        let others = also_used(&version.also_used_by);
        (Tone::Bad, format!("nothing of {} is left, but {others}: do not stop it", version.name))
    });
    let empty: Vec<_> = safe.into_iter().map(|version| version.name.clone()).collect();
    let verb = if empty.len() == 1 { "is" } else { "are" };
    let safe = (!empty.is_empty()).then(|| (Tone::Good, format!("{} {verb} safe to stop", and(&empty))));
    busy.chain(gone).chain(mirrored).chain(kept).chain(shared).chain(safe).collect::<Vec<_>>().into_iter()
}
