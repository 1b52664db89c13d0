//! The tables, as text (Markdown) and as JSON.

use std::{fmt, fs, path::PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    args::{Args, Cpus},
    idle::IdleTable,
    instructions::InstructionTable,
    load::Errors,
    machine,
    rounds::{Round, Verdict},
};

/// Everything measured in one run.
#[derive(Serialize)]
pub(crate) struct Report {
    machine: String,
    rounds: u16,
    seconds: u16,
    #[serde(skip)]
    cpus: Cpus,
    #[serde(skip)]
    file: Option<PathBuf>,
    pub(crate) load: Vec<LoadTable>,
    pub(crate) idle: Option<IdleTable>,
    pub(crate) instructions: Option<InstructionTable>,
}

impl Report {
    pub(crate) fn new(args: &Args) -> Self {
        Self {
            machine: machine::describe(),
            rounds: args.rounds,
            seconds: args.seconds,
            cpus: args.cpus,
            file: args.json.clone(),
            load: Vec::new(),
            idle: None,
            instructions: None,
        }
    }

    /// What stands above the tables.
    pub(crate) fn preamble(&self) -> String {
        let Self { machine, rounds, seconds, cpus: Cpus { proxy, load, origin }, .. } = self;
        format!(
            "{machine}; proxy on CPU {proxy}, load on {load}, origin on {origin}; {rounds} rounds of {seconds} s.\n\
             Each figure: median (lowest to highest).\n"
        )
    }

    /// Writes the JSON file, when one was asked for.
    pub(crate) fn save(&self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let text = serde_json::to_string_pretty(self)?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// One scenario.
#[derive(Serialize)]
pub(crate) struct LoadTable {
    pub(crate) scenario: &'static str,
    pub(crate) about: &'static str,
    pub(crate) rows: Vec<Row>,
}

/// One target of a scenario.
#[derive(Serialize)]
pub(crate) struct Row {
    peer: String,
    version: String,
    summary: Option<Summary>,
    note: String,
    rounds: Vec<Round>,
}

/// The rounds that count.
#[derive(Serialize)]
struct Summary {
    cpu_us: Spread,
    rps: Spread,
    p50_ms: Spread,
    p99_ms: Spread,
    p999_ms: Spread,
    rss_mib: Spread,
    busy: Spread,
}

impl LoadTable {
    /// The first row is what the others are compared with.
    pub(crate) fn text(&self) -> String {
        let head = format!("## {}: {}\n\n", self.scenario, self.about);
        let ratio = ratio_to(self.rows.first().map(|row| row.peer.as_str()));
        let columns = [
            "peer",
            "CPU µs/request",
            &ratio,
            "requests/s",
            "p50 ms",
            "p99 ms",
            "p999 ms",
            "RSS MiB",
            "CPU busy",
            "rounds",
        ];
        let reference =
            self.rows.first().and_then(|row| row.summary.as_ref()).map(|summary| summary.cpu_us.median);
        head + &table(&columns, self.rows.iter().map(|row| row.cells(reference)))
    }
}

impl Row {
    pub(crate) fn new(
        peer: String,
        version: String,
        rounds: Vec<Round>,
        problem: Option<String>,
        wanted: usize,
    ) -> Self {
        let clean: Vec<&Round> = rounds.iter().filter(|round| round.verdict == Verdict::Clean).collect();
        let answered: Vec<&Round> = rounds.iter().filter(|round| round.verdict != Verdict::Failed).collect();
        let mut notes = Vec::new();
        let enough = clean.len() >= wanted.min(FEWEST_CLEAN);
        let counted = if enough { &clean } else { &answered };
        match (enough, answered.len()) {
            (_, 0) => {}
            (true, all) => notes.push(format!("{} of {all} clean", clean.len())),
            (false, all) => notes.push(format!("NOISY: {} of {all} clean, all used", clean.len())),
        }
        notes.extend(failures(&rounds));
        notes.extend(problem);
        Self { peer, version, summary: Summary::of(counted), note: notes.join("; "), rounds }
    }

    fn cells(&self, reference: Option<f64>) -> Vec<String> {
        let mut cells = vec![format!("{} {}", self.peer, self.version).trim_end().to_owned()];
        match &self.summary {
            Some(Summary { cpu_us, rps, p50_ms, p99_ms, p999_ms, rss_mib, busy }) => {
                let ratio =
                    reference.map_or("-".to_owned(), |reference| format!("{:.2}", cpu_us.median / reference));
                cells.extend([format!("{cpu_us:.1}"), ratio, format!("{rps:.0}")]);
                cells.extend([
                    format!("{p50_ms:.2}"),
                    format!("{p99_ms:.2}"),
                    format!("{p999_ms:.2}"),
                    format!("{:.1}", rss_mib.median),
                    format!("{:.0} %", busy.median * 100.0),
                ]);
            }
            None => cells.extend(["-"; 8].map(str::to_owned)),
        }
        cells.push(self.note.clone());
        cells
    }
}

/// With fewer clean rounds than this (or than were asked for) the noisy ones are used too, and the table says so.
const FEWEST_CLEAN: usize = 3;

/// Rounds in which a request went wrong, with what went wrong.
fn failures(rounds: &[Round]) -> Option<String> {
    let failed: Vec<&Errors> =
        rounds.iter().filter(|round| round.verdict == Verdict::Failed).map(|round| &round.errors).collect();
    let counts: Vec<String> = failed.iter().map(|errors| format!("[{errors}]")).collect();
    (!failed.is_empty()).then(|| format!("{} of {} FAILED: {}", failed.len(), rounds.len(), counts.join(" ")))
}

impl Summary {
    fn of(rounds: &[&Round]) -> Option<Self> {
        let spread = |figure: fn(&Round) -> f64| Spread::of(rounds.iter().map(|round| figure(round)));
        Some(Self {
            cpu_us: spread(|round| round.cpu_us)?,
            rps: spread(|round| round.rps)?,
            p50_ms: spread(|round| round.p50_ms)?,
            p99_ms: spread(|round| round.p99_ms)?,
            p999_ms: spread(|round| round.p999_ms)?,
            rss_mib: spread(|round| round.rss_mib)?,
            busy: spread(|round| round.busy)?,
        })
    }
}

/// The middle of some figures, and how far they lie apart.
#[derive(Serialize, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// None of none.
    pub(crate) fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        let upper = *figures.get(figures.len() / 2)?;
        let lower = *figures.get(figures.len().saturating_sub(1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), min: *figures.first()?, max: *figures.last()? })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(1);
        write!(f, "{:.digits$} ({:.digits$} to {:.digits$})", self.median, self.min, self.max)
    }
}

/// Names the column of ratios after the first row, which is what the others are divided by.
pub(crate) fn ratio_to(first: Option<&str>) -> String {
    format!("ratio to {}", first.unwrap_or("nothing"))
}

/// A Markdown table with aligned columns.
pub(crate) fn table(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut lines = vec![columns.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>()];
    lines.extend(rows);
    let width = |column: usize| lines.iter().filter_map(|line| Some(line.get(column)?.chars().count())).max();
    let widths: Vec<usize> = (0..columns.len()).map(|column| width(column).unwrap_or(0)).collect();
    lines.insert(1, widths.iter().map(|width| "-".repeat(*width)).collect());
    let padded = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} |"));
        format!("|{}\n", cells.collect::<String>())
    };
    lines.iter().map(padded).collect()
}
