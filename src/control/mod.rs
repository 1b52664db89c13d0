//! CONTROL PLANE: one task owns the state; it takes an order, steps, and performs the effects in a fixed order:
//! *persist → publish → close → report*. Everybody else holds a snapshot.

mod clock;
mod custody;
pub mod discovery;
mod drain;
pub mod elders;
mod endpoints;
mod exclusive;
mod figures;
mod handle;
pub mod health;
mod history;
mod hold;
mod notice;
mod perform;
mod ramp;
pub mod reload;
mod retire;
pub mod rollout;
pub mod supervisor;
mod tenures;
mod terms;
mod traffic;
mod uses;
mod wanted;
mod warmup;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc, watch};
use tracing::warn;

pub use crate::proxy::hold::Ended;
use custody::{Custody, Transfer};
use drain::Drains;
use elders::Elders;
use endpoints::Endpoints;
pub use exclusive::{Exclusively, HoldEnded, InTheWay, Streams};
pub use figures::{DRAIN_BOUNDS, Durations, FENCE_BOUNDS, Figures, ServiceFigures};
pub use handle::{Asked, Done, Failed, Handle, Notice, RolloutNotice, Waited, Wanted};
use handle::{Request, Seen};
use health::{Health, Prober};
use hold::Holds;
use perform::Doubt;
pub use ramp::{RampNotice, Ramps};
pub use retire::{RetirementClock, Retirements};
use rollout::Rollouts;
use supervisor::Verdicts;
pub use tenures::Tenures;
pub use terms::{Term, TermOf};
pub use uses::{Use, Uses};

use crate::proxy::live::{Live, Snapshot};
use crate::proxy::upstream::Upstream;
use crate::release::{self, Actor, Command, Effects, Event, Order, Refused, State, step};
use crate::store::keeper::Keeper;
use crate::store::{Answer, Store, StoreError};
use crate::table::{ServiceName, ServiceSpec, VersionName};

/// Requests that wait for control at most; more wait in their callers.
const REQUESTS: usize = 256;
/// How many notices a listener may fall behind before it loses the oldest.
pub const NOTICES: usize = 1024;
/// How long after a store that failed did not say whether it had kept a change it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The owner of the state: decides and performs. Runs by [`Control::run`].
#[derive(Debug)]
pub struct Control {
    state: Arc<State>,
    workers: usize,
    live: Arc<Live>,
    keeper: Keeper,
    drains: Drains,
    endpoints: Endpoints,
    holds: Holds,
    doubt: Option<Doubt>,
    tenures: Arc<Tenures>,
    figures: Arc<Figures>,
    requests: mpsc::Receiver<Request>,
    elders: Arc<Elders>,
    rollouts: Arc<Rollouts>,
    ramps: Arc<Ramps>,
    retirements: Arc<Retirements>,
    verdicts: Arc<Verdicts>,
    /// Versions that are left and have work with elders, and since when that is known.
    elsewhere: BTreeMap<(ServiceName, VersionName), Instant>,
    custody: Custody,
    health: Arc<Health>,
    prober: Option<Prober>,
    transfers: mpsc::Receiver<Transfer>,
    seen: watch::Sender<Seen>,
    notices: broadcast::Sender<Notice>,
}

/// Why control cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenFailed {
    /// The store cannot be read, or the file differs from what it remembers and that cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file's services do not make a table.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There is no thread for the store.
    #[error("cannot start the store's thread")]
    Thread(#[from] std::io::Error),
}

/// Lays what `store` remembers over the services of the file, keeps the change if there is one, and is ready to run.
///
/// Blocks. `workers` is the number of shards of every version's counts; `file` is named as the actor of the change.
/// [`Handle::live`] is what the workers serve from, from now on.
///
/// # Errors
/// [`OpenFailed`]; nothing was kept then.
pub fn open(
    mut store: Box<dyn Store>,
    services: Vec<ServiceSpec>,
    workers: usize,
    file: Actor,
) -> Result<(Control, Handle), OpenFailed> {
    let loaded = store.load()?;
    let command = Command::Configure { services, records: loaded.records };
    let order = Order {
        command,
        actor: file,
        reason: "start".to_owned(),
        expected: Vec::new(),
        health: release::Health::default(),
    };
    let (state, effects) = step(&State::at(loaded.epoch), Event::Order(order), clock::now())?;
    if let Some(change) = &effects.change {
        store.append(change, None)?;
    }
    if !effects.restated.is_empty()
        && let Err(error) = store.restate(&effects.restated)
    {
        warn!(%error, "what the file says is not kept in this build's form: what is edited before the next start is no change then");
    }
    let keeper = Keeper::start(store)?;
    let (control, handle) = assemble(Arc::new(state), keeper, workers);
    perform::log(&effects);
    control.figures.show(&control.state.table);
    if let Some(change) = &effects.change {
        control.figures.on_change(change, &control.state.table, None, clock::instant());
    }
    Ok((control, handle))
}

