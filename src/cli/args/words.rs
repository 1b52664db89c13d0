//! The words that people type, and how they are read.

use std::time::Duration;

use crate::admin::api::text;
use crate::table::BasisPoints;

/// `SERVICE/VERSION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionOf {
    /// The service.
    pub service: String,
    /// The version: its label, `@stable` or `@candidate`.
    pub version: String,
}

pub(super) fn version_of(text: &str) -> Result<VersionOf, String> {
    match text.split_once('/') {
        Some((service, version)) if !service.is_empty() && !version.is_empty() => {
            Ok(VersionOf { service: service.to_owned(), version: version.to_owned() })
        }
        _ => Err("expected SERVICE/VERSION, such as shop/blue".to_owned()),
    }
}

pub(super) fn weight(text: &str) -> Result<(String, BasisPoints), String> {
    let (version, percent) = text.split_once('=').ok_or("expected VERSION=PERCENT, such as green=5")?;
    Ok((version.to_owned(), percent.parse::<BasisPoints>().map_err(|why| why.to_string())?))
}

pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected 'NAME: VALUE'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    text::duration(text).map_err(|why| why.to_string())
}
