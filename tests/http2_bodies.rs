//! Bodies over HTTP/2: as large as they like, in bounded memory, and a slow side stops its own stream alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::future::poll_fn;
use std::io::{self, Write};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use lab::frames::{
    self, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, WHOLE, block, frame, reset, window_update,
};
use lab::http2::{answer, request, run, upload};
use lab::origin::{Peer, Then};
use lab::{Frames, Gate, Http2, Lab, Origin};

const MIB: usize = 1 << 20;
/// So many of them.
const LARGE: usize = 32;
/// What a request may send before its endpoint takes anything.
const STREAM_WINDOW: usize = 64 * 1024;
/// What the proxy may grow by, whatever passes: its buffers, and the allocator's first pages of each size.
const GROWTH: usize = 16 * MIB;

/// The `index`th piece of a large body, no two alike.
fn piece(index: usize) -> Bytes {
    let mut piece: Vec<u8> = (0..251u8).cycle().take(MIB).collect();
    piece[..8].copy_from_slice(&index.to_be_bytes());
    piece.into()
}

/// The pieces of a chunked request, until there are no more.
fn swallow(proxy: &mut Peer, mut took: impl FnMut(&[u8])) -> io::Result<()> {
    loop {
        let size = usize::from_str_radix(&proxy.line()?, 16).map_err(io::Error::other)?;
        let chunk = proxy.bytes(size + 2)?;
        if size == 0 {
            return Ok(());
        }
        took(&chunk[..size]);
    }
}

#[test]
fn large_bodies_pass_both_ways_in_bounded_memory() {
    let origin = Origin::scripted("blue", |proxy| {
        proxy.head()?;
        let (mut index, mut body) = (0, Vec::new());
        swallow(proxy, |part| {
            body.extend_from_slice(part);
            while body.len() >= MIB {
                assert!(body[..MIB] == piece(index), "piece {index} of the request is another");
                body.drain(..MIB);
                index += 1;
            }
        })?;
        assert_eq!((index, body.len()), (LARGE, 0));
        proxy.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", LARGE * MIB))?;
        (0..LARGE).try_for_each(|index| proxy.send(piece(index)))
    });
    let lab = Lab::on(vec![origin], "");
    let before = lab.proxy().memory();
    run(async {
        let client = Http2::to(lab.address()).await;
        let (response, mut send) = client.start(request(Method::POST, "/"), false).await;
        for index in 0..LARGE {
            let mut part = piece(index);
            while !part.is_empty() {
                send.reserve_capacity(part.len());
                let room = poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
                let part = part.split_to(room.min(part.len()));
                send.send_data(part, false).unwrap();
            }
        }
        send.send_data(Bytes::new(), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let (mut index, mut read) = (0, Vec::new());
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            read.extend_from_slice(&data);
            while read.len() >= MIB {
                assert!(read[..MIB] == piece(index), "piece {index} of the answer is another");
                read.drain(..MIB);
                index += 1;
            }
        }
        assert_eq!((index, read.len()), (LARGE, 0));
    });
    let grown = lab.proxy().memory().saturating_sub(before);
    assert!(grown < GROWTH, "the proxy has grown by {grown} bytes");
}

#[test]
fn uploads_that_wait_do_not_hold_up_the_others_of_their_connection() {
    let cart = Origin::start("cart");
    let service = format!(
        "[services.cart]\nroutes = [{{ path = \"/cart\" }}]\nversions.only.endpoints = [\"{}\"]\n",
        cart.address
    );
    let lab = Lab::on(vec![Origin::start("blue"), cart], &service);
    lab.hold(&serde_json::json!({ "timeout": "5m" }));
    run(async {
        let client = Http2::to(lab.address()).await;
        // All but one of those that there may be.
        let mut held = Vec::new();
        for _ in 0..99 {
            let (response, mut send) = client.start(request(Method::POST, "/"), false).await;
            send.reserve_capacity(STREAM_WINDOW);
            while send.capacity() < STREAM_WINDOW {
                poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
            }
            send.send_data(vec![b'x'; STREAM_WINDOW].into(), false).unwrap();
            held.push((response, send));
        }
        let answer = client.post("/cart", vec![b'x'; 4 * STREAM_WINDOW]).await;
        assert_eq!(answer.version(), "cart");
        lab.release();
        for (response, mut send) in held {
            send.send_data(Bytes::new(), true).unwrap();
            assert_eq!(response.await.unwrap().headers()["x-version"], "blue");
        }
    });
}

#[test]
fn a_client_that_stops_reading_one_stream_stops_its_endpoint_and_no_other_stream() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let origin = Origin::behaving("blue", move |seen, stream| {
        if seen.path() == "/small" {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
            return Ok(Then::Keep);
        }
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 256 * MIB)?;
        for _ in 0..256 {
            stream.write_all(&piece(0))?;
            count.fetch_add(1, Ordering::SeqCst);
        }
        Ok(Then::Keep)
    });
    let lab = Lab::on(vec![origin], "");
    let mut connection = Frames::to(lab.address());
    connection.send(frame(HEADERS, WHOLE, 1, frames::get("/large")));
    // The stream's window is used up; the connection's is opened for others.
    let mut read = 0;
    while read < 65_535 {
        read += connection.next(DATA, 1).payload.len();
    }
    connection.send(window_update(0, 1 << 20));
    for stream in (3..200).step_by(2) {
        assert_eq!(connection.ask(stream, "/small"), 200);
    }
    lab::wait_until("the endpoint stands still", || {
        let before = written.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(200));
        written.load(Ordering::SeqCst) == before
    });
    let written = written.load(Ordering::SeqCst);
    assert!(written < 64, "the endpoint could write {written} MiB");
}

