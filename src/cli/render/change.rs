//! What a change did.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::admin::api::{ChangeAnswer, Holding, Standing};
use crate::cli::style::{Style, Tone, and, line, percent};

/// A change that moves traffic: where each service stands now, and stood before.
pub(in crate::cli) fn change(answer: &ChangeAnswer, style: Style) -> String {
    told(answer, style, |name, standing| {
        let has_moved = answer.moves.iter().any(|step| step.service == name);
        let before =
            standing.previous.as_ref().filter(|before| has_moved && before.weights != standing.weights);
        before.map(|previous| format!(", was {}", split(&previous.weights))).unwrap_or_default()
    })
}

/// A change that moves no traffic: the split before is that of an earlier one.
pub(in crate::cli) fn quiet_change(answer: &ChangeAnswer, style: Style) -> String {
    told(answer, style, |_, _| String::new())
}

/// A hold, or its end.
pub(in crate::cli) fn held(answer: &ChangeAnswer, style: Style) -> String {
    let mut services = answer.services.iter();
    match (services.next(), answer.changed && !answer.dry_run) {
        (Some((service, Standing { hold: Some(hold), epoch, .. })), true) => {
            let service = style.paint(Tone::Strong, service);
            let (what, seconds) =
                (style.paint(Tone::Moving, wait(hold)), Duration::from_millis(hold.timeout_ms).as_secs_f64());
            format!("{service}: {what} for at most {seconds} s (epoch {epoch})")
        }
        _ => quiet_change(answer, style),
    }
}

fn wait(hold: &Holding) -> &'static str {
    if hold.scope == "writes" { "writes wait" } else { "requests wait" }
}

fn told(answer: &ChangeAnswer, style: Style, before: impl Fn(&str, &Standing) -> String) -> String {
    let mut lines = Vec::new();
    for (name, standing) in &answer.services {
        lines.push(stands(answer, name, standing, &before(name, standing), style));
        lines.extend(numbered(standing).map(|rule| format!("  {rule}")));
    }
    if answer.services.is_empty() {
        let nothing = match answer.notes[..] {
            [] => "nothing to do: everything is so already",
            _ => "nothing was changed",
        };
        lines.push(format!("{nothing} (epoch {})", answer.epoch));
    }
    if answer.dry_run && answer.changed {
        lines.push(format!("the change: {}", line(&answer.summary, usize::MAX)));
    }
    lines.extend(answer.notes.iter().map(|note| format!("note: {}", line(note, usize::MAX))));
    lines.join("\n")
}

fn stands(answer: &ChangeAnswer, name: &str, standing: &Standing, before: &str, style: Style) -> String {
    let (service, now) = (style.paint(Tone::Strong, name), split(&standing.weights));
    let epoch = standing.epoch;
    if answer.dry_run {
        let moves = answer.moves.iter().filter(|step| step.service == name);
        let moves: Vec<_> = moves
            .map(|step| format!("{} {} → {}", step.version, percent(step.from), percent(step.to)))
            .collect();
        return match &moves[..] {
            [] => format!("{service}: would stay at {now}"),
            moves => format!("{service}: would be {}", moves.join(", ")),
        };
    }
    if !answer.changed {
        return format!("{service}: nothing to do, it is {now} already (epoch {epoch})");
    }
    let stands = format!("{service}: {}{before}", style.paint(Tone::Good, &now));
    match &standing.hold {
        Some(hold) => format!("{stands}; {} still (epoch {epoch})", style.paint(Tone::Moving, wait(hold))),
        None => format!("{stands} (epoch {epoch})"),
    }
}

/// How to take back a change that moved traffic.
pub(in crate::cli) fn way_back(answer: &ChangeAnswer) -> Option<String> {
    if answer.dry_run || !answer.changed {
        return None;
    }
    let mut services = answer.services.iter();
    match (services.next(), services.next()) {
        (Some((name, standing)), None) if standing.previous.is_some() => {
            let is_taken_back = standing.ramp.is_some() || standing.retirement.is_some();
            let abort = is_taken_back.then(|| format!("switchback abort {name}"));
            let back = abort.or_else(|| exclusive_back(name, standing));
            Some(format!("the way back: {}", back.unwrap_or_else(|| format!("switchback revert {name}"))))
        }
        (Some(_), Some(_)) => Some(undo_of(answer)),
        _ => None,
    }
}

