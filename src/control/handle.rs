//! What everybody else holds of control: a way to ask for changes, and what is to be seen.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::custody::Transfer;
use super::elders::Elders;
use super::exclusive::{HoldEnded, InTheWay};
use super::figures::Figures;
use super::health::Health;
pub use super::notice::{Notice, RolloutNotice};
use super::ramp::Ramps;
use super::retire::Retirements;
use super::rollout::Rollouts;
use super::supervisor::Verdicts;
use super::tenures::Tenures;
use super::traffic::{is_led_to, is_mirrored};
pub use super::wanted::{Asked, Wanted};
use crate::proxy::live::Live;
use crate::proxy::upstream::roll::{Remaining, add_up};
use crate::release::{Actor, Beyond, Change, Command, Effects, Refused, Scopes, State};
use crate::store::{Answer, HistoryQuery, StoreError};
use crate::table::{ServiceName, ServiceSpec, VersionName};

/// How long a change waits until elders are quiet, beyond which it is not acknowledged.
const HUSH: Duration = Duration::from_secs(8);

/// What outsiders hold: a way to ask for changes, and what is to be seen. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) transfers: mpsc::Sender<Transfer>,
    pub(super) seen: watch::Receiver<Seen>,
    pub(super) notices: broadcast::Sender<Notice>,
    pub(super) live: Arc<Live>,
    pub(super) tenures: Arc<Tenures>,
    pub(super) figures: Arc<Figures>,
    pub(super) elders: Arc<Elders>,
    pub(super) health: Arc<Health>,
    pub(super) rollouts: Arc<Rollouts>,
    pub(super) ramps: Arc<Ramps>,
    pub(super) retirements: Arc<Retirements>,
    pub(super) verdicts: Arc<Verdicts>,
}

/// What is shown, all of one moment: somebody who waits for a drain must not see it ended in a state before the return.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) state: Arc<State>,
    /// The versions that still have work, dropped ones included.
    pub(super) draining: Arc<[(ServiceName, VersionName)]>,
    /// Another process knows better: it has taken this one's place.
    pub(super) is_past: bool,
}

/// What became of a wanted change.
#[derive(Debug, Clone)]
pub struct Done {
    /// The state after it (for a dry run: as it would be).
    pub state: Arc<State>,
    /// What it did, or would do; no change in it: everything was so already.
    pub effects: Effects,
    /// The body of the answer, by [`Wanted::render`] or as it was kept.
    pub body: String,
    /// True when the answer is the one given to the same key before.
    pub replayed: bool,
}

/// Why nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failed {
    /// The heart refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The change could not be made durable; nothing has changed.
    #[error("nothing has changed: {0}")]
    Store(#[from] StoreError),
    /// More than whoever asks may do.
    #[error("nothing has changed: {0}")]
    Beyond(Beyond),
    /// The same idempotency key was used for something else.
    #[error("the idempotency key `{0}` was used for a different request")]
    KeyReused(String),
    /// Nothing else is done with a service while an exclusive flip of it is under way.
    #[error("an exclusive flip of `{service}` to `{to}` is under way")]
    Underway {
        /// The service.
        service: ServiceName,
        /// Where it goes.
        to: VersionName,
    },
    /// An exclusive flip met work whose end is not in sight.
    #[error("`{service}` has work whose end is not in sight: {}", list(left))]
    StreamsOpen {
        /// The service.
        service: ServiceName,
        /// The work.
        left: Vec<InTheWay>,
    },
    /// An exclusive flip was not made, and requests went on where they were.
    #[error("{}; everything goes on as before{}", .0.reason, in_the_way(&.0.left))]
    HoldEnded(Box<HoldEnded>),
    /// An exclusive flip while a process before this one still has work that could overlap.
    #[error("a process before this one still has work on `{0}`, or may begin some")]
    WorkElsewhere(ServiceName),
    /// Another process cannot take over what is held.
    #[error("a service is held, or an exclusive flip is under way")]
    Holding,
    /// Another process cannot take over who waits.
    #[error("requests of `{0}` that were held still wait for room")]
    Queueing(ServiceName),
    /// Another process cannot go on with a rollout.
    #[error("a rollout is under way")]
    RollingOut,
    /// The proxy is shutting down.
    #[error("the proxy is shutting down")]
    Closed,
    /// The change is made, but a process before this one does not say that it begins no requests any more.
    #[error(
        "the change is made, but a process that this one has replaced does not answer: it may send requests the old way"
    )]
    Unfenced,
    /// The change is made, and another process has taken this one's place before such a process has said that.
    #[error("the change is made, and another process has taken over: that one tells when it is fenced")]
    Overtaken,
    /// The store is with a process that starts and may take this one's place.
    #[error("nothing has changed: another process is about to take this one's place")]
    Lent,
    /// Another process has taken this one's place.
    #[error("nothing has changed: another process has taken this one's place")]
    Succeeded,
    /// The same, while somebody waited for what comes of a change.
    #[error("another process has taken this one's place: that one tells how it goes on")]
    LeftBehind,
}

