//! Another process takes the place of this one: with its sockets, then its store, then its work; or this one goes on.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::Result;
use rustix::process::Signal;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use super::elders::Elders;
use super::heir::{Fell, Heir};
use super::machine::remedy;
use super::signals::Signals;
use super::talk::{Hello, Older, PROTOCOL, Ready};
use super::{Process, TRY_AGAIN, actor, legacy, orphans, remote, sockets};
use crate::admin::{NotUpgraded, UpgradeOrder, api};
use crate::control::Failed;
use crate::control::elders::Untold;
use crate::store::sqlite::Sqlite;

/// What has come of an upgrade.
pub(super) enum Outcome {
    /// Another process serves.
    Succeeded(Box<Successor>),
    /// This one goes on.
    Failed,
    /// This one was told to stop meanwhile.
    Stopped,
}

/// Who has taken over.
pub(super) struct Successor {
    pub(super) heir: Heir,
    pub(super) ready: Ready,
    /// The versions of which it tells when they are drained.
    pub(super) untold: Vec<Untold>,
    /// Whoever has asked is to be told once the other process knows of these.
    pub(super) asked: Asked,
}

/// Who has asked for an upgrade, and the answer.
pub(super) struct Asked {
    reply: oneshot::Sender<Result<api::Upgraded, NotUpgraded>>,
    upgraded: api::Upgraded,
}

impl Asked {
    /// From now on this process may end: the other one knows all that it has to.
    pub(super) fn answer(self) {
        // Who asked may have gone.
        let _ = self.reply.send(Ok(self.upgraded));
    }
}

/// Why an attempt has failed.
enum Why {
    Refused(NotUpgraded),
    Fell(Fell),
    Late,
    Stopped,
}

impl Process {
    /// Lets the program of `order` take over, and tells whoever has asked what came of it.
    pub(super) async fn upgrade(&mut self, order: UpgradeOrder, signals: &mut Signals) -> Outcome {
        let UpgradeOrder { binary, timeout: patience, reply } = order;
        let (began, mut heir) = (Instant::now(), None);
        let is_lent = Rc::clone(&self.is_lent);
        let attempt =
            async { timeout(patience, self.attempt(binary, &mut heir)).await.unwrap_or(Err(Why::Late)) };
        let (attempt, is_stopped) = unless_stopped(attempt, &is_lent, signals).await;
        let why = match (attempt, heir) {
            (Ok(ready), Some(heir)) => {
                // Who serves is meant; it tells this one too that it is to stop.
                let stop = is_stopped.then_some(Signal::TERM);
                signals.unheard().chain(stop).for_each(|signal| heir.pass_on(signal));
                info!(
                    pid = ready.pid,
                    generation = ready.generation,
                    version = ready.version,
                    "another process serves"
                );
                // Before anybody hears of it: who asks then is answered by the other process.
                self.stop_admin.cancel();
                self.admin_closed.cancelled().await;
                // Whoever waits for the store is told to ask there.
                let untold = self.handle.give_up().await;
                let asked = Asked { reply, upgraded: upgraded(&ready, began) };
                return Outcome::Succeeded(Box::new(Successor { heir, ready, untold, asked }));
            }
            (Ok(_), None) => (Why::Late, String::new()),
            (Err(why), heir) => {
                let words = match heir {
                    Some(heir) => heir.end().await,
                    None => String::new(),
                };
                (why, words)
            }
        };
        self.take_back().await;
        // It is no older one after all.
        self.trace = None;
        let (why, words) = why;
        let failed = failed(why, words);
        warn!(?failed, "the upgrade is not made");
        let _ = reply.send(Err(failed));
        if is_stopped { Outcome::Stopped } else { Outcome::Failed }
    }