fn assemble(state: Arc<State>, keeper: Keeper, workers: usize) -> (Control, Handle) {
    let first = Snapshot::join(Arc::clone(&state.table), None, |service, version| {
        Arc::new(Upstream::open(service.name.clone(), version.name.clone(), workers))
    });
    let notices = broadcast::Sender::new(NOTICES);
    let (health, fresh) = Health::new(notices.clone());
    health.follow(state.table.services().iter().map(|service| &service.name), None, &first);
    let live = Arc::new(Live::new(first));
    let prober = Prober::new(&health, fresh, &live);
    let (tenures, figures) = (Arc::new(Tenures::of(Arc::clone(&live))), Arc::new(Figures::default()));
    let (asking, requests) = mpsc::channel(REQUESTS);
    let (transferring, transfers) = mpsc::channel(1);
    let (elders, rollouts): (Arc<Elders>, Arc<Rollouts>) = Default::default();
    let (ramps, verdicts): (Arc<Ramps>, Arc<Verdicts>) = Default::default();
    let retirements = Arc::<Retirements>::default();
    let (showing, seen) =
        watch::channel(Seen { state: Arc::clone(&state), draining: Arc::new([]), is_past: false });
    let handle = Handle {
        requests: asking,
        transfers: transferring,
        seen,
        notices: notices.clone(),
        live: Arc::clone(&live),
        tenures: Arc::clone(&tenures),
        figures: Arc::clone(&figures),
        elders: Arc::clone(&elders),
        health: Arc::clone(&health),
        rollouts: Arc::clone(&rollouts),
        ramps: Arc::clone(&ramps),
        retirements: Arc::clone(&retirements),
        verdicts: Arc::clone(&verdicts),
    };
    let (drains, holds, doubt) = (Drains::default(), Holds::default(), None);
    let control = Control {
        state,
        workers,
        live,
        keeper,
        drains,
        endpoints: Endpoints::default(),
        holds,
        doubt,
        tenures,
        figures,
        requests,
        elders,
        rollouts,
        ramps,
        retirements,
        verdicts,
        elsewhere: BTreeMap::new(),
        custody: Custody::Ours,
        health,
        prober: Some(prober),
        transfers,
        seen: showing,
        notices,
    };
    control.follow_ramps();
    (control, handle)
}

impl Control {
    /// Who looks after the endpoints' health, to be run beside control on its thread; there is only one.
    pub fn prober(&mut self) -> Option<Prober> {
        self.prober.take()
    }

