//! Connections to the admin API: bounded in number and time, each with the credentials of its peer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::call::Peer;
use super::{App, Socket, router};

/// Connections to the admin socket at once.
const CONNECTIONS: usize = 256;
/// Connections to the metrics listener at once.
const SCRAPES: usize = 64;
/// For a request's head, and for the next request of an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// For everything on one connection of the metrics listener.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(60);
/// For what is being answered when the proxy stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// After `accept` failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What a connection over the limit gets.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 26\r\nretry-after: 1\r\nconnection: close\r\n\r\ntoo many admin connections";

/// Serves the admin API on `socket` until `stop` is done; then finishes what is being answered, for 2 s at most.
pub async fn serve(socket: Socket, app: Arc<App>, stop: impl Future<Output = ()>) {
    let router = router::admin(Arc::clone(&app));
    let (mut connections, ending) = (JoinSet::new(), CancellationToken::new());
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = socket.listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) if connections.len() >= CONNECTIONS => turn_away(stream),
            Ok((stream, _)) => {
                let router = router.clone().layer(axum::Extension(Peer::of(&stream)));
                connections.spawn(converse(stream, router, KeepAlive::Yes, ending.clone()));
            }
            Err(error) => pause(&error).await,
        }
    }
    drop(socket);
    app.closing.cancel();
    wind_down(connections, &ending).await;
}

/// Serves `/metrics`, `/healthz` and `/readyz`, nothing else, on `listener` until `stop` is done.
pub async fn serve_metrics(listener: TcpListener, app: Arc<App>, stop: impl Future<Output = ()>) {
    let router = router::metrics(app);
    let (mut connections, ending) = (JoinSet::new(), CancellationToken::new());
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept(), if connections.len() < SCRAPES => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let conversation = converse(stream, router.clone(), KeepAlive::No, ending.clone());
                connections.spawn(async {
                    // A scraper that does not read its answer loses its connection.
                    tokio::time::timeout(SCRAPE_TIMEOUT, conversation).await.ok();
                });
            }
            Err(error) => pause(&error).await,
        }
    }
    wind_down(connections, &ending).await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeepAlive {
    Yes,
    No,
}

/// One connection, to its end. When `ending`, the answer in progress is the last.
async fn converse<S>(stream: S, router: Router, keep: KeepAlive, ending: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(64 * 1024);
    server.keep_alive(keep == KeepAlive::Yes);
    let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin connection ended");
    }
}

fn turn_away(stream: UnixStream) {
    // Best effort: fits the socket's buffer, or the caller sees a closed connection.
    stream.try_write(BUSY).ok();
}

async fn pause(error: &std::io::Error) {
    warn!(%error, "cannot accept an admin connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn wind_down(mut connections: JoinSet<()>, ending: &CancellationToken) {
    ending.cancel();
    let all = async { while connections.join_next().await.is_some() {} };
    // Those that are not over by then are aborted when the set is dropped.
    tokio::time::timeout(STOP_TIMEOUT, all).await.ok();
}
