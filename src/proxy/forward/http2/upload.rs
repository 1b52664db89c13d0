//! A request's body on its way to an endpoint, as the endpoint's window opens.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame};

use super::Call;
use crate::metrics::{Kind, Reason};
use crate::proxy::body::{Again, Broken, Incoming};
use crate::proxy::fields::list_size_of;
use crate::proxy::outgoing::{Rest, Waiting, because};
use crate::proxy::trailers;
use crate::proxy::upstream::http2::poll_room;

impl Call {
    /// Sends as much of the body as the endpoint's window takes; true when something moved.
    ///
    /// # Errors
    /// When the client's body breaks off.
    pub(super) fn send(&mut self, cx: &mut Context<'_>) -> Result<bool, Reason> {
        let mut moved = false;
        while self.waiting != Waiting::Sent {
            let Some(send) = &mut self.send else {
                self.sent();
                break;
            };
            if self.part.is_empty() {
                self.rest.let_go_if_come(cx);
                let Rest::Open(body, _) = &mut self.rest else {
                    self.waiting = Waiting::Continue;
                    break;
                };
                let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                    self.waiting = Waiting::Client;
                    break;
                };
                moved = true;
                touch(&mut self.touched, &frame, self.ticket.is_unsent());
                let is_end = match frame {
                    None => send.send_data(Bytes::new(), true).map(|()| true),
                    Some(Err(broken)) => return Err(because(broken)),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => {
                            self.taken += data.len() as u64;
                            self.record.as_ref().inspect(|record| record.received(self.taken));
                            if self.taken > self.most {
                                return Err(Reason::RequestTooLarge);
                            }
                            self.part = data;
                            let is_last = body.is_end_stream() && self.part.is_empty();
                            if is_last {
                                send.send_data(Bytes::new(), true).map(|()| true)
                            } else {
                                Ok(false)
                            }
                        }
                        Err(frame) => {
                            let fields = frame.into_trailers().map(trailers::only_trailers);
                            let mut fields = fields.unwrap_or_default();
                            self.turn.client.settings().clean_trailers(&mut fields);
                            if !self.ticket.takes_trailers() {
                                fields.clear();
                            }
                            if self.ticket.most_head().is_some_and(|most| list_size_of(&fields) > most) {
                                return Err(Reason::HeadTooLarge);
                            }
                            trailers::end(send, fields).map(|()| true)
                        }
                    },
                };
                // An endpoint that takes no more may have answered already.
                if is_end.unwrap_or(true) {
                    self.sent();
                }
                continue;
            }
            match poll_room(send, self.part.len(), cx) {
                Poll::Pending => {
                    self.waiting = Waiting::Endpoint;
                    break;
                }
                Poll::Ready(None) => self.sent(),
                Poll::Ready(Some(room)) => {
                    let part = self.part.split_to(room.min(self.part.len()));
                    let is_last = self.part.is_empty()
                        && matches!(&self.rest, Rest::Open(body, _) if body.is_end_stream());
                    if send.send_data(part, is_last).is_err() || is_last {
                        self.sent();
                    }
                    moved = true;
                }
            }
        }
        Ok(moved)
    }

    /// The body, if nothing of it was taken, or nothing of the request was sent.
    pub(super) fn untouched(&mut self) -> Rest {
        let rest = std::mem::replace(&mut self.rest, Rest::Nothing);
        let Some(frames) = self.touched.take() else { return rest };
        match rest {
            Rest::Open(rest, coding) if self.ticket.is_unsent() => {
                Rest::Open(Incoming::Again(Box::new(Again::new(frames, None, rest))), coding)
            }
            _ => Rest::Nothing,
        }
    }

    /// Nothing more is sent of the request. Its body is kept while nothing has gone out: it may have to be sent again.
    fn sent(&mut self) {
        (self.waiting, self.part) = (Waiting::Sent, Bytes::new());
        if !self.ticket.is_unsent() {
            (self.rest, self.touched) = (Rest::Nothing, Some(VecDeque::new()));
        }
        if let Some(permit) = &self.permit {
            permit.becomes_if(Kind::Upload, Kind::Request);
        }
    }
}

/// Keeps a part of a body that was taken while its request `is_unsent`.
fn touch(
    touched: &mut Option<VecDeque<Frame<Bytes>>>,
    frame: &Option<Result<Frame<Bytes>, Broken>>,
    is_unsent: bool,
) {
    let touched = touched.get_or_insert_default();
    if !is_unsent {
        touched.clear();
    } else if let Some(Ok(frame)) = frame {
        let trailers = || frame.trailers_ref().cloned().map(Frame::trailers);
        touched.extend(frame.data_ref().cloned().map(Frame::data).or_else(trailers));
    }
}
