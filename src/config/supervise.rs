//! `supervise` of a service: how a candidate is compared with what was there before.

use std::time::Duration;

use super::walk::Node;
use crate::table::{BasisPoints, Slowness, SuperviseMode, SuperviseRules, Tolerance, duration};

/// The shortest supervisory period.
const LEAST_PERIOD: Duration = Duration::from_secs(1);
/// The shortest suspicion.
const LEAST_HOLD: Duration = Duration::from_millis(100);
const BILLION: f64 = 1e9;

/// `supervise = { mode = "on", keep_old = "10m", tolerate = { errors = "1.5x + 0.2%" }, … }`, or `true`, or `false`.
pub(super) fn read(node: Node<'_>) -> Option<SuperviseRules> {
    let default = SuperviseRules::default();
    if node.is_flag() {
        let mode = if node.flag()? { SuperviseMode::On } else { SuperviseMode::Off };
        return Some(SuperviseRules { mode, ..default });
    }
    let mut section = node.section("`supervise`")?;
    let mode = section.or("mode", default.mode, mode);
    let alpha = section.or("alpha", default.alpha, alpha);
    let usual = (default.errors, default.client_errors, default.latency);
    let tolerate = section.or("tolerate", usual, |node| tolerate(node, usual));
    let suspect_weight = section.or("suspect_weight", default.suspect_weight, suspect_weight);
    let suspect_hold = section.or("suspect_hold", default.suspect_hold, |node| node.duration(LEAST_HOLD));
    let probe = section.or("probe", default.probe, Node::flag);
    let keep_old = section.or("keep_old", default.keep_old, |node| node.duration(LEAST_PERIOD));
    let bad_budget = section.or("bad_budget", default.bad_budget, |node| {
        node.count(&(0..=1_000_000_000)).and_then(|budget| u64::try_from(budget).ok())
    });
    let warmup = section.or("warmup", default.warmup, |node| warmup(node, default.warmup));
    let sticky_quiet =
        section.or("sticky_quiet", default.sticky_quiet, |node| node.duration(Duration::from_secs(1)));
    section.finish();
    let (errors, client_errors, latency) = tolerate?;
    Some(SuperviseRules {
        mode: mode?,
        alpha: alpha?,
        errors,
        client_errors,
        latency,
        suspect_weight: suspect_weight?,
        suspect_hold: suspect_hold?,
        probe: probe?,
        keep_old: keep_old?,
        bad_budget: bad_budget?,
        warmup: warmup?,
        sticky_quiet: sticky_quiet?,
    })
}

fn mode(node: Node<'_>) -> Option<SuperviseMode> {
    let expected = "\"on\", \"alert\" or \"off\"";
    match node.text(expected)? {
        "on" => Some(SuperviseMode::On),
        "alert" => Some(SuperviseMode::Alert),
        "off" => Some(SuperviseMode::Off),
        _ => node.unexpected(expected),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within these bounds")]
fn alpha(node: Node<'_>) -> Option<u32> {
    let expected = "false reverts an hour between 0.000000001 and 0.1, such as 0.0001";
    let alpha = node.number_or_text(expected)?.parse::<f64>().ok();
    let alpha = alpha.filter(|alpha| (1.0 / BILLION..=0.1).contains(alpha));
    alpha.map(|alpha| (alpha * BILLION).round() as u32).or_else(|| node.unexpected(expected))
}

fn suspect_weight(node: Node<'_>) -> Option<BasisPoints> {
    let expected = "a percentage above 0 and at most 50, such as \"10%\"";
    let share: Option<BasisPoints> = node.number_or_text(expected)?.parse().ok();
    let share = share.filter(|share| (1..=5_000).contains(&share.points()));
    share.or_else(|| node.unexpected(expected))
}

type Tolerated = (Tolerance, Tolerance, Slowness);

/// `{ errors = "1.5x + 0.2%", client_errors = "1.5x + 2%", latency = "25% or 5ms" }`
fn tolerate(node: Node<'_>, (errors, client_errors, latency): Tolerated) -> Option<Tolerated> {
    let mut section = node.section("`tolerate`")?;
    let errors = section.or("errors", errors, tolerance);
    let client_errors = section.or("client_errors", client_errors, tolerance);
    let latency = section.or("latency", latency, slowness);
    section.finish();
    Some((errors?, client_errors?, latency?))
}

fn tolerance(node: Node<'_>) -> Option<Tolerance> {
    let expected = "a factor from 1x on and an excess above 0, such as \"1.5x + 0.2%\"";
    let read = |text: &str| {
        let (factor, excess) = text.split_once('+')?;
        let ratio = scaled(factor.trim().strip_suffix('x')?, 1_000.0, 1.0..=100.0)?;
        let excess = scaled(excess.trim().strip_suffix('%')?, 10_000.0, 0.001..=50.0)?;
        Some(Tolerance { ratio, excess })
    };
    read(node.text(expected)?).or_else(|| node.unexpected(expected))
}

fn slowness(node: Node<'_>) -> Option<Slowness> {
    let expected = "a part and a time, such as \"25% or 5ms\"";
    let read = |text: &str| {
        let (part, least) = text.split_once(" or ")?;
        let part = scaled(part.trim().strip_suffix('%')?, 10.0, 0.0..=10_000.0)?;
        Some(Slowness { part, least: duration::parse(least.trim()).ok()? })
    };
    read(node.text(expected)?).or_else(|| node.unexpected(expected))
}

/// A number within bounds, in so many parts of one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within these bounds")]
fn scaled(text: &str, parts: f64, within: std::ops::RangeInclusive<f64>) -> Option<u32> {
    let number = text.trim().parse::<f64>().ok().filter(|number| within.contains(number))?;
    Some((number * parts).round() as u32)
}

/// `{ latency = "10s", per_endpoint = 20 }`
fn warmup(node: Node<'_>, (latency, answers): (Duration, u32)) -> Option<(Duration, u32)> {
    let mut section = node.section("`warmup` of `supervise`")?;
    let latency = section.or("latency", latency, |node| node.duration(Duration::ZERO));
    let answers = section.or("per_endpoint", answers, |node| {
        node.count(&(0..=100_000)).and_then(|answers| u32::try_from(answers).ok())
    });
    section.finish();
    Some((latency?, answers?))
}
