//! Supervision: every candidate is compared with its baseline while it gets traffic, and goes back by itself when it is worse.
//!
//! A task beside control, as an operator would be who never sleeps and knows statistics: every ten milliseconds it takes what
//! the workers have [counted](crate::proxy::ledger), lets the pure [verdict](crate::release::verdict) make evidence of it, and
//! asks control for ordinary changes: to lean back on suspicion, to come back, to revert on proof. Each is refused when the
//! trial that it is about is over by then. Evidence is in this process alone: one that starts or takes over begins to collect
//! anew, in the trial that the store remembers.

mod case;
mod convert;
mod end;
mod inquiry;
mod orders;
mod overdue;
mod past;
mod shown;
mod tally;
#[cfg(test)]
mod tests;
mod told;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::handle::{Handle, Notice};
use super::terms::End;
use super::{Exclusively, Failed, Streams, Wanted, clock};
use crate::metrics::supervision::Compared;
use crate::proxy::ledger::Ledger;
use crate::release::verdict::{Report, Standing};
use crate::release::{Act, Actor, ActorKind, Command, ServiceRecord, Trial};
use crate::table::{Epoch, ServiceName};
use case::{Case, REST};
use inquiry::Inquiry;
use orders::Wanted as Wish;
use shown::AT_ONCE;
use tally::{Tallies, Tally};
pub use told::{Ended, How, Stands, VerdictNotice};
use told::{Known, Underway};

/// How often trials are looked at.
const TICK: Duration = Duration::from_millis(10);

/// What supervision knows of all services. Locked for a look, never for a request.
#[derive(Debug, Default)]
pub struct Verdicts {
    cases: Mutex<BTreeMap<ServiceName, Case>>,
    /// How the last trial of each service has ended.
    ended: Mutex<BTreeMap<ServiceName, Ended>>,
    known: Known,
    tallies: Tallies,
    /// What was proven against candidates that are to go back, for when they have: a store may say late that it has kept that.
    proven: Mutex<BTreeMap<ServiceName, (Trial, Report)>>,
    /// How often somebody has asked for the metrics.
    scrapes: AtomicU64,
    /// Cancelled when another process supervises.
    over: CancellationToken,
}

/// An order, and what became of it.
struct Ordered {
    order: Order,
    done: Result<(), Failed>,
}

/// What supervision wants of control, and why.
struct Order {
    service: ServiceName,
    trial: Trial,
    wanted: Wish,
    report: Box<Report>,
}

