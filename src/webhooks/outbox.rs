//! What waits to be delivered to one webhook: bounded, the oldest goes first when there is too much.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use tracing::warn;

use super::letter::Letter;
use crate::admin::api::Event;
use crate::config::Webhook;
use crate::metrics::Deliveries;

/// Events that wait for one webhook at most.
pub(super) const MOST: usize = 1024;

/// How deliveries have gone. Relaxed throughout: only read to be shown.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) delivered: AtomicU64,
    pub(super) failed: AtomicU64,
    dropped: AtomicU64,
    waiting: AtomicU64,
}

impl Counts {
    pub(super) fn told(&self, name: &str) -> Deliveries {
        let [delivered, failed, dropped, waiting] =
            [&self.delivered, &self.failed, &self.dropped, &self.waiting]
                .map(|count| count.load(Ordering::Relaxed));
        Deliveries { webhook: name.to_owned(), delivered, failed, dropped, waiting }
    }
}

/// One webhook's own.
#[derive(Debug)]
pub(super) struct Outbox {
    webhook: RefCell<Rc<Webhook>>,
    /// The front one is being delivered.
    queue: RefCell<VecDeque<Rc<Letter>>>,
    pub(super) counts: Arc<Counts>,
    came: Notify,
    emptied: Notify,
}

impl Outbox {
    pub(super) fn of(webhook: Webhook) -> Self {
        let webhook = RefCell::new(Rc::new(webhook));
        let (came, emptied) = (Notify::new(), Notify::new());
        Self { webhook, queue: RefCell::default(), counts: Arc::default(), came, emptied }
    }

    /// As the file says now.
    pub(super) fn webhook(&self) -> Rc<Webhook> {
        Rc::clone(&self.webhook.borrow())
    }

    pub(super) fn name(&self) -> String {
        self.webhook.borrow().name.clone()
    }

    /// The file says something else of it.
    pub(super) fn set(&self, webhook: Webhook) {
        self.webhook.replace(Rc::new(webhook));
    }

    /// True when it is to be told of this.
    pub(super) fn wants(&self, event: &Event) -> bool {
        let webhook = self.webhook.borrow();
        let is_of_interest = match event {
            Event::Hello { .. } => false,
            // Who misses something has to know.
            Event::Lagged { .. } => true,
            other => webhook.events.is_empty() || webhook.events.iter().any(|name| name == other.name()),
        };
        let services = event.services();
        let is_about = services.is_empty()
            || webhook.services.is_empty()
            || services.iter().any(|service| webhook.services.iter().any(|glob| glob.matches(service)));
        is_of_interest && is_about
    }

    /// One more; the oldest that is not being delivered makes place for it.
    pub(super) fn put(&self, letter: Rc<Letter>) {
        let mut queue = self.queue.borrow_mut();
        if queue.len() >= MOST
            && let Some(lost) = queue.remove(1)
        {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            warn!(
                webhook = self.name(),
                event = lost.event,
                id = lost.id,
                "a webhook is behind; an event is dropped"
            );
        }
        queue.push_back(letter);
        self.counts.waiting.store(queue.len() as u64, Ordering::Relaxed);
        self.came.notify_one();
    }

    /// The one to be delivered, as soon as there is one; it stays until it is [done](Self::done). Cancel-safe.
    pub(super) async fn next(&self) -> Rc<Letter> {
        loop {
            let front = self.queue.borrow().front().cloned();
            match front {
                Some(letter) => return letter,
                None => self.came.notified().await,
            }
        }
    }

    /// The front one is over.
    pub(super) fn done(&self) {
        let mut queue = self.queue.borrow_mut();
        queue.pop_front();
        self.counts.waiting.store(queue.len() as u64, Ordering::Relaxed);
        if queue.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.borrow().len()
    }

    /// Waits until nothing waits. Cancel-safe.
    pub(super) async fn emptied(&self) {
        while self.waiting() > 0 {
            self.emptied.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn outbox(events: &[&str], services: &[&str]) -> Outbox {
        Outbox::of(Webhook {
            name: "ci".to_owned(),
            url: "http://localhost/".parse().unwrap(),
            secrets: Vec::new(),
            authorities: None,
            events: events.iter().map(ToString::to_string).collect(),
            services: services.iter().map(|glob| glob.parse().unwrap()).collect(),
            timeout: Duration::from_secs(1),
            attempts: 1,
        })
    }

    fn drained(service: &str) -> Event {
        Event::Drained { service: service.to_owned(), version: "blue".to_owned(), seconds: 0.0 }
    }

    fn letter(id: usize) -> Rc<Letter> {
        Rc::new(Letter { id: id.to_string(), event: "drained", body: "".into() })
    }

    #[test]
    fn only_what_is_asked_for_is_told() {
        let failed = Event::ReloadFailed { errors: String::new() };
        let all = outbox(&[], &[]);
        assert!(all.wants(&drained("shop")) && all.wants(&failed));
        assert!(!all.wants(&Event::Hello { epoch: 1 }));
        let some = outbox(&["drained"], &["shop-*"]);
        assert!(some.wants(&drained("shop-eu")) && some.wants(&Event::Lagged { missed: 1 }));
        assert!(!some.wants(&drained("cart")) && !some.wants(&failed));
        assert!(outbox(&[], &["shop"]).wants(&failed), "it is about no service");
    }

    #[test]
    fn the_oldest_make_place_but_not_the_one_under_way() {
        let outbox = outbox(&[], &[]);
        (0..MOST + 3).for_each(|id| outbox.put(letter(id)));
        assert_eq!(outbox.waiting(), MOST);
        let told = outbox.counts.told("ci");
        assert_eq!((told.dropped, told.waiting), (3, MOST as u64));
        let ids: Vec<_> = outbox.queue.borrow().iter().take(3).map(|letter| letter.id.clone()).collect();
        assert_eq!(ids, ["0", "4", "5"]);
    }
}
