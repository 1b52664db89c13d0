//! Bytes on their way to a client: gathered so that a small answer is one `send`, never copied when they are many.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tokio::io::AsyncWrite;

use super::answer::Framing;
use crate::proxy::http1;
use crate::proxy::pipe::{self, Pipe};
use crate::proxy::upstream::Stream;
use crate::proxy::worker::Worker;

/// How much is gathered before it is written; also the largest part that is copied for it.
const BATCH: usize = 16 * 1024;

/// What follows the data of a chunk.
const CHUNK_END: &[u8] = b"\r\n";

/// What waits to be written: `text` from `at` on, then `frame`, then `tail`, then what is in `pipe`.
#[derive(Debug, Default)]
pub(super) struct Out {
    text: Vec<u8>,
    at: usize,
    frame: Bytes,
    tail: &'static [u8],
    /// Behind all of that.
    pipe: Option<Pipe>,
    /// True while TLS may hold records that have not gone out.
    is_held: bool,
}

impl Out {
    pub(super) fn is_empty(&self) -> bool {
        self.is_taken() && !self.is_held
    }

    /// True when the stream has taken all of it.
    fn is_taken(&self) -> bool {
        self.are_bytes_taken() && self.pipe.is_none()
    }

    fn are_bytes_taken(&self) -> bool {
        self.text.is_empty() && self.frame.is_empty() && self.tail.is_empty()
    }

    /// True when it is to be written before more is added.
    pub(super) fn is_full(&self) -> bool {
        !self.frame.is_empty() || !self.tail.is_empty() || self.pipe.is_some() || self.text.len() >= BATCH
    }

    /// How long the text is, of which nothing is given up before all of it is written.
    pub(super) fn gathered(&self) -> usize {
        self.text.len()
    }

    /// Where to append, unless it is [full](Self::is_full) of something else.
    pub(super) fn text(&mut self, worker: &Worker) -> &mut Vec<u8> {
        if self.text.capacity() == 0 {
            self.text = worker.take_buffer();
        }
        &mut self.text
    }

    /// Adds bytes: few behind what is there, many without a copy.
    pub(super) fn push(&mut self, data: Bytes) {
        if self.text.len() + data.len() <= BATCH {
            self.text.extend_from_slice(&data);
        } else {
            self.frame = data;
        }
    }

    /// Adds what a pipe holds.
    pub(super) fn pipe(&mut self, pipe: Pipe) {
        self.pipe = Some(pipe);
    }

    /// Adds a part of a body in its framing; true when it was the last.
    pub(super) fn add(&mut self, frame: Frame<Bytes>, framing: Framing, worker: &Worker) -> bool {
        let text = self.text(worker);
        match frame.into_data() {
            // A chunk of length 0 would end the body.
            Ok(data) if data.is_empty() => false,
            Ok(data) if !framing.is_chunked => {
                self.push(data);
                false
            }
            Ok(data) if text.len() + data.len() <= BATCH => {
                http1::encode_chunk(text, &data);
                false
            }
            Ok(data) => {
                http1::encode_size(text, data.len());
                (self.frame, self.tail) = (data, CHUNK_END);
                false
            }
            Err(frame) => {
                if framing.is_chunked {
                    http1::encode_end(text, frame.trailers_ref().filter(|_| framing.has_trailers));
                }
                true
            }
        }
    }

    /// Writes all of it; `moved` is told how many bytes went.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        moved: impl Fn(usize),
    ) -> Poll<io::Result<()>> {
        while !self.is_taken() {
            self.is_held = true;
            if self.are_bytes_taken() {
                moved(ready!(pipe::poll_drain(&mut self.pipe, &mut self.frame, stream, cx))?);
                continue;
            }
            let text = &self.text[self.at..];
            let written = if self.frame.is_empty() && self.tail.is_empty() {
                // A `send` is cheaper than a `writev` of one.
                ready!(Pin::new(&mut *stream).poll_write(cx, text))?
            } else {
                let parts = [IoSlice::new(text), IoSlice::new(&self.frame), IoSlice::new(self.tail)];
                let from = usize::from(text.is_empty());
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &parts[from..]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
            moved(written);
        }
        ready!(Pin::new(stream).poll_flush(cx))?;
        self.is_held = false;
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, written: usize) {
        let of_text = written.min(self.text.len() - self.at);
        self.at += of_text;
        if self.at == self.text.len() {
            (self.at, _) = (0, self.text.clear());
        }
        let of_frame = (written - of_text).min(self.frame.len());
        http1::pass_over(&mut self.frame, of_frame);
        self.tail = &self.tail[written - of_text - of_frame..];
    }

    /// Leaves the emptied buffer to the worker's next request.
    pub(super) fn give_back(&mut self, worker: &Worker) {
        if self.text.is_empty() {
            worker.give_back(std::mem::take(&mut self.text));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read;
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// More than the socket takes at once, and less than TLS does.
    const LENGTH: usize = 32_000;

    /// Shakes hands, and reads [`LENGTH`] bytes over TLS once it is told to.
    fn reader(
        mut socket: std::os::unix::net::UnixStream,
        config: ClientConfig,
        go: &mpsc::Receiver<()>,
    ) -> io::Result<Vec<u8>> {
        let name = ServerName::try_from("shop.test").map_err(io::Error::other)?;
        let mut client = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        while client.is_handshaking() {
            client.complete_io(&mut socket)?;
        }
        go.recv_timeout(PATIENCE).map_err(io::Error::other)?;
        let mut bytes = vec![0; LENGTH];
        StreamOwned::new(client, socket).read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// What both sides of a connection need.
    fn configs() -> (ServerConfig, ClientConfig) {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(["shop.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (server, client)
    }

    #[tokio::test]
    async fn it_is_not_empty_while_tls_holds_the_last_of_it() {
        let (server, client) = configs();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let (go, told) = mpsc::channel();
        socket2::SockRef::from(&ours).set_send_buffer_size(4096).unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = std::thread::spawn(move || reader(theirs, client, &told));
        let ours = Stream::Unix(tokio::net::UnixStream::from_std(ours).unwrap());
        let mut stream =
            Stream::Tls(Box::new(TlsAcceptor::from(Arc::new(server)).accept(ours).await.unwrap()));
        let mut out = Out { text: vec![b'x'; LENGTH], ..Out::default() };
        let first = poll_fn(|cx| Poll::Ready(out.poll_write(&mut stream, cx, |_| {}))).await;
        assert!(first.is_pending(), "nobody reads yet");
        assert!(out.is_taken(), "TLS has taken all of it");
        assert!(!out.is_empty(), "it has not gone out");
        go.send(()).unwrap();
        poll_fn(|cx| out.poll_write(&mut stream, cx, |_| {})).await.unwrap();
        assert!(out.is_empty());
        let read = tokio::task::spawn_blocking(|| reader.join().unwrap()).await.unwrap();
        assert_eq!(read.unwrap(), vec![b'x'; LENGTH]);
    }

    #[test]
    fn what_is_written_is_taken_off_the_front_in_order() {
        let mut out = Out {
            text: b"head".to_vec(),
            frame: Bytes::from_static(b"body"),
            tail: CHUNK_END,
            ..Out::default()
        };
        for (written, left) in [(3, "dbody\r\n"), (2, "ody\r\n"), (4, "\n"), (1, "")] {
            out.advance(written);
            let rest = [&out.text[out.at..], &out.frame, out.tail].concat();
            assert_eq!(rest, left.as_bytes());
        }
        assert!(out.is_empty());
    }
}