/// How to take back an undo: a revert would go further back than that where it has moved no weight.
pub(in crate::cli) fn way_back_from_undo(answer: &ChangeAnswer) -> Option<String> {
    if answer.dry_run || !answer.changed {
        return None;
    }
    let is_step =
        !answer.moves.is_empty() && answer.services.values().all(|standing| standing.retirement.is_none());
    way_back(answer).filter(|_| is_step).or_else(|| Some(undo_of(answer)))
}

fn undo_of(answer: &ChangeAnswer) -> String {
    format!("the way back: switchback undo --to {}", answer.epoch.saturating_sub(1))
}

/// The command that takes a service back after an exclusive flip, as exclusively; with the rules that no flip brings back.
pub(super) fn exclusive_back(name: &str, standing: &Standing) -> Option<String> {
    let previous = standing.previous.as_ref()?;
    let (stable, scope) = (&previous.stable, previous.exclusive.as_deref()?);
    let what = if scope == "writes" { "=writes" } else { "" };
    // Who carried the service and still does was with the others before: only a revert gives them back what they had.
    let has_left = !standing.weights.contains_key(stable);
    let rules: Vec<_> =
        previous.rules.iter().map(|rule| line(&rule.text(), usize::MAX).to_string()).collect();
    let without = match &rules[..] {
        [] => String::new(),
        rules => format!("   (without its rules of before: {})", rules.join("; ")),
    };
    has_left.then(|| format!("switchback flip {name} --to {stable} --exclusive{what}{without}"))
}

/// `rule 1: header x-beta=yes -> green`; in the order in which they were set, also those that are passed over.
pub(super) fn numbered(standing: &Standing) -> impl Iterator<Item = String> {
    (1..).zip(standing.rules_asked()).map(|(number, rule)| {
        let passed_over = if standing.rules.contains(rule) { "" } else { " (passed over)" };
        format!("rule {number}: {}{passed_over}", line(&rule.text(), usize::MAX))
    })
}

/// The targeting rules of a service, and what there is to know of them.
pub(in crate::cli) fn rules(name: &str, standing: &Standing, style: Style) -> String {
    let head = style.paint(Tone::Strong, &line(name, 64));
    let head = match standing.rules_asked() {
        [] => format!("{head}: no rules, all by the weights"),
        _ => format!("{head}: the first that fits decides, and the weights share who is left"),
    };
    let note = (standing.rules_asked() != standing.rules)
        .then(|| "note: rules that lead to a version that supervision suspects are passed over".to_owned());
    let lines = numbered(standing).map(|rule| format!("  {rule}"));
    [head].into_iter().chain(lines).chain(note).collect::<Vec<_>>().join("\n")
}

/// `green 5 %, blue 95 %`.
pub(super) fn split(weights: &BTreeMap<String, u16>) -> String {
    let shares: Vec<_> =
        weights.iter().map(|(version, points)| format!("{version} {}", percent(*points))).collect();
    shares.join(", ")
}

/// The last line of a change that left nothing: what carries traffic, and so must not be stopped.
pub(in crate::cli) fn carriers(answer: &ChangeAnswer) -> String {
    let services = answer.services.iter();
    let carriers: Vec<_> = services
        .flat_map(|(service, standing)| {
            let targets: BTreeSet<_> = standing.rules.iter().map(|rule| &rule.to).collect();
            let targets = targets.into_iter().filter(|to| !standing.weights.contains_key(*to));
            standing.weights.keys().chain(targets).map(move |version| (service, version))
        })
        .map(|(service, version)| named(answer.services.len() == 1, service, version))
        .collect();
    match &carriers[..] {
        [] => "no version was left: there is nothing that became safe to stop".to_owned(),
        [one] => format!("{one} carries the traffic: do not stop it"),
        [one, other] => format!("{one} and {other} carry traffic: stop neither"),
        more => format!("{} carry traffic: stop none of them", and(more)),
    }
}

pub(super) fn named(is_alone: bool, service: &str, version: &str) -> String {
    if is_alone { version.to_owned() } else { format!("{service}/{version}") }
}
