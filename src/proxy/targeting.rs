//! What targeting rules see of a request.

use std::net::IpAddr;

use http::HeaderValue;

use super::connection::Client;
use super::gate::Asked;
use super::head::Parts;
use crate::table::Shown;

/// A request as it passed the gate, before anything else is changed about it.
pub(super) struct Request<'r> {
    pub(super) client: &'r Client,
    pub(super) head: &'r Parts,
    pub(super) asked: &'r Asked<'r>,
}

impl Shown for Request<'_> {
    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.head.headers.get_all(name).into_iter().map(HeaderValue::as_bytes)
    }

    fn query(&self) -> &[u8] {
        self.head.uri.query().unwrap_or_default().as_bytes()
    }

    fn client(&self) -> Option<IpAddr> {
        self.client.arrival.peer.client(&self.head.headers)
    }

    fn host(&self) -> &[u8] {
        self.asked.bare_host()
    }
}