/// Supervises for as long as it runs.
pub async fn run(handle: Handle) {
    let verdicts = Arc::clone(handle.verdicts());
    let mut notices = handle.subscribe();
    let mut orders = FuturesUnordered::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rested = Instant::now();
    // The trials that are under way, as far as notices have told.
    let mut underway = BTreeMap::new();
    verdicts.begin_anew(&handle, &mut underway);
    loop {
        let is_trying = verdicts.lock().values().any(|case| case.inquiry.is_some());
        tokio::select! {
            biased;
            () = verdicts.over.cancelled() => return,
            notice = notices.recv() => match notice {
                Ok(Notice::Changed(change)) => {
                    verdicts.follow(&handle, change.services.iter().map(|record| &record.service));
                    let made = |record: &ServiceRecord, stage| verdicts.way_back(record, stage);
                    verdicts.end(told::ended(&change, &mut underway, made), change.epoch);
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => verdicts.begin_anew(&handle, &mut underway),
                Err(RecvError::Closed) => return,
            },
            Some(ordered) = orders.next(), if !orders.is_empty() => verdicts.answered(&handle, &ordered),
            _ = ticks.tick(), if is_trying => {
                orders.extend(verdicts.tick(&handle).into_iter().map(|order| carry_out(handle.clone(), order)));
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
async fn carry_out(handle: Handle, order: Order) -> Ordered {
    let Order { service, trial, wanted, report } = &order;
    let command = match wanted {
        Wish::Act(act) => Command::Supervise { service: service.clone(), stage: trial.stage, act: *act },
        Wish::Eject(version, endpoint) => Command::DrainEndpoint {
            service: service.clone(),
            version: version.clone().into(),
            endpoint: endpoint.clone(),
        },
    };
    // Who came alone goes back alone; what has words for an early end is told to go, or it would be with the suspect for ever.
    let exclusive = match wanted {
        Wish::Act(Act::Convict) => trial.exclusive,
        Wish::Act(_) | Wish::Eject(..) => None,
    };
    let exclusive = exclusive.map(|scope| Exclusively { scope, streams: Streams::Close, timeout: None });
    // The hold that comes first is not the way back yet.
    let reason = if exclusive.is_some() { report.so_far() } else { report.sentence() };
    let supervision = Actor { kind: ActorKind::Supervisor, name: "supervision".to_owned() };
    let change = Wanted { exclusive, ..Wanted::plain(command, supervision, reason) };
    let done = handle.change(change).await.map(drop);
    Ordered { order, done }
}

/// Makes the oldest of the differences that are shown anew for this scrape, if it is not.
fn show_oldest(cases: &mut BTreeMap<ServiceName, Case>, scrape: u64) {
    let tried = cases.values_mut().filter(|case| case.inquiry.is_some());
    if let Some(case) = tried.min_by_key(|case| case.shown.scrape()) {
        case.show(scrape);
    }
}

impl Verdicts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Case>> {
        self.cases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody is compared here any more: another process does.
    pub(super) fn give_up(&self) {
        self.over.cancel();
        self.lock().clear();
    }

    /// When the trials are over that end by themselves.
    pub(super) fn ends(&self) -> Vec<(ServiceName, End)> {
        self.lock().iter().filter_map(|(name, case)| Some((name.clone(), case.end()?))).collect()
    }

    /// The trial of a service with this ledger is over then, if that is the one. To be called before it is looked at.
    pub(super) fn go_on(&self, ledger: Option<&Arc<Ledger>>, service: ServiceName, end: End) {
        if let Some(ledger) = ledger {
            self.lock().entry(service).or_insert_with(|| Case::new(Arc::clone(ledger))).go_on(end);
        }
    }

    /// Takes over what is published of these services.
    fn follow<'s>(&self, handle: &Handle, touched: impl Iterator<Item = &'s ServiceName>) {
        let (state, snapshot) = (handle.state(), handle.live().snapshot());
        let now = (clock::instant(), clock::now());
        let mut cases = self.lock();
        for name in touched {
            let known = snapshot.table.service(name).map(|service| &**service).zip(state.deployment(name));
            match snapshot.ledger(name).zip(known) {
                None => drop(cases.remove(name)),
                Some((ledger, known)) => {
                    let new = || Case::new(Arc::clone(ledger));
                    cases.entry(name.clone()).or_insert_with(new).follow(ledger, known, &snapshot, now);
                }
            }
        }
    }

    /// Takes over all that is published: nothing is known of what has happened before.
    fn begin_anew(&self, handle: &Handle, underway: &mut Underway) {
        let state = handle.state();
        let all = state.table.services().iter();
        self.lock().retain(|name, _| state.table.service(name).is_some());
        self.follow(handle, all.clone().map(|service| &service.name));
        let trials = all.filter_map(|service| {
            let trial = state.deployment(&service.name)?.trial.as_ref()?;
            Some((service.name.clone(), trial.stage))
        });
        let before = std::mem::replace(underway, trials.collect());
        let over = before.into_iter().filter(|(name, stage)| underway.get(name) != Some(stage));
        let over = over.map(|(name, stage)| (name, Ended::unseen(stage, state.table.epoch())));
        self.end(over.collect(), state.table.epoch());
    }

    /// What was proven in the exclusive trial of this stage, if all of the service is with its baseline now.
    fn way_back(&self, record: &ServiceRecord, stage: Epoch) -> Option<String> {
        let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        let (trial, report) = proven.get(&record.service).filter(|(trial, _)| trial.stage == stage)?;
        told::is_way_back(record, trial).then(|| report.sentence())
    }

    /// These trials are over, and as of this epoch no others.
    fn end(&self, over: Vec<(ServiceName, Ended)>, epoch: Epoch) {
        for (service, ended) in &over {
            let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner).remove(service);
            let of_it =
                |(trial, _): &(Trial, Report)| ended.how == How::Reverted && trial.stage == ended.stage;
            if let Some((trial, report)) = proven.filter(of_it) {
                self.tallies.note(service, &trial, |tally| tally.reverted(&report));
            }
        }
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).extend(over);
        self.known.send_replace(epoch);
    }

    /// How the last trial of a service has ended, if there was one since this process started.
    #[must_use]
    pub fn ended_of(&self, service: &ServiceName) -> Option<Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).get(service).cloned()
    }

    /// How the trial of this stage stands, in a word, if it is looked at.
    #[must_use]
    pub fn standing_of(&self, service: &ServiceName, stage: Epoch) -> Option<Standing> {
        let cases = self.lock();
        let case = cases.get(service).filter(|case| case.stage() == Some(stage))?;
        case.inquiry.as_ref().map(Inquiry::standing)
    }

    /// The same with all figures; costs some thousand logarithms.
    #[must_use]
    pub fn of(&self, handle: &Handle, service: &ServiceName, stage: Epoch) -> Option<Stands> {
        let (snapshot, now) = (handle.live().snapshot(), (clock::instant(), clock::now()));
        let cases = self.lock();
        let case = cases.get(service).filter(|case| case.stage() == Some(stage))?;
        let hindrance = case.inquiry.as_ref().and_then(Inquiry::hindrance);
        Some(Stands { report: case.report(now, &snapshot)?, hindrance })
    }

    /// What the metrics show of it. The differences of many are as old as the scrape before this one.
    #[must_use]
    pub fn compared(&self, handle: &Handle) -> Vec<Compared> {
        let snapshot = handle.live().snapshot();
        // Relaxed: it only says who is to be looked at.
        let scrape = self.scrapes.fetch_add(1, Ordering::Relaxed) + 1;
        let mut cases = self.lock();
        (0..AT_ONCE).for_each(|_| show_oldest(&mut cases, scrape));
        let standing = cases.iter().filter_map(|(name, case)| {
            let inquiry = case.inquiry.as_ref()?;
            let Inquiry { trial, supervisor, .. } = inquiry;
            let pair = (name.clone(), trial.candidate.clone(), trial.baseline.clone());
            Some((pair, case.shown.stands(supervisor, inquiry.hindrance().is_some())))
        });
        let standing = standing.collect();
        drop(cases);
        self.tallies.compared(&snapshot.table, standing)
    }

    /// Looks at all of them once; what is to be ordered, with why.
    fn tick(&self, handle: &Handle) -> Vec<Order> {
        let (snapshot, now, at) = (handle.live().snapshot(), clock::instant(), clock::now());
        let mut wanted = Vec::new();
        let mut cases = self.lock();
        // One of those whose difference nobody has waited for.
        let scrape = self.scrapes.load(Ordering::Relaxed);
        show_oldest(&mut cases, scrape);
        for (name, case) in cases.iter_mut().filter(|(_, case)| !case.is_still(now)) {
            let before = case.inquiry.as_ref().map(Inquiry::standing);
            let wish = case.tick(now, &snapshot);
            let (Some(inquiry), Some(before)) = (&case.inquiry, before) else { continue };
            let (standing, trial) = (inquiry.standing(), &inquiry.trial);
            self.tallies.note(name, trial, |tally| tally.add(&case.fresh));
            if wish.is_none() && before == standing {
                continue;
            }
            let Some(report) = case.report((now, at), &snapshot) else { continue };
            if before != standing {
                self.turned(handle, name, trial, before, &report);
            }
            if wish == Some(Wish::Act(Act::Convict)) {
                let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
                proven.insert(name.clone(), (trial.clone(), report.clone()));
            }
            let order = |wanted| Order {
                service: name.clone(),
                trial: trial.clone(),
                wanted,
                report: Box::new(report),
            };
            wanted.extend(wish.map(order));
        }
        wanted
    }

    /// A candidate stands otherwise than before.
    fn turned(
        &self,
        handle: &Handle,
        service: &ServiceName,
        trial: &Trial,
        before: Standing,
        report: &Report,
    ) {
        let news = notice(service, trial, before, report);
        let (standing, said) = (news.standing, &news.said);
        warn!(%service, state = standing.name(), said, "supervision");
        // Who was breached by one endpoint alone is still suspect.
        if standing == Standing::Suspect && before != Standing::Breached {
            self.tallies.note(service, trial, |tally| {
                tally.suspected(report.trigger.map_or("", |(why, _)| why.name()));
            });
        }
        handle.tell(Notice::Verdict(Arc::new(news)));
    }

    /// What became of an order.
    fn answered(&self, handle: &Handle, ordered: &Ordered) {
        let Ordered { order: Order { service, trial, wanted, report }, done } = ordered;
        let made = match done {
            // It is made, and somebody else does not say that nothing goes the old way.
            Ok(()) | Err(Failed::Unfenced | Failed::Overtaken) => Ok(()),
            Err(failed) => Err(failed),
        };
        if made.is_ok() && matches!(wanted, Wish::Eject(..)) {
            self.tallies.note(service, trial, Tally::ejected);
        }
        let mut cases = self.lock();
        let inquiry = cases.get_mut(service).and_then(|case| case.inquiry.as_mut());
        let Some(inquiry) = inquiry.filter(|inquiry| inquiry.trial.stage == trial.stage) else { return };
        if let Some(why) = inquiry.answered(wanted, made, clock::instant()) {
            warn!(%service, ?wanted, why, "supervision cannot do what it wants");
            let news = VerdictNotice {
                hindrance: Some(why.to_owned()),
                ..notice(service, trial, report.standing, report)
            };
            handle.tell(Notice::Verdict(Arc::new(news)));
        }
    }
}

/// How a trial stands.
fn notice(service: &ServiceName, trial: &Trial, before: Standing, report: &Report) -> VerdictNotice {
    VerdictNotice {
        service: service.clone(),
        stage: trial.stage,
        baseline: trial.baseline.clone(),
        candidate: trial.candidate.clone(),
        before,
        standing: report.standing,
        said: report.so_far(),
        hindrance: None,
    }
}
