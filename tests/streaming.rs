//! Bodies stream both ways: nothing waits for their end, nothing piles up, and a break on one side shows on the other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::sync::{LazyLock, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use lab::origin::{Peer, Then};
use lab::{Lab, Origin};

const MIB: usize = 1 << 20;
/// What the proxy may grow by, whatever passes: its buffers, and the allocator's first pages of each size.
const GROWTH: usize = 16 * MIB;

/// The `index`th piece of a large body, no two alike.
fn piece(index: usize) -> Vec<u8> {
    static BASE: LazyLock<Vec<u8>> = LazyLock::new(|| (0..251u8).cycle().take(MIB).collect());
    let mut piece = BASE.clone();
    piece[..8].copy_from_slice(&index.to_be_bytes());
    piece
}

fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

/// Sends `mib` pieces on another thread.
fn send_pieces(mut stream: TcpStream, mib: usize) -> thread::JoinHandle<io::Result<()>> {
    thread::spawn(move || (0..mib).try_for_each(|index| stream.write_all(&piece(index))))
}

/// Swallows a body of pieces and answers with one as large.
fn mirrors_pieces(mib: usize) -> Origin {
    Origin::scripted("blue", move |proxy: &mut Peer| {
        proxy.head()?;
        for index in 0..mib {
            assert!(proxy.bytes(MIB)? == piece(index), "piece {index} of the request is another");
        }
        proxy.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", mib * MIB))?;
        (0..mib).try_for_each(|index| proxy.send(piece(index)))?;
        assert!(proxy.is_closed());
        Ok(())
    })
}

#[test]
fn bodies_of_64_mib_pass_both_ways_in_bounded_memory() {
    let lab = Lab::on(vec![mirrors_pieces(64)], "");
    let before = lab.proxy().memory();
    let mut client = lab.client();
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 64 * MIB));
    let sending = send_pieces(client.sender(), 64);
    while client.line() != "" {}
    sending.join().unwrap().unwrap();
    for index in 0..64 {
        assert!(client.bytes(MIB) == piece(index), "piece {index} of the answer is another");
    }
    let grown = lab.proxy().memory().saturating_sub(before);
    assert!(grown < GROWTH, "the proxy has grown by {grown} bytes");
}

