//! The admin API over TCP: the same as on the socket, for those who show a token or a certificate.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONNECTION, EXPECT, HeaderValue, WWW_AUTHENTICATE};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::access::{Arrival, Door, Shown};
use super::api::Problem;
use super::room::{Guest, Room};
use super::server::{COMPLAINT, CONNECTIONS, KeepAlive, STOP_TIMEOUT, converse, pause};
use super::{App, call, router};

/// The connections of one who is known, at most: a quarter of all.
const SHARE: usize = CONNECTIONS / 4;

/// Serves the admin API on `listener` to those whom the `door` lets in, until `stop` is done; then finishes what is being
/// answered: for 2 s while a client is waited for, and who waits for an answer has it, unless for 2 s nobody is accepted on the
/// admin socket any more either.
///
/// As many connections as on the socket, and none of those: who fills this listener keeps nobody from that one. Whoever has
/// shown nothing yet makes way for whoever comes, and nobody who is known has more than [`SHARE`].
pub async fn serve_remote(
    listener: TcpListener,
    door: watch::Receiver<Arc<Door>>,
    app: Arc<App>,
    stop: impl Future<Output = ()>,
) {
    let strangers = Arc::new(Strangers::default());
    let closing = app.closing();
    let router = router::admin(app);
    let (mut room, ending, mut complained) = (Room::of(CONNECTIONS), CancellationToken::new(), None);
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
            Ok((stream, peer)) => {
                // IPv4 in IPv6's form is IPv4.
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let come = Come {
                    peer,
                    door: door.clone(),
                    router: router.clone(),
                    strangers: Arc::clone(&strangers),
                };
                room.enter(|guest| come.converse(stream, guest, ending.clone()));
            }
            Err(error) => pause(&error, &mut complained).await,
        }
    }
    drop(listener);
    ending.cancel();
    let stopped = async {
        closing.cancelled().await;
        sleep(STOP_TIMEOUT).await;
    };
    // Those that are not over by then are aborted with the room.
    tokio::select! {
        () = room.close(STOP_TIMEOUT) => {}
        () = stopped => {}
    }
}

/// Somebody who has connected.
struct Come {
    peer: SocketAddr,
    door: watch::Receiver<Arc<Door>>,
    router: Router,
    strangers: Arc<Strangers>,
}

impl Come {
    async fn converse(self, stream: TcpStream, guest: Guest, ending: CancellationToken) {
        // As it is now: what is read later is for who comes later.
        let door = Arc::clone(&self.door.borrow());
        // Best effort: without it an answer in two parts is late.
        stream.set_nodelay(true).ok();
        let end = ending.child_token();
        let replaced = async {
            door.replaced.cancelled().await;
            end.cancel();
            std::future::pending().await
        };
        let served = async {
            match &door.tls {
                None => {
                    let router = self.admitted(&door, None, &end);
                    converse(stream, router, KeepAlive::Yes, guest, end.clone()).await;
                }
                Some(tls) => {
                    let Some(stream) = self.secured(&door, tls, stream).await else { return };
                    let chain = stream.get_ref().1.peer_certificates();
                    let shown = chain.and_then(|chain| Shown::of(chain.first()?));
                    let router = self.admitted(&door, shown, &end);
                    converse(stream, router, KeepAlive::Yes, guest, end.clone()).await;
                }
            }
        };
        tokio::select! {
            () = served => {}
            () = replaced => {}
        }
    }

    /// After the handshake, if there comes an end to it while the door is as it was.
    async fn secured(
        &self,
        door: &Door,
        tls: &Arc<ServerConfig>,
        stream: TcpStream,
    ) -> Option<Box<TlsStream<TcpStream>>> {
        let handshake = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
        let peer = self.peer;
        tokio::select! {
            biased;
            () = door.replaced.cancelled() => debug!(%peer, "admin handshake by a TLS that is no more"),
            ended = timeout(door.handshake_timeout, handshake) => match ended {
                Ok(Ok(stream)) => return Some(Box::new(stream)),
                Ok(Err(error)) => debug!(%peer, %error, "admin handshake failed"),
                Err(_) => debug!(%peer, "admin handshake took too long"),
            },
        }
        None
    }

    /// The API for this connection's requests, each of which has to say who makes it.
    fn admitted(&self, door: &Door, shown: Option<Shown>, end: &CancellationToken) -> Router {
        let (doubted, end) = (door.doubted.clone(), end.clone());
        let arrival = Arc::new(Arrival { peer: self.peer, shown, door: self.door.clone(), doubted, end });
        let strangers = Arc::clone(&self.strangers);
        let known =
            move |request, next| authenticate(Arc::clone(&arrival), Arc::clone(&strangers), request, next);
        self.router.clone().layer(middleware::from_fn(known))
    }
}

/// Finds out who asks, before anything of a request is looked at; who is not known, or has his share of connections, hears that and
/// nothing else.
async fn authenticate(
    arrival: Arc<Arrival>,
    strangers: Arc<Strangers>,
    mut request: Request,
    next: Next,
) -> Response {
    let guest = request.extensions().get::<Guest>().cloned();
    let refusal = match arrival.caller(request.headers()) {
        Some(caller) if guest.as_ref().is_none_or(|guest| guest.belongs_to(caller.own_name(), SHARE)) => {
            // Nobody behind this has to know it.
            request.headers_mut().remove(AUTHORIZATION);
            request.extensions_mut().insert(caller);
            return next.run(request).await;
        }
        Some(caller) => too_many(caller.own_name()),
        None => {
            strangers.note(arrival.peer);
            unknown()
        }
    };
    guest.inspect(Guest::is_unwelcome);
    let (parts, mut body) = request.into_parts();
    // Who asks first sends nothing of it.
    if !parts.headers.contains_key(EXPECT) {
        call::linger(&mut body).await;
    }
    refusal
}

fn too_many(name: &str) -> Response<Body> {
    let detail =
        format!("nothing was done: `{name}` has {SHARE} connections over TCP already, and gets no more");
    let problem = Problem::new(429, "too_many_connections", detail)
        .hint("let calls that wait come to their end, or make them without `wait` and look how it stands");
    let mut response = problem.into_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The same whatever was shown: what is nearly right is as wrong as nothing. The connection ends, so that each guess costs one.
pub(super) fn unknown() -> Response<Body> {
    let problem = Problem::new(401, "unauthenticated", "neither a token nor a certificate that is known here")
        .hint("`--token-file` or SWITCHBACK_TOKEN names a token, `--cert` and `--key` a certificate; [admin] tokens and certificates list those that are known");
    let mut response = problem.into_response();
    let headers = response.headers_mut();
    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"switchback\""));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Requests of those who are not known.
#[derive(Default)]
struct Strangers(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    told: Option<Instant>,
    since: u64,
}

impl Strangers {
    /// Tells of them in the log, once in a while: they may be many, and fill its disk.
    fn note(&self, peer: SocketAddr) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.since += 1;
        if noted.told.is_none_or(|at| at.elapsed() >= COMPLAINT) {
            warn!(%peer, refused = noted.since, "somebody who is not known calls the admin API");
            *noted = Noted { told: Some(Instant::now()), since: 0 };
        }
    }
}
