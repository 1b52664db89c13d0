//! A version of the shop: a real HTTP/1.1 server on a thread and a port of its own.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::runtime::LocalOptions;
use tokio::sync::oneshot;
use tokio::task::spawn_local;

/// The header in which an answer names its version.
pub(super) const VERSION_HEADER: &str = "x-version";
/// How long an answer takes, in milliseconds.
const WORK: std::ops::RangeInclusive<u64> = 2..=6;
/// The share of a faulty version's answers that are errors.
const FAULTS: f64 = 0.3;

/// How a version does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quality {
    /// Every answer is a 200.
    Good,
    /// Three of ten answers are a 500.
    Faulty,
}

/// A running server; it ends when dropped.
pub(super) struct Origin {
    /// The version's name.
    pub(super) name: &'static str,
    /// Where it listens.
    pub(super) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Origin {
    /// Starts it on this address; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address or a thread is not to be had.
    pub(super) fn start(name: &'static str, quality: Quality, address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(listener, name, quality, stopped))?;
        Ok(Self { name, address, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Origin {
    /// As a kill would: what is open is cut.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn serve(listener: TcpListener, name: &'static str, quality: Quality, stopped: oneshot::Receiver<()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
        tokio::select! {
            () = accept(&listener, name, quality) => (),
            _ = stopped => (),
        }
    });
}

async fn accept(listener: &tokio::net::TcpListener, name: &'static str, quality: Quality) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: it passes.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        stream.set_nodelay(true).ok();
        let service = service_fn(move |request| answer(request, name, quality));
        spawn_local(async move {
            // A client that goes away is no fault of ours.
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

async fn answer(
    _request: Request<Incoming>,
    name: &'static str,
    quality: Quality,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (work, is_fault) = {
        let mut rng: SmallRng = rand::make_rng();
        (rng.random_range(WORK), quality == Quality::Faulty && rng.random_bool(FAULTS))
    };
    tokio::time::sleep(Duration::from_millis(work)).await;
    let (status, text) = match is_fault {
        true => (StatusCode::INTERNAL_SERVER_ERROR, "something went wrong"),
        false => (StatusCode::OK, "welcome to the shop"),
    };
    let mut response = Response::new(Full::from(format!("{name}: {text}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(VERSION_HEADER, http::HeaderValue::from_static(name));
    Ok(response)
}
