//! The codec towards endpoints: an answer is the same however it is cut, and what is passed on cannot be read otherwise.

#![cfg_attr(fuzzing, no_main)]

use bytes::Bytes;
use http::header::UPGRADE;
use http::{HeaderMap, HeaderName, Method};
use switchback::proxy::headers::is_hop_by_hop;
use switchback::proxy::http1::{
    Change, Chunks, Decoder, Head, Malformed, encode_chunk, encode_end, parse_head,
};
use switchback::proxy::trailers::may_be_trailer;
use switchback_fuzz::fuzz_target;
use switchback_fuzz::pieces::{Body, Pieces};

fuzz_target!(|input: (u8, bool, &[u8])| {
    let (seed, is_head, bytes) = input;
    let method = if is_head { Method::HEAD } else { Method::GET };
    let whole = Answer::read(&method, bytes, 0);
    for seed in [seed | 1, 1] {
        assert_eq!(whole, Answer::read(&method, bytes, seed), "pieces {seed}");
    }
    if let Some(body) = &whole.body {
        recoded_it_is_the_same(body);
    }
});

/// Everything that an endpoint's answer comes to.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    heads: Vec<Facts>,
    broken: Option<Malformed>,
    body: Option<Body>,
}

#[derive(Debug, PartialEq, Eq)]
struct Facts {
    status: u16,
    fields: Vec<(String, Vec<u8>)>,
    body: Decoder,
    keep_alive: bool,
    change: Option<Change>,
}

impl Answer {
    fn read(method: &Method, bytes: &[u8], seed: u8) -> Self {
        let mut pieces = Pieces::of(bytes, seed);
        let mut answer = Self { heads: Vec::new(), broken: None, body: None };
        loop {
            match parse_head(&mut pieces.buffer, method) {
                Ok(Some(head)) => {
                    let (is_interim, body) = (head.status.is_informational(), head.body);
                    answer.heads.push(facts(&head, method));
                    if !is_interim {
                        answer.body = Some(Body::read(body, &mut pieces));
                        return answer;
                    }
                }
                Ok(None) if pieces.more() => {}
                Ok(None) => return answer,
                Err(why) => return Self { broken: Some(why), ..answer },
            }
        }
    }
}

/// What a head says; that it is one that can be passed on.
fn facts(head: &Head, method: &Method) -> Facts {
    let may_stay = |name: &HeaderName| matches!(head.status.as_u16(), 426 | 101) && *name == UPGRADE;
    assert!(!head.headers.keys().any(|name| is_hop_by_hop(name) && !may_stay(name)));
    let lengths: Vec<_> = head.headers.get_all("content-length").iter().collect();
    match head.body {
        Decoder::Length(length) => {
            let is_bodiless =
                *method == Method::HEAD || matches!(head.status.as_u16(), 100..=199 | 204 | 304);
            let said = lengths.first().and_then(|said| said.to_str().ok()?.parse().ok());
            assert!(is_bodiless || said == Some(length), "{length}, but {lengths:?}");
            assert!(lengths.len() <= 1);
        }
        Decoder::Chunked(at) => assert!(at == Chunks::Size && lengths.is_empty(), "{lengths:?}"),
        Decoder::UntilClose => assert!(!head.keep_alive && lengths.is_empty(), "{lengths:?}"),
    }
    assert!(head.change.is_none() || head.status == 101);
    if head.change == Some(Change::Other) {
        assert_eq!(head.headers.get_all(UPGRADE).iter().count(), 1);
    }
    let fields = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    Facts {
        status: head.status.as_u16(),
        fields: fields.collect(),
        body: head.body,
        keep_alive: head.keep_alive,
        change: head.change,
    }
}

/// In our own chunks it is the same body with the same trailers, and nothing is behind it.
fn recoded_it_is_the_same(body: &Body) {
    let mut trailers = HeaderMap::new();
    for (name, value) in &body.trailers {
        let name: http::HeaderName = name.parse().expect("it was one");
        assert!(may_be_trailer(&name), "{name}");
        trailers.append(name, Bytes::copy_from_slice(value).as_ref().try_into().expect("it was one"));
    }
    let mut out = Vec::new();
    body.bytes.chunks(100).for_each(|data| encode_chunk(&mut out, data));
    encode_end(&mut out, Some(&trailers));
    let again = Body::read(Decoder::Chunked(Chunks::Size), &mut Pieces::of(&out, 1));
    let Body { bytes, trailers, .. } = body;
    assert_eq!((&again.bytes, &again.trailers, again.ended, again.left), (bytes, trailers, Ok(true), 0));
}
