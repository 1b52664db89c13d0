//! Supervision: every candidate is compared with its baseline while it gets traffic, and goes back by itself when it is worse.
//!
//! A task beside control, as an operator would be who never sleeps and knows statistics: every ten milliseconds it takes what
//! the workers have [counted](crate::proxy::ledger), lets the pure [verdict](crate::release::verdict) make evidence of it, and
//! asks control for ordinary changes: to lean back on suspicion, to come back, to revert on proof. Each is refused when the
//! trial that it is about is over by then. Evidence is in this process alone: one that starts or takes over begins to collect
//! anew, in the trial that the store remembers.

mod case;
mod inquiry;
mod past;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::warn;

use super::handle::{Asked, Handle, Notice};
use super::{Failed, Wanted, clock};
use crate::release::{Actor, ActorKind, Command};
use crate::table::{Epoch, ServiceName};
use case::Case;

/// How often trials are looked at.
const TICK: Duration = Duration::from_millis(10);
/// How often services are looked at in which nobody is tried.
const REST: Duration = Duration::from_secs(10);

/// What supervision knows of all services. Locked for a look, never for a request.
#[derive(Debug, Default)]
pub struct Verdicts {
    cases: Mutex<BTreeMap<ServiceName, Case>>,
}

/// An order, and what became of it.
struct Ordered {
    service: ServiceName,
    stage: Epoch,
    wanted: inquiry::Wanted,
    done: Result<(), Failed>,
}

/// Supervises for as long as it runs.
pub async fn run(handle: Handle) {
    let verdicts = Arc::clone(handle.verdicts());
    let mut notices = handle.subscribe();
    let mut orders = FuturesUnordered::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rested = Instant::now();
    verdicts.follow(&handle, None);
    loop {
        let is_trying = verdicts.lock().values().any(|case| case.inquiry.is_some());
        tokio::select! {
            biased;
            notice = notices.recv() => match notice {
                Ok(Notice::Changed(change)) => {
                    let touched = change.services.iter().map(|record| record.service.clone()).collect();
                    verdicts.follow(&handle, Some(&touched));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => verdicts.follow(&handle, None),
                Err(RecvError::Closed) => return,
            },
            Some(ordered) = orders.next(), if !orders.is_empty() => verdicts.answered(&ordered),
            _ = ticks.tick(), if is_trying => {
                for (service, stage, wanted, reason) in verdicts.tick(&handle) {
                    orders.push(order(handle.clone(), service, stage, wanted, reason));
                }
            }
            () = sleep_until(rested + REST) => {
                rested = Instant::now();
                if !is_trying {
                    verdicts.tick(&handle);
                }
            }
        }
    }
}

/// Asks control for what supervision wants.
async fn order(
    handle: Handle,
    service: ServiceName,
    stage: Epoch,
    wanted: inquiry::Wanted,
    reason: String,
) -> Ordered {
    let command = match &wanted {
        inquiry::Wanted::Act(act) => Command::Supervise { service: service.clone(), stage, act: *act },
        inquiry::Wanted::Eject(version, endpoint) => Command::DrainEndpoint {
            service: service.clone(),
            version: version.clone().into(),
            endpoint: endpoint.clone(),
        },
    };
    let change = Wanted {
        command: Asked::Command(command),
        actor: Actor { kind: ActorKind::Supervisor, name: "supervision".to_owned() },
        reason,
        expected: Vec::new(),
        force: false,
        idempotency: None,
        dry_run: false,
        exclusive: None,
        render: |_, _| String::new(),
    };
    let done = handle.change(change).await.map(drop);
    Ordered { service, stage, wanted, done }
}

impl Verdicts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Case>> {
        self.cases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what is published of these services, or of all.
    fn follow(&self, handle: &Handle, touched: Option<&BTreeSet<ServiceName>>) {
        let (state, snapshot, now) = (handle.state(), handle.live().snapshot(), clock::instant());
        let mut cases = self.lock();
        let all = || snapshot.table.services().iter().map(|service| &service.name);
        let names: Vec<_> = touched.map_or_else(|| all().collect(), |touched| touched.iter().collect());
        for name in names {
            let known = snapshot.table.service(name).map(|service| &**service).zip(state.deployment(name));
            let Some((ledger, known)) = snapshot.ledger(name).zip(known) else {
                cases.remove(name);
                continue;
            };
            let case = cases.entry(name.clone()).or_insert_with(|| Case::new(name.clone(), Arc::clone(ledger)));
            case.follow(ledger, known, &snapshot, now);
        }
        if touched.is_none() {
            cases.retain(|name, _| snapshot.table.service(name).is_some());
        }
    }

    /// Looks at all of them once; what is to be ordered, with why.
    fn tick(&self, handle: &Handle) -> Vec<(ServiceName, Epoch, inquiry::Wanted, String)> {
        let (snapshot, now, at) = (handle.live().snapshot(), clock::instant(), clock::now());
        let mut wanted = Vec::new();
        for (name, case) in self.lock().iter_mut() {
            let before = case.inquiry.as_ref().map(|inquiry| inquiry.standing());
            let wish = case.tick(now, at, &snapshot);
            let Some(inquiry) = &case.inquiry else { continue };
            let standing = inquiry.standing();
            let told = wish.is_some() || before != Some(standing);
            if !told {
                continue;
            }
            let sentence = String::new();
            if before != Some(standing) {
                warn!(service = %name, standing = standing.name(), sentence, "supervision");
            }
            if let Some(wish) = wish {
                wanted.push((name.clone(), inquiry.trial.stage, wish, sentence));
            }
        }
        wanted
    }

    /// What became of an order.
    fn answered(&self, ordered: &Ordered) {
        let Ordered { service, stage, wanted, done } = ordered;
        let mut cases = self.lock();
        let inquiry = cases.get_mut(service).and_then(|case| case.inquiry.as_mut());
        let Some(inquiry) = inquiry.filter(|inquiry| inquiry.trial.stage == *stage) else { return };
        let hindrance = done.as_ref().err().map(ToString::to_string);
        if let Some(why) = &hindrance {
            warn!(%service, ?wanted, why, "supervision could not do what it wanted");
        }
        inquiry.answered(hindrance);
    }
}
