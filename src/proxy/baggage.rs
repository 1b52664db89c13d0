//! `baggage`: a trusted hop's word on the release is taken, everybody else's is taken out, and services behind are told ours.

use http::HeaderValue;

use super::connection::Client;
use super::fields::Fields;
use crate::table::VersionName;
use crate::table::pin::{self, FIELD, Pin, Sorted};

/// What is pinned by the hop that sent these, if it is trusted. What may be read as a pin and is not that is taken out.
///
/// Where nothing is to be taken out, as of a browser with baggage of its own, the lines are looked through and stay lines.
pub(super) fn take(client: &Client, headers: &mut Fields) -> Option<Pin> {
    if !headers.all_of(FIELD).any(pin::is_in) {
        return None;
    }
    let is_believed = client.arrival.peer.is_trusted();
    let Sorted { pin, lines } = pin::sort(headers.all_of(FIELD), is_believed);
    if let Some(lines) = lines {
        headers.remove(FIELD);
        // What is left of a value is one.
        for line in lines.into_iter().filter_map(|line| HeaderValue::try_from(line).ok()) {
            headers.append(FIELD, line);
        }
    }
    pin
}

/// Has services behind this one follow the version `release`, unless they are told another one already.
pub(super) fn pin(headers: &mut Fields, release: &VersionName) {
    let lines: Vec<_> = headers.all_of(FIELD).collect();
    let line = pin::with(release, &lines).and_then(|line| HeaderValue::try_from(line).ok());
    if let Some(line) = line {
        headers.insert(FIELD, line);
    }
}
