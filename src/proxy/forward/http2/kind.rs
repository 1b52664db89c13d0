//! What an answer is, by its fields.

use http::{HeaderMap, Method, StatusCode};

use super::{Call, announced, content};
use crate::metrics::Kind;
use crate::proxy::farewell::Farewell;
use crate::proxy::media;

impl Call {
    /// What sort of work the answer is, and how long it may pause.
    pub(super) fn classify(&mut self, fields: &HeaderMap) {
        let content = content(fields);
        self.is_grpc = media::is_grpc(content);
        self.remaining = announced(fields);
        if self.remaining.is_some() {
            return;
        }
        let is_call = media::is_call(content);
        self.takes_status = self.turn.is_http2() && is_call;
        self.patience = self.timeouts.stream;
        let (kind, farewell) = match is_call {
            true if self.takes_status => (Kind::Grpc, Farewell::of_messages()),
            true => (Kind::Grpc, Farewell::default()),
            false if media::is_events(content) => (Kind::Sse, Farewell::of_events(fields)),
            false => (Kind::Stream, Farewell::default()),
        };
        self.farewell = farewell;
        if let Some(permit) = &self.permit {
            permit.becomes(kind);
            if self.farewell.is_possible() {
                permit.has_words();
            }
        }
    }
}

/// True when an answer is over with its head, whatever follows (RFC 9112 §6.3).
pub(super) fn is_bodiless(status: StatusCode, method: &Method) -> bool {
    method == Method::HEAD || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}
