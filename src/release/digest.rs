//! A digest of what the file says of a service, kept on disk, so that an edited file is noticed over a restart.
//!
//! It is made of a form of its own, which the lists below are: what Rust prints of a value is another text when a field is
//! added, and may be one with another compiler or library. Every service would be taken for an edited one.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};

use crate::table::fnv::Fnv;
use crate::table::{
    Balance, BasisPoints, CircuitRules, Compare, Conditions, Deviation, DrainRules, Edits, EndpointAddr,
    EndpointWeight, ErrorPage, Failing, FieldOp, HashKey, Hashing, HealthCheck, HedgeRules, HoldLimits,
    HostPattern, HttpProbe, Identity, KeepaliveRules, Least, MirrorRules, On, OutlierRules, OwnAnswer, Page,
    PathRewrite, Policy, PoolRules, PoolTraits, Probe, Protocol, ProxyHeader, Rate, RateBy, RetryRules,
    Route, RouteRules, Rules, SentHost, ServiceLimits, ServiceName, ServiceSpec, ShieldRules, SlowStart,
    Slowness, StickyBy, StickyRules, SuperviseMode, SuperviseRules, TargetRule, Targeting, Template,
    Timeouts, Tolerance, Traits, UpgradeName, UpstreamTls, VersionName, VersionSpec, Warmup, ZoneName,
};

/// What the file said of a service, in 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileDigest {
    /// Which form it is of; 0 in stores of before there was one. Of different forms one says nothing about the other.
    pub form: u32,
    /// FNV-1a of it.
    pub hash: u64,
}

impl FileDigest {
    /// This build's form. The next number for any change of what is written of a value that could be before.
    const FORM: u32 = 1;

    /// The digest of `spec`.
    pub(super) fn of(spec: &ServiceSpec) -> Self {
        let mut to = Fnv::default();
        spec.write(&mut to);
        Self { form: Self::FORM, hash: to.finish() }
    }

    /// True unless the file was edited in between, as far as that is known. Of another form it is as if it had not been: most have
    /// not, and an upgrade of the program is no change of its services.
    pub(super) fn agrees(self, other: Self) -> bool {
        self.form != other.form || self.hash == other.hash
    }
}

