//! ADMIN: the API that operators and controllers drive the switch with, on a Unix socket, and over TCP for those who are known.
//!
//! A request passes: [`socket`] (who may connect) → [`server`] (limits), or [`remote`] and [`access`] (TLS, tokens, certificates) →
//! [`caller`] (who asks) → [`router`] → [`need`] (whether that one may) → [`call`] (what
//! is asked, read strictly) → [`change`] and [`order`], or [`read`] and [`drain`] → control's handle. The wire types are in [`api`].

pub mod access;
pub mod api;
mod call;
mod caller;
mod change;
mod drain;
mod edit;
mod events;
mod explain;
mod health;
mod need;
mod objects;
mod openapi;
mod order;
mod precondition;
mod ramp;
mod read;
mod refusal;
mod remote;
mod renders;
mod retire;
mod rollout;
mod room;
mod router;
mod rules;
mod server;
pub mod socket;
mod status;
mod streams;
mod taking;
#[cfg(test)]
pub(crate) mod tests;
mod until;
pub mod upgrade;
mod uses;
mod verdict;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::error::Elapsed;
use tokio_util::sync::CancellationToken;

pub use edit::Edits;
pub use openapi::document;
pub use remote::serve_remote;
pub use server::{serve, serve_metrics};
pub use socket::{BindError, Socket};
pub use status::{Readiness, Status, TakenOut, Underscores};
pub use upgrade::{NotUpgraded, UpgradeOrder, Upgrades};

use renders::Renders;
use streams::Streams;

use crate::control::{Failed, Handle};

/// The text of `/metrics`, made when somebody asks, on a thread where it may take its time.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// How long what is waited for may still come once nobody new is answered: the last answers have two seconds.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// What the admin API answers from.
pub struct App {
    control: Handle,
    status: Arc<Status>,
    metrics: Arc<Renders>,
    upgrades: Upgrades,
    streams: Streams,
    /// Ends the event streams, which end by nothing else.
    closing: CancellationToken,
}

impl App {
    /// An admin API over `control`.
    #[must_use]
    pub fn new(control: Handle, status: Arc<Status>, metrics: Metrics) -> Arc<Self> {
        Self::with(control, status, metrics, mpsc::channel(1).0)
    }

    /// The same, of a process whose place another one can take.
    #[must_use]
    pub fn with(control: Handle, status: Arc<Status>, metrics: Metrics, upgrades: Upgrades) -> Arc<Self> {
        let metrics = Renders::of(metrics);
        let (streams, closing) = (Streams::default(), CancellationToken::new());
        Arc::new(Self { control, status, metrics, upgrades, streams, closing })
    }

    /// Cancelled when nobody is accepted on the admin socket any more.
    #[must_use]
    pub fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// What is `waited` for, if it comes within `patience`; [`Failed::Closed`] in time before nobody is answered any more.
    async fn within<T>(
        &self,
        patience: Duration,
        waited: impl Future<Output = Result<T, Failed>>,
    ) -> Result<Result<T, Failed>, Elapsed> {
        let ending = async {
            self.closing.cancelled().await;
            tokio::time::sleep(LAST_MOMENT).await;
        };
        let waited = async {
            tokio::select! {
                biased;
                waited = waited => waited,
                () = ending => Err(Failed::Closed),
            }
        };
        tokio::time::timeout(patience, waited).await
    }
}
