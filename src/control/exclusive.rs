//! Exclusive flips: two versions never serve at the same time.
//!
//! ```text
//! hold (a change, fenced) → every other version empty → gate sealed → flip and release (one change, fenced)
//!        └── a bound, the time, a release or revert: everything goes on where it was, and the flip has failed
//! ```
//!
//! Supervision's exclusive way back is the same, but that no release ends it, and that a revert makes it at once. The hold is the
//! flip's own: one that was asked for begins and ends without regard to it, and may still be there when it is over.
//!
//! Why they do not overlap: once the hold is published no request is admitted, by the fence. Then the counts of the other
//! versions are read until they are zero, and the gate is sealed; that succeeds only if nobody has passed it since. So
//! nothing is on them, nothing can come to be, and the first request of the new version is admitted under the epoch that is
//! published after that. Requests that the new version has had from before, as a canary, are not waited for.
//!
//! Control goes on meanwhile: other services are changed as always. Limit: when the store neither keeps nor refuses the
//! last step in time, the hold ends and requests go on where they were; if it turns out to have been kept, the flip takes
//! effect then, without another hold.

mod left;
mod meanwhile;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::info;

use left::{in_flight, writers};

use super::handle::{Done, Failed, Wanted};
use super::{Asked, Control, clock};
use crate::metrics::Kind;
use crate::proxy::admission::Class;
use crate::proxy::hold::{Ended, Gate};
use crate::proxy::upstream::Upstream;
use crate::proxy::upstream::leaving::{Departure, Plan};
use crate::release::{Act, Command, Effects, Event, Order, Refused, State, step};
use crate::store::Answer;
use crate::table::{HoldScope, Holder, ServiceName, VersionName};

/// How long the last step may take when the hold's own time is nearly over.
const LAST_STEP: Duration = Duration::from_secs(1);

/// How a flip is made so that two versions never serve at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exclusively {
    /// Which requests wait, and are waited for.
    pub scope: HoldScope,
    /// What is done about work that lasts.
    pub streams: Streams,
    /// For how long requests may wait; `None`: as the service's limits say.
    pub timeout: Option<Duration>,
}

/// What is done about streams, event streams, WebSockets, tunnels and gRPC calls of the other versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Streams {
    /// A flip that finds event streams, WebSockets or tunnels is refused at once; all others are waited for.
    #[default]
    Refuse,
    /// Those that have words for an early end are told to go at once, as when a version is left, and cut when they have not gone
    /// [a little later](crate::proxy::upstream::leaving::ANSWER), as tunnels are. All others are waited for.
    Close,
    /// They are not waited for: two versions do serve at the same time then.
    Ignore,
}

impl Exclusively {
    /// True when a request of this class is waited for.
    fn waits_for(self, class: Class) -> bool {
        self.scope.holds(class.writes()) && !(self.streams == Streams::Ignore && class.is_lasting())
    }

    /// The kinds of work that nobody would wait for: their end is not in sight.
    ///
    /// Other streams, and gRPC calls, are mostly short, and only time tells which are not.
    fn endless(self) -> &'static [Kind] {
        match (self.streams, self.scope) {
            (Streams::Close | Streams::Ignore, _) => &[],
            (Streams::Refuse, HoldScope::All) => &[Kind::Sse, Kind::Websocket, Kind::Tunnel],
            (Streams::Refuse, HoldScope::Writes) => &[Kind::Websocket, Kind::Tunnel],
        }
    }
}

/// Work that stands in the way of an exclusive flip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InTheWay {
    /// Of which version.
    pub version: VersionName,
    /// Of which kind.
    pub kind: Kind,
    /// How much.
    pub count: u64,
}

/// A hold that ended before the flip behind it could be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldEnded {
    /// The service.
    pub service: ServiceName,
    /// Where it should have gone.
    pub to: VersionName,
    /// Why.
    pub why: Ended,
    /// That in words.
    pub reason: String,
    /// What was left on the other versions, all of it from before the hold.
    pub left: Vec<InTheWay>,
    /// How long the hold lasted.
    pub lasted: Duration,
}

