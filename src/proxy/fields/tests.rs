//! That lines, and the map that is made of them, say the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Version};
use proptest::prelude::*;

use super::*;
use crate::proxy::gate;
use crate::proxy::head::Parts;
use crate::proxy::headers::{BodyLength, Caller, Origin, write_request};
use crate::proxy::http1::{parse_head, parse_request};

const NOTES: [Note; 12] = [
    Note::Host,
    Note::Expect,
    Note::Te,
    Note::Connection,
    Note::Upgrade,
    Note::ContentLength,
    Note::TransferEncoding,
    Note::ContentType,
    Note::Date,
    Note::Baggage,
    Note::HopByHop,
    Note::Forwarding,
];

fn request(lines: &str) -> Option<Fields> {
    let mut input = Bytes::from(format!("GET / HTTP/1.1\r\n{lines}\r\n"));
    parse_request(&mut input, 64 * 1024, 100).ok().flatten().map(|request| request.head.headers)
}

fn answer(lines: &str) -> Option<Fields> {
    let mut input = Bytes::from(format!("HTTP/1.1 200 OK\r\n{lines}\r\n"));
    parse_head(&mut input, &Method::GET).ok().flatten().map(|head| head.headers)
}

fn written(fields: &Fields) -> String {
    let mut out = Vec::new();
    fields.write(&mut out);
    String::from_utf8(out).unwrap()
}

/// A map leaves nothing out: what the parser takes for a name or a value is one.
#[test]
fn what_is_parsed_is_a_field() {
    let mut taken = 0;
    let mut look = |line: &[u8]| {
        let text = [line, b"\r\n\r\n"].concat();
        let mut fields = [httparse::EMPTY_HEADER; 2];
        if let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(&text, &mut fields) {
            taken += fields.len();
            for field in fields {
                assert!(HeaderName::from_bytes(field.name.as_bytes()).is_ok(), "{field:?}");
                assert!(HeaderValue::from_bytes(field.value).is_ok(), "{field:?}");
            }
        }
    };
    for byte in 0..=u8::MAX {
        look(&[byte, b':', b'x']);
        look(&[b'a', byte, b'a', b':', b'x']);
        look(&[b'a', b':', byte]);
        look(&[b'a', b':', b'x', byte, b'x']);
    }
    assert!(taken > 500, "{taken}");
}

/// Only letters have a case: no other byte of a token is taken for what it is not.
#[test]
fn a_name_is_known_in_any_case_and_no_other() {
    for (name, note) in
        [("content-length", Note::ContentLength), ("x-forwarded-", Note::Forwarding), ("te", Note::Te)]
    {
        for at in 0..name.len() {
            for byte in 0..=u8::MAX {
                let mut other = name.as_bytes().to_vec();
                other[at] = byte;
                let is_same = other.eq_ignore_ascii_case(name.as_bytes());
                if HeaderName::from_bytes(&other).is_ok() {
                    assert_eq!(Note::of(&other) == Some(note), is_same, "{other:?}");
                }
            }
        }
    }
}

