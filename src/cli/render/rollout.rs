//! Rolling upgrades, as people read them.

use super::drain::{also_used, is_measure};
use crate::admin::api::{AlsoUsedBy, Rollout, RolloutStep};
use crate::cli::style::{Style, Tone, and, line};

/// All of it.
pub(in crate::cli) fn rollout(rollout: &Rollout, style: Style) -> String {
    let mut lines = vec![head(rollout)];
    for (index, step) in rollout.steps.iter().enumerate() {
        let waits = if step.awaits_confirmation { ", waits for --proceed" } else { "" };
        lines.push(format!("  {:>3}  {}  {}{waits}", index + 1, both(step), line(&step.state, 32)));
    }
    lines.extend(hindered(rollout, style));
    if rollout.dry_run {
        lines.push("nothing was changed: this was a dry run".to_owned());
    } else if !matches!(&*rollout.state, "running" | "reversing") {
        lines.push(outcome(rollout, style));
    }
    lines.join("\n")
}

/// `10.0.0.1:80 -> 10.0.1.1:80`.
fn both(step: &RolloutStep) -> String {
    let [out, into] = [&step.out, &step.into].map(|at| line(at.as_deref().unwrap_or("-"), usize::MAX));
    if step.out == step.into { out } else { format!("{out} -> {into}") }
}

/// `shop: 10 endpoints, 1 at a time, at least 9 of 10 serve`.
fn head(rollout: &Rollout) -> String {
    let (count, batch) = (rollout.steps.len(), rollout.batch);
    let service = line(&rollout.service, 64);
    let versions = if rollout.from == rollout.to {
        format!("of {}", line(&rollout.from, 64))
    } else {
        format!("from {} to {}", line(&rollout.from, 64), line(&rollout.to, 64))
    };
    let endpoints = if count == 1 { "1 endpoint".to_owned() } else { format!("{count} endpoints") };
    format!(
        "{service}: {endpoints} {versions}, {batch} at a time, at least {} of {} serve",
        rollout.min_serving, rollout.serving
    )
}

/// What has happened since `before`, one line each.
pub(in crate::cli) fn news(before: Option<&Rollout>, now: &Rollout, style: Style) -> Vec<String> {
    let mut lines = Vec::new();
    if before.is_none() {
        lines.push(head(now));
    }
    let goes_back = |rollout: &Rollout| ["reversing", "reversed", "stopped"].contains(&&*rollout.state);
    if let Some(why) = now.why.as_deref().filter(|_| goes_back(now) && !before.is_some_and(goes_back)) {
        let why = line(why, usize::MAX);
        lines.push(style.paint(Tone::Bad, &format!("going back: {why}")));
    }
    if before.is_none_or(|before| before.hindrance != now.hindrance) {
        lines.extend(hindered(now, style));
    }
    for (index, step) in now.steps.iter().enumerate() {
        let was = before.and_then(|before| before.steps.get(index));
        let is_news = match was {
            Some(was) => (&was.state, was.awaits_confirmation) != (&step.state, step.awaits_confirmation),
            None => step.state != "pending",
        };
        let is_not_waited_for = was.is_some_and(|was| was.awaits_confirmation && was.state == step.state);
        // What was safe before is not said on the way back: it may serve in a moment.
        let is_news = is_news && (!goes_back(now) || matches!(&*step.state, "restored" | "kept" | "lost"));
        let text = match is_not_waited_for {
            // What ends early waits for nobody: that does not say that it was dealt with.
            true => dealt_with(step).filter(|_| now.why.is_none()),
            false => said(step),
        };
        if let Some(text) = text.filter(|_| is_news) {
            lines.push(format!("{}/{}: {text}", index + 1, now.steps.len()));
        }
    }
    lines
}

/// What is in its way.
fn hindered(rollout: &Rollout, style: Style) -> Option<String> {
    let why = line(rollout.hindrance.as_deref()?, usize::MAX);
    Some(style.paint(Tone::Bad, &format!("hindered: {why}")))
}

fn dealt_with(step: &RolloutStep) -> Option<String> {
    let out = line(step.out.as_deref()?, usize::MAX);
    (!step.awaits_confirmation).then(|| format!("{out} is dealt with"))
}

fn said(step: &RolloutStep) -> Option<String> {
    let out = line(step.out.as_deref().unwrap_or("-"), usize::MAX);
    let into = line(step.into.as_deref().unwrap_or("-"), usize::MAX);
    Some(match &*step.state {
        "draining" => format!("{out} drains"),
        "safe" if step.awaits_confirmation => {
            format!("{out} is safe to stop; waiting until it is dealt with")
        }
        "safe" => format!("{out} is safe to stop"),
        "shared" => {
            let others = also_used(&step.also_used_by);
            format!("nothing of its version is left on {out}, but {others}: do not stop it")
        }
        "warming" => format!("waiting for {into}"),
        "serving" => format!("{into} serves"),
        "done" => match (&step.out, &step.into) {
            (Some(old), Some(new)) if old == new => format!("{out} serves again"),
            (Some(_), new) if !step.also_used_by.is_empty() => {
                let serves = if new.is_some() { format!("{into} serves; ") } else { String::new() };
                format!("{serves}{}: do not stop {out}", also_used(&step.also_used_by))
            }
            (Some(_), Some(_)) => format!("{into} serves in place of {out}, which is safe to stop"),
            (Some(_), None) => format!("{out} is safe to stop"),
            (None, _) => format!("{into} serves"),
        },
        "restored" if step.out.is_none() => format!("{into} is taken out again"),
        "restored" => format!("{out} serves again"),
        "kept" => format!("{out} is not back; {into} goes on"),
        "lost" => format!("{out} is not back, and nothing serves in its place"),
        _ => return None,
    })
}

