//! What the operator may set about the data plane.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName};

use super::entrance::Entrance;
use super::gate::Underscores;
use super::headers;
use super::identity::Identity;
use super::journal;
use super::listener::ListenAddr;
use super::peer::Door;
use crate::table::{ErrorPage, ZoneName};

/// What the operator may set about the data plane; replaced whole on a reload.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Most client connections of all workers; further ones wait in the listen queue.
    pub connections: usize,
    /// Most connections of one client in the whole process, 0 is no limit.
    pub connections_per_client: usize,
    /// How long a kept-alive connection may be idle.
    pub idle: Duration,
    /// How long a request's head may take, and the first byte after accept.
    pub head: Duration,
    /// Longest request head in bytes.
    pub head_bytes: usize,
    /// Most fields in a request's head.
    pub headers: usize,
    /// Between two bytes of a response that a client takes.
    pub progress: Duration,
    /// Bytes a second that a request's body has to come with, 0 is no limit.
    pub min_body_rate: u64,
    /// Bytes a second that a client has to take of its answer, 0 is no limit.
    pub min_drain_rate: u64,
    /// How long a connection to an endpoint is kept idle; below what the endpoints keep.
    pub pool_idle: Duration,
    /// Most idle connections to one endpoint.
    pub pool_size: usize,
    /// Whether answers carry `switchback-epoch`.
    pub epoch_header: bool,
    /// Our name in `Via`.
    pub via: String,
    /// Where the proxy stands: endpoints there come first.
    pub zone: Option<ZoneName>,
    /// Whether `Forwarded` is sent beside `X-Forwarded-*`.
    pub forwarded: bool,
    /// What becomes of fields with an underscore in their name.
    pub underscores: Underscores,
    /// By listener: whom to trust.
    pub doors: BTreeMap<ListenAddr, Arc<Door>>,
    /// By listener: what else it does with those who come.
    pub entrances: BTreeMap<ListenAddr, Arc<Entrance>>,
    /// The fields in which any listener tells endpoints whose certificate it has verified.
    pub subject_headers: Arc<[HeaderName]>,
    /// Most TLS handshakes at a time and worker.
    pub handshakes: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
    /// How long an HTTP/2 client may be quiet before it is asked whether it is there; half of it to answer.
    pub ping: Duration,
    /// How requests get their ids and traces.
    pub identity: Identity,
    /// Bodies for the proxy's own answers, where no service's are for them.
    pub error_pages: Arc<[ErrorPage]>,
    /// What is written about requests, and where.
    pub log: Option<journal::Options>,
}

impl Default for Settings {
    /// Those of a configuration that says nothing, for one worker.
    fn default() -> Self {
        let [idle, head, progress, pool_idle] = [60, 10, 30, 55].map(Duration::from_secs);
        Self {
            connections: 65_536,
            connections_per_client: 8_192,
            idle,
            head,
            head_bytes: 32 * 1024,
            headers: 100,
            progress,
            min_body_rate: 100,
            min_drain_rate: 100,
            pool_idle,
            pool_size: 1024,
            epoch_header: false,
            via: "switchback".to_owned(),
            zone: None,
            forwarded: false,
            underscores: Underscores::default(),
            doors: BTreeMap::new(),
            entrances: BTreeMap::new(),
            subject_headers: Arc::new([]),
            handshakes: 2_048,
            streams: 100,
            ping: Duration::from_secs(20),
            identity: Identity::default(),
            error_pages: Arc::new([]),
            log: None,
        }
    }
}

impl Settings {
    /// What is said about the clients of `listener`; one that has just been dropped trusts nobody.
    #[must_use]
    pub fn door(&self, listener: &ListenAddr) -> Arc<Door> {
        self.doors.get(listener).map(Arc::clone).unwrap_or_default()
    }

    /// Takes out of a client's trailers what it may not say there either. It is too late to refuse the request for it.
    pub fn clean_trailers(&self, trailers: &mut HeaderMap) {
        if self.underscores.clean(trailers).is_err() {
            return trailers.clear();
        }
        let is_subject = |name: &HeaderName| {
            self.subject_headers.iter().any(|subject| headers::is_taken_for(name, subject))
        };
        let refused: Vec<_> = trailers.keys().filter(|name| is_subject(name)).cloned().collect();
        refused.iter().for_each(|name| drop(trailers.remove(name)));
    }

    /// What `listener` does with those who come.
    #[must_use]
    pub fn entrance(&self, listener: &ListenAddr) -> Arc<Entrance> {
        self.entrances.get(listener).cloned().unwrap_or_default()
    }
}
