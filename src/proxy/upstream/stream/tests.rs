//! Streams: fresh ones, and what is known of them without a system call.

use std::future::poll_fn;
use std::io::IoSlice;
use std::net::TcpListener;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A client, and its connection as it is accepted, on which it has said this.
fn accepted(said: &[u8]) -> (std::net::TcpStream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    Write::write_all(&mut client, said).unwrap();
    while !said.is_empty() && ours.peek(&mut vec![0; said.len()]).unwrap() < said.len() {}
    ours.set_nonblocking(true).unwrap();
    (client, Stream::accepted(ours))
}

#[tokio::test]
async fn who_need_not_be_waited_for_stays_off_the_runtime() {
    let (mut client, mut ours) = accepted(b"question");
    let mut question = [0; 100];
    assert_eq!(ours.read(&mut question).await.unwrap(), 8);
    assert_eq!(&question[..8], b"question");
    ours.write_all(b"ans").await.unwrap();
    let parts = [IoSlice::new(b"w"), IoSlice::new(b"er")];
    assert_eq!(ours.write_vectored(&parts).await.unwrap(), 3);
    assert!(ours.is_fresh() && !ours.has_unread());
    Write::write_all(&mut client, b"more").unwrap();
    while !ours.has_unread() {}
    assert!(ours.is_fresh());
    drop(ours);
    let mut answer = Vec::new();
    // Not all of `more` was read.
    assert_eq!(client.read_to_end(&mut answer).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(answer, b"answer");
}

#[tokio::test]
async fn who_has_to_be_waited_for_is_on_the_runtime() {
    let (mut client, mut ours) = accepted(b"");
    let waiting =
        poll_fn(|cx| Poll::Ready(Pin::new(&mut ours).poll_read(cx, &mut ReadBuf::new(&mut [0; 4]))));
    assert!(waiting.await.is_pending());
    assert!(!ours.is_fresh());
    Write::write_all(&mut client, b"late").unwrap();
    let mut late = [0; 4];
    ours.read_exact(&mut late).await.unwrap();
    assert_eq!(&late, b"late");

    let (mut client, mut ours) = accepted(b"");
    let (many, mut got, mut sent) = (vec![b'x'; 32_000_000], Vec::new(), 0);
    while ours.is_fresh() {
        assert!(sent < many.len(), "nobody reads, and everything had room");
        sent += poll_fn(|cx| match Pin::new(&mut ours).poll_write(cx, &many[sent..]) {
            Poll::Ready(some) => Poll::Ready(some.unwrap()),
            Poll::Pending => Poll::Ready(0),
        })
        .await;
        tokio::task::yield_now().await;
    }
    let reader = std::thread::spawn(move || client.read_to_end(&mut got).map(|_| got));
    ours.write_all(&many[sent..]).await.unwrap();
    drop(ours);
    assert_eq!(reader.join().unwrap().unwrap(), many);
}

#[tokio::test]
async fn who_always_has_more_lets_others_have_their_turn() {
    let (_client, mut ours) = accepted(&[b'x'; 1_000]);
    let read = poll_fn(|cx| {
        let mut reads = 0;
        while Pin::new(&mut ours).poll_read(cx, &mut ReadBuf::new(&mut [0])).is_ready() {
            reads += 1;
        }
        Poll::Ready(reads)
    });
    let reads = read.await;
    assert!((1..1_000).contains(&reads), "{reads} in one turn");
    assert!(ours.is_fresh(), "not for want of bytes");
}

#[tokio::test]
async fn a_client_that_is_turned_away_hears_why() {
    let (mut client, mut ours) = accepted(b"question");
    ours.dismiss(b"full");
    drop(ours);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"full");
}

#[tokio::test]
async fn whether_a_client_has_left_is_known_from_the_next_turn_on() {
    let (client, mut ours) = accepted(b"unread");
    assert!(!ours.has_left());
    drop(client);
    while !ours.has_left() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_nobody_has_read_is_known_and_an_end_is_not_taken_for_it() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut ours = Stream::Unix(ours);
    assert!(!ours.has_unread());
    theirs.write_all(b"xy").await.unwrap();
    poll_fn(|cx| ours.poll_reading(cx, |_| Ok(()))).await.unwrap();
    assert!(ours.has_unread() && ours.has_unread());
    assert!(!ours.has_unread(), "both bytes are read by asking");
    drop(theirs);
    poll_fn(|cx| ours.poll_reading(cx, |_| Ok(()))).await.unwrap();
    assert!(!ours.has_unread());
}

#[tokio::test]
async fn a_reset_behind_the_end_tells_that_it_was_sent_before_ours_came() {
    for is_read in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut ours, (mut peer, _)) = (Stream::opened(tcp).unwrap(), listener.accept().unwrap());
        ours.write_all(b"question").await.unwrap();
        peer.peek(&mut [0]).unwrap();
        if is_read {
            peer.read_exact(&mut [0; 8]).unwrap();
        } else {
            // As a closed socket does, whose end was under way when the question came.
            peer.shutdown(Shutdown::Write).unwrap();
        }
        drop(peer);
        assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0);
        let limit = Duration::from_millis(if is_read { 50 } else { 10_000 });
        assert_eq!(ours.is_reset_within(limit).await, !is_read);
    }
}
