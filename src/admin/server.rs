//! Connections to the admin API: bounded in number and time, each with the credentials of its peer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::caller::Caller;
use super::room::{Guest, Room};
use super::taking::Taking;
use super::{App, Socket, router};

/// Connections to the admin socket at once.
pub(super) const CONNECTIONS: usize = 256;
/// Connections to the metrics listener at once.
const SCRAPES: usize = 64;
/// For a request's head, and for the next request of an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// For a request's head on the metrics listener: whoever monitors sends it at once.
const SCRAPE_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For a client that takes nothing of its answer, as `limits.write_stall` is for others by default.
const STALL: Duration = Duration::from_secs(30);
/// For everything on one connection of the metrics listener.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(60);
/// For what is being answered when the proxy stops.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// For the first head of who has connected just before that.
const LAST_HEAD: Duration = Duration::from_millis(200);
/// After `accept` failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between two lines in the log about that.
pub(super) const COMPLAINT: Duration = Duration::from_secs(10);
/// What a connection over the limit gets.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 26\r\nretry-after: 1\r\nconnection: close\r\n\r\ntoo many admin connections";

/// Serves the admin API on `socket` until `stop` is done; then finishes what is being answered, for 2 s at most.
pub async fn serve(socket: Socket, app: Arc<App>, stop: impl Future<Output = ()>) {
    let router = router::admin(Arc::clone(&app));
    let (mut room, ending, mut complained) = (Room::of(CONNECTIONS), CancellationToken::new(), None);
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = socket.listener.accept() => accepted,
            () = room.changes() => continue,
        };
        match accepted {
            Ok((stream, _)) if !room.make().await => turn_away(stream),
            Ok((stream, _)) => {
                let router = router.clone().layer(axum::Extension(Caller::local(&stream)));
                room.enter(|guest| converse(stream, router, KeepAlive::Yes, guest, ending.clone()));
            }
            Err(error) => pause(&error, &mut complained).await,
        }
    }
    drop(socket);
    app.closing.cancel();
    wind_down(room.connections, &ending).await;
}

/// Serves `/metrics`, `/healthz` and `/readyz`, nothing else, on `listener` until `stop` is done.
pub async fn serve_metrics(listener: TcpListener, app: Arc<App>, stop: impl Future<Output = ()>) {
    let router = router::metrics(app);
    let (mut room, ending, mut complained) = (Room::of(SCRAPES), CancellationToken::new(), None);
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept(), if room.is_open() => accepted,
            () = room.changes() => continue,
        };
        match accepted {
            // Those that were waited for may all have acted meanwhile.
            Ok(_) if !room.make().await => {}
            Ok((stream, _)) => room.enter(|guest| {
                let conversation = converse(stream, router.clone(), KeepAlive::No, guest, ending.clone());
                // A scraper that reads its answer too slowly loses its connection.
                async { tokio::time::timeout(SCRAPE_TIMEOUT, conversation).await.unwrap_or_default() }
            }),
            Err(error) => pause(&error, &mut complained).await,
        }
    }
    wind_down(room.connections, &ending).await;
}

/// Whether a connection may ask again: an operator's may, a scraper's not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeepAlive {
    Yes,
    No,
}

impl KeepAlive {
    /// For each head.
    fn head_timeout(self) -> Duration {
        match self {
            Self::Yes => HEAD_TIMEOUT,
            Self::No => SCRAPE_HEAD_TIMEOUT,
        }
    }
}

/// One connection, to its end. When `ending`, the answer in progress is the last; who has only just connected is heard before.
pub(super) async fn converse<S>(
    stream: S,
    router: Router,
    keep: KeepAlive,
    guest: Guest,
    ending: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(keep.head_timeout()).max_buf_size(64 * 1024);
    server.keep_alive(keep == KeepAlive::Yes);
    let router = TowerToHyperService::new(router.layer(axum::Extension(guest.clone())));
    let spoken = CancellationToken::new();
    let told = spoken.clone();
    let stream = Taking::of(stream, guest.clone(), STALL);
    let heard = service_fn(move |request| {
        guest.has_acted();
        told.cancel();
        router.call(request)
    });
    let connection = server.serve_connection(TokioIo::new(stream), heard);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = last_word(&ending, &spoken) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin connection ended");
    }
}

/// Until it is `ending`, and whoever has not `spoken` has had a moment to.
async fn last_word(ending: &CancellationToken, spoken: &CancellationToken) {
    ending.cancelled().await;
    tokio::time::timeout(LAST_HEAD, spoken.cancelled()).await.ok();
}

fn turn_away(stream: UnixStream) {
    // Best effort: fits the socket's buffer, or the caller sees a closed connection.
    stream.try_write(BUSY).ok();
}

/// Waits, and says why unless that was said just now: it may last, and the disk of the log may be what is short.
pub(super) async fn pause(error: &std::io::Error, complained: &mut Option<Instant>) {
    if complained.is_none_or(|at| at.elapsed() >= COMPLAINT) {
        warn!(%error, "cannot accept an admin connection");
        *complained = Some(Instant::now());
    }
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn wind_down(mut connections: JoinSet<()>, ending: &CancellationToken) {
    ending.cancel();
    let all = async { while connections.join_next().await.is_some() {} };
    // Those that are not over by then are aborted when the set is dropped.
    tokio::time::timeout(STOP_TIMEOUT, all).await.ok();
}
