//! How pools are worked, as a service says it for all of its versions, and a version for itself.

use super::walk::Section;
use super::{balance, circuit, health, hedge, outliers, retries, warmup};
use crate::table::PoolRules;

/// What `section`, a service's or a version's, says about its pools; what it does not say is as in `default`.
///
/// What is wrong with it is noted.
pub(super) fn read(section: &mut Section<'_>, default: &PoolRules) -> Option<PoolRules> {
    let retries =
        section.or("retries", default.retries.clone(), |node| retries::read(node, &default.retries));
    let hedge = section.or("hedge", default.hedge, |node| hedge::read(node, default.hedge));
    let circuit =
        section.or("circuit", default.circuit.clone(), |node| circuit::read(node, &default.circuit));
    let keepalive =
        section.or("keepalive", default.keepalive, |node| circuit::keepalive(node, default.keepalive));
    let health = section.or("health", default.health.clone(), health::read);
    let outliers = section.or("outliers", default.outliers.clone(), outliers::read);
    let balance = balance::read(section, &default.balance);
    let warmup = section.or("warmup", default.warmup, |node| warmup::read(node).map(Some));
    Some(PoolRules {
        retries: retries?,
        hedge: hedge?,
        circuit: circuit?,
        keepalive: keepalive?,
        health: health?,
        outliers: outliers?,
        balance: balance?,
        warmup: warmup?,
    })
}
