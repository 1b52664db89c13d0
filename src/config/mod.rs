//! What the operator wrote: `switchback.toml` and the `conf.d/*.toml` beside it, read whole or refused whole.
//!
//! A [`Config`] is valid by construction; a file that is not yields *all* of its errors at once, each with its place.
//! The file says what exists; where the traffic goes is the store's to say.

mod access_log;
mod admin;
mod affinity;
mod answer;
mod balance;
mod circuit;
pub mod diagnostic;
mod discover;
mod document;
mod drain;
mod edits;
mod ending;
mod endpoint;
mod file;
mod health;
mod hedge;
mod hold;
pub mod host;
mod https;
mod identity;
mod limits;
mod listen;
mod load;
mod mirror;
mod outliers;
mod pool;
mod pool_rules;
mod regular;
mod retries;
mod route;
mod service;
mod shield;
pub mod size;
mod split;
mod sticky;
mod supervise;
mod targeting;
#[cfg(test)]
mod tests;
mod tls;
mod upgrades;
mod upstream_tls;
mod walk;
mod warmup;
pub mod webhook;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use admin::{Admin, Authorized, CertificateName, Proof, Remote};
pub use affinity::CpuAffinity;
pub use diagnostic::{Diagnostic, Errors, Severity};
pub use host::Host;
pub use https::Redirect;
pub use listen::ListenAddr;
pub use load::{MAX_FILE, Report, check, check_on, named_files};
pub use tls::{Alpn, Certificate, ClientAuth, Tls, TlsVersion};
pub use webhook::Webhook;

use crate::table::{BasisPoints, Discovery, ErrorPage, ServiceSpec, ZoneName};

/// Everything that the files say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect; at least one.
    pub listeners: Vec<Listener>,
    /// Where the CLI connects.
    pub admin: Admin,
    /// Where metrics are scraped; `None`: nowhere.
    pub metrics: Option<Metrics>,
    /// Where changes are kept.
    pub state: StateDir,
    /// What everything is bounded by.
    pub limits: Limits,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// How another process takes its place.
    pub upgrade: Upgrade,
    /// What the proxy tells of itself.
    pub proxy: Proxy,
    /// What is written about requests; `None`: nothing.
    pub access_log: Option<AccessLog>,
    /// Who is told by HTTP what happens.
    pub webhooks: Vec<Webhook>,
    /// What exists, in the order of the files.
    pub services: Vec<ServiceSpec>,
    /// Where endpoints are found besides.
    pub discoveries: Vec<Discovery>,
    /// What is accepted but does not mean what its author may think.
    pub warnings: Vec<Diagnostic>,
    /// Every file that was read, and the `conf.d` directory if there is one; absolute.
    pub files: Vec<PathBuf>,
}

/// One place where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address.
    pub listen: ListenAddr,
    /// Whose `X-Forwarded-*`, `Forwarded` and PROXY headers are believed; strangers' are replaced. Default: nobody's.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Every connection begins with a PROXY header, version 1 or 2; one from no trusted proxy is closed. Default: false.
    pub proxy_protocol: bool,
    /// How its TLS is done; `None`: clear text.
    pub tls: Option<Tls>,
    /// Whether it only sends clients on to https; without TLS only.
    pub redirect_to_https: Option<Redirect>,
    /// `Strict-Transport-Security` of all its answers; with TLS only.
    pub hsts: Option<http::HeaderValue>,
}

/// The metrics listener: `/metrics`, `/healthz`, `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// Its address.
    pub listen: SocketAddr,
}

/// The store's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    /// Where; default [`Host::state_dir`].
    pub dir: PathBuf,
    /// How many changes are remembered; default [`StateDir::HISTORY`].
    pub history: usize,
}

impl StateDir {
    /// The default of `history`.
    pub const HISTORY: usize = 10_000;
}

/// What everything is bounded by (G8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at a time in the whole process; default 65,536.
    pub connections: usize,
    /// Client connections of one address at a time (IPv6: of one network of 64 bits), 0 is no limit; trusted proxies may
    /// have any number. Default 8,192.
    pub connections_per_client: usize,
    /// How much memory may be used before connections, then requests are refused; default 90 % of what there is.
    pub memory: MemoryLimit,
    /// How long a kept-alive client connection may wait for its next request; default 60 s.
    pub idle: Duration,
    /// How long a request's head may take to arrive; default 10 s.
    pub head: Duration,
    /// Bytes of a request's head, from 8 KiB; default 32 KiB.
    pub head_bytes: usize,
    /// Header fields of a request; default 100.
    pub headers: usize,
    /// Bytes a second that a request's body has to come with, on average, once it was waited for as long as it may
    /// pause (`timeouts.progress`); 0 is no limit.
    /// Default 100.
    pub min_body_rate: usize,
    /// Bytes a second that a client has to take of an answer while it is waited for, on average and less what it takes in
    /// `write_stall`; 0 is no limit. Default 100.
    pub min_drain_rate: usize,
    /// How long a client may take no byte of its answer; default 30 s.
    pub write_stall: Duration,
    /// How long an upstream connection is kept without work; default 55 s, below the usual 60 s of origins.
    pub pool_idle: Duration,
    /// Idle upstream connections kept per endpoint and worker, 0 keeps none; default 1024: as many as one turn of a worker can need.
    pub pool_size: usize,
    /// TLS handshakes at a time and worker; default 2,048.
    pub handshakes: usize,
    /// Requests at a time on one HTTP/2 connection, of each of which 64 KiB may wait for its endpoint; default 100.
    pub streams: usize,
    /// How long an HTTP/2 client may be quiet before it is asked whether it is there, and then has half as long to answer;
    /// default 20 s.
    pub ping: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let [idle, head, write_stall, pool_idle, ping] = [60, 10, 30, 55, 20].map(Duration::from_secs);
        Self {
            connections: 65_536,
            connections_per_client: 8_192,
            memory: MemoryLimit::Percent(90),
            idle,
            head,
            head_bytes: 32 * 1024,
            headers: 100,
            min_body_rate: 100,
            min_drain_rate: 100,
            write_stall,
            pool_idle,
            pool_size: 1024,
            handshakes: 2_048,
            streams: 100,
            ping,
        }
    }
}

