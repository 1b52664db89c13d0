//! WEBHOOKS: what `/v1/events` tells, told by HTTP to those who do not listen: controllers, chat rooms, incident tools.
//!
//! Each event is a [CloudEvent](letter) in structured mode, [signed](signature) by the Standard Webhooks' specification.
//! Every webhook has an [outbox] of its own, bounded, from which its events are [delivered](deliver) one after the
//! other; a receiver that is slow or down delays nobody, loses its oldest events, and these are counted and logged.

mod clock;
mod deliver;
mod letter;
mod outbox;
mod post;
mod signature;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::task::{JoinHandle, spawn_local};
use tracing::{info, warn};

use crate::admin::api::Event;
use crate::config::Webhook;
use crate::control::Notice;
use crate::metrics::Deliveries;
use letter::Press;
use outbox::{Counts, Outbox};

/// How the deliveries of every webhook have gone, for whoever shows the metrics.
#[derive(Debug, Clone, Default)]
pub struct Figures(Arc<Mutex<BTreeMap<String, Arc<Counts>>>>);

impl Figures {
    /// By the webhooks' names.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Deliveries> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(name, counts)| counts.told(name)).collect()
    }
}

/// Everybody who is told. Belongs to one thread's runtime; ends when dropped.
#[derive(Debug)]
pub struct Webhooks {
    outboxes: Rc<RefCell<Vec<Sender>>>,
    figures: Figures,
    listener: JoinHandle<()>,
    /// Ends the listener when it has taken what was told before.
    stop: Rc<Notify>,
}

/// One webhook's outbox, and the task that empties it.
#[derive(Debug)]
struct Sender {
    outbox: Rc<Outbox>,
    task: JoinHandle<()>,
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Webhooks {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Webhooks {
    /// Tells `webhooks` what comes in `notices` from now on. To be called within a local runtime.
    #[must_use]
    pub fn start(webhooks: &[Webhook], notices: Receiver<Notice>) -> Self {
        let outboxes: Rc<RefCell<Vec<Sender>>> = Rc::default();
        let stop = Rc::new(Notify::new());
        let listener = spawn_local(listen(notices, Rc::clone(&outboxes), Rc::clone(&stop)));
        let this = Self { outboxes, figures: Figures::default(), listener, stop };
        this.follow(webhooks);
        this
    }

    /// From now on these are told, and no others. One that is known by its name keeps what waits for it.
    pub fn follow(&self, webhooks: &[Webhook]) {
        let before = std::mem::take(&mut *self.outboxes.borrow_mut());
        let (mut kept, gone): (Vec<_>, Vec<_>) = before
            .into_iter()
            .partition(|sender| webhooks.iter().any(|webhook| webhook.name == sender.outbox.name()));
        for sender in gone {
            let left = sender.outbox.waiting();
            info!(webhook = sender.outbox.name(), left, "a webhook is no longer in the file");
        }
        for webhook in webhooks {
            match kept.iter().find(|sender| sender.outbox.name() == webhook.name) {
                Some(known) => known.outbox.set(webhook.clone()),
                None => kept.push(Sender::of(webhook.clone())),
            }
        }
        let counts = kept.iter().map(|sender| (sender.outbox.name(), Arc::clone(&sender.outbox.counts)));
        *self.figures.0.lock().unwrap_or_else(PoisonError::into_inner) = counts.collect();
        *self.outboxes.borrow_mut() = kept;
    }

    /// How deliveries have gone.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.figures.clone()
    }

    /// Takes nothing more than what was told before, and gives what waits until then to be delivered.
    pub async fn finish(mut self, until: impl Future<Output = ()>) {
        let outboxes: Vec<_> =
            self.outboxes.borrow().iter().map(|sender| Rc::clone(&sender.outbox)).collect();
        self.stop.notify_one();
        let all = async {
            // It panics nowhere that anybody could help.
            let _ = (&mut self.listener).await;
            futures_util::future::join_all(outboxes.iter().map(|outbox| outbox.emptied())).await;
        };
        let is_told = tokio::select! {
            () = all => true,
            () = until => false,
        };
        if !is_told {
            for outbox in outboxes.iter().filter(|outbox| outbox.waiting() > 0) {
                warn!(webhook = outbox.name(), left = outbox.waiting(), "events were not delivered any more");
            }
        }
    }
}

impl Sender {
    fn of(webhook: Webhook) -> Self {
        let outbox = Rc::new(Outbox::of(webhook));
        let task = spawn_local(deliver::run(Rc::clone(&outbox)));
        Self { outbox, task }
    }
}

/// Puts what happens into the outboxes of those who want to hear of it, until it is stopped and has heard everything.
async fn listen(mut notices: Receiver<Notice>, outboxes: Rc<RefCell<Vec<Sender>>>, stop: Rc<Notify>) {
    let mut press = Press::new();
    loop {
        let heard = tokio::select! {
            biased;
            heard = notices.recv() => heard,
            () = stop.notified() => return,
        };
        let event = match heard {
            Ok(notice) => Event::from(&notice),
            Err(RecvError::Lagged(missed)) => Event::Lagged { missed },
            Err(RecvError::Closed) => return,
        };
        // Made when the first wants it.
        let mut letter = None;
        for sender in &*outboxes.borrow() {
            if sender.outbox.wants(&event) {
                sender.outbox.put(Rc::clone(letter.get_or_insert_with(|| Rc::new(press.print(&event)))));
            }
        }
    }
}
