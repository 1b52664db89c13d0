//! `top`: what is going on now, service by service, the busiest first: rates between two readings of `/metrics`.

mod reading;

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::time::Instant;

use super::args;
use super::client::Client;
use super::render;
use super::session::{Exit, Session};
use super::status::{is_passing, now};
use crate::admin::api;
use reading::{Reading, Tally};

/// What went on between two readings.
#[derive(Debug, Serialize)]
pub(super) struct Picture {
    /// When it ended, in milliseconds since 1970.
    pub(super) at: u64,
    /// How long it was.
    pub(super) seconds: f64,
    /// The services asked for, the busiest first.
    pub(super) services: Vec<Service>,
}

/// One service, as its users saw it.
#[derive(Debug, Serialize)]
pub(super) struct Service {
    /// Its name.
    pub(super) service: String,
    /// What is going on with it.
    pub(super) phase: api::Phase,
    /// What its users saw.
    #[serde(flatten)]
    pub(super) users: Rates,
    /// Its versions.
    pub(super) versions: Vec<Version>,
}

/// One version, by what it did: attempts that another version or endpoint made good included.
#[derive(Debug, Serialize)]
pub(super) struct Version {
    /// Its label.
    pub(super) version: String,
    /// Its weight, in basis points.
    pub(super) weight: u16,
    /// Requests, streams and tunnels on it at the end.
    pub(super) in_flight: u64,
    /// What it did.
    #[serde(flatten)]
    pub(super) did: Rates,
}

/// How many requests ended, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    /// Requests that ended, a second.
    pub(super) requests_per_second: f64,
    /// The part of them that failed, 0 to 1: by a status from 500 on, or one of gRPC that is a server's doing; `None` where nothing ended.
    pub(super) error_ratio: Option<f64>,
    /// Half of them took at most so many milliseconds, as good as the buckets are; 60,000 at most.
    pub(super) p50_ms: Option<f64>,
    /// 99 of 100 of them did.
    pub(super) p99_ms: Option<f64>,
}

/// `switchback top [SERVICE] [--every TIME] [--count N]`.
pub(super) async fn run(session: &mut Session<'_>, args: &args::Top) -> anyhow::Result<Exit> {
    let mut before = read(&session.client).await?;
    let mut left = args.count;
    while session.is_heard && left != Some(0) {
        tokio::time::sleep(args.every).await;
        match look(&session.client, args.service.as_deref(), &before).await {
            Ok((picture, after)) => {
                before = after;
                session.clear();
                session.tell(&picture, render::top)?;
                left = left.map(|left| left - 1);
            }
            // It may come back: a restart is one of the things that are watched.
            Err(error) if is_passing(&error) => {
                session.clear();
                session.remark(&error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Exit::Done)
}

/// What `/metrics` said, and when.
async fn read(client: &Client) -> anyhow::Result<(Instant, Reading)> {
    let text = client.text(&["metrics"]).await?;
    Ok((Instant::now(), Reading::of(&text)))
}

async fn look(
    client: &Client,
    only: Option<&str>,
    before: &(Instant, Reading),
) -> anyhow::Result<(Picture, (Instant, Reading))> {
    let services = match only {
        Some(name) => {
            let service: api::Service = client
                .get(&["v1", "services", name])
                .await
                .with_context(|| format!("cannot show `{name}`"))?;
            vec![service]
        }
        None => client.get::<api::Services>(&["v1", "services"]).await?.services,
    };
    let after = read(client).await?;
    let passed = after.0.saturating_duration_since(before.0);
    let mut services: Vec<_> =
        services.iter().map(|service| Service::of(service, &before.1, &after.1, passed)).collect();
    // Equal ones stay in the order of their names.
    services.sort_by(|one, other| other.users.requests_per_second.total_cmp(&one.users.requests_per_second));
    let picture = Picture { at: now(), seconds: passed.as_secs_f64(), services };
    Ok((picture, after))
}

impl Service {
    fn of(service: &api::Service, before: &Reading, after: &Reading, passed: Duration) -> Self {
        let name = &service.name;
        let versions = service.versions.iter().map(|version| {
            let (before, after) = (before.upstream(name, &version.name), after.upstream(name, &version.name));
            Version {
                version: version.name.clone(),
                weight: version.weight,
                in_flight: version.in_flight.total,
                did: Rates::of(&after.since(&before), passed),
            }
        });
        Self {
            service: name.clone(),
            phase: service.standing.phase,
            versions: versions.collect(),
            users: Rates::of(&after.client(name).since(&before.client(name)), passed),
        }
    }
}

impl Rates {
    fn of(came: &Tally, passed: Duration) -> Self {
        let ms = |part| came.quantile(part).map(|seconds| seconds * 1000.0);
        Self {
            requests_per_second: came.requests / passed.as_secs_f64().max(f64::EPSILON),
            error_ratio: (came.requests > 0.0).then(|| came.errors / came.requests),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
        }
    }
}
