//! What was measured while one thing grew, as a table.

use anyhow::Result;

use crate::report::{Spread, table};

/// Points, in ascending order.
pub(super) struct Curve {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) points: Vec<(u64, Result<Point>)>,
}

/// One size, over all rounds.
pub(super) struct Point {
    /// CPU time of the workers for one request, and of all threads, in microseconds.
    pub(super) cpu_us: Spread,
    pub(super) all_us: Spread,
    pub(super) rps: Spread,
    pub(super) p50_ms: Spread,
    pub(super) p99_ms: Spread,
    /// Requests and changes that were not answered as they should have been.
    pub(super) failed: u64,
    /// Changes of the table a second.
    pub(super) changes: Spread,
}

impl Curve {
    pub(super) fn text(&self) -> String {
        let columns = [
            self.name,
            "workers' CPU µs/request",
            "all CPU µs/request",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "failed",
            "changes/s",
        ];
        let rows = self.points.iter().map(|(at, point)| {
            let mut cells = vec![at.to_string()];
            match point {
                Ok(point) => cells.extend([
                    point.cpu_us.to_string(),
                    point.all_us.to_string(),
                    format!("{:.0}", point.rps),
                    format!("{:.2}", point.p50_ms),
                    format!("{:.2}", point.p99_ms),
                    point.failed.to_string(),
                    format!("{:.0}", point.changes.median),
                ]),
                Err(error) => cells.push(format!("{error:#}")),
            }
            cells
        });
        format!("## {}: {}\n\n{}", self.name, self.about, table(&columns, rows))
    }
}
