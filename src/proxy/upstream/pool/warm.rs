//! Connections that are opened before there are requests for them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Endpoint, Opened, Patience};
use crate::metrics::Reason;
use crate::proxy::peer::Peer;
use crate::proxy::upstream::Local;
use crate::proxy::upstream::http2::Risk;

impl Endpoint {
    /// Opens connections one after the other until so many are kept, or one cannot be opened in `limit`.
    ///
    /// One is enough where it carries many requests, and there is none where each is for one client. Where connections are
    /// limited it takes none that somebody might wait for. Cancel-safe: those that were opened stay.
    pub async fn warm(self: &Rc<Self>, connections: usize, limit: Duration, local: &Local) {
        if self.there.proxy_header.is_some() {
            return;
        }
        let (nobody, is_shared) = (Peer::unknown(Arc::default()), self.there.protocol.is_http2());
        let kept = self.idle.borrow().len();
        let most = local.rules().circuit.connections;
        let patience = Patience { connect: limit, room: (Duration::ZERO, Reason::CircuitOpen) };
        for _ in kept..connections {
            if most.is_some_and(|most| !is_shared && self.census().is_full(most)) {
                return;
            }
            match self.open((is_shared, Risk::None), patience, &nobody, local).await {
                Ok(Opened::Own(stream, past)) => {
                    self.put_by(stream, past, connections, self.home.clock.ticks());
                }
                Ok(Opened::Shared(_)) | Err(_) => return,
            }
        }
    }
}