/// Who else uses old endpoints that were replaced by others; a machine that went over to another version is that one's now.
fn still_used(rollout: &Rollout) -> Vec<AlsoUsedBy> {
    let replaced = rollout.steps.iter().filter(|step| step.out != step.into);
    replaced.flat_map(|step| step.also_used_by.iter().cloned()).collect()
}

/// True when what was replaced is safe to stop.
pub(in crate::cli) fn is_safe(rollout: &Rollout) -> bool {
    rollout.measure.is_none() && rollout.serving_again.is_empty() && still_used(rollout).is_empty()
}

/// What is safe to stop of a rollout that is done, and what is not.
fn stoppable(rollout: &Rollout, safe: &[String]) -> Vec<String> {
    let again: Vec<_> = rollout.serving_again.iter().map(|out| line(out, usize::MAX)).collect();
    let mut said = Vec::new();
    match (safe, &rollout.measure) {
        (_, Some(measure)) => said.push(is_measure(&line(&rollout.from, 64), measure)),
        ([], None) if again.is_empty() => said.push("nothing became safe to stop".to_owned()),
        ([], None) => {}
        ([one], None) => said.push(format!("{one} is safe to stop")),
        (more, None) => said.push(format!("{} are safe to stop", and(more))),
    }
    match &again[..] {
        [] => {}
        [one] => said.push(format!("{one} serves again: do not stop it")),
        more => said.push(format!("{} serve again: do not stop them", and(more))),
    }
    match &still_used(rollout)[..] {
        [] => {}
        users => said.push(format!("{}: do not stop it", also_used(users))),
    }
    said
}

/// The last line: what is safe to stop.
pub(in crate::cli) fn outcome(rollout: &Rollout, style: Style) -> String {
    let in_place = |step: &RolloutStep| step.out == step.into && rollout.from == rollout.to;
    let in_state = |states: &[&str]| {
        // One that was restarted in its place serves again.
        let steps = rollout.steps.iter().filter(|step| states.contains(&&*step.state));
        let steps = steps.filter(|step| step.state != "done" || !in_place(step));
        let steps = steps.filter(|step| step.state == "lost" || step.also_used_by.is_empty());
        let steps =
            steps.filter(|step| !step.out.as_ref().is_some_and(|out| rollout.serving_again.contains(out)));
        steps.filter_map(|step| step.out.as_deref()).map(|out| line(out, usize::MAX)).collect::<Vec<_>>()
    };
    let why = rollout.why.as_deref().map(|why| format!(": {}", line(why, usize::MAX))).unwrap_or_default();
    let service = line(&rollout.service, 64);
    let is_in_place = rollout.steps.iter().all(in_place);
    let (safe, lost) = (in_state(&["done", "kept", "safe"]), in_state(&["lost"]));
    let lost = match &lost[..] {
        [] => String::new(),
        [one] => format!("; {one} does not serve, and nothing does in its place"),
        _ => format!("; {} do not serve, and nothing does in their place", and(&lost)),
    };
    match &*rollout.state {
        "done" if is_in_place => style.paint(
            Tone::Good,
            &format!("{service}: every endpoint was restarted and serves again (never fewer than {} did): stop none of them", rollout.least_serving),
        ),
        "done" => {
            let done = format!("{service}: done, never fewer than {} endpoints served", rollout.least_serving);
            let tone = if is_safe(rollout) { Tone::Good } else { Tone::Bad };
            style.paint(tone, &[vec![done], stoppable(rollout, &safe)].concat().join("; "))
        }
        "reversed" if safe.is_empty() => {
            style.paint(Tone::Bad, &format!("{service}: taken back{why}{lost}; {}", if lost.is_empty() { "the old endpoints serve: do not stop them" } else { "the other old endpoints serve: do not stop them" }))
        }
        "interrupted" => style.paint(
            Tone::Bad,
            &format!("{service}: interrupted by the end of the proxy's process, and not gone on with; `switchback status {service}` shows what serves"),
        ),
        state => {
            let rest = match &safe[..] {
                [] => "stop nothing".to_owned(),
                [one] => format!("{one} no longer serves, stop nothing else"),
                _ => format!("{} no longer serve, stop nothing else", and(&safe)),
            };
            style.paint(Tone::Bad, &format!("{service}: {}{why}{lost}; {rest}", line(state, 32)))
        }
    }
}
