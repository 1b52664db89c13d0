//! Who asks, and what that one may do.

use std::sync::Arc;

use tokio::net::UnixStream;

use super::access::{Arrival, Known, Proof};
use super::api::Problem;
use crate::release::Scopes;

/// Who is at the other end of a connection. Each request is told, and none is served without.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    name: Arc<str>,
    scopes: Scopes,
    /// Of somebody who came over TCP.
    remote: Option<(Arc<Known>, Arc<Arrival>)>,
}

impl Caller {
    /// Over the admin socket, as the kernel says: who may connect may do everything.
    pub(super) fn local(stream: &UnixStream) -> Self {
        let name = match stream.peer_cred().map(|peer| (peer.uid(), peer.gid(), peer.pid())) {
            Ok((uid, gid, Some(pid))) => format!("uid={uid} gid={gid} pid={pid}"),
            Ok((uid, gid, None)) => format!("uid={uid} gid={gid}"),
            Err(_) => "unknown".to_owned(),
        };
        Self { name: name.into(), scopes: Scopes::all(), remote: None }
    }

    /// Over TCP, by what was shown.
    pub(super) fn remote(known: Arc<Known>, arrival: Arc<Arrival>) -> Self {
        let kind = match known.proof {
            Proof::Token(_) => "token",
            Proof::Certificate(_) => "certificate",
        };
        let name = format!("{kind}={} peer={}", known.name, arrival.peer).into();
        Self { name, scopes: known.scopes.clone(), remote: Some((known, arrival)) }
    }

    /// Somebody of whom nothing is known.
    pub(super) fn nobody() -> Self {
        Self { name: "unknown".into(), scopes: Scopes::none(), remote: None }
    }

    /// `uid=0 gid=0 pid=4711`, `token=shop-ci peer=192.0.2.7:40112`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// `shop-ci`, as the configuration names who came over TCP; else as [`Self::name`].
    pub(super) fn own_name(&self) -> &str {
        self.remote.as_ref().map_or(&self.name, |(known, _)| &known.name)
    }

    /// True for who came over TCP.
    pub(super) fn is_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// What that one may do.
    pub(super) fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    /// An idempotency key of that one's: what others call theirs is nothing to it. A space stands in no key itself.
    pub(super) fn own_key(&self, key: &str) -> String {
        match &self.remote {
            Some((known, _)) => format!("{} {key}", known.name),
            None => key.to_owned(),
        }
    }

    /// True while that one may do what it might when it asked.
    pub(super) fn is_known(&self) -> bool {
        self.remote.as_ref().is_none_or(|(known, arrival)| arrival.knows(known))
    }

    /// Until that one may not do any more what it might when it asked. Cancel-safe.
    pub(super) async fn until_gone(self) {
        match &self.remote {
            Some((known, arrival)) => arrival.until_gone(known).await,
            None => std::future::pending().await,
        }
    }
}

/// The refusal of what `needed`, any one of them, is missing for.
pub(super) fn out_of_scope(why: impl Into<String>, needed: &[String]) -> Box<Problem> {
    let needed = needed.join("` and `");
    let hint =
        format!("it takes the scope `{needed}`: [admin] in the proxy's configuration says who has which");
    Problem::new(403, "out_of_scope", why).hint(hint)
}