pub(super) type Reply = oneshot::Sender<Result<Done, Failed>>;

/// A flip that waits for its turn.
#[derive(Debug)]
pub(super) struct Errand {
    to: VersionName,
    /// What is done when the others are empty.
    last: Command,
    how: Exclusively,
    wanted: Wanted,
    /// Who waits for it: several, when they had the same idempotency key.
    replies: Vec<Reply>,
    /// The tenures of the service's other versions.
    others: Vec<Arc<Upstream>>,
    /// Those of the version that everything goes to: copies that came to it before the hold are waited for too.
    target: Vec<Arc<Upstream>>,
    /// What was found there when it was looked last: as soon as the gate is open, others come.
    left: Vec<InTheWay>,
    /// Those of the others on which what lasts is told to go.
    hurried: Vec<Departure>,
}

impl Errand {
    /// Looks whether nothing of what has to end is left.
    pub(super) fn look(&mut self) -> bool {
        let waits_for = |class| self.how.waits_for(class);
        let is_copy = |class| class == Class::Copy;
        let is_clear = self.others.iter().all(|upstream| upstream.in_flight_of(waits_for) == 0)
            && self.target.iter().all(|upstream| upstream.in_flight_of(is_copy) == 0);
        self.left = match self.how.scope {
            _ if is_clear => Vec::new(),
            HoldScope::All => in_flight(&self.others, &Kind::ALL),
            HoldScope::Writes => self.others.iter().flat_map(writers).collect(),
        };
        if !is_clear {
            self.left.extend(in_flight(&self.target, &[Kind::Mirror]));
        }
        is_clear
    }

    /// True when it is supervision that takes an exclusive flip back.
    fn is_way_back(&self) -> bool {
        matches!(self.last, Command::Supervise { .. })
    }

    /// The versions on which what lasts is told to go.
    pub(super) fn hurried(&self) -> &[Departure] {
        &self.hurried
    }

    /// The hold has ended without it.
    pub(super) fn ended(self, service: &ServiceName, gate: &Gate, why: Ended) {
        let lasted = clock::instant().saturating_duration_since(gate.since);
        let left = self.left.clone();
        let (service, to) = (service.clone(), self.to.clone());
        info!(%service, %to, ?why, ?left, seconds = lasted.as_secs_f64(), "an exclusive flip was not made");
        let reason = super::hold::reason(gate, why);
        self.reply(&Err(Failed::HoldEnded(Box::new(HoldEnded { service, to, why, reason, left, lasted }))));
    }

    fn reply(self, done: &Result<Done, Failed>) {
        for reply in self.replies {
            // The caller went away; what is done is done.
            let _ = reply.send(done.clone());
        }
    }

    fn is_asked_by(&self, other: &Wanted) -> bool {
        self.wanted.idempotency.is_some() && self.wanted.idempotency == other.idempotency
    }
}

/// What became of the beginning of an exclusive flip.
enum Begun {
    /// There is nothing to wait for: it was answered before, or changes nothing.
    Answered(Box<Done>),
    /// The service is held, and goes to this version when the others are empty.
    Held(VersionName),
}