#[test]
fn an_endpoint_that_stops_reading_one_stream_stops_its_client_and_no_other_stream() {
    let gate = Gate::default();
    let opened = gate.clone();
    let origin = Origin::scripted("blue", move |proxy| {
        let head = proxy.head()?;
        if head.path() == "/small" {
            return proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
        opened.wait();
        let mut length = 0;
        swallow(proxy, |part| length += part.len())?;
        proxy.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{length}", length.to_string().len()))
    });
    let lab = Lab::on(vec![origin], "");
    let before = lab.proxy().memory();
    run(async {
        let client = Http2::to(lab.address()).await;
        let body: Bytes = vec![7; LARGE * MIB].into();
        let (response, send) = client.start(request(Method::POST, "/held"), false).await;
        let uploading = tokio::spawn(upload(send, body, None));
        for _ in 0..50 {
            assert_eq!(client.get("/small").await.text(), "ok");
        }
        assert!(!uploading.is_finished(), "nobody has read it");
        let grown = lab.proxy().memory().saturating_sub(before);
        assert!(grown < GROWTH, "the proxy has grown by {grown} bytes");
        gate.open();
        uploading.await.unwrap().unwrap();
        assert_eq!(answer(response).await.unwrap().text(), (LARGE * MIB).to_string());
    });
}

#[test]
fn who_is_refused_early_may_end_its_upload_before_the_stream_is_reset() {
    let lab = limited();
    let mut connection = Frames::to(lab.address());
    let post = || block(&frames::request("POST", "/"));
    // One that goes on a little and ends, one that is given up, one that never ends.
    for stream in [1, 3, 5] {
        connection.send(frame(HEADERS, END_HEADERS, stream, post()));
        connection.send(frame(DATA, 0, stream, [0; 2_000]));
        assert_eq!(connection.status(stream), 413);
        let end = connection.until(|piece| piece.stream == stream && piece.flags & END_STREAM != 0);
        assert_eq!(end.kind, DATA, "the answer is whole");
    }
    let since = Instant::now();
    connection.send(frame(DATA, 0, 1, [0; 2_000]));
    connection.send(frame(DATA, END_STREAM, 1, [0; 2_000]));
    connection.send(reset(3, 8));
    assert!(connection.is_alive());
    let end = connection.until(|piece| piece.kind == RST_STREAM);
    assert_eq!((end.stream, end.code()), (5, 0), "NO_ERROR");
    assert!(since.elapsed() >= Duration::from_millis(500), "{:?}", since.elapsed());
    assert!(connection.is_alive());
}

/// Takes a body of at most 1000 bytes.
fn limited() -> Lab {
    let origin = Origin::start("blue");
    let text = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nlimits = {{ request_body = \"1000B\" }}\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n",
        origin.address
    );
    Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &text)
}

#[test]
fn curl_sees_why_its_upload_is_refused() {
    let lab = limited();
    let file = lab.dir.path().join("large");
    std::fs::write(&file, vec![b'x'; 3 << 20]).unwrap();
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        let done = Command::new("curl")
            .args(["-sS", "--max-time", "30", "-w", "%{http_code}", "-o", "/dev/null", protocol, "-T"])
            .arg(&file)
            .arg(format!("http://{}/", lab.address()))
            .output()
            .expect("curl is installed");
        let said = (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned());
        assert_eq!(
            said,
            (Some(0), "413".to_owned()),
            "{protocol}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

#[test]
fn an_upload_goes_on_while_its_client_takes_none_of_an_early_answer() {
    let origin = Origin::scripted("blue", |proxy| {
        proxy.head()?;
        proxy.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {MIB}\r\n\r\n"))?;
        proxy.send(&piece(0)[..MIB / 2])?;
        swallow(proxy, |_| {})?;
        proxy.send(&piece(0)[MIB / 2..])
    });
    let lab = Lab::on(vec![origin], "");
    // A window of nothing, until all is sent.
    let mut connection = Frames::silent(lab.address()).open(&[(4, 0)]);
    connection.send(frame(HEADERS, END_HEADERS, 1, block(&frames::request("POST", "/"))));
    assert_eq!(connection.status(1), 200);
    for _ in 0..40 {
        connection.send(frame(DATA, 0, 1, [7; 10_000]).repeat(4));
        // Its window is opened again as the endpoint takes it.
        connection.next(frames::WINDOW_UPDATE, 1);
    }
    connection.send(frame(DATA, END_STREAM, 1, []));
    connection.send([window_update(0, 1 << 24), window_update(1, 1 << 24)].concat());
    let mut read = 0;
    while read < MIB {
        read += connection.next(DATA, 1).payload.len();
    }
}