    async fn attempt(&mut self, binary: Option<PathBuf>, started: &mut Option<Heir>) -> Result<Ready, Why> {
        self.check().map_err(Why::Refused)?;
        let program = binary.unwrap_or_else(|| self.program.path().to_owned());
        let own = self.own.iter().chain(self.remote.as_ref().map(remote::Remote::handle));
        let handles = sockets::handles(&self.crew, own).map_err(cannot_start)?;
        let (elders, lines): (Vec<Older>, Vec<_>) =
            self.elders.handles().await.map_err(cannot_start)?.into_iter().unzip();
        let kept = handles.iter().filter(|handle| handle.is_kept).map(|handle| handle.name.clone()).collect();
        let hello = Hello {
            protocol: PROTOCOL,
            generation: self.generation,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kept,
            elders,
            state: self.config.state.dir.to_str().map(str::to_owned),
        };
        info!(program = %program.display(), "another process is to take over");
        let heir = Heir::start(&program, handles, lines, hello).await.map_err(cannot_start)?;
        let heir = started.insert(heir);
        heir.prepared().await.map_err(Why::Fell)?;
        // Until it is clear who talks with them, and no sooner: changes wait for what they say.
        let paused = self.elders.pause().await;
        // Before anybody else can serve: from then on somebody may come who knows of this process by nothing else.
        self.trace = orphans::enter(&self.config.state.dir)
            .inspect_err(|error| warn!(%error, "should the new process crash, who comes after it will not know of this one"))
            .ok();
        self.lend().await.map_err(|why| not_lent(&why))?;
        let ready = heir.ready(legacy::tell(&self.handle)).await.map_err(Why::Fell)?;
        // From now on that one does.
        std::mem::replace(&mut self.elders, Elders::none()).leave();
        drop(paused);
        Ok(ready)
    }

    /// Closes the store for another process. What becomes of it is noted also when the attempt is over by then.
    async fn lend(&self) -> Result<(), Failed> {
        let (is_lent, handle) = (Rc::clone(&self.is_lent), self.handle.clone());
        is_lent.set(true);
        let lending = spawn_local(async move {
            let lent = handle.lend().await;
            if lent.is_err() {
                is_lent.set(false);
            }
            lent
        });
        lending.await.unwrap_or(Err(Failed::Closed))
    }

    /// Whether another process may take over now.
    fn check(&mut self) -> Result<(), NotUpgraded> {
        let refused = |why: String, hint: &str| Err(NotUpgraded::Refused { why, hint: hint.to_owned() });
        let most = self.config.upgrade.predecessors;
        if std::process::id() == 1 {
            return refused(
                "this is process 1, with which everything would end".to_owned(),
                "run it under an init process (`docker run --init`)",
            );
        }
        if self.is_lent.get() {
            return refused(
                "the store is not back yet after an upgrade that failed".to_owned(),
                "the log says why",
            );
        }
        if self.elders.count() >= most {
            return refused(
                format!("{most} older processes still have work"),
                "`switchback status` names them; they end by [upgrade] deadline, or by SIGTERM; [upgrade] predecessors allows more",
            );
        }
        Ok(())
    }

    /// Goes on with the store, if it was lent; tried until it comes back.
    pub(super) async fn take_back(&self) {
        if !self.is_lent.get() {
            return;
        }
        if let Err(why) = self.try_take_back().await {
            error!("the store does not come back, and nothing can be changed; trying again: {why:#}");
            let again = self.custodian();
            spawn_local(async move {
                while again.is_lent.get() {
                    sleep(TRY_AGAIN).await;
                    if let Err(why) = again.take_back().await {
                        error!("the store does not come back; trying again: {why:#}");
                    }
                }
            });
        }
    }

    async fn try_take_back(&self) -> Result<()> {
        self.custodian().take_back().await
    }

    fn custodian(&self) -> Custodian {
        Custodian {
            is_lent: Rc::clone(&self.is_lent),
            handle: self.handle.clone(),
            config: self.config.clone(),
            file: self.file.clone(),
        }
    }
}