impl Control {
    /// Begins an exclusive flip; its answer comes when it is made, or has failed.
    pub(super) async fn begin(&mut self, wanted: Wanted, how: Exclusively, reply: Reply) {
        let Some((service, command)) = subject(&wanted.command) else {
            // Nothing else is asked for so.
            let _ = reply.send(self.change(wanted).await);
            return;
        };
        if let Some(errand) = self.holds.errand(&service).filter(|errand| errand.is_asked_by(&wanted)) {
            errand.replies.push(reply);
            return;
        }
        match self.hold_for(&wanted, how, &service).await {
            Err(failed) => drop(reply.send(Err(failed))),
            Ok(Begun::Answered(done)) => drop(reply.send(Ok(*done))),
            Ok(Begun::Held(to)) => {
                let (others, target) = (self.others(&service, &to), self.tenures.of_version(&service, &to));
                let hurried =
                    if how.streams == Streams::Close { self.hurried(&service, &others) } else { Vec::new() };
                let (replies, left) = (vec![reply], Vec::new());
                let last = last_step(command, &to, how.scope);
                let errand =
                    Box::new(Errand { to, last, how, wanted, replies, others, target, left, hurried });
                if let Err(errand) = self.holds.entrust(&service, errand) {
                    errand.reply(&Err(Failed::Closed));
                }
                self.hurry();
                // Most often nothing has to be waited for.
                self.poll_holds().await;
            }
        }
    }

    /// Holds the service, if the flip can be made at all.
    async fn hold_for(
        &mut self,
        wanted: &Wanted,
        how: Exclusively,
        service: &ServiceName,
    ) -> Result<Begun, Failed> {
        self.resolve_doubt().await?;
        if let Some((key, fingerprint)) = &wanted.idempotency
            && let Some(done) = self.replay(key, fingerprint).await?
        {
            return Ok(Begun::Answered(Box::new(done)));
        }
        self.check_free(service)?;
        let flip = self.command(wanted.command.clone(), &wanted.scopes).await?;
        let (next, effects) = self.decide(wanted, flip)?;
        if effects.change.is_none() {
            let done = self.change(Wanted { exclusive: None, ..wanted.clone() }).await?;
            return Ok(Begun::Answered(Box::new(done)));
        }
        let to = next
            .table
            .service(service)
            .map_or_else(|| service_gone(service), |now| Ok(now.stable.clone()))?;
        let left = in_flight(&self.others(service, &to), how.endless());
        if !left.is_empty() {
            return Err(Failed::StreamsOpen { service: service.clone(), left });
        }
        // What is there cannot be held, nor be looked at closely enough.
        if self.others(service, &to).iter().any(|other| self.elders.may_have(service, &other.version)) {
            return Err(Failed::WorkElsewhere(service.clone()));
        }
        self.settle(service).await;
        let Exclusively { scope, timeout, .. } = how;
        let hold = Command::Hold { service: service.clone(), holder: Holder::Exclusive, scope, timeout };
        let (next, effects) = self.decide(wanted, hold)?;
        self.perform(next, &effects, None).await?;
        Ok(Begun::Held(to))
    }

    /// The others are empty and the gate is sealed: the flip is made.
    pub(super) async fn switch(&mut self, service: &ServiceName, gate: &Arc<Gate>) {
        // First: what turns out to have been kept may have ended the hold.
        let settled = self.resolve_doubt().await;
        let Some(errand) = self.holds.take_errand(gate) else { return gate.open(Ended::Store) };
        self.hurry();
        let done = match settled {
            Ok(()) => self.try_switch(service, gate, &errand).await,
            Err(error) => Err(error.into()),
        };
        if done.is_err() {
            // It goes on where it was; that it is over is published at the next look.
            gate.open(Ended::Store);
        }
        errand.reply(&done);
    }

    async fn try_switch(
        &mut self,
        service: &ServiceName,
        gate: &Gate,
        errand: &Errand,
    ) -> Result<Done, Failed> {
        let wanted = Wanted { expected: Vec::new(), ..errand.wanted.clone() };
        let (next, mut effects) = self.decide(&wanted, errand.last.clone())?;
        effects.notes.push(note(service, gate));
        if next.table.service(service).is_some_and(|service| !service.holds.are_none()) {
            effects.notes.push(format!("{service} is still held, as it was before"));
        }
        let body = (wanted.render)(&next, &effects, &wanted.about);
        let answer =
            wanted.idempotency.map(|(key, fingerprint)| Answer { key, fingerprint, body: body.clone() });
        let by = gate.deadline().max(clock::instant() + LAST_STEP);
        self.perform_by(next, &effects, answer, Some(by)).await?;
        Ok(Done { state: Arc::clone(&self.state), effects, body, replayed: false })
    }

