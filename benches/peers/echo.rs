//! WebSockets: the load that sends a message and waits for it to come back, and the end that sends it back.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use futures_util::{SinkExt, StreamExt};
use tokio::{net::TcpStream, time::timeout_at};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, handshake::derive_accept_key, protocol::Role},
};

use crate::{
    certificate,
    scenario::Load,
    tally::{self, Tally},
};

/// The path where every connection becomes a WebSocket.
pub(crate) const ECHO: &str = "/echo";
/// How long after the end the last answer may come.
const LATE: Duration = Duration::from_secs(5);

/// Puts the load on `to` and prints what `wrk` would.
pub(crate) fn load(to: SocketAddr, bytes: usize, connections: u16, seconds: u16) -> Result<()> {
    tally::measure(connections, seconds, move |end, tally| async move {
        if let Err(error) = converse(to, bytes, end, &tally).await {
            tally.borrow_mut().failed(&match error {
                Error::Io(error) => error,
                other => io::Error::other(other),
            });
        }
    })
}

async fn converse(to: SocketAddr, bytes: usize, end: Instant, tally: &RefCell<Tally>) -> Result<(), Error> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (mut socket, _) = client_async(format!("ws://{}{ECHO}", certificate::NAME), stream).await?;
    let message = Message::binary(vec![b'x'; bytes]);
    while Instant::now() < end {
        let start = Instant::now();
        socket.send(message.clone()).await?;
        let answer = timeout_at((end + LATE).into(), socket.next()).await;
        let answer = answer.map_err(io::Error::from)?.ok_or(Error::ConnectionClosed)??;
        tally.borrow_mut().answered(start.elapsed(), answer.len(), answer == message);
    }
    socket.close(None).await
}

/// Sends back every message that comes in on a connection whose handshake was received; `read` was received after it.
pub(crate) async fn answer(mut stream: TcpStream, key: &[u8], read: Vec<u8>) -> Result<()> {
    let accept = derive_accept_key(key);
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await?;
    let mut socket = WebSocketStream::from_partially_read(stream, read, Role::Server, None).await;
    while let Some(message) = socket.next().await {
        match message? {
            message @ (Message::Binary(_) | Message::Text(_)) => socket.send(message).await?,
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
        }
    }
    Ok(())
}

/// Runs the load in a process of its own: the command line after the program.
pub(crate) fn arguments(to: SocketAddr, load: &Load, seconds: u16) -> Vec<String> {
    vec![
        "echo".to_owned(),
        format!("--to={to}"),
        format!("--bytes={}", load.answer),
        format!("--connections={}", load.connections),
        format!("--seconds={seconds}"),
    ]
}
