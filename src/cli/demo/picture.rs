//! The picture: who gets how much now, drawn from what the clients saw and what the proxy says of itself.

use std::time::Duration;

use tokio::time::Instant;

use super::log::{Sample, Seen};
use crate::admin::api::{Service, Version};
use crate::cli::style::{Style, Tone, percent};

/// Over how long rates are taken.
pub(super) const WINDOW: Duration = Duration::from_secs(1);
/// Columns of a row without its bar.
const TABLE: usize = 57;
/// Below this many columns its lines would wrap.
pub(super) const NARROWEST: usize = 76;
/// Columns of a bar at most.
const BAR: usize = 24;

/// What is shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Picture {
    epoch: u64,
    phase: &'static str,
    rows: Vec<Row>,
    rate: f64,
    requests: usize,
    failed: usize,
}

/// One version.
#[derive(Debug, Clone)]
struct Row {
    name: String,
    /// In basis points.
    weight: u16,
    /// Its share of what was answered since the step, 0 to 1.
    got: Option<f64>,
    /// Requests a second.
    rate: f64,
    /// Since the step.
    errors: usize,
    in_flight: u64,
    tone: Tone,
}

impl Row {
    /// What a version got of the requests since the step; the rate is another matter.
    fn of(version: &Version, is_stable: bool, since: &[&Sample]) -> Self {
        let errors = answers(since, version).filter(|sample| sample.is_error()).count();
        let share = || answers(since, version).count() as f64 / since.len() as f64;
        Self {
            name: version.name.clone(),
            weight: version.weight,
            got: (!since.is_empty()).then(share),
            rate: 0.0,
            errors,
            in_flight: version.in_flight.total,
            tone: match (errors, is_stable) {
                (1.., _) => Tone::Bad,
                (0, true) => Tone::Good,
                (0, false) => Tone::Moving,
            },
        }
    }
}

/// Those of the samples that this version answered.
fn answers<'s>(samples: &'s [&Sample], version: &'s Version) -> impl Iterator<Item = &'s Sample> {
    samples.iter().copied().filter(|sample| sample.version() == Some(&*version.name))
}

impl Picture {
    /// The picture at `now`; shares and errors count from `step` on, when the last command was acknowledged.
    pub(super) fn of(service: &Service, samples: &[Sample], step: Instant, now: Instant) -> Self {
        let start = samples.first().map_or(now, |first| first.ended);
        let window = now.duration_since(start).min(WINDOW).as_secs_f64().max(0.1);
        let recent: Vec<_> = samples.iter().rev().take_while(|sample| sample.ended + WINDOW > now).collect();
        let since: Vec<_> = samples.iter().filter(|sample| sample.began >= step).collect();
        let mut rows = Vec::new();
        for version in &service.versions {
            let is_stable = service.standing.stable == version.name;
            let mut row = Row::of(version, is_stable, &since);
            row.rate = answers(&recent, version).count() as f64 / window;
            rows.push(row);
        }
        Self {
            epoch: service.standing.epoch,
            phase: service.standing.phase.token(),
            rows,
            rate: recent.len() as f64 / window,
            requests: samples.len(),
            failed: samples.iter().filter(|sample| matches!(sample.seen, Seen::Failed(_))).count(),
        }
    }

    /// Its lines; each fits into the columns that there are, from [`NARROWEST`] on.
    pub(super) fn lines(&self, style: Style) -> Vec<String> {
        let bar = style.width.saturating_sub(TABLE).min(BAR);
        let head = format!(
            "  {:<7}  {:>7}  {:>7}  {:>6}  {:bar$}  {:>6}  {:>9}",
            "version", "weight", "got", "req/s", "", "errors", "in flight"
        );
        let failed = format!("{} failed", grouped(self.failed));
        let failed = style.paint(if self.failed == 0 { Tone::Good } else { Tone::Bad }, &failed);
        let mut lines = vec![style.paint(Tone::Faint, &head)];
        lines.extend(self.rows.iter().map(|row| self.row(row, bar, style)));
        lines.push(format!(
            "  epoch {} · {} · {:.0} requests/s · {} so far, {failed}",
            style.paint(Tone::Strong, &self.epoch.to_string()),
            self.phase,
            self.rate,
            grouped(self.requests),
        ));
        lines
    }

    fn row(&self, row: &Row, width: usize, style: Style) -> String {
        let got = row.got.map_or_else(|| "–".to_owned(), |got| format!("{:.1} %", got * 100.0));
        let errors = format!("{:>6}", row.errors);
        let errors = if row.errors == 0 { errors } else { style.paint(Tone::Bad, &errors) };
        format!(
            "  {}  {:>7}  {got:>7}  {:>6.0}  {}  {errors}  {:>9}",
            style.paint(Tone::Strong, &format!("{:<7}", row.name)),
            percent(row.weight),
            row.rate,
            style.paint(row.tone, &bar(row.rate / self.rate.max(1.0), width)),
            row.in_flight,
        )
    }
}

/// Something is at least one block, less than all leaves at least one gap.
fn bar(share: f64, width: usize) -> String {
    let filled = (1..=width).filter(|block| *block as f64 <= (share * width as f64).round()).count();
    let filled = match share {
        none if none <= 0.0 => 0,
        all if all >= 1.0 => width,
        _ => filled.clamp(1.min(width), width.saturating_sub(1)),
    };
    format!("{}{}", "█".repeat(filled), "·".repeat(width - filled))
}

/// `12,345`.
pub(super) fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, weight: u16, got: f64, rate: f64, errors: usize) -> Row {
        Row { name: name.into(), weight, got: Some(got), rate, errors, in_flight: 2, tone: Tone::Good }
    }

    fn picture() -> Picture {
        let rows = vec![
            row("blue", 9_975, 0.998, 399.0, 0),
            row("green", 25, 0.002, 1.0, 1),
            row("v3", 0, 0.0, 0.0, 0),
        ];
        Picture { epoch: 12_345, phase: "draining", rows, rate: 400.0, requests: 1_234_567, failed: 12 }
    }

    #[test]
    fn it_is_a_table_of_eighty_columns() {
        insta::assert_snapshot!(picture().lines(Style::PLAIN).join("\n"));
        for width in [80, NARROWEST] {
            let lines = picture().lines(Style { width, ..Style::PLAIN });
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:#?}");
        }
    }

    #[test]
    fn the_ends_of_a_bar_mean_none_and_all() {
        assert_eq!([0.0, 0.01, 0.99, 1.0].map(|share| bar(share, 4)), ["····", "█···", "███·", "████"]);
        assert_eq!(bar(0.5, 0), "");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
