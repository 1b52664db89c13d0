//! Hosts that are given by name, endpoints and webhooks: one thread resolves the names of all workers, and again when they are due.
//!
//! No request waits for a lookup but the first ones of a name that is new. What was found stays until something else
//! is found: a name server that fails takes no endpoint away.

mod lookup;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;

use crate::metrics::Lookups;
use lookup::{Found, Looked, Records, System};

/// However short or long a name server says an answer holds, it is asked again no earlier and no later.
const LEAST: Duration = Duration::from_secs(5);
const MOST: Duration = Duration::from_secs(300);
/// When it is asked again after it gave no answer.
const RETRY: Duration = Duration::from_secs(5);

/// A name that some endpoint has, or under which endpoints are listed; it is resolved for as long as anybody holds it.
#[derive(Debug)]
pub struct Name {
    host: Arc<str>,
    /// What is asked about it.
    asked: Asked,
    answer: watch::Sender<Answer>,
}

/// What is asked about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Asked {
    /// Its addresses.
    Addresses,
    /// Where its service is (SRV).
    Places,
}

/// One place where a service is (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The lowest is tried first.
    pub priority: u16,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What is known of a name.
#[derive(Debug, Clone, Default)]
struct Answer {
    /// Those of the last lookup that found any.
    addresses: Arc<[IpAddr]>,
    /// The same of a service.
    places: Arc<[Place]>,
    /// False until the first lookup has ended.
    is_told: bool,
    /// Why the last lookup failed, if it did.
    failing: Option<Arc<str>>,
    /// Lookups that found all there is, and those that did not.
    found: u64,
    failed: u64,
}

/// What somebody has heard of a name's addresses or places, and of its failures.
#[derive(Debug)]
pub struct Heard<T> {
    known: Option<Arc<[T]>>,
    failed: u64,
    is_failing: bool,
}

/// Locked when the table changes, never on the request path.
static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

type Names = HashMap<(Arc<str>, Asked), Weak<Name>>;

/// The thread that resolves; as many names wait for it at most as the table has. `None` when there is no thread to be had.
static RESOLVER: LazyLock<Option<mpsc::UnboundedSender<Weak<Name>>>> = LazyLock::new(|| {
    let (send, names) = mpsc::unbounded_channel();
    let started = std::thread::Builder::new().name("names".to_owned()).spawn(move || run(names));
    started.inspect_err(|error| tracing::error!(%error, "no name can be resolved")).ok().map(|_| send)
});

impl Name {
    /// The name `host`, which is being resolved from now on.
    #[must_use]
    pub fn shared(host: &Arc<str>) -> Arc<Self> {
        Self::asked(host, Asked::Addresses)
    }

    /// The service `name`, such as `_http._tcp.shop.internal`, whose places are being looked up from now on.
    #[must_use]
    pub fn of_service(name: &Arc<str>) -> Arc<Self> {
        Self::asked(name, Asked::Places)
    }

