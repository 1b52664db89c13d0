//! The gRPC health checking protocol (`grpc.health.v1.Health/Check`): its two messages are a few bytes each, written and read
//! here by hand.

use std::num::ParseIntError;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Version};

use super::{AGENT, Check, Found, Said, Unwell, http2};

const PATH: &str = "/grpc.health.v1.Health/Check";
/// `HealthCheckResponse.ServingStatus`, by number.
const STATES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: usize = 1;

impl Check {
    pub(super) fn call(&self, service: &str) -> Result<(Request<()>, Bytes), Unwell> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.uri(&self.authority, PATH)?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(USER_AGENT, AGENT);
        Ok((request, message(service)))
    }
}

/// What an answer to such a call says.
pub(super) fn read(answer: &http2::Answer) -> Found {
    if answer.status != 200 {
        return Err(Unwell::Status(answer.status));
    }
    // A call that fails at once has its status in the head.
    match status(&answer.trailers).or_else(|| status(&answer.headers)) {
        Some(Ok(0)) => {}
        Some(Ok(other)) => return Err(Unwell::GrpcStatus(other)),
        Some(Err(_)) => return Err(Unwell::Broken("its grpc-status is not a number".to_owned())),
        None => return Err(Unwell::Broken("there is no grpc-status".to_owned())),
    }
    match state(&answer.body) {
        Some(SERVING) => Ok(Said::Serving),
        Some(other) => Err(Unwell::NotServing(STATES.get(other).copied().unwrap_or("UNKNOWN"))),
        None => Err(Unwell::Broken("the answer is not a HealthCheckResponse".to_owned())),
    }
}

/// A number, and nothing else: it goes to the log.
fn status(headers: &HeaderMap) -> Option<Result<u32, ParseIntError>> {
    Some(headers.get("grpc-status")?.to_str().unwrap_or_default().parse())
}

/// `HealthCheckRequest { service }` in a frame: not compressed, its length, field 1 as text.
fn message(service: &str) -> Bytes {
    let mut field = BytesMut::new();
    if !service.is_empty() {
        field.put_u8(0x0a);
        put_varint(&mut field, service.len());
        field.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + field.len());
    frame.put_u8(0);
    // At most 1 KiB, by the configuration.
    frame.put_u32(u32::try_from(field.len()).unwrap_or(0));
    frame.put_slice(&field);
    frame.freeze()
}

fn put_varint(buf: &mut BytesMut, mut value: usize) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        // The low seven bits, and whether there are more.
        buf.put_u8(if value > 0 { low | 0x80 } else { low & 0x7f });
        if value == 0 {
            return;
        }
    }
}

/// The number in field 1 of a `HealthCheckResponse`; 0 when it is not there, as protobuf has it.
fn state(body: &[u8]) -> Option<usize> {
    let (frame, message) = body.split_at_checked(5)?;
    let length = usize::try_from(u32::from_be_bytes(frame[1..].try_into().ok()?)).ok()?;
    if frame[0] != 0 || message.len() < length {
        return None;
    }
    let mut rest = &message[..length];
    let mut state = 0;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => state = varint(&mut rest)?,
            // Fields of later versions: numbers, eight bytes, text, four bytes.
            (_, 0) => drop(varint(&mut rest)?),
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = varint(&mut rest)?;
                rest = rest.get(length..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(state)
}

fn varint(rest: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (byte, more) = rest.split_first()?;
        *rest = more;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_as_protobuf_has_them() {
        assert_eq!(&message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&message("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(message(&"x".repeat(200))[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
        assert_eq!(state(&[0, 0, 0, 0, 2, 0x08, 1]), Some(SERVING));
        assert_eq!(state(&[0, 0, 0, 0, 0]), Some(0));
        // Unknown fields of every sort before it.
        let fields = [0x10, 5, 0x19, 0, 0, 0, 0, 0, 0, 0, 0, 0x22, 1, 7, 0x2d, 0, 0, 0, 0, 0x08, 2];
        let frame = [&[0, 0, 0, 0, 21][..], &fields].concat();
        assert_eq!(state(&frame), Some(2));
        for bad in [
            &[][..],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 9, 8, 1],
            &[0, 0, 0, 0, 1, 8],
            &[0, 0, 0, 0, 1, 7],
        ] {
            assert_eq!(state(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_status_is_a_number_and_nothing_else_is_repeated() {
        let said = |status: &'static str| {
            let trailers = [("grpc-status".parse().unwrap(), HeaderValue::from_static(status))];
            let answer = http2::Answer {
                status: 200,
                headers: HeaderMap::new(),
                body: Vec::new(),
                trailers: trailers.into_iter().collect(),
            };
            read(&answer).unwrap_err().to_string()
        };
        assert_eq!(said("14"), "the health service answers with gRPC status 14");
        assert_eq!(said("0"), "it broke off: the answer is not a HealthCheckResponse");
        assert_eq!(said("14 and a long story"), "it broke off: its grpc-status is not a number");
    }

    proptest! {
        #[test]
        fn whatever_is_answered_is_read_without_panic(body in proptest::collection::vec(any::<u8>(), 0..40)) {
            state(&body);
            let framed = [&[0, 0, 0, 0, u8::try_from(body.len()).unwrap()][..], &body].concat();
            state(&framed);
        }
    }
}
