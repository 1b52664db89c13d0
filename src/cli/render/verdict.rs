//! How a comparison of two versions stands, as people read it.

use crate::admin::api::text::{figure, odds, points, time};
use crate::admin::api::{self, Supervision, Trial, TrialEnded, Verdict, VersionFigures, text};
use crate::cli::style::{Style, Tone, counted, line, percent, span};

/// The most endpoints that are named.
const MOST: usize = 4;
/// Under `  trial: `.
const INDENT: &str = "         ";

/// What is said of a service's comparison below its versions; without `known` only that there is one.
pub(super) fn lines(
    service: &api::Service,
    known: Option<&Supervision>,
    now: u64,
    style: Style,
) -> Vec<String> {
    let trial = known.map_or(service.standing.supervision.as_ref(), |known| known.trial.as_ref());
    let Some(trial) = trial else {
        // What came after it has its own line.
        let is_last = |ended: &&api::TrialEnd| ended.epoch == service.standing.epoch;
        let ended = known.and_then(|known| known.ended.as_ref()).filter(is_last);
        return ended.map(|ended| last(ended, style)).into_iter().collect();
    };
    let Some(known) = known else { return vec![format!("  trial: {}", names(trial))] };
    let mut lines = vec![format!("  trial: {}", head(trial, known, now, style))];
    let rest = known.verdict.iter().flat_map(|verdict| figures(verdict, style));
    let hindrance =
        known.hindrance.iter().map(|why| style.paint(Tone::Bad, &format!("hindered: {}", line(why, 160))));
    lines.extend(rest.chain(hindrance).map(|text| format!("{INDENT}{text}")));
    lines
}

/// `green against blue`.
fn names(trial: &Trial) -> String {
    let [candidate, baseline] = [&trial.candidate, &trial.baseline].map(|name| line(name, 64));
    let until = trial.until.as_ref().map(|until| format!(" until {}", line(until, 32)));
    let only_tells = if trial.acts { "" } else { ", which only tells" };
    format!("{candidate} against {baseline}{}{only_tells}", until.unwrap_or_default())
}

/// `green against blue: suspect for 4 s (guard_errors), 10 % instead of 100 %`.
fn head(trial: &Trial, known: &Supervision, now: u64, style: Style) -> String {
    let tone = match &*known.state {
        "healthy" => Tone::Good,
        "collecting" => Tone::Faint,
        "breached" | "held" => Tone::Bad,
        _ => Tone::Moving,
    };
    let state = style.paint(tone, &line(&known.state, 16));
    let Some(verdict) = &known.verdict else { return format!("{}: {state}", names(trial)) };
    let since = text::millis(&verdict.since).map(|since| span(now.saturating_sub(since) / 1000));
    let since = since.map(|since| format!(" for {since}")).unwrap_or_default();
    let why = verdict.why.as_ref().map(|why| format!(" ({})", line(why, 32))).unwrap_or_default();
    let leans = trial.acts && verdict.weight < verdict.target;
    let leans = if leans {
        format!(", {} instead of {}", percent(verdict.weight), percent(verdict.target))
    } else {
        String::new()
    };
    format!("{}: {state}{since}{why}{leans}", names(trial))
}

fn figures(verdict: &Verdict, style: Style) -> Vec<String> {
    let versions = [&verdict.candidate, &verdict.baseline];
    let mut lines = table(versions);
    lines.push(evidence(verdict));
    lines.extend(difference(verdict));
    if verdict.common_mode {
        let text =
            format!("{} fails too (common mode): no reason to revert", line(&verdict.baseline.version, 64));
        lines.push(style.paint(Tone::Moving, &text));
    }
    if verdict.too_few_clients {
        let clients = verdict.clients.map(|clients| format!(", only {clients} so far")).unwrap_or_default();
        let text = format!("too few clients come to compare versions by{clients}");
        lines.push(style.paint(Tone::Moving, &text));
    }
    lines.extend(endpoints(verdict));
    lines
}

/// One line a version, its figures one below the other's.
fn table(versions: [&VersionFigures; 2]) -> Vec<String> {
    let cells = versions.map(|figures| {
        let mut cells = vec![
            line(&figures.version, 64),
            format!("{} of {} failed", figures.failed, figures.requests),
            counted(figures.client_errors, "client error"),
        ];
        cells.extend(figures.seconds.iter().flat_map(|seconds| {
            [("p75", seconds.p75), ("p95", seconds.p95), ("p99", seconds.p99)]
                .map(|(name, seconds)| format!("{name} {}", time(seconds)))
        }));
        cells.extend(
            figures.overdue.filter(|overdue| *overdue > 0).map(|overdue| format!("{overdue} overdue")),
        );
        cells
    });
    let width = |column: usize| {
        cells.iter().filter_map(|cells| cells.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let row = |cells: &Vec<String>| {
        let padded = cells.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column)));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    cells.iter().map(row).collect()
}

/// `evidence 0.41 : 1, 1e4 : 1 needed; 21 more failures of green alone would prove it`.
fn evidence(verdict: &Verdict) -> String {
    let api::Evidence { log_e, reverts_at, .. } = verdict.evidence;
    let has = log_e.map_or_else(|| "none".to_owned(), |log_e| format!("{} : 1", odds(log_e)));
    let lacking = verdict.needed_failures.filter(|failures| *failures > 0).map(|failures| {
        let candidate = line(&verdict.candidate.version, 64);
        format!(
            "; {failures} more failure{} of {candidate} alone would prove it",
            if failures == 1 { "" } else { "s" }
        )
    });
    format!("evidence {has}, {} : 1 needed{}", odds(reverts_at), lacking.unwrap_or_default())
}

/// `error_rate +0.93 .. +100 points, tolerated 1.5 x blue + 0.2 points`.
fn difference(verdict: &Verdict) -> Option<String> {
    let api::Difference { metric, estimate, low, high, tolerated, .. } = &verdict.difference;
    (*estimate)?;
    let plus = if tolerated.plus > 0.0 {
        format!(" + {} points", figure(tolerated.plus * 100.0))
    } else {
        String::new()
    };
    let baseline = line(&verdict.baseline.version, 64);
    let [low, high, times] = [points(*low), points(*high), figure(tolerated.times)];
    Some(format!("{} {low} .. {high} points, tolerated {times} x {baseline}{plus}", line(metric, 32)))
}

/// `failures by endpoint: 10.0.0.7:8080 2, 10.0.0.8:8080 2`.
fn endpoints(verdict: &Verdict) -> Option<String> {
    let bad: Vec<_> = verdict.endpoints.iter().filter(|endpoint| endpoint.failed > 0).collect();
    let named =
        bad.iter().take(MOST).map(|endpoint| format!("{} {}", line(&endpoint.address, 64), endpoint.failed));
    let more = (bad.len() > MOST).then(|| format!("and {} more", bad.len() - MOST));
    let all: Vec<_> = named.chain(more).collect();
    (!all.is_empty()).then(|| format!("failures by endpoint: {}", all.join(", ")))
}

/// The end of the last one.
fn last(ended: &api::TrialEnd, style: Style) -> String {
    let tone = if ended.how == TrialEnded::Reverted { Tone::Bad } else { Tone::Faint };
    let width = style.width.saturating_sub(INDENT.len()).max(20);
    format!("  trial: {}", style.paint(tone, &line(&ended.said, width)))
}
