//! Endpoints that are given by name: one thread resolves the names of all workers, and again when they are due.
//!
//! No request waits for a lookup but the first ones of a name that is new. What was found stays until something else
//! is found: a name server that fails takes no endpoint away.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;

use crate::metrics::Lookups;
use crate::proxy::clock;

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
    /// Lookups that found addresses, and those that did not.
    found: AtomicU64,
    failed: AtomicU64,
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
    is_failing: bool,
}

/// Locked when the table changes, never on the request path.
static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

type Names = HashMap<(Arc<str>, Asked), Weak<Name>>;

/// Who is asked, where that is not the system's to say. Locked for every lookup and every reload.
static SERVERS: Mutex<Vec<SocketAddr>> = Mutex::new(Vec::new());

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
        Self {
            host: Arc::clone(host),
            asked,
            answer: watch::Sender::default(),
            found: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
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

    /// Its addresses, as soon as there are some and they are not the `known` ones. Cancel-safe.
    pub async fn other_addresses(&self, known: Option<&[IpAddr]>) -> Arc<[IpAddr]> {
        let mut told = self.answer.subscribe();
        let is_other = |answer: &Answer| !answer.addresses.is_empty() && Some(&*answer.addresses) != known;
        // The sender is in `self`: it cannot be gone.
        told.wait_for(is_other).await.map(|answer| Arc::clone(&answer.addresses)).unwrap_or_default()
    }

    /// The places of a service, as soon as there are some and they are not the `known` ones. Cancel-safe.
    pub async fn other_places(&self, known: Option<&[Place]>) -> Arc<[Place]> {
        let mut told = self.answer.subscribe();
        let is_other = |answer: &Answer| !answer.places.is_empty() && Some(&*answer.places) != known;
        told.wait_for(is_other).await.map(|answer| Arc::clone(&answer.places)).unwrap_or_default()
    }

    /// Takes over what a lookup found; how long it holds.
    fn on_looked_up(&self, found: Found) -> Duration {
        match found {
            Ok((records, _)) if records.is_none() => self.failed("it has no address"),
            Ok((records, holds)) => {
                self.found(records);
                return holds.clamp(LEAST, MOST);
            }
            Err(why) => self.failed(&why),
        }
        RETRY
    }

    fn found(&self, Records { addresses, places }: Records) {
        // Relaxed, here and below: only read to be shown.
        self.found.fetch_add(1, Ordering::Relaxed);
        self.answer.send_modify(|answer| {
            if std::mem::replace(&mut answer.is_failing, false) {
                tracing::info!(host = &*self.host, "a name is resolved again");
            }
            answer.is_told = true;
            if *answer.addresses != *addresses {
                tracing::debug!(host = &*self.host, ?addresses, "a name has other addresses");
                answer.addresses = addresses.into();
            }
            if *answer.places != *places {
                tracing::debug!(name = &*self.host, ?places, "a service is in other places");
                answer.places = places.into();
            }
        });
    }

    fn lookups(&self) -> Lookups {
        let [found, failed] = [&self.found, &self.failed].map(|count| count.load(Ordering::Relaxed));
        Lookups { host: self.host.to_string(), found, failed }
    }

    fn failed(&self, why: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.answer.send_modify(|answer| {
            answer.is_told = true;
            if !std::mem::replace(&mut answer.is_failing, true) {
                let kept = answer.addresses.len() + answer.places.len();
                tracing::warn!(host = &*self.host, why, kept, "a name cannot be resolved");
            }
        });
    }
}

