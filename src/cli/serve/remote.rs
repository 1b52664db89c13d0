//! The admin API over TCP, as the file says it: opened, followed through reloads, closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::activation::ADMIN_TCP;
use super::entrances::plan;
use super::sockets::{self, Handle};
use crate::admin::access::{Access, Door, Known, Name, Proof};
use crate::admin::{self, App, api};
use crate::config::{self, CertificateName};
use crate::metrics;
use crate::proxy::inherited::Inherited;
use crate::proxy::tls::server_config;

/// For handshakes where none are done.
const NO_HANDSHAKE: Duration = Duration::from_secs(10);

/// What a listener would be, before anything of it is in force.
pub(super) struct Prepared {
    wanted: config::Remote,
    bound: SocketAddr,
    door: Door,
    /// A socket of its own, unless the present one is for this address.
    socket: Option<(TcpListener, Handle)>,
}

/// A listener that is served.
pub(super) struct Remote {
    wanted: config::Remote,
    bound: SocketAddr,
    door: watch::Sender<Arc<Door>>,
    handle: Handle,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

/// Makes ready what `wanted` says; `present` is what is served so far.
///
/// # Errors
/// Its address cannot be listened on, its TLS cannot be done, or there is none where others could read along.
pub(super) fn prepare(
    wanted: Option<&config::Remote>,
    present: Option<&Remote>,
    inherited: &mut Inherited,
) -> Result<Option<Prepared>> {
    let Some(wanted) = wanted else { return Ok(None) };
    let same = present.filter(|present| present.wanted.listen == wanted.listen);
    let (bound, socket) = match same {
        Some(present) => (present.bound, None),
        None => {
            let (listener, handle) = sockets::remote_socket(wanted.listen, inherited)?;
            (listener.local_addr()?, Some((listener, handle)))
        }
    };
    // A service manager's is known by its name, and may be at another address than the file says.
    if !wanted.may_be_at(bound) {
        bail!(
            "the socket `{ADMIN_TCP}` listens on {bound}, where tokens would pass readable for everybody on the way: give [admin] a `tls`, or let the service manager bind {}",
            wanted.listen
        );
    }
    let door = door(wanted, same)?;
    Ok(Some(Prepared { wanted: wanted.clone(), bound, door, socket }))
}

/// Puts what was prepared in the place of what is served; what is not there any more ends with what it answers now.
pub(super) fn follow(
    present: Option<Remote>,
    prepared: Option<Prepared>,
    app: &Arc<App>,
    stop: &CancellationToken,
) -> (Option<Remote>, Option<JoinHandle<()>>) {
    match (present, prepared) {
        (Some(present), Some(Prepared { wanted, door, socket: None, .. })) => {
            let before = present.door.send_replace(Arc::new(door));
            if present.wanted.tls != wanted.tls {
                before.replaced.cancel();
            }
            if believed(&present.wanted) != believed(&wanted) {
                before.doubted.cancel();
            }
            (Some(Remote { wanted, ..present }), None)
        }
        (present, prepared) => {
            let wanted = prepared.as_ref().map(|prepared| &prepared.wanted);
            let ended = present.map(|present| present.end(wanted));
            (prepared.and_then(|prepared| prepared.serve(app, stop)), ended)
        }
    }
}

impl Prepared {
    fn serve(self, app: &Arc<App>, stop: &CancellationToken) -> Option<Remote> {
        let Self { wanted, bound, door, socket } = self;
        let (listener, handle) = socket?;
        let stop = stop.child_token();
        let (door, seen) = watch::channel(Arc::new(door));
        info!(listen = %bound, tls = wanted.tls.is_some(), known = wanted.known.len(), "the admin API is served over TCP");
        let serving = admin::serve_remote(listener, seen, Arc::clone(app), stop.clone().cancelled_owned());
        Some(Remote { wanted, bound, door, handle, stop, serving: spawn_local(serving) })
    }
}

impl Remote {
    /// Its socket, for a successor.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Its address as the file says it, and as it is.
    pub(super) fn told(&self) -> api::Listener {
        api::Listener { listen: self.wanted.listen.to_string(), bound: self.bound.to_string() }
    }

    /// What it shows to clients, for the metrics.
    pub(super) fn certificates(&self) -> Vec<metrics::Certificate> {
        let shown = self.wanted.tls.iter().flat_map(|tls| &tls.certificates);
        let certificate = |certificate: &config::Certificate| metrics::Certificate {
            listener: self.wanted.listen.to_string(),
            file: certificate.cert.display().to_string(),
            not_after: certificate.not_after,
        };
        shown.map(certificate).collect()
    }

    /// Ends with what it answers now, to those who are known by what is `wanted` elsewhere.
    fn end(self, wanted: Option<&config::Remote>) -> JoinHandle<()> {
        info!(listen = %self.bound, "the admin API is not served there any more");
        let before = Door::clone(&self.door.borrow());
        if wanted.is_some_and(|wanted| believed(&self.wanted) != believed(wanted)) {
            before.doubted.cancel();
        }
        self.door.send_replace(Arc::new(Door { access: wanted.map(access).unwrap_or_default(), ..before }));
        self.stop.cancel();
        self.serving
    }

    /// Waits until it has ended, once that was asked for.
    pub(super) async fn ended(self) {
        drop(self.serving.await);
    }
}

/// Where its TLS is the same as before, what was made of it then stays, and so do its sessions.
fn door(wanted: &config::Remote, present: Option<&Remote>) -> Result<Door> {
    let access = access(wanted);
    let handshake_timeout = wanted.tls.as_ref().map_or(NO_HANDSHAKE, |tls| tls.handshake_timeout);
    if let Some(present) = present.filter(|present| present.wanted.tls == wanted.tls) {
        let before = present.door.borrow();
        let (tls, replaced, doubted) = (before.tls.clone(), before.replaced.clone(), before.doubted.clone());
        return Ok(Door { tls, handshake_timeout, access, replaced, doubted });
    }
    let tls = wanted.tls.as_ref().map(|tls| {
        let mut plan = plan(tls);
        plan.alpn = vec![config::Alpn::Http11.token()];
        server_config(&plan).map(Arc::new)
    });
    let tls =
        tls.transpose().with_context(|| format!("[admin] listen {} cannot do its TLS", wanted.listen))?;
    let believed_before = present.filter(|present| believed(&present.wanted) == believed(wanted));
    let doubted = believed_before.map(|present| present.door.borrow().doubted.clone()).unwrap_or_default();
    Ok(Door { tls, handshake_timeout, access, replaced: CancellationToken::new(), doubted })
}

/// Who has to have signed a client's certificate.
fn believed(of: &config::Remote) -> Option<&config::ClientAuth> {
    of.tls.as_ref().map(|tls| &tls.client_auth)
}

fn access(wanted: &config::Remote) -> Access {
    Access::of(wanted.known.iter().map(known).collect())
}

fn known(of: &config::Authorized) -> Known {
    let proof = match &of.proof {
        config::Proof::Token(sum) => Proof::Token(*sum),
        config::Proof::Certificate(CertificateName::Dns(name)) => Proof::Certificate(Name::Dns(name.clone())),
        config::Proof::Certificate(CertificateName::Uri(uri)) => Proof::Certificate(Name::Uri(uri.clone())),
    };
    Known { name: of.name.clone(), proof, scopes: of.scopes.clone() }
}
