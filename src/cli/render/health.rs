//! The endpoints that are not as they should be, and why.

use crate::admin::api::{CheckAnswer, Endpoint, HealthState, Service, Version, text};
use crate::cli::style::{Style, Tone, counted, line, span};

/// The most endpoints that a service's picture tells about one by one.
const MOST: usize = 6;

/// How an endpoint is, if not as it should be.
pub(super) fn trouble(endpoint: &Endpoint) -> Option<HealthState> {
    let state = endpoint.health.as_ref()?.state;
    match state {
        HealthState::Arriving | HealthState::Down | HealthState::Ejected => Some(state),
        HealthState::Unchecked | HealthState::Up => None,
    }
}

/// `  down: 127.0.0.1:9002 of blue for 12 s: status 503`, one line an endpoint.
pub(super) fn lines(service: &Service, now: u64, style: Style) -> Vec<String> {
    let of = |version: &Version| {
        version.endpoints.iter().map(|endpoint| (version.name.clone(), endpoint.clone())).collect::<Vec<_>>()
    };
    let endpoints = service.versions.iter().flat_map(of);
    let unwell: Vec<_> =
        endpoints.filter_map(|(version, endpoint)| Some((trouble(&endpoint)?, version, endpoint))).collect();
    let one = |(state, version, endpoint): &(HealthState, String, Endpoint)| {
        let tone = if *state == HealthState::Arriving { Tone::Moving } else { Tone::Bad };
        let text = format!("{}: {} of {version}{}", state.token(), endpoint.address, story(endpoint, now));
        format!("  {}", style.paint(tone, &line(&text, style.width.saturating_sub(2).max(20))))
    };
    let mut lines: Vec<_> = unwell.iter().take(MOST).map(one).collect();
    if unwell.len() > MOST {
        let more = counted((unwell.len() - MOST) as u64, "endpoint");
        // Whether they get requests depends on the others: where nobody is well everybody serves.
        lines.push(format!("  and {more} more that are not well"));
    }
    lines
}

/// ` for 12 s: status 503`.
fn story(endpoint: &Endpoint, now: u64) -> String {
    let Some(health) = &endpoint.health else { return String::new() };
    let since = text::millis(&health.since).unwrap_or(now);
    let lasted = span(now.saturating_sub(since) / 1000);
    let said = |answer: &CheckAnswer| format!(": {}", answer.said);
    if let Some(ejection) = &health.ejection {
        let left = text::millis(&ejection.until).map_or(0, |until| until.saturating_sub(now).div_ceil(1000));
        return format!(" for {lasted}: {} (for {} more)", ejection.said, span(left));
    }
    let why = health.last_failure.as_ref().map_or_else(|| ", not checked yet".to_owned(), said);
    format!(" for {lasted}{why}")
}