/// How much memory may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// As much as there is.
    None,
    /// So many percent of what there is: of the control group's limit, or of the machine's memory.
    Percent(u8),
    /// So many bytes.
    Bytes(u64),
}

/// How the process ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// How long after SIGTERM everything is still served, while `/readyz` says no; default 0 s.
    pub lame_duck: Duration,
    /// Over how long connections without a request are closed then; default 2 s.
    pub spread: Duration,
    /// How long requests in flight may take from then on, 0 ends them at once; default 30 s.
    pub deadline: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        let [spread, deadline] = [2, 30].map(Duration::from_secs);
        Self { lame_duck: Duration::ZERO, spread, deadline }
    }
}

/// How another process takes the place of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// Over how long this one's connections without a request are closed then; changes that come in this time are
    /// acknowledged at its end. Default 2 s, at most [`Upgrade::MOST_SPREAD`].
    pub spread: Duration,
    /// How long what is in flight may take then; default 1 h.
    pub deadline: Duration,
    /// How many older processes may still have work when another takes over; default 8.
    pub predecessors: usize,
}

impl Upgrade {
    /// The longest `spread`.
    pub const MOST_SPREAD: Duration = Duration::from_secs(5);
}

impl Default for Upgrade {
    fn default() -> Self {
        Self { spread: Duration::from_secs(2), deadline: Duration::from_hours(1), predecessors: 8 }
    }
}

/// What the proxy tells of itself, and what it says in the services' place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Answers carry `switchback-epoch`; default false.
    pub epoch_header: bool,
    /// The name in `Via` (RFC 9110 §7.6.3); default `switchback`.
    pub via: String,
    /// `x-request-id`; default `None`: it passes as any other field does.
    pub request_id: Option<RequestId>,
    /// W3C trace context; default `None`: it passes as any other field does.
    pub trace: Option<Trace>,
    /// Bodies for the proxy's own answers; a service's own come first.
    pub error_pages: Vec<ErrorPage>,
    /// Where the proxy stands: endpoints there come first; default `None`.
    pub zone: Option<ZoneName>,
    /// Origins get `Forwarded` (RFC 7239) beside `X-Forwarded-*`; default false.
    pub forwarded: bool,
    /// Who is asked for the addresses of endpoints that are given by name; default: those that the system asks.
    pub name_servers: Vec<SocketAddr>,
    /// What becomes of a request's fields with an underscore in their name; default [`Underscores::Drop`].
    pub underscores_in_headers: Underscores,
    /// Which CPU each worker stays on; default [`CpuAffinity::Off`].
    pub cpu_affinity: CpuAffinity,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            epoch_header: false,
            via: "switchback".to_owned(),
            request_id: None,
            trace: None,
            error_pages: Vec::new(),
            zone: None,
            forwarded: false,
            name_servers: Vec::new(),
            underscores_in_headers: Underscores::default(),
            cpu_affinity: CpuAffinity::default(),
        }
    }
}

/// Every request has an id: one that came with it, or a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestId {
    /// Whose ids are taken over; default [`Accept::Trusted`].
    pub accept: Accept,
    /// Answers carry it too; default false.
    pub answer: bool,
}

/// Whose word is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accept {
    /// That of `trusted_proxies`.
    #[default]
    Trusted,
    /// Everybody's.
    Always,
    /// Nobody's.
    Never,
}

/// W3C trace context: a valid one passes as it is, an invalid one does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// One is started where there is none; default true.
    pub start: bool,
    /// The flag `sampled` of those that are started; default false.
    pub sampled: bool,
}

impl Default for Trace {
    fn default() -> Self {
        Self { start: true, sampled: false }
    }
}

/// What is written about requests: one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Where to; default standard output.
    pub target: LogTarget,
    /// How many of the requests; default all.
    pub sample: BasisPoints,
    /// Requests that failed are written whatever `sample` says; default true.
    pub errors: bool,
    /// Paths with their queries; default true.
    pub query: bool,
    /// Request headers that are written too, in lower case; default none.
    pub headers: Vec<String>,
}

impl Default for AccessLog {
    fn default() -> Self {
        let (target, sample) = (LogTarget::Stdout, BasisPoints::ALL);
        Self { target, sample, errors: true, query: true, headers: Vec::new() }
    }
}

/// Where an access log is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// The end of this file, which is made when it is not there.
    File(PathBuf),
}

/// What becomes of fields with an underscore in their name, which many a server cannot tell from a hyphen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Underscores {
    /// They do not reach anybody.
    #[default]
    Drop,
    /// They pass.
    Allow,
    /// The request is refused.
    Reject,
}
