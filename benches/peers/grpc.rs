//! The gRPC end of the origin: unary calls, over HTTP/2 by prior knowledge.

use std::net::SocketAddr;

use anyhow::Result;
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    task::spawn_local,
};

use crate::scenario::GRPC_MESSAGE;

/// Streams that a client may have open at a time: as many as all clients together have, should a peer use one connection only.
const MOST_STREAMS: u32 = 1024;
const WINDOW: u32 = 1 << 20;

/// One message: not compressed, its length, and what is in it.
pub(crate) fn message() -> Vec<u8> {
    const LENGTH: usize = GRPC_MESSAGE - 5;
    let mut message = vec![
        0,
        0,
        0,
        0,
        const {
            assert!(LENGTH < 256);
            LENGTH.to_le_bytes()[0]
        },
    ];
    message.resize(GRPC_MESSAGE, b'x');
    message
}

/// Serves whoever comes.
pub(crate) async fn serve(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let message = Bytes::from(message());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let message = message.clone();
        // A proxy that closes in the middle of an answer, as at the end of each round, is no news.
        spawn_local(async move { connection(stream, message).await.ok() });
    }
}

async fn connection(stream: TcpStream, message: Bytes) -> Result<()> {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(MOST_STREAMS);
    builder.initial_connection_window_size(WINDOW).initial_window_size(WINDOW);
    let mut connection = builder.handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, answer) = request?;
        let message = message.clone();
        spawn_local(async move { call(request, answer, message).await.ok() });
    }
    Ok(())
}

/// Reads the request to its end and answers it.
async fn call(request: Request<RecvStream>, mut answer: SendResponse<Bytes>, message: Bytes) -> Result<()> {
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    let head = Response::builder().header("content-type", "application/grpc").body(())?;
    let mut stream = answer.send_response(head, false)?;
    stream.send_data(message, false)?;
    Ok(stream
        .send_trailers(HeaderMap::from_iter([("grpc-status".parse()?, HeaderValue::from_static("0"))]))?)
}