impl From<Beyond> for Failed {
    fn from(beyond: Beyond) -> Self {
        Self::Beyond(beyond)
    }
}

impl Failed {
    /// What somebody of these `scopes` is told of a refusal: nothing of services that are not to be looked at.
    pub(super) fn told(refused: Refused, scopes: &Scopes) -> Self {
        if scopes.hear(&refused) { refused.into() } else { Beyond::Others.into() }
    }
}

/// `2 request and 1 websocket on blue`.
fn list(left: &[InTheWay]) -> String {
    let one = |found: &InTheWay| format!("{} {} on `{}`", found.count, found.kind.token(), found.version);
    left.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn in_the_way(left: &[InTheWay]) -> String {
    if left.is_empty() { String::new() } else { format!(" (in the way: {})", list(left)) }
}

/// How a wait for drains ended.
#[derive(Debug, Clone)]
#[must_use = "a version that carries traffic again is not safe to stop"]
pub enum Waited {
    /// In this state nothing was left on any of the versions, and nothing could arrive.
    Drained(Arc<State>),
    /// This one carries traffic again.
    Returned(ServiceName, VersionName),
}

#[derive(Debug)]
pub(super) enum Request {
    Change(Box<Wanted>, oneshot::Sender<Result<Done, Failed>>),
    History(HistoryQuery, oneshot::Sender<Result<Vec<Change>, StoreError>>),
    /// The answer that is kept under this key.
    Answer(String, oneshot::Sender<Result<Option<Answer>, Failed>>),
    /// Keeps an answer to what is no change.
    Remember(Answer, oneshot::Sender<Result<(), Failed>>),
    /// What became of a change that was in doubt.
    Ascertain(oneshot::Sender<Result<(), Failed>>),
}

impl Handle {
    /// Asks for a change; when this returns `Ok`, it is durable and fenced (G1, G6).
    ///
    /// When dropped early the change may happen nevertheless; an idempotency key tells.
    ///
    /// # Errors
    /// [`Failed`] says why nothing has changed; [`Failed::Unfenced`] and [`Failed::Overtaken`] that it has, and is not known to be fenced.
    pub async fn change(&self, wanted: Wanted) -> Result<Done, Failed> {
        self.warm_up(&wanted).await;
        let dry_run = wanted.dry_run;
        let (reply, answer) = oneshot::channel();
        let request = Request::Change(Box::new(wanted), reply);
        self.requests.send(request).await.map_err(|_| Failed::Closed)?;
        let done = answer.await.map_err(|_| Failed::Closed)??;
        if dry_run {
            return Ok(done);
        }
        // A process whose place we have taken may still send requests the old way.
        timeout(HUSH, self.hushed()).await.unwrap_or(Err(Failed::Unfenced)).map(|()| done)
    }

    /// Waits until no elder begins new requests any more.
    async fn hushed(&self) -> Result<(), Failed> {
        let mut seen = self.seen.clone();
        tokio::select! {
            biased;
            () = self.elders.quiet() => Ok(()),
            // They tell another process from now on.
            past = seen.wait_for(|seen| seen.is_past) => Err(past.map_or(Failed::Closed, |_| Failed::Overtaken)),
        }
    }

    /// Returns once it is known what became of a change that the store had left in doubt: what is shown then is so.
    ///
    /// # Errors
    /// [`Failed`] while the store does not say.
    pub(super) async fn ascertain(&self) -> Result<(), Failed> {
        let (reply, known) = oneshot::channel();
        self.requests.send(Request::Ascertain(reply)).await.map_err(|_| Failed::Closed)?;
        known.await.map_err(|_| Failed::Closed)?
    }

    /// Tells control what the file says now: these services exist, and no others.
    ///
    /// # Errors
    /// As [`Handle::change`].
    pub async fn reload(&self, services: Vec<ServiceSpec>, file: Actor) -> Result<Done, Failed> {
        let command = Command::Configure { services, records: Vec::new() };
        self.change(Wanted::plain(command, file, String::new())).await
    }

    /// The file that was read again is in force.
    pub fn reloaded(&self) {
        self.figures.on_reload(true);
    }

    /// Tells whoever listens that the file was read and refused.
    pub fn reload_failed(&self, errors: String) {
        self.figures.on_reload(false);
        // Nobody listens: nobody to tell.
        let _ = self.notices.send(Notice::ReloadFailed { errors });
    }

    /// The present state.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.seen.borrow().state)
    }

    /// Everything that happens from now on; who falls behind by more than [`super::NOTICES`] is told so.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// What the workers serve from.
    #[must_use]
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// All tenures that the metrics show.
    #[must_use]
    pub fn tenures(&self) -> &Arc<Tenures> {
        &self.tenures
    }

    /// What is known of the endpoints' health.
    #[must_use]
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// The processes before this one that still have work.
    #[must_use]
    pub fn elders(&self) -> &Arc<Elders> {
        &self.elders
    }

    /// Waits until something is to be seen that was not there before. Cancel-safe.
    pub async fn changed(&mut self) {
        // Nothing more happens when control has ended.
        let _ = self.seen.changed().await;
    }

    /// The rolling upgrades.
    #[must_use]
    pub fn rollouts(&self) -> &Arc<Rollouts> {
        &self.rollouts
    }

    /// Tells whoever listens.
    pub(super) fn tell(&self, notice: Notice) {
        // Nobody listens: nobody to tell.
        let _ = self.notices.send(notice);
    }

    /// What supervision knows.
    #[must_use]
    pub fn verdicts(&self) -> &Arc<Verdicts> {
        &self.verdicts
    }

    /// Control's own metrics.
    #[must_use]
    pub fn figures(&self) -> &Arc<Figures> {
        &self.figures
    }

    /// True while `version` has work left from before the change that left it.
    #[must_use]
    pub fn is_draining(&self, service: &ServiceName, version: &VersionName) -> bool {
        is_draining(&self.seen.borrow(), service, version) || self.elders.may_have(service, version)
    }

    /// What the workers, and the elders, have left on a version, all of its tenures together; `None` when one of them does not answer in
    /// time. Cancel-safe.
    pub async fn remaining(&self, service: &ServiceName, version: &VersionName) -> Option<Vec<Remaining>> {
        let here = self.remaining_here(service, version).await?;
        Some(add_up(here.into_iter().chain(self.elders.left(service, version))))
    }

    /// The same without what the elders have.
    pub async fn remaining_here(
        &self,
        service: &ServiceName,
        version: &VersionName,
    ) -> Option<Vec<Remaining>> {
        self.live.roll.call(self.tenures.of_version(service, version)).await
    }

    /// True when another process has taken this one's place: what is seen here is how it was.
    #[must_use]
    pub fn is_past(&self) -> bool {
        self.seen.borrow().is_past
    }

    /// The versions that still have work from before the change that left them.
    #[must_use]
    pub fn draining(&self) -> Arc<[(ServiceName, VersionName)]> {
        Arc::clone(&self.seen.borrow().draining)
    }

    /// Waits until none of `versions` is draining any more, all at one moment, or until one carries traffic again: at once when it
    /// is so. Cancel-safe.
    ///
    /// # Errors
    /// [`Failed::Closed`] when the proxy shuts down first; [`Failed::LeftBehind`] when another process takes its place.
    pub async fn wait_drained(&self, versions: &[(ServiceName, VersionName)]) -> Result<Waited, Failed> {
        let (mut seen, mut elders) = (self.seen.clone(), self.elders.subscribe());
        loop {
            elders.mark_unchanged();
            let waited = self.waited(&seen.borrow_and_update(), versions);
            // Last: what elders have is forgotten only after this is shown.
            if seen.borrow().is_past {
                return Err(Failed::LeftBehind);
            }
            if let Some(waited) = waited {
                return Ok(waited);
            }
            tokio::select! {
                changed = seen.changed() => changed.map_err(|_| Failed::Closed)?,
                // It is there for as long as we are.
                _ = elders.changed() => {}
            }
        }
    }
}

impl Handle {
    fn waited(&self, seen: &Seen, versions: &[(ServiceName, VersionName)]) -> Option<Waited> {
        let carries = |(service, version): &&(ServiceName, VersionName)| {
            is_led_to(&seen.state, service, version) || is_mirrored(&seen.state, service, version)
        };
        if let Some((service, version)) = versions.iter().find(carries) {
            return Some(Waited::Returned(service.clone(), version.clone()));
        }
        let waits = versions.iter().any(|(service, version)| {
            is_draining(seen, service, version) || self.elders.may_have(service, version)
        });
        (!waits).then(|| Waited::Drained(Arc::clone(&seen.state)))
    }
}

fn is_draining(seen: &Seen, service: &ServiceName, version: &VersionName) -> bool {
    seen.draining.iter().any(|(of, name)| (of, name) == (service, version))
}
