//! The curves as a picture (SVG): a panel each, with CPU time on the left and p99 on the right.

use std::fmt::Write;

use super::{curve::Curve, memory::Table};

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 50.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 40.0;
const CPU: &str = "#1f6feb";
const P99: &str = "#d1242f";

/// All panels, two in a row.
pub(super) fn svg(curves: &[Curve], memory: Option<&Table>) -> String {
    let panels: Vec<_> = curves.iter().map(panel).chain(memory.map(bars)).collect();
    let (columns, rows) = (2.0, panels.len().div_ceil(2) as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        WIDTH * columns,
        HEIGHT * rows
    );
    for (number, panel) in panels.iter().enumerate() {
        let (x, y) = ((number % 2) as f64 * WIDTH, (number / 2) as f64 * HEIGHT);
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">\n{panel}</g>");
    }
    svg + "</svg>\n"
}

fn text(x: f64, y: f64, anchor: &str, fill: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{fill}\">{text}</text>\n")
}

fn frame(title: &str) -> String {
    let (w, h) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{w}\" height=\"{h}\" fill=\"none\" stroke=\"#ccc\"/>\n"
    );
    svg += &text(WIDTH / 2.0, 16.0, "middle", "black", title);
    svg
}

fn panel(curve: &Curve) -> String {
    let points = curve.points.iter().filter_map(|(at, point)| Some((*at, point.as_ref().ok()?)));
    let points: Vec<_> = points.map(|(at, point)| (at, point.cpu_us.median, point.p99_ms.median)).collect();
    let mut svg = frame(curve.name);
    svg += &text(LEFT, 32.0, "start", CPU, "workers' CPU µs/request");
    svg += &text(WIDTH - RIGHT, 32.0, "end", P99, "p99 ms");
    let right = points.last().map_or(1.0, |point| log(point.0)).max(1e-9);
    let x = |at: u64| LEFT + log(at) / right * (WIDTH - LEFT - RIGHT);
    for (at, ..) in &points {
        svg += &text(x(*at), HEIGHT - BOTTOM + 16.0, "middle", "black", &at.to_string());
    }
    let cpu: Vec<_> = points.iter().map(|(at, cpu, _)| (x(*at), *cpu)).collect();
    let p99: Vec<_> = points.iter().map(|(at, _, p99)| (x(*at), *p99)).collect();
    svg + &line(&cpu, CPU, LEFT - 4.0, "end") + &line(&p99, P99, WIDTH - RIGHT + 4.0, "start")
}

/// 0 is where 1 would be on a scale that has it one step to the left.
fn log(at: u64) -> f64 {
    if at == 0 { 0.0 } else { (at as f64).log10() + 0.3 }
}

/// One line on an axis of its own, which begins at 0.
fn line(points: &[(f64, f64)], color: &str, axis: f64, anchor: &str) -> String {
    let most = round_up(points.iter().map(|point| point.1).fold(0.0, f64::max));
    let y = |value: f64| HEIGHT - BOTTOM - value / most * (HEIGHT - TOP - BOTTOM);
    let mut svg = String::new();
    for value in [0.0, most / 2.0, most] {
        svg += &text(axis, y(value) + 4.0, anchor, color, &format!("{value}"));
    }
    let path: Vec<_> = points.iter().map(|(x, value)| format!("{x:.1},{:.1}", y(*value))).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
        path.join(" ")
    );
    for (x, value) in points {
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{color}\"/>", y(*value));
    }
    svg
}

/// To 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= value).unwrap_or(1.0)
}

fn bars(table: &Table) -> String {
    let rows =
        table.rows.iter().filter_map(|(kind, bytes)| Some((kind.name, bytes.as_ref().ok()?.median / 1024.0)));
    let rows: Vec<_> = rows.collect();
    let most = round_up(rows.iter().map(|row| row.1).fold(0.0, f64::max));
    let step = (HEIGHT - TOP) / rows.len().max(1) as f64;
    let left = 110.0;
    let mut svg = text(WIDTH / 2.0, 16.0, "middle", "black", "memory: KiB for each connection");
    for (number, (name, size)) in rows.iter().enumerate() {
        let y = 30.0 + number as f64 * step;
        let width = size / most * (WIDTH - left - 50.0);
        svg += &text(left - 6.0, y + step * 0.55, "end", "black", name);
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{CPU}\"/>",
            step * 0.75
        );
        svg += &text(left + width + 6.0, y + step * 0.55, "start", "black", &format!("{size:.1}"));
    }
    svg
}