/// What it takes to go on with the store.
struct Custodian {
    is_lent: Rc<Cell<bool>>,
    handle: crate::control::Handle,
    config: crate::config::Config,
    file: PathBuf,
}

impl Custodian {
    async fn take_back(&self) -> Result<()> {
        let state = &self.config.state;
        let store = Box::new(Sqlite::open(&state.dir, state.history)?);
        self.handle.take_back(store, self.config.services.clone(), actor(&self.file)).await?;
        self.is_lent.set(false);
        info!(epoch = self.handle.live().epoch().0, "the store is back");
        Ok(())
    }
}

/// What comes of `attempt`, and whether a signal said stop meanwhile: that ends it until the store is lent. Then the new process
/// may serve already, and would be cut off; only a second signal ends it.
async fn unless_stopped(
    attempt: impl Future<Output = Result<Ready, Why>>,
    is_lent: &Cell<bool>,
    signals: &mut Signals,
) -> (Result<Ready, Why>, bool) {
    let mut attempt = std::pin::pin!(attempt);
    tokio::select! {
        biased;
        done = &mut attempt => return (done, false),
        () = signals.stop() => {}
    }
    if !is_lent.get() {
        return (Err(Why::Stopped), true);
    }
    info!("told to stop while another process takes over: that is told to, once it serves");
    let done = tokio::select! {
        biased;
        done = &mut attempt => done,
        () = signals.stop() => Err(Why::Stopped),
    };
    (done, true)
}

fn not_lent(why: &Failed) -> Why {
    let hint = match why {
        Failed::Holding => "release it first, or wait until the flip is over",
        Failed::Queueing(_) => {
            "wait until they have gone on; as long again as they might have been held, at most"
        }
        Failed::RollingOut => "wait until it is over, or stop it: `switchback rollout SERVICE --stop`",
        Failed::Store(_) => {
            "mend the store first: a process that begins without it would have forgotten what was decided"
        }
        _ => "try again",
    };
    Why::Refused(NotUpgraded::Refused { why: why.to_string(), hint: hint.to_owned() })
}

fn cannot_start(error: io::Error) -> Why {
    let hint = match (remedy(&error), error.kind()) {
        (Some(remedy), _) => remedy,
        (None, io::ErrorKind::NotFound) => "mount /proc: a process is started from there",
        (None, _) => "let it start processes",
    };
    let why = format!("cannot start a process: {error}");
    Why::Refused(NotUpgraded::Refused { why, hint: hint.to_owned() })
}

fn upgraded(ready: &Ready, began: Instant) -> api::Upgraded {
    let Ready { pid, generation, version, epoch } = ready.clone();
    let seconds = began.elapsed().as_secs_f64();
    api::Upgraded { pid, generation, version, epoch, seconds, predecessor: std::process::id() }
}

fn failed(why: Why, words: String) -> NotUpgraded {
    match why {
        Why::Refused(refused) => refused,
        Why::Fell(Fell::Said(reason)) => NotUpgraded::Failed(reason),
        Why::Fell(Fell::Silently) => NotUpgraded::Failed(words),
        Why::Late => NotUpgraded::Late(words),
        Why::Stopped => NotUpgraded::Refused {
            why: "the proxy was told to stop meanwhile".to_owned(),
            hint: "start it again".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn why_no_process_can_be_started_is_told_with_what_to_do() {
        let hint = |errno: Errno| match cannot_start(errno.into()) {
            Why::Refused(NotUpgraded::Refused { hint, .. }) => hint,
            _ => String::new(),
        };
        assert!(hint(Errno::AGAIN).contains("TasksMax"), "{}", hint(Errno::AGAIN));
        assert!(hint(Errno::MFILE).contains("LimitNOFILE"), "{}", hint(Errno::MFILE));
        assert!(hint(Errno::NOENT).contains("/proc"), "{}", hint(Errno::NOENT));
    }
}
