//! What is left on the versions that an exclusive flip waits for.

use std::sync::Arc;

use super::InTheWay;
use crate::metrics::Kind;
use crate::proxy::admission::Class;
use crate::proxy::upstream::Upstream;

/// What of these kinds is in flight.
pub(super) fn in_flight(upstreams: &[Arc<Upstream>], kinds: &[Kind]) -> Vec<InTheWay> {
    let of = |upstream: &Arc<Upstream>, kind: Kind| {
        let count = upstream.in_flight_by(kind);
        InTheWay { version: upstream.version.clone(), kind, count }
    };
    let all = upstreams.iter().flat_map(|upstream| kinds.iter().map(move |kind| of(upstream, *kind)));
    all.filter(|found| found.count > 0).collect()
}

/// What may change something there. Kinds are counted for reads and writes together, so where both have one, the rest of
/// the writers are taken for requests, and for streams.
pub(super) fn writers(upstream: &Arc<Upstream>) -> Vec<InTheWay> {
    let of = |kind| upstream.in_flight_by(kind);
    let [brief, lasting] =
        [Class::Write, Class::LastingWrite].map(|class| upstream.in_flight_of(|other| other == class));
    let uploads = of(Kind::Upload).min(brief);
    let [websockets, calls, tunnels] = [Kind::Websocket, Kind::Grpc, Kind::Tunnel].map(of);
    let streams = lasting.saturating_sub(websockets + calls + tunnels);
    let all = [
        (Kind::Request, brief - uploads),
        (Kind::Upload, uploads),
        (Kind::Stream, streams),
        (Kind::Websocket, websockets),
        (Kind::Grpc, calls),
        (Kind::Tunnel, tunnels),
        (Kind::Mirror, of(Kind::Mirror)),
    ];
    let some = all.into_iter().filter(|(_, count)| *count > 0);
    some.map(|(kind, count)| InTheWay { version: upstream.version.clone(), kind, count }).collect()
}