#[test]
fn lines_pass_as_they_came_but_for_those_of_one_connection() {
    let fields = answer(
        "Server: Some\r\nConnection: keep-alive, X-Gone\r\nSet-Cookie: a=1\r\nX-Gone: 1\r\nContent-Length: 5\r\n\
         Keep-Alive: 5\r\nset-cookie:b=2 \r\nDate: today\r\n",
    )
    .unwrap();
    assert_eq!(written(&fields), "Server: Some\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nDate: today\r\n");
    assert!(fields.has(Note::Date) && !fields.has(Note::Connection));
    assert_eq!(fields.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!(fields[CONTENT_LENGTH], "5");
    let mut framed = fields.clone();
    assert_eq!(framed.take_framing(), (Some(5), false));
    assert!(!framed.contains_key(CONTENT_LENGTH), "it was taken");
    let mut changed = fields;
    changed.insert("x-more", HeaderValue::from_static("1"));
    assert_eq!(
        written(&changed),
        "server: Some\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ndate: today\r\ncontent-length: 5\r\nx-more: 1\r\n"
    );
}

#[test]
fn all_values_of_a_field_are_there_as_lines_and_as_a_map() {
    let mut fields = request("Host: a\r\nX-A: 1\r\nx-ab: 2\r\nx-a:  3 \r\nX-A:\r\n").unwrap();
    let all = |fields: &Fields| fields.all_of("x-a").map(<[u8]>::to_vec).collect::<Vec<_>>();
    assert_eq!(all(&fields), [&b"1"[..], b"3", b""]);
    fields.remove("x-ab");
    assert_eq!(all(&fields), [&b"1"[..], b"3", b""]);
    assert!(all(&Fields::default()).is_empty());
}

#[test]
fn what_is_detached_says_the_same_and_shares_nothing() {
    let text = "GET /a?b HTTP/1.1\r\nX-Gone: 1\r\nConnection: x-gone\r\nHost: a\r\nX-A: 1\r\n\r\n";
    for is_map in [false, true] {
        let whole = Bytes::from(text.to_owned());
        let mut head = parse_request(&mut whole.clone(), 64 * 1024, 100).unwrap().unwrap().head;
        if is_map {
            head.headers.remove("x-gone");
        }
        let before = HeaderMap::clone(&head.headers);
        head.detach();
        assert_eq!(*head.headers, before);
        drop(before);
        assert!(whole.is_unique());
        assert_eq!((head.uri.to_string(), head.headers.came(Note::Host)), ("/a?b".into(), Came::Once(b"a")));
    }
}

/// What h2 remembers for as long as its connection lasts keeps no buffer that something was read into.
#[test]
fn a_map_for_good_shares_nothing_with_what_was_read() {
    let long = format!("x-long: {}", "y".repeat(1000));
    for lines in
        ["server: a\r\ndate: today\r\n", &*format!("{long}\r\nset-cookie: a=1\r\ncontent-length: 1\r\n")]
    {
        for is_changed in [false, true] {
            let whole = Bytes::from(format!("HTTP/1.1 200 OK\r\n{lines}\r\n"));
            let mut fields = parse_head(&mut whole.clone(), &Method::GET).unwrap().unwrap().headers;
            if is_changed {
                fields.insert("x-more", HeaderValue::from_static("1"));
            }
            let before = HeaderMap::clone(&fields);
            let map = fields.into_map(&Lexicon::default());
            assert_eq!(map, before);
            drop(before);
            assert!(whole.is_unique(), "{lines:?}, changed: {is_changed}");
        }
    }
}

/// Names and values stay; between them and behind them is what every reader takes.
#[test]
fn whatever_is_around_a_value_one_blank_is_passed() {
    for line in [
        "X-A: 1",
        "X-A:1",
        "X-A:\t1",
        "X-A:  1",
        "X-A: 1 ",
        "X-A:1\t",
        "X-A:1 ",
        "X-A: \t 1\t \t",
        "X-A: \t1",
    ] {
        for lines in [format!("{line}\r\nX-B: 2\r\n"), format!("X-B: 2\r\n{line}\r\n")] {
            let wanted = lines.replace(line, "X-A: 1");
            assert_eq!(written(&answer(&lines).unwrap()), wanted, "{lines:?}");
            let mut out = Vec::new();
            request(&lines).unwrap().passing().unwrap().write(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), wanted, "{lines:?}");
        }
    }
    for line in ["X-A:", "X-A: ", "X-A:\t ", "X-A:    "] {
        assert_eq!(written(&answer(&format!("{line}\r\n")).unwrap()), "X-A: \r\n", "{line:?}");
    }
}

#[test]
fn a_request_from_which_something_is_to_be_taken_is_told_field_by_field() {
    let passes = |line: &str| request(&format!("Host: a\r\n{line}\r\n")).unwrap().passing().is_some();
    for line in
        ["X-A: 1", "Connection: keep-alive", "Connection: close, Upgrade", "Connection: host", "Te: trailers"]
    {
        assert!(passes(line), "{line}");
    }
    for line in ["Connection: x-a", "Expect: 100-continue"] {
        assert!(!passes(line), "{line}");
    }
    for line in FORWARDING {
        assert!(!passes(line), "{line}");
    }
}

const FORWARDING: [&str; 4] =
    ["X-Forwarded-For: a", "Forwarded: for=a", "X-Real-IP: a", "x-forwarded-user: a"];

#[test]
fn nobody_finds_what_a_stranger_says_of_who_is_asking() {
    for line in FORWARDING {
        let (name, value) = line.split_once(": ").unwrap();
        let name: HeaderName = name.parse().unwrap();
        let mut fields = request(&format!("Host: a\r\n{line}\r\nX-A: 1\r\n")).unwrap();
        assert_eq!(fields.search(&name), Came::Once(value.as_bytes()));
        assert!(fields.contains_key(&name), "{line}");
        for fields in [&mut fields.clone(), &mut Fields::from(HeaderMap::clone(&fields)), &mut fields] {
            gate::disown(fields, true, &[]);
            assert!(fields.has(Note::Forwarding), "{line}: a trusted proxy's word");
            gate::disown(fields, false, &[]);
            assert_eq!(fields.search(&name), Came::Never);
            assert!(!fields.has_value(name.as_str(), value.as_bytes()) && !fields.has(Note::Forwarding));
            assert_eq!((fields.get(&name), fields.len()), (None, 2), "{line}");
            assert_eq!(fields.came(Note::Host), Came::Once(b"a"));
        }
        assert!(fields.passing().is_some(), "{line}: the others pass as they came");
    }
}