/// A value that has a form.
trait Written {
    fn write(&self, to: &mut Fnv);
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Structs are their fields, in this order. A field that comes later stands behind a `;`, and is written by its name, unless
/// it is as by default: so the digests of all who do not use it stay what they are.
macro_rules! fields {
    ($($type:ident { $($field:ident),* $(; $($later:ident),*)? })*) => {$(
        impl Written for $type {
            fn write(&self, to: &mut Fnv) {
                let Self { $($field,)* $($($later),*)? } = self;
                $($field.write(to);)*
                $($(if !is_default($later) {
                    (stringify!($later), $later).write(to);
                })*)?
            }
        }
    )*};
}

fields! {
    ServiceSpec {
        name, routes, versions, discovering, stable, weights, timeouts, rules, limits, drain, hold, pool, supervise,
        sticky;
        targeting, shield, upgrades, mirror
    }
    TargetRule { when, to }
    VersionSpec { name, endpoints, protocol, tls, proxy_header, draining, traits, pool }
    Route { host, path, headers }
    Timeouts { connect, response, progress, stream, tunnel, total }
    ServiceLimits { in_flight, rate, request_body, response_body }
    Rate { requests, per, burst, by }
    DrainRules { patience, spread, deadline, retry }
    HoldLimits { requests, bytes, timeout, answer }
    SuperviseRules {
        mode, alpha, errors, client_errors, latency, suspect_weight, suspect_hold, probe, keep_old, bad_budget, warmup,
        sticky_quiet
    }
    StickyRules { by, salt }
    ShieldRules { statuses, body, budget, min_per_second }
    MirrorRules { to, share, methods, body, compare, concurrency, timeout }
    Tolerance { ratio, excess }
    Slowness { part, least }
    Rules { routes, versions, pages; pins_release }
    RouteRules { edits, path, answer }
    Edits { request, response, host }
    PathRewrite { prefix, with }
    ErrorPage { on, page }
    Page { content_type, bytes, tag }
    UpstreamTls { server_name, found_by, verify, authorities, identity }
    Traits { weight, zone }
    PoolRules { retries, hedge, circuit, keepalive, health, outliers, balance, warmup }
    RetryRules { attempts, on, statuses, budget, min_per_second, per_try_timeout }
    HedgeRules { after, max }
    CircuitRules { requests, endpoint_requests, connections, pending, queue_timeout }
    KeepaliveRules { idle, lifetime, requests }
    HealthCheck { probe, protocol, port, reuse, interval, jitter, timeout, rise, fall, min_healthy }
    HttpProbe { method, path, host, headers, status, body }
    OutlierRules {
        consecutive_errors, consecutive_gateway_errors, consecutive_local_errors, success_rate, latency, interval,
        base_ejection, max_ejection, max_ejected
    }
    Deviation { factor, min_hosts, min_requests }
    Balance { policy, panic_threshold, zone_preference, slow_start }
    Hashing { key, bound }
    SlowStart { duration, curve, floor }
    Warmup { connections, duration }
}

impl Written for Identity {
    fn write(&self, to: &mut Fnv) {
        // No part of the key: another one comes with another certificate.
        let Self { certificate, key: _ } = self;
        certificate.write(to);
    }
}

/// What has a text that is read again, or a number, is that.
macro_rules! itself {
    ($($type:ty: $value:ident => $is:expr;)*) => {$(
        impl Written for $type {
            fn write(&self, to: &mut Fnv) {
                let $value = self;
                $is.write(to);
            }
        }
    )*};
}

itself! {
    ServiceName: name => name.as_str();
    VersionName: name => name.as_str();
    ZoneName: name => name.as_str();
    UpgradeName: name => name.as_str();
    Targeting: rules => rules.rules();
    Conditions: when => when.to_string().as_str();
    EndpointAddr: address => address.to_string().as_str();
    HostPattern: host => host.to_string().as_str();
    Template: template => template.to_string().as_str();
    Protocol: protocol => protocol.token();
    Failing: failing => failing.token();
    Compare: compare => compare.token();
    BasisPoints: share => share.points();
    EndpointWeight: weight => weight.number();
    PoolTraits: traits => traits.iter().collect::<Vec<_>>();
    Method: method => method.as_str();
    HeaderName: name => name.as_str();
    HeaderValue: value => value.as_bytes();
    Bytes: bytes => bytes[..];
    Duration: time => (time.as_secs(), time.subsec_nanos());
    NonZeroU32: number => number.get();
    usize: number => u64::try_from(*number).unwrap_or(u64::MAX);
    u32: number => u64::from(*number);
    u16: number => u64::from(*number);
    bool: is_so => u8::from(*is_so);
}

/// Enums are a word, and what belongs to it.
macro_rules! words {
    ($($type:ident { $($variant:pat => $is:expr,)* })*) => {$(
        impl Written for $type {
            fn write(&self, to: &mut Fnv) {
                match self {
                    $($variant => $is.write(to),)*
                }
            }
        }
    )*};
}

words! {
    ProxyHeader {
        Self::V1 => "v1",
        Self::V2 => "v2",
    }
    RateBy {
        Self::Service => "service",
        Self::Client => "client",
    }
    SuperviseMode {
        Self::Off => "off",
        Self::Alert => "alert",
        Self::On => "on",
    }
    StickyBy {
        Self::Cookie { name, mint } => ("cookie", (name, mint)),
        Self::Header(name) => ("header", name),
        Self::Client => "client",
    }
    SentHost {
        Self::Fixed(host) => ("fixed", host),
        Self::Endpoint => "endpoint",
    }
    OwnAnswer {
        Self::Redirect { status, to } => ("redirect", (status, to)),
        Self::Fixed { status, page } => ("fixed", (status, page)),
    }
    On {
        Self::Status(status) => ("status", status),
        Self::Class(class) => ("class", class),
        Self::Reason(token) => ("reason", token),
    }
    FieldOp {
        Self::Remove(name) => ("remove", name),
        Self::Set(name, value) => ("set", (name, value)),
        Self::Add(name, value) => ("add", (name, value)),
    }
    Probe {
        Self::Http(asked) => ("http", asked),
        Self::Grpc(service) => ("grpc", service),
        Self::Tcp => "tcp",
    }
    Least {
        Self::Count(count) => ("count", count),
        Self::Share(share) => ("share", share),
    }
    Policy {
        Self::P2c => "p2c",
        Self::RoundRobin => "round_robin",
        Self::Random => "random",
        Self::Hash(hashing) => ("hash", hashing),
        Self::Ewma { decay } => ("ewma", decay),
    }
    HashKey {
        Self::Header(name) => ("header", name),
        Self::Cookie(name) => ("cookie", name),
        Self::Client => "client",
        Self::Path => "path",
    }
}

impl Written for u8 {
    fn write(&self, to: &mut Fnv) {
        to.write(*self);
    }
}

impl Written for u64 {
    fn write(&self, to: &mut Fnv) {
        self.to_le_bytes().iter().for_each(|byte| byte.write(to));
    }
}

impl Written for str {
    fn write(&self, to: &mut Fnv) {
        self.as_bytes().write(to);
    }
}

/// How many, then each: so no two lists of lists are the same.
impl<T: Written> Written for [T] {
    fn write(&self, to: &mut Fnv) {
        self.len().write(to);
        self.iter().for_each(|item| item.write(to));
    }
}

impl<T: Written> Written for Option<T> {
    fn write(&self, to: &mut Fnv) {
        self.is_some().write(to);
        self.iter().for_each(|value| value.write(to));
    }
}

impl<A: Written, B: Written> Written for (A, B) {
    fn write(&self, to: &mut Fnv) {
        self.0.write(to);
        self.1.write(to);
    }
}

impl<T: Written> Written for Vec<T> {
    fn write(&self, to: &mut Fnv) {
        self.as_slice().write(to);
    }
}

impl<T: Written + ?Sized> Written for &T {
    fn write(&self, to: &mut Fnv) {
        (**self).write(to);
    }
}

impl<T: Written + ?Sized> Written for Arc<T> {
    fn write(&self, to: &mut Fnv) {
        (**self).write(to);
    }
}

impl<T: Written + ?Sized> Written for Box<T> {
    fn write(&self, to: &mut Fnv) {
        (**self).write(to);
    }
}

#[cfg(test)]
mod tests;