    /// Takes requests until `shutdown`; then finishes the one at hand, refuses the others, and closes the store.
    ///
    /// To be run on a thread that does nothing else: a fence is as fast as this task is polled.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let (mut shutdown, bell) = (pin!(shutdown), self.drains.bell());
        let mut elders = self.elders.subscribe();
        loop {
            let wake = self.next_wake();
            let opened = Arc::clone(&self.holds.alert);
            tokio::select! {
                () = &mut shutdown => break,
                () = clock::until(wake) => self.on_wake().await,
                () = opened.notified() => self.poll_holds().await,
                () = bell.notified() => self.poll_drains(),
                _ = elders.changed() => self.on_elders(),
                Some(transfer) = self.transfers.recv() => self.on_transfer(transfer).await,
                request = self.requests.recv(), if !self.custody.is_waited_for(clock::instant()) => match request {
                    Some(request) => self.on_request(request).await,
                    None => break,
                },
            }
        }
        self.holds.open_all();
        drop(self.requests);
        self.keeper.close().await;
    }

    fn next_wake(&self) -> Option<Instant> {
        let doubt = self.doubt.as_ref().map(|doubt| doubt.ask_at);
        let now = clock::instant();
        let (lent, holds) = (self.custody.wake(now), self.holds.next_poll(now));
        let ramps = self.next_ramp().into_iter().chain(self.next_retirement());
        self.drains.next_poll().into_iter().chain(holds).chain(doubt).chain(lent).chain(ramps).min()
    }

    async fn on_wake(&mut self) {
        let now = clock::instant();
        if self.drains.next_poll().is_some_and(|at| at <= now) {
            self.poll_drains();
        }
        self.poll_holds().await;
        if self.doubt.as_ref().is_some_and(|doubt| doubt.ask_at <= now) {
            // Still no answer: it is asked again.
            let _ = self.resolve_doubt().await;
        }
        self.step_ramps().await;
        self.end_retirements().await;
    }

    async fn on_request(&mut self, request: Request) {
        match (request, self.custody.refusal()) {
            // Nobody waits any more: nothing to do about it.
            (Request::Change(_, reply), Some(refusal)) => drop(reply.send(Err(refusal))),
            (Request::History(_, reply), Some(refusal)) => {
                drop(reply.send(Err(StoreError::Io(refusal.to_string()))));
            }
            (Request::Answer(_, reply), Some(refusal)) => drop(reply.send(Err(refusal))),
            (Request::Remember(_, reply) | Request::Ascertain(reply), Some(refusal)) => {
                drop(reply.send(Err(refusal)));
            }
            (Request::Answer(key, reply), None) => {
                let look = move |store: &mut dyn Store| {
                    let _ = reply.send(store.answer(&key).map_err(Failed::from));
                };
                self.keeper.tell(look).await;
            }
            (Request::Remember(answer, reply), None) => {
                let keep = move |store: &mut dyn Store| {
                    let _ = reply.send(store.remember(&answer).map_err(Failed::from));
                };
                self.keeper.tell(keep).await;
            }
            (Request::Ascertain(reply), None) => {
                let known = self.resolve_doubt().await;
                let _ = reply.send(known.map_err(Failed::from));
            }
            (Request::Change(wanted, reply), None) => {
                if let Some(how) = wanted.exclusive.filter(|_| !wanted.dry_run) {
                    return self.begin(*wanted, how, reply).await;
                }
                let done = self.change(*wanted).await;
                // The caller went away; the change stands.
                let _ = reply.send(done);
            }
            (Request::History(query, reply), None) => {
                let answer = move |store: &mut dyn Store| {
                    let _ = reply.send(store.history(&query));
                };
                self.keeper.tell(answer).await;
            }
        }
    }

    /// Decides a wanted change and performs it.
    async fn change(&mut self, wanted: Wanted) -> Result<Done, Failed> {
        self.resolve_doubt().await?;
        let Wanted {
            command,
            actor,
            scopes,
            reason,
            expected,
            force,
            idempotency,
            dry_run,
            exclusive,
            about,
            render,
        } = wanted;
        let idempotency = idempotency.filter(|_| !dry_run);
        if let Some((key, fingerprint)) = &idempotency
            && let Some(done) = self.replay(key, fingerprint).await?
        {
            return Ok(done);
        }
        let command = self.ramp_asked_for(self.command(command, &scopes).await?)?;
        let (command, note) = self.meanwhile(command)?;
        if let Command::Hold { service, .. } = &command {
            self.settle(&service.clone()).await;
        }
        let target = match &command {
            Command::Flip { service, .. } => exclusive.map(|how| (service.clone(), how)),
            _ => None,
        };
        let may_interfere =
            note.is_some() || matches!(command, Command::Release { .. } | Command::Configure { .. });
        let moved = command.moves(&self.state.table).into_iter().filter(|name| scopes.operate(name.as_str()));
        let moved: Vec<_> = moved.cloned().collect();
        let health = self.health.facts(&command, &self.state.table, force);
        let order = Order { command, actor, reason, expected, health };
        let stepped = step(&self.state, Event::Order(order), clock::now());
        let (next, mut effects) = stepped.map_err(|refused| Failed::told(refused, &scopes))?;
        if let Some(change) = &effects.change {
            scopes.check(change, &self.state, &next)?;
        }
        effects.notes.extend(note);
        if !may_interfere {
            self.check_none_underway(&effects, &moved)?;
        }
        effects.notes.extend(self.plan(target, &next));
        let body = render(&next, &effects, &about);
        if dry_run {
            return Ok(Done { state: Arc::new(next), effects, body, replayed: false });
        }
        let answer = idempotency.map(|(key, fingerprint)| Answer { key, fingerprint, body: body.clone() });
        self.perform(next, &effects, answer).await?;
        Ok(Done { state: Arc::clone(&self.state), effects, body, replayed: false })
    }

    /// The answer that was given to this key before.
    async fn replay(&self, key: &str, fingerprint: &str) -> Result<Option<Done>, Failed> {
        let asked = key.to_owned();
        let Some(kept) = self.keeper.ask(move |store| store.answer(&asked)).await? else { return Ok(None) };
        if kept.fingerprint != fingerprint {
            return Err(Failed::KeyReused(kept.key));
        }
        let (state, effects) = (Arc::clone(&self.state), Effects::default());
        Ok(Some(Done { state, effects, body: kept.body, replayed: true }))
    }
}
