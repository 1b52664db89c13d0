//! The picture of `top`: a line for each service, as its users saw it, and one for each of its versions, by what it did.

use crate::cli::style::{Style, Tone, counted, line, percent};
use crate::cli::top::{Picture, Rates, Service, Version};

/// Names are cut behind so many characters.
const NAME: usize = 40;

/// As much of the picture as there are lines for; at least one service.
pub(in crate::cli) fn top(picture: &Picture, style: Style) -> String {
    let of_service = |service: &Service| service.service.len() + 2 + service.phase.token().len();
    let of_version = |version: &Version| version.version.len() + 2;
    let names = picture
        .services
        .iter()
        .flat_map(|service| service.versions.iter().map(of_version).chain([of_service(service)]));
    let width = names.max().unwrap_or(0).clamp(15, NAME);
    let all: f64 = picture.services.iter().map(|service| service.users.requests_per_second).sum();
    let title = ["WEIGHT", "REQ/S", "ERRORS", "P50", "P99", "IN FLIGHT"];
    let mut lines = vec![
        format!(
            "{} requests/s in {:.1} s, {}",
            rate(all),
            picture.seconds,
            counted(picture.services.len() as u64, "service")
        ),
        style.paint(Tone::Faint, &row("SERVICE VERSION", width, title.map(str::to_owned))),
    ];
    // One is for who is left out, two are where the screen begins and where the cursor stays.
    let room = style.height.saturating_sub(3);
    for (index, service) in picture.services.iter().enumerate() {
        if index > 0 && lines.len() + 1 + service.versions.len() > room {
            let left = &picture.services[index..];
            let rest: f64 = left.iter().map(|service| service.users.requests_per_second).sum();
            let more = counted(left.len() as u64, "more service");
            lines.push(style.paint(Tone::Faint, &format!("and {more}, {} requests/s", rate(rest))));
            break;
        }
        lines.extend(block(service, width, style));
    }
    lines.join("\n")
}

fn block(service: &Service, width: usize, style: Style) -> Vec<String> {
    let name = format!("{}  {}", service.service, service.phase.token());
    let in_flight: u64 = service.versions.iter().map(|version| version.in_flight).sum();
    let users = cells(String::new(), service.users, in_flight);
    let mut lines = vec![style.paint(Tone::Strong, &row(&name, width, users))];
    lines.extend(service.versions.iter().map(|version| {
        let did = cells(percent(version.weight), version.did, version.in_flight);
        let is_bad = version.did.error_ratio.is_some_and(|ratio| ratio > 0.0);
        let tone = if is_bad { Some(Tone::Bad) } else { (version.weight == 0).then_some(Tone::Faint) };
        let text = row(&format!("  {}", version.version), width, did);
        tone.map_or_else(|| text.clone(), |tone| style.paint(tone, &text))
    }));
    lines
}

fn cells(weight: String, rates: Rates, in_flight: u64) -> [String; 6] {
    let errors = rates.error_ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.2} %", ratio * 100.0));
    [
        weight,
        rate(rates.requests_per_second),
        errors,
        time(rates.p50_ms),
        time(rates.p99_ms),
        in_flight.to_string(),
    ]
}

fn row(name: &str, width: usize, cells: [String; 6]) -> String {
    let cells: String = cells.iter().map(|cell| format!(" {cell:>9}")).collect();
    format!("{:<width$}{cells}", line(name, width))
}

/// `1234`, `57.5`.
fn rate(a_second: f64) -> String {
    if a_second >= 1000.0 { format!("{a_second:.0}") } else { format!("{a_second:.1}") }
}

/// `0.45 ms`, `12.3 ms`, `2.50 s`; nothing where nothing ended.
fn time(ms: Option<f64>) -> String {
    match ms {
        None => "-".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.2} ms"),
        Some(ms) if ms < 1000.0 => format!("{ms:.1} ms"),
        Some(ms) => format!("{:.2} s", ms / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::admin::api::Phase;

    fn service(name: &str, rps: f64) -> Service {
        let rates = |requests_per_second, error_ratio| Rates {
            requests_per_second,
            error_ratio: Some(error_ratio),
            p50_ms: Some(1.256),
            p99_ms: Some(1234.0),
        };
        let version = |version: &str, weight, in_flight, did| Version {
            version: version.to_owned(),
            weight,
            in_flight,
            did,
        };
        Service {
            service: name.to_owned(),
            phase: Phase::Canary,
            users: rates(rps, 0.001),
            versions: vec![
                version("blue", 9_500, 3, rates(rps * 0.95, 0.0)),
                version("green", 500, 1, rates(rps * 0.05, 0.25)),
                version("old", 0, 0, Rates::default()),
            ],
        }
    }

    fn picture() -> Picture {
        Picture { at: 0, seconds: 2.004, services: vec![service("shop", 1204.0), service("cart", 57.5)] }
    }

    #[test]
    fn services_are_told_by_their_users_and_versions_by_what_they_did() {
        assert_snapshot!(top(&picture(), Style::PLAIN));
    }

    #[test]
    fn what_has_no_room_is_told_together() {
        let small = top(&picture(), Style { height: 11, ..Style::PLAIN });
        assert_eq!(small.lines().count(), 7);
        assert!(small.ends_with("and 1 more service, 57.5 requests/s"), "{small}");
        assert!(top(&picture(), Style { height: 1, ..Style::PLAIN }).contains("green"), "one at least");
    }

    #[test]
    fn a_name_makes_no_terminal_obey_and_no_row_longer() {
        let mut picture = picture();
        picture.services[0].service = format!("\x1b[2J{}", "x".repeat(100));
        let told = top(&picture, Style::PLAIN);
        assert!(!told.contains('\x1b') && told.lines().all(|line| line.chars().count() <= 100), "{told}");
    }
}