#[test]
fn lengths_and_chunks_pass_in_every_combination() {
    let body = piece(7)[..300_000].to_vec();
    let answered = body.clone();
    let origin = Origin::behaving("blue", move |seen, stream| {
        let length = answered.len();
        match seen.path() {
            "/length" => write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")?,
            "/chunks" => write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?,
            _ => write!(stream, "HTTP/1.1 200 OK\r\n\r\n")?,
        }
        if seen.path() == "/chunks" {
            answered.chunks(7_001).try_for_each(|data| stream.write_all(&chunk(data)))?;
            stream.write_all(b"0\r\n\r\n")?;
        } else {
            stream.write_all(&answered)?;
        }
        Ok(if seen.path() == "/close" { Then::Close } else { Then::Keep })
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    for path in ["/length", "/chunks", "/close"] {
        for is_chunked in [false, true] {
            if is_chunked {
                client.send(format!("POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"));
                body.chunks(9_001).for_each(|data| {
                    client.send(chunk(data));
                });
                client.send("0\r\n\r\n");
            } else {
                client.send(format!(
                    "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                ));
                client.send(&body);
            }
            let answer = client.answer();
            assert!(answer.body == body && answer.is_whole, "{path}, chunked: {is_chunked}");
            let seen = lab.origins[0].seen().pop().unwrap();
            assert!(seen.body == body, "{path}, chunked: {is_chunked}");
            let length = seen.header("content-length");
            let coding = seen.header("transfer-encoding");
            assert_eq!(
                (length, coding),
                if is_chunked { (None, Some("chunked")) } else { (Some("300000"), None) }
            );
        }
    }
}

/// How many bytes go out until the other side takes no more for a while, of at most `most`.
fn send_until_stalled(stream: &mut TcpStream, most: usize) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(400))).unwrap();
    let zeros = vec![0; 64 * 1024];
    let mut sent = 0;
    while sent < most {
        match stream.write(&zeros[..zeros.len().min(most - sent)]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    stream.set_write_timeout(None).unwrap();
    sent
}

#[test]
fn an_origin_that_does_not_read_stalls_the_client_and_costs_no_memory() {
    const ALL: usize = 64 * MIB;
    let (read_on, may_read) = mpsc::channel::<()>();
    let may_read = Mutex::new(may_read);
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        proxy.head()?;
        let _ = may_read.lock().unwrap().recv();
        proxy.bytes(ALL)?;
        proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        assert!(proxy.is_closed());
        Ok(())
    });
    let lab = Lab::on(vec![origin], "");
    let before = lab.proxy().memory();
    let mut client = lab.client();
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {ALL}\r\n\r\n"));
    let mut sender = client.sender();
    let sent = send_until_stalled(&mut sender, ALL);
    assert!(sent < ALL / 2, "{sent} bytes went out to an origin that read none");
    let grown = lab.proxy().memory().saturating_sub(before);
    assert!(grown < GROWTH, "the proxy has grown by {grown} bytes");
    read_on.send(()).unwrap();
    let rest = thread::spawn(move || sender.write_all(&vec![0; ALL - sent]));
    assert_eq!(client.answer().status, 200);
    rest.join().unwrap().unwrap();
}

#[test]
fn a_client_that_does_not_read_stalls_the_origin_and_costs_no_memory() {
    const ALL: usize = 64 * MIB;
    let (tell, told) = mpsc::channel();
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        proxy.head()?;
        proxy.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {ALL}\r\n\r\n"))?;
        let sent = send_until_stalled(&mut proxy.stream().try_clone()?, ALL);
        let _ = tell.send(sent);
        proxy.send(vec![0; ALL - sent])?;
        assert!(proxy.is_closed());
        Ok(())
    });
    let lab = Lab::on(vec![origin], "");
    let before = lab.proxy().memory();
    let mut client = lab.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let sent = told.recv_timeout(lab::PATIENCE).unwrap();
    assert!(sent < ALL / 2, "{sent} bytes went out to a client that read none");
    let grown = lab.proxy().memory().saturating_sub(before);
    assert!(grown < GROWTH, "the proxy has grown by {grown} bytes");
    while client.line() != "" {}
    (0..64).for_each(|_| drop(client.bytes(MIB)));
}

#[test]
fn an_event_reaches_the_client_before_the_next_one_is_made() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        proxy.head()?;
        proxy.send(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )?;
        for number in 0..5 {
            proxy.send(chunk(format!("data: {number}\n\n").as_bytes()))?;
            let _ = gone.lock().unwrap().recv();
        }
        proxy.send("0\r\n\r\n")?;
        assert!(proxy.is_closed());
        Ok(())
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    while client.line() != "" {}
    for number in 0..5 {
        assert_eq!((client.line(), client.line()), ("9".into(), format!("data: {number}\n\n")));
        assert_eq!(lab.metric(&["switchback_in_flight{", "kind=\"sse\""]), Some(1.0));
        go.send(()).unwrap();
    }
    assert_eq!((client.line(), client.line()), ("0".into(), String::new()));
}

