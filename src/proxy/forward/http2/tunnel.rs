//! A call that has become a tunnel (RFC 8441 §5).

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::Call;
use crate::proxy::body::Source;
use crate::proxy::head::{Answer, Parts};
use crate::proxy::http1::Change;
use crate::proxy::outgoing::Upload;
use crate::proxy::tunnel::Tunnel;
use crate::proxy::upgrade;
use crate::proxy::upstream::Far;
use crate::proxy::upstream::far::Shared;

impl Call {
    /// The endpoint takes the WebSocket: what follows is not ours to read. The answer is that of HTTP/1.1, with the proof
    /// that a client of it wants.
    pub(super) fn tunnel(
        mut self,
        mut headers: HeaderMap,
        send: SendStream<Bytes>,
        body: RecvStream,
        upload: &mut Upload,
        asked: &Parts,
    ) -> Answer {
        let status = StatusCode::SWITCHING_PROTOCOLS;
        headers.remove(CONTENT_LENGTH);
        headers.remove(SEC_WEBSOCKET_ACCEPT);
        let proof = asked.headers.get(SEC_WEBSOCKET_KEY).map(|key| upgrade::accept(key.as_bytes()));
        if let Some(proof) = proof.and_then(|proof| HeaderValue::try_from(proof).ok()) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, proof);
        }
        let Some(permit) = self.permit.take() else {
            return Answer { status, headers: headers.into(), source: Source::Full(Bytes::new()) };
        };
        permit.answered(status.as_u16());
        let far = Far::Shared(Box::new(Shared::new(send, body, self.ticket)));
        let ends = (far, Bytes::new(), upload.take_tunnel());
        let tunnel = Tunnel::new(self.turn, permit, ends, Change::Websocket, self.timeouts);
        Answer { status, headers: headers.into(), source: Source::Tunnel(Box::new(tunnel)) }
    }
}