    fn asked(host: &Arc<str>, asked: Asked) -> Arc<Self> {
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(host), asked);
        if let Some(known) = names.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        names.retain(|_, name| name.strong_count() > 0);
        let name = Arc::new(Self::new(host, asked));
        names.insert(key, Arc::downgrade(&name));
        let sent = RESOLVER.as_ref().is_some_and(|resolver| resolver.send(Arc::downgrade(&name)).is_ok());
        if !sent {
            name.failed("there is no resolver");
        }
        name
    }

    fn new(host: &Arc<str>, asked: Asked) -> Self {
        Self { host: Arc::clone(host), asked, answer: watch::Sender::default() }
    }

    /// Its addresses, as soon as a lookup has ended; none when it found none, nor any before it.
    ///
    /// Cancel-safe.
    pub async fn addresses(&self) -> Arc<[IpAddr]> {
        let mut told = self.answer.subscribe();
        // The sender is in `self`: it cannot be gone.
        told.wait_for(|answer| answer.is_told)
            .await
            .map(|answer| Arc::clone(&answer.addresses))
            .unwrap_or_default()
    }

    /// For whoever wants the news from now on; a failure that lasts is one.
    pub fn listener<T>(&self) -> Heard<T> {
        let answer = self.answer.borrow();
        let failed = answer.failed - u64::from(answer.failing.is_some());
        Heard { known: None, failed, is_failing: false }
    }

    /// Its addresses, as soon as there are some and they are others than those `heard` of, or found again. Cancel-safe.
    ///
    /// # Errors
    /// Why a lookup failed, once for each; what was found last still holds.
    pub async fn next_addresses(&self, heard: &mut Heard<IpAddr>) -> Result<Arc<[IpAddr]>, Arc<str>> {
        self.next(heard, |answer| &answer.addresses).await
    }

    /// The same for the places of a service. Cancel-safe.
    ///
    /// # Errors
    /// As [`Self::next_addresses`].
    pub async fn next_places(&self, heard: &mut Heard<Place>) -> Result<Arc<[Place]>, Arc<str>> {
        self.next(heard, |answer| &answer.places).await
    }

    async fn next<T: PartialEq>(
        &self,
        heard: &mut Heard<T>,
        of: fn(&Answer) -> &Arc<[T]>,
    ) -> Result<Arc<[T]>, Arc<str>> {
        let is_other = |answer: &Answer, known: &Option<Arc<[T]>>| {
            !of(answer).is_empty() && known.as_ref() != Some(of(answer))
        };
        let mut told = self.answer.subscribe();
        let is_news = |answer: &Answer| {
            let is_back = heard.is_failing && answer.failing.is_none();
            is_other(answer, &heard.known) || answer.failed != heard.failed || is_back
        };
        // The sender is in `self`: it cannot be gone.
        let answer = told.wait_for(is_news).await.map(|answer| answer.clone()).unwrap_or_default();
        if is_other(&answer, &heard.known) || answer.failed == heard.failed {
            heard.is_failing = answer.failing.is_some();
            heard.known = Some(Arc::clone(of(&answer)));
            return Ok(Arc::clone(of(&answer)));
        }
        (heard.failed, heard.is_failing) = (answer.failed, true);
        Err(answer.failing.unwrap_or_else(|| "a lookup failed".into()))
    }

    /// Takes over what a lookup found; how long it holds.
    fn on_looked_up(&self, found: Found) -> Duration {
        match found {
            Found::Places(Ok(Records { all, holds })) if !all.is_empty() => {
                self.found(None, Some(all), None);
                holds.clamp(LEAST, MOST)
            }
            Found::Places(other) => {
                self.failed(&other.err().unwrap_or_else(|| "it is nowhere".to_owned()));
                RETRY
            }
            Found::Addresses { v4, v6 } => self.on_addresses(v4, v6),
        }
    }

    /// A family of which there is no answer keeps the addresses that it had, as long as there is one of the other.
    fn on_addresses(&self, v4: Looked<IpAddr>, v6: Looked<IpAddr>) -> Duration {
        let known = Arc::clone(&self.answer.borrow().addresses);
        let (mut addresses, mut holds, mut why, mut any) = (Vec::new(), MOST, None, false);
        for (family, looked, is_v4) in [("IPv4", v4, true), ("IPv6", v6, false)] {
            match looked {
                Ok(found) => {
                    any |= !found.all.is_empty();
                    holds = if found.all.is_empty() { holds } else { holds.min(found.holds) };
                    addresses.extend(found.all);
                }
                Err(error) => {
                    addresses.extend(known.iter().copied().filter(|address| address.is_ipv4() == is_v4));
                    why.get_or_insert_with(|| format!("{family}: {error}"));
                }
            }
        }
        if !any {
            self.failed(&why.unwrap_or_else(|| "it has no address".to_owned()));
            return RETRY;
        }
        let is_whole = why.is_none();
        self.found(Some(addresses), None, why);
        if is_whole { holds.clamp(LEAST, MOST) } else { RETRY }
    }

    /// Takes over what was found; `why` there is not all of it.
    fn found(&self, addresses: Option<Vec<IpAddr>>, places: Option<Vec<Place>>, why: Option<String>) {
        self.answer.send_modify(|answer| {
            answer.is_told = true;
            if let Some(addresses) = addresses.filter(|addresses| *answer.addresses != **addresses) {
                tracing::debug!(host = &*self.host, ?addresses, "a name has other addresses");
                answer.addresses = addresses.into();
            }
            if let Some(places) = places.filter(|places| *answer.places != **places) {
                tracing::debug!(name = &*self.host, ?places, "a service is in other places");
                answer.places = places.into();
            }
            if let Some(why) = why {
                self.fails(answer, &why);
                return;
            }
            answer.found += 1;
            if answer.failing.take().is_some() {
                tracing::info!(host = &*self.host, "a name is resolved again");
            }
        });
    }

    fn lookups(&self) -> Lookups {
        let answer = self.answer.borrow();
        Lookups { host: self.host.to_string(), found: answer.found, failed: answer.failed }
    }

    fn failed(&self, why: &str) {
        self.answer.send_modify(|answer| {
            answer.is_told = true;
            self.fails(answer, why);
        });
    }

    fn fails(&self, answer: &mut Answer, why: &str) {
        answer.failed += 1;
        if answer.failing.replace(why.into()).is_none() {
            let kept = answer.addresses.len() + answer.places.len();
            tracing::warn!(host = &*self.host, why, kept, "a name cannot be resolved");
        }
    }
}

/// From now on these name servers are asked, also about names that are known; without any, the system's.
pub fn ask(servers: &[SocketAddr]) {
    lookup::ask(servers);
}

/// How the lookups of each name that some endpoint has have ended, by name.
#[must_use]
pub fn lookups() -> Vec<Lookups> {
    let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut lookups: Vec<_> = names.values().filter_map(Weak::upgrade).map(|name| name.lookups()).collect();
    drop(names);
    lookups.sort_unstable_by(|one, other| one.host.cmp(&other.host));
    // One that is asked for its addresses and as a service.
    lookups.dedup_by(|other, one| {
        let is_same = one.host == other.host;
        if is_same {
            (one.found, one.failed) = (one.found + other.found, one.failed + other.failed);
        }
        is_same
    });
    lookups
}

fn run(mut names: mpsc::UnboundedReceiver<Weak<Name>>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    match runtime {
        Ok(runtime) => runtime.block_on(async {
            let system: Rc<System> = Rc::default();
            while let Some(name) = names.recv().await {
                let system = Rc::clone(&system);
                spawn_local(keep(name, async move |host: Arc<str>, asked| match asked {
                    Asked::Addresses => system.addresses(&host).await,
                    Asked::Places => Found::Places(system.places(&host).await),
                }));
            }
        }),
        Err(error) => tracing::error!(%error, "no name can be resolved"),
    }
}

/// Resolves a name again and again until nobody holds it any more: when that is due, and when others are to be asked.
async fn keep(name: Weak<Name>, look_up: impl AsyncFn(Arc<str>, Asked) -> Found) {
    let mut servers = lookup::asked();
    while let Some((host, asked)) = name.upgrade().map(|name| (Arc::clone(&name.host), name.asked)) {
        servers.mark_unchanged();
        let found = look_up(host, asked).await;
        let Some(name) = name.upgrade() else { return };
        let pause = name.on_looked_up(found);
        drop(name);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // The sender is never gone.
            _ = servers.changed() => {}
        }
    }
}