    /// What lasts on these goes at once; what cannot be told, and is no tunnel, is not cut, however long the hold is.
    fn hurried(&self, service: &ServiceName, others: &[Arc<Upstream>]) -> Vec<Departure> {
        let retry = self.state.table.service(service).and_then(|service| service.drain.retry);
        let plan = Plan::of_words(clock::instant(), retry);
        others.iter().map(|upstream| Departure { upstream: Arc::clone(upstream), plan }).collect()
    }

    fn decide(&self, wanted: &Wanted, command: Command) -> Result<(State, Effects), Failed> {
        let Wanted { actor, reason, expected, force, .. } = wanted.clone();
        let health = self.health.facts(&command, &self.state.table, force);
        let order = Order { command, actor, reason, expected, health };
        Ok(step(&self.state, Event::Order(order), clock::now())?)
    }

    /// The tenures of all versions of a service but `to`, those included that were removed and are not over.
    fn others(&self, service: &ServiceName, to: &VersionName) -> Vec<Arc<Upstream>> {
        let is_other = |upstream: &Arc<Upstream>| upstream.service == *service && upstream.version != *to;
        self.tenures.tenures().into_iter().filter(is_other).collect()
    }

    /// What an exclusive flip would wait for, for its plan.
    fn forecast(&self, service: &ServiceName, to: &VersionName, how: Exclusively) -> Vec<String> {
        let others = self.others(service, to);
        let name = |found: &InTheWay| format!("{} {} on {}", found.count, found.kind.token(), found.version);
        let list = |found: Vec<InTheWay>| found.iter().map(name).collect::<Vec<_>>().join(", ");
        let (endless, all) = (in_flight(&others, how.endless()), in_flight(&others, &Kind::ALL));
        match (endless.is_empty(), all.is_empty()) {
            (false, _) => vec![format!("`{service}` would be refused: {}", list(endless))],
            (true, false) => vec![format!("in flight on the others now: {}", list(all))],
            (true, true) => Vec::new(),
        }
    }

    /// What the plan of an exclusive flip has to add.
    pub(super) fn plan(&self, target: Option<(ServiceName, Exclusively)>, next: &State) -> Vec<String> {
        let Some((service, how)) = target else { return Vec::new() };
        let Some(now) = next.table.service(&service) else { return Vec::new() };
        self.forecast(&service, &now.stable, how)
    }
}

/// The service that is flipped so, and by what: by whoever asks, or by supervision that goes back as it came.
fn subject(asked: &Asked) -> Option<(ServiceName, Command)> {
    let (Asked::Command(command @ Command::Flip { service, .. })
    | Asked::Command(command @ Command::Supervise { service, act: Act::Convict, .. })) = asked
    else {
        return None;
    };
    Some((service.clone(), command.clone()))
}

/// What is done when nothing is left on the others.
fn last_step(command: Command, to: &VersionName, scope: HoldScope) -> Command {
    match command {
        Command::Flip { service, supervise, .. } => {
            Command::Switch { service, to: to.clone(), scope, supervise }
        }
        other => other,
    }
}

fn service_gone(service: &ServiceName) -> Result<VersionName, Failed> {
    Err(Refused::UnknownService { service: service.clone() }.into())
}

/// `shop: 12 requests waited, for at most 43 ms`.
fn note(service: &ServiceName, gate: &Gate) -> String {
    let millis = clock::instant().saturating_duration_since(gate.since).as_millis();
    match gate.came() {
        0 => format!("{service}: nobody had to wait"),
        1 => format!("{service}: 1 request waited, for at most {millis} ms"),
        more => format!("{service}: {more} requests waited, for at most {millis} ms"),
    }
}