proptest! {
    /// Whatever is asked of the lines, the map of them says the same.
    #[test]
    fn lines_and_their_map_agree(
        lines in proptest::collection::vec(
            (
                prop_oneof![
                    Just("host"), Just("Te"), Just("date"), Just("Content-Type"), Just("x-forwarded-for"), Just("x_a"),
                    Just("connection"), Just("Keep-Alive"), Just("expect"), Just("x-real-ip"), Just("X-B"),
                ],
                "[ \t]?[a-z,]{0,6}[ \t]?",
            ),
            0..9,
        ),
    ) {
        let text: String = lines.iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect();
        let Some(fields) = request(&text) else { return Ok(()) };
        let map = Fields::from(HeaderMap::clone(&fields));
        prop_assert_eq!(map.len(), lines.len());
        // The second time from what is known.
        let lexicon = Lexicon::default();
        for _ in 0..2 {
            prop_assert_eq!(&fields.clone().into_map(&lexicon), &*map);
        }
        prop_assert_eq!(fields.has_underscores(), map.has_underscores());
        prop_assert_eq!(fields.takes_trailers(), map.takes_trailers());
        for note in NOTES {
            prop_assert_eq!(fields.has(note), map.has(note), "{:?}", note);
            if note.name().is_some() {
                prop_assert_eq!(fields.came(note), map.came(note), "{:?}", note);
                prop_assert_eq!(fields.first(note), map.first(note), "{:?}", note);
            }
        }
        for (name, value) in &lines {
            let value = value.trim().as_bytes();
            prop_assert!(fields.has_value(&name.to_ascii_lowercase(), value) && map.has_value(&name.to_ascii_lowercase(), value));
        }
        prop_assert!(!fields.has_value("x-b", b"never"));
    }

    /// Whether a head passes as lines or as a map, the endpoint and the client are told the same.
    #[test]
    fn lines_and_their_map_are_written_alike(
        lines in proptest::collection::vec(
            (
                prop_oneof![
                    Just("TE"), Just("Date"), Just("Content-Type"), Just("X-Forwarded-For"), Just("X_A"), Just("x-a"),
                    Just("Connection"), Just("connection"), Just("Keep-Alive"), Just("expect"), Just("x-real-ip"), Just("X-B"),
                    Just("Forwarded"), Just("Upgrade"), Just("proxy-authorization"), Just("Cookie"), Just("Via"), Just("x-forwarded-user"),
                ],
                prop_oneof![
                    Just("x-a"), Just("close"), Just("keep-alive, X-B"), Just("trailers"), Just("te"), Just("Upgrade"), Just("a"),
                    Just(""), Just("cookie,date"), Just("host, content-length, x-forwarded-for"), Just("x-real-ip"), Just("a\u{e9}"),
                ],
                prop_oneof![Just(""), Just(" "), Just("\t "), Just("  ")],
            ),
            0..9,
        ),
        is_trusted: bool,
        has_subject: bool,
        is_old: bool,
    ) {
        let text: String = lines.iter().map(|(name, value, blank)| format!("{name}:{blank}{value}{blank}\r\n")).collect();
        let Some(fields) = request(&format!("Host: a\r\n{text}")) else { return Ok(()) };
        let map = Fields::from(HeaderMap::clone(&fields));
        let written = |mut headers: Fields| {
            let subject = [HeaderName::from_static("x-a")];
            gate::disown(&mut headers, is_trusted, if has_subject { &subject } else { &[] });
            let mut head = parts(headers);
            head.version = if is_old { Version::HTTP_10 } else { Version::HTTP_11 };
            let introduction = CALLER.introduction();
            let origin = Origin {
                caller: CALLER,
                introduction: &introduction,
                host: b"a",
                asked: b"a",
                forwarded: false,
                via: "switchback",
            };
            let mut out = Vec::new();
            write_request(&mut out, &head, "/", BodyLength::None, origin, None);
            said(&out)
        };
        prop_assert_eq!(written(fields), written(map));
        let Some(fields) = answer(&text) else { return Ok(()) };
        let map = Fields::from(HeaderMap::clone(&fields));
        let written = |fields: Fields| {
            let mut out = Vec::new();
            fields.write(&mut out);
            said(&out)
        };
        prop_assert_eq!(written(fields), written(map));
    }
}

fn parts(headers: Fields) -> Parts {
    let mut head = Parts::from(http::Request::new(()).into_parts().0);
    head.headers = headers;
    head
}

const CALLER: Caller<'static> =
    Caller { client: Some("192.0.2.1"), port: Some(80), scheme: "http", subject: None };

/// The fields that some lines say, each with its values in order.
fn said(lines: &[u8]) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut said = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in lines::each(lines) {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        said.entry(name).or_default().push(value.to_vec());
    }
    said
}