#[test]
fn an_answer_may_begin_before_the_request_ends() {
    let origin = Origin::scripted("blue", |proxy: &mut Peer| {
        proxy.head()?;
        proxy.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        loop {
            let size = usize::from_str_radix(&proxy.line()?, 16).unwrap();
            let data = proxy.bytes(size)?;
            proxy.line()?;
            proxy.send(if size == 0 { b"0\r\n\r\n".to_vec() } else { chunk(&data) })?;
            if size == 0 {
                assert!(proxy.is_closed());
                return Ok(());
            }
        }
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    while client.line() != "" {}
    for word in ["one", "two", "three"] {
        client.send(chunk(word.as_bytes()));
        assert_eq!((client.line(), client.line()), (format!("{:x}", word.len()), word.to_owned()));
    }
    client.send("0\r\n\r\n");
    assert_eq!((client.line(), client.line()), ("0".into(), String::new()));
}

#[test]
fn nothing_of_a_body_is_lost_when_the_answer_begins_before_it_is_taken() {
    const ALL: usize = 16 * MIB;
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = Mutex::new(may_go);
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        proxy.head()?;
        let _ = may_go.lock().unwrap().recv();
        proxy.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        let mut taken = 0;
        loop {
            let size = usize::from_str_radix(&proxy.line()?, 16).unwrap();
            proxy.bytes(size)?;
            proxy.line()?;
            taken += size;
            if size == 0 {
                return proxy.send([chunk(taken.to_string().as_bytes()), b"0\r\n\r\n".to_vec()].concat());
            }
        }
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    // Small chunks: what the proxy has read and not sent on is many of them.
    let body = [chunk(&[7; 1024]).repeat(ALL / 1024), b"0\r\n\r\n".to_vec()].concat();
    let mut sender = client.sender();
    sender.set_write_timeout(Some(Duration::from_millis(400))).unwrap();
    let mut sent = 0;
    while let Ok(count) = sender.write(&body[sent..(sent + 65_536).min(body.len())]) {
        sent += count;
    }
    sender.set_write_timeout(None).unwrap();
    assert!(sent < body.len(), "the origin has not read anything yet");
    go.send(()).unwrap();
    while client.line() != "" {}
    let rest = thread::spawn(move || sender.write_all(&body[sent..]));
    assert_eq!((client.line(), client.line()), ("8".into(), ALL.to_string()));
    rest.join().unwrap().unwrap();
}

#[test]
fn an_early_refusal_reaches_a_client_that_is_still_sending() {
    let origin = Origin::scripted("blue", |proxy: &mut Peer| {
        if proxy.head()?.path() == "/small" {
            return proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
        proxy.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 4\r\n\r\nmuch")?;
        // What was on its way may still come: not all of it, and no next request.
        assert!(proxy.rest().len() < 32 * MIB);
        Ok(())
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    client.send(format!("POST /large HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 64 * MIB));
    let sending = send_pieces(client.sender(), 64);
    let answer = client.answer();
    assert_eq!((answer.status, answer.text().as_str()), (413, "much"));
    assert!(client.rest().is_empty(), "and the connection ends");
    let _ = sending.join().unwrap();
    assert_eq!(lab.get("/small").status, 200);
    assert_eq!(lab.origins[0].connections(), 2);
}

/// An answer of unknown length, to the head alone, over a connection that is kept.
fn answers_early(name: &str) -> Origin {
    Origin::scripted(name, |proxy: &mut Peer| {
        while proxy.head()?.path() == "/small" {
            proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        }
        proxy.send("HTTP/1.1 401 Unauthorized\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n")?;
        proxy.send("0\r\n\r\n")?;
        proxy.rest();
        Ok(())
    })
}

#[test]
fn who_is_answered_early_may_ask_again_when_the_body_is_sent() {
    let lab = Lab::on(vec![answers_early("blue")], "");
    let mut client = lab.client();
    client.send("POST /large HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n");
    client.send([b'x'; 50_000]);
    let answer = client.answer();
    assert_eq!((answer.status, answer.text().as_str(), answer.header("connection")), (401, "no", None));
    // The rest, and the next request, are on their way when the answer comes.
    client.send([b'x'; 50_000]);
    assert_eq!(client.get("/small").status, 200);
    // The next one is never all there.
    client.send("POST /large HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n");
    assert_eq!(client.answer().status, 401);
    assert!(client.rest().is_empty(), "nothing more is waited for");
}

#[test]
fn who_waits_to_be_asked_for_the_body_and_is_refused_hears_that_the_connection_ends() {
    let lab = Lab::on(vec![answers_early("blue")], "");
    let mut client = lab.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 100000\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));
    assert!(client.rest().is_empty());
    let mut client = lab.client();
    client.send("GET /small HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer().header("connection"), None, "there is no body");
    assert_eq!(client.get("/small").status, 200);
}

#[test]
fn an_origin_that_refuses_and_hangs_up_is_still_heard() {
    let origin = Origin::scripted("blue", |proxy: &mut Peer| {
        proxy.head()?;
        proxy.bytes(100_000)?;
        proxy.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 4\r\nconnection: close\r\n\r\nmuch")
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 64 * MIB));
    let sending = send_pieces(client.sender(), 64);
    let answer = client.answer();
    assert_eq!((answer.status, answer.text().as_str()), (413, "much"));
    assert!(client.rest().is_empty());
    let _ = sending.join().unwrap();
}

/// An origin that tells when a request is there, and when the proxy has gone.
fn watching(answer: &'static str) -> (Origin, mpsc::Receiver<&'static str>) {
    let (tell, told) = mpsc::channel();
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        proxy.head()?;
        proxy.send(answer)?;
        tell.send("asked").unwrap();
        proxy.rest();
        tell.send("gone").unwrap();
        Ok(())
    });
    (origin, told)
}

/// A client that sends `request`, reads `taken` bytes and hangs up; the origin and the metrics see it.
fn hangs_up(request: &str, answer: &'static str, taken: usize) {
    let (origin, told) = watching(answer);
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    client.send(request);
    assert_eq!(told.recv_timeout(lab::PATIENCE), Ok("asked"));
    client.bytes(taken);
    drop(client);
    assert_eq!(told.recv_timeout(lab::PATIENCE), Ok("gone"));
    lab.wait_for_metric(
        &["switchback_client_requests_total{", "version=\"blue\"", "reason=\"client_gone\""],
        1.0,
    );
}

#[test]
fn a_client_that_leaves_before_the_answer_ends_the_request() {
    hangs_up("GET / HTTP/1.1\r\nhost: a\r\n\r\n", "", 0);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_the_answer_ends_it() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
    hangs_up("GET / HTTP/1.1\r\nhost: a\r\n\r\n", answer, answer.len());
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_body_ends_the_request() {
    hangs_up("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc", "", 0);
    hangs_up("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "", 0);
}

#[test]
fn an_answer_that_breaks_off_is_seen_to_break_off() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ] {
        let origin = Origin::behaving("blue", move |_, stream| {
            stream.write_all(answer.as_bytes())?;
            Ok(Then::Close)
        });
        let lab = Lab::on(vec![origin], "");
        let mut client = lab.client();
        let got = client.get("/");
        assert_eq!((got.status, got.text().as_str(), got.is_whole), (200, "abc", false), "{answer:?}");
        assert!(client.rest().is_empty());
        let counted = lab.metric(&["switchback_upstream_requests_total{", "reason=\"body_truncated\""]);
        assert_eq!(counted, Some(1.0));
    }
}

#[test]
fn an_answer_without_a_head_is_a_bad_gateway() {
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let origin = Origin::behaving("blue", move |_, stream| {
            stream.write_all(answer.as_bytes())?;
            Ok(Then::Close)
        });
        let lab = Lab::on(vec![origin], "");
        let got = lab.get("/");
        assert_eq!(
            (got.status, got.header("switchback-reason")),
            (502, Some("upstream_closed")),
            "{answer:?}"
        );
    }
}

#[test]
fn a_connection_with_bytes_left_over_is_not_used_again() {
    let origin = Origin::behaving("blue", |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcdef")?;
        Ok(Then::Keep)
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    for requests in 1..=3 {
        assert_eq!(client.get("/").text(), "abc");
        assert_eq!(lab.origins[0].connections(), requests);
    }
}
