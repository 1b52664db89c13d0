//! Empties one outbox: each event in its turn, tried again with growing pauses until it is taken or given up.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::letter::{self, Letter};
use super::outbox::Outbox;
use super::post::Target;
use super::{clock, signature};
use crate::config::Webhook;

/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause, also one that the receiver asks for.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Delivers what is put into the outbox, for as long as it runs.
pub(super) async fn run(outbox: Rc<Outbox>) {
    let mut target = None;
    loop {
        let letter = outbox.next().await;
        let counts = &outbox.counts;
        let count =
            if deliver(&outbox, &letter, &mut target).await { &counts.delivered } else { &counts.failed };
        count.fetch_add(1, Ordering::Relaxed);
        outbox.done();
    }
}

/// What becomes of an attempt.
enum Attempt {
    Taken,
    /// To be tried again, after this time if the receiver says so.
    Failed(String, Option<Duration>),
    /// The receiver says that it wants no more of it.
    Refused(String),
}

/// True once the event is taken.
async fn deliver(outbox: &Outbox, letter: &Letter, target: &mut Option<Target>) -> bool {
    let mut attempt = 1;
    loop {
        // As the file says by now.
        let webhook = outbox.webhook();
        let (why, asked) = match try_deliver(&webhook, letter, target).await {
            Attempt::Taken => return true,
            Attempt::Refused(why) => {
                give_up(&webhook, letter, attempt, &why);
                return false;
            }
            Attempt::Failed(why, asked) => (why, asked),
        };
        if attempt >= webhook.attempts {
            give_up(&webhook, letter, attempt, &why);
            return false;
        }
        let pause = asked.unwrap_or_else(|| pause(attempt, rand::make_rng::<SmallRng>().random()));
        let (webhook, event, id) = (&webhook.name, letter.event, &letter.id);
        debug!(webhook, event, id, attempt, why, ?pause, "an event is not taken; trying again");
        sleep(pause).await;
        attempt += 1;
    }
}

fn give_up(webhook: &Webhook, letter: &Letter, attempts: usize, why: &str) {
    let (webhook, event, id) = (&webhook.name, letter.event, &letter.id);
    warn!(webhook, event, id, attempts, why, "an event could not be delivered; it is lost");
}

/// How long to wait after this many attempts: twice as long each time, less up to half of it by `chance`, 0 to 1, so
/// that many do not come back at once.
fn pause(attempts: usize, chance: f64) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(20);
    let most = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    most.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

async fn try_deliver(webhook: &Rc<Webhook>, letter: &Letter, target: &mut Option<Target>) -> Attempt {
    let target = match target {
        Some(known) if known.is_of(webhook) => known,
        other => match Target::of(webhook) {
            Ok(made) => other.insert(made),
            Err(why) => return Attempt::Failed(why, None),
        },
    };
    match target.post(headers(webhook, letter), letter.body.clone(), webhook.timeout).await {
        Err(why) => Attempt::Failed(why, None),
        Ok((status, _)) if status.is_success() => Attempt::Taken,
        // The Standard Webhooks' word for it.
        Ok((StatusCode::GONE, _)) => Attempt::Refused("it answered 410 Gone".to_owned()),
        Ok((status, headers)) => Attempt::Failed(format!("it answered {status}"), retry_after(&headers)),
    }
}

/// `Retry-After` in seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

fn headers(webhook: &Webhook, letter: &Letter) -> HeaderMap {
    let seconds = clock::now() / 1000;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(letter::CONTENT_TYPE));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("switchback/", env!("CARGO_PKG_VERSION"))));
    let mut set = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("webhook-id", letter.id.clone());
    set("webhook-timestamp", seconds.to_string());
    if !webhook.secrets.is_empty() {
        set("webhook-signature", signature::of(&webhook.secrets, &letter.id, seconds, &letter.body));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_never_the_same_for_all() {
        let between = |attempts| (pause(attempts, 0.0).as_millis(), pause(attempts, 1.0).as_millis());
        assert_eq!(between(1), (250, 500));
        assert_eq!(between(2), (500, 1_000));
        assert_eq!(between(8), (32_000, 64_000));
        assert_eq!(between(usize::MAX), (150_000, 300_000));
    }

    #[test]
    fn a_receiver_says_when_to_come_again_within_bounds() {
        let after = |value: &'static str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]))
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("86400"), Some(LONGEST_PAUSE));
        assert_eq!(after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }
}