/// From the next lookup on these name servers are asked; without any, the system's.
pub fn ask(servers: &[SocketAddr]) {
    *SERVERS.lock().unwrap_or_else(PoisonError::into_inner) = servers.to_vec();
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

/// What a lookup found: one of both.
#[derive(Debug, Default)]
struct Records {
    addresses: Vec<IpAddr>,
    places: Vec<Place>,
}

impl Records {
    fn is_none(&self) -> bool {
        self.addresses.is_empty() && self.places.is_empty()
    }
}

/// The records of a name, and how long they hold; or why there are none.
type Found = Result<(Records, Duration), String>;

fn run(mut names: mpsc::UnboundedReceiver<Weak<Name>>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    match runtime {
        Ok(runtime) => runtime.block_on(async {
            let system: Rc<System> = Rc::default();
            while let Some(name) = names.recv().await {
                let system = Rc::clone(&system);
                spawn_local(keep(name, async move |host: Arc<str>, asked| match asked {
                    Asked::Addresses => system.look_up(&host).await,
                    Asked::Places => system.look_up_places(&host).await,
                }));
            }
        }),
        Err(error) => tracing::error!(%error, "no name can be resolved"),
    }
}

/// Resolves a name again and again until nobody holds it any more.
async fn keep(name: Weak<Name>, look_up: impl AsyncFn(Arc<str>, Asked) -> Found) {
    while let Some((host, asked)) = name.upgrade().map(|name| (Arc::clone(&name.host), name.asked)) {
        let found = look_up(host, asked).await;
        let Some(name) = name.upgrade() else { return };
        let pause = name.on_looked_up(found);
        drop(name);
        tokio::time::sleep(pause).await;
    }
}

/// The system's way to resolve: its hosts file, its name servers or others that are asked in their place.
#[derive(Default)]
struct System {
    resolver: RefCell<Option<TokioResolver>>,
    /// When its files were changed last, as far as it has read them.
    seen: RefCell<[Option<SystemTime>; 2]>,
    /// Who is asked instead of whom the system would.
    servers: RefCell<Vec<SocketAddr>>,
}

const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

impl System {
    async fn look_up(&self, host: &str) -> Found {
        let resolver = self.resolver()?;
        let found = resolver.lookup_ip(host).await.map_err(|error| error.to_string())?;
        let holds = found.valid_until().saturating_duration_since(clock::now());
        let mut addresses: Vec<_> = found.iter().collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok((Records { addresses, ..Records::default() }, holds))
    }

    async fn look_up_places(&self, name: &str) -> Found {
        let resolver = self.resolver()?;
        let found = resolver.srv_lookup(name).await.map_err(|error| error.to_string())?;
        let holds = found.valid_until().saturating_duration_since(clock::now());
        let places = found.answers().iter().filter_map(|record| match &record.data {
            // A lone dot says that the service is nowhere (RFC 2782).
            RData::SRV(place) if !place.target.is_root() => {
                let host = place.target.to_ascii().trim_end_matches('.').to_ascii_lowercase();
                Some(Place { priority: place.priority, host, port: place.port })
            }
            _ => None,
        });
        let mut places: Vec<_> = places.collect();
        places.sort_unstable();
        places.dedup();
        Ok((Records { places, ..Records::default() }, holds))
    }

    /// One that has read the files as they are now.
    fn resolver(&self) -> Result<TokioResolver, String> {
        let now = FILES.map(|file| fs::metadata(file).and_then(|meta| meta.modified()).ok());
        let servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut resolver = self.resolver.borrow_mut();
        let is_same = *self.seen.borrow() == now && *self.servers.borrow() == servers;
        if let Some(resolver) = resolver.as_ref().filter(|_| is_same) {
            return Ok(resolver.clone());
        }
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|error| error.to_string())?
        } else {
            let provider = TokioRuntimeProvider::default();
            TokioResolver::builder_with_config(config(&servers), provider)
        };
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let made = builder.build().map_err(|error| error.to_string())?;
        self.seen.replace(now);
        self.servers.replace(servers);
        *resolver = Some(made.clone());
        Ok(made)
    }
}

/// These name servers, and names as they are: nothing is appended to them.
fn config(servers: &[SocketAddr]) -> ResolverConfig {
    let servers = servers.iter().map(|server| {
        let ways = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        let ways = ways.map(|mut way| {
            way.port = server.port();
            way
        });
        // Another server may know a name that this one does not.
        NameServerConfig::new(server.ip(), false, ways.into())
    });
    ResolverConfig::from_parts(None, Vec::new(), servers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn records(texts: &[&str]) -> Records {
        Records { addresses: addresses(texts), ..Records::default() }
    }

    fn known(name: &Name) -> Arc<[IpAddr]> {
        Arc::clone(&name.answer.borrow().addresses)
    }

    #[test]
    fn the_last_good_answer_is_kept_and_a_new_one_taken_over() {
        let name = Name::new(&"shop.internal".into(), Asked::Addresses);
        assert_eq!(
            name.on_looked_up(Ok((records(&["10.0.0.1"]), Duration::from_secs(60)))),
            Duration::from_secs(60)
        );
        assert_eq!(name.on_looked_up(Ok((Records::default(), MOST))), RETRY);
        assert_eq!(name.on_looked_up(Err("no server".to_owned())), RETRY);
        assert_eq!(*known(&name), addresses(&["10.0.0.1"])[..]);
        assert_eq!(name.on_looked_up(Ok((records(&["10.0.0.2"]), Duration::ZERO))), LEAST);
        assert_eq!(name.on_looked_up(Ok((records(&["10.0.0.2"]), Duration::MAX))), MOST);
        assert_eq!(*known(&name), addresses(&["10.0.0.2"])[..]);
        let lookups = name.lookups();
        assert_eq!((lookups.found, lookups.failed), (3, 2));
    }

    #[test]
    fn localhost_is_known_to_every_system() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let name = Name::shared(&"localhost".into());
        let found = runtime.block_on(name.addresses());
        assert!(found.iter().any(IpAddr::is_loopback), "{found:?}");
    }
}
