//! One client's connection, from its first byte to its last.
//!
//! A client that closes its sending side is taken to be gone, as nginx, Envoy and Caddy take it: nothing else tells a
//! client that left from one that waits. It is not noticed while its bytes are not read, because an endpoint does not take
//! them or because a next request already waits; then the progress limits end it.

pub mod http1;

mod answer;

mod out;

use std::rc::Rc;

use http::{HeaderMap, StatusCode};

use http1::Wire;

use super::clock::Alarm;
use super::peer::Peer;
use super::upstream::Stream;
use super::worker::{Settings, Worker};

/// What a connection's requests need to know of their client.
#[derive(Debug)]
pub struct Client {
    /// The worker it belongs to.
    pub worker: Rc<Worker>,
    /// What was set when it came.
    pub settings: Rc<Settings>,
    /// Who it is.
    pub peer: Peer,
}

/// One request's turn: whose it is, its time limits, and what its client can be told before the answer.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Who asks.
    pub client: Rc<Client>,
    /// The time limits of the request towards endpoints.
    pub alarm: Rc<Alarm>,
    wire: Option<Rc<Wire>>,
}

impl Turn {
    /// Tells the client an interim answer (RFC 9110 §15.2), if that is possible now.
    pub fn relay_interim(&self, status: StatusCode, fields: &HeaderMap) {
        if let Some(wire) = &self.wire {
            wire.relay_interim(status, fields);
        }
    }
}

/// Serves one connection until it ends, idles too long, or the worker winds down.
pub async fn run(stream: Stream, peer: Peer, worker: Rc<Worker>) {
    let client = Rc::new(Client { settings: worker.settings(), worker, peer });
    http1::run(client, stream).await;
}
