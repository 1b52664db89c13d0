//! A request's body for another attempt.

use super::{Coding, Rest, Upload};
use crate::proxy::body::{Incoming, Kept};
use crate::proxy::headers::BodyLength;

impl Upload {
    /// A body of so many bytes, if there is a word about it, that is sent by somebody else.
    pub fn elsewhere(announced: Option<usize>) -> Self {
        let length = announced.map_or(BodyLength::None, |length| BodyLength::Known(length as u64));
        Self { rest: Rest::Nothing, length, tunnel: Incoming::None, most: u64::MAX }
    }

    /// The same for another attempt of a request without a body.
    pub fn again(&self) -> Self {
        Self { rest: Rest::Nothing, length: self.length, tunnel: Incoming::None, most: self.most }
    }

    /// Nothing of it was taken.
    pub fn give_back(&mut self, rest: Rest) {
        self.rest = rest;
    }

    /// Keeps up to so many bytes of it as it is sent, if all of it may fit; what it can be [restored](Self::restore) by.
    pub fn keep(&mut self, most: usize) -> Option<Kept> {
        if matches!(self.length, BodyLength::Known(length) if length > most as u64) {
            return None;
        }
        let (Rest::Held(body, _) | Rest::Open(body, _)) = &mut self.rest else { return None };
        let kept = Kept::new(std::mem::replace(body, Incoming::None), most);
        let handle = kept.again();
        *body = Incoming::Kept(Box::new(kept));
        handle
    }

    /// True while its client waits to be told to send it.
    pub fn is_held(&self) -> bool {
        matches!(self.rest, Rest::Held(..))
    }

    /// All of it, from its beginning; `is_held` when its client still waits to be told to send it.
    pub fn restore(&mut self, kept: Kept, is_held: bool) {
        let coding =
            if matches!(self.length, BodyLength::Known(_)) { Coding::Plain } else { Coding::Chunked };
        let rest = if is_held { Rest::Held } else { Rest::Open };
        self.rest = rest(Incoming::Kept(Box::new(kept)), coding);
    }
}
