//! A well-behaved HTTP/2 client, on the crate `h2`.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::Answer;

/// One connection.
pub struct Http2 {
    pub send: SendRequest<Bytes>,
    /// Runs it, and ends with it.
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

/// Runs a test's asynchronous part.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(super::PATIENCE * 3, test).await.expect("in time") })
}

/// Waits for something without keeping the connections from running.
pub async fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = tokio::time::Instant::now();
    while !is_so() {
        assert!(since.elapsed() < super::PATIENCE, "it never came to this: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// A request to the shop.
pub fn request(method: Method, path: &str) -> Request<()> {
    let uri = format!("http://shop.test{path}");
    Request::builder().method(method).uri(uri).body(()).expect("a request")
}

impl Http2 {
    pub async fn to(address: SocketAddr) -> Self {
        Self::with(&Builder::new(), address).await
    }

    /// Over TLS; `caller` has to offer it.
    pub async fn secure(address: SocketAddr, caller: &super::tls::Caller, name: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("the proxy accepts");
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).expect("a name");
        let connector = tokio_rustls::TlsConnector::from(caller.config());
        let stream = connector.connect(name, stream).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (send, connection) = Builder::new().handshake(stream).await.expect("HTTP/2");
        Self { send, connection: tokio::spawn(connection) }
    }

    pub async fn with(builder: &Builder, address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the proxy accepts");
        stream.set_nodelay(true).expect("an option");
        let (send, connection) = builder.handshake(stream).await.expect("HTTP/2");
        Self { send, connection: tokio::spawn(connection) }
    }

    /// Begins a request; its body can still be sent when `is_end` is false.
    pub async fn start(&self, request: Request<()>, is_end: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let mut send = self.send.clone().ready().await.expect("a stream");
        send.send_request(request, is_end).expect("a stream")
    }

    pub async fn try_get(&self, path: &str) -> Result<Answer, h2::Error> {
        let mut send = self.send.clone().ready().await?;
        let (response, _) = send.send_request(request(Method::GET, path), true)?;
        answer(response).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.try_get(path).await.expect("an answer")
    }

    /// Sends a request without a body.
    pub async fn ask(&self, request: Request<()>) -> Answer {
        answer(self.start(request, true).await.0).await.expect("an answer")
    }

    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        let (response, send) = self.start(request(Method::POST, path), false).await;
        let (sent, answered) = tokio::join!(upload(send, body.into(), None), answer(response));
        sent.expect("sent");
        answered.expect("an answer")
    }
}

/// Sends a body as the windows open, and then trailers if there are any.
pub async fn upload(
    mut send: SendStream<Bytes>,
    mut body: Bytes,
    trailers: Option<HeaderMap>,
) -> Result<(), h2::Error> {
    if body.is_empty() && trailers.is_none() {
        return send.send_data(body, true);
    }
    while !body.is_empty() {
        send.reserve_capacity(body.len());
        let Some(room) = poll_fn(|cx| send.poll_capacity(cx)).await.transpose()? else { break };
        let part = body.split_to(room.min(body.len()));
        send.send_data(part, body.is_empty() && trailers.is_none())?;
    }
    match trailers {
        Some(trailers) => send.send_trailers(trailers),
        None => Ok(()),
    }
}

/// The whole answer, interim ones and trailers too.
pub async fn answer(mut response: ResponseFuture) -> Result<Answer, h2::Error> {
    let mut answer = Answer::default();
    while let Some(interim) = poll_fn(|cx| response.poll_informational(cx)).await.transpose()? {
        answer.interim.push((interim.status().as_u16(), fields(interim.headers())));
    }
    let (head, mut body) = response.await?.into_parts();
    (answer.status, answer.headers) = (head.status.as_u16(), fields(&head.headers));
    match body_of(&mut body, &mut answer).await {
        Ok(()) => answer.is_whole = true,
        // That it broke off is what the test looks at.
        Err(_) => answer.is_whole = false,
    }
    Ok(answer)
}

async fn body_of(body: &mut RecvStream, answer: &mut Answer) -> Result<(), h2::Error> {
    while let Some(data) = body.data().await.transpose()? {
        body.flow_control().release_capacity(data.len())?;
        answer.body.extend_from_slice(&data);
    }
    answer.trailers = body.trailers().await?.as_ref().map(fields).unwrap_or_default();
    Ok(())
}

fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}
