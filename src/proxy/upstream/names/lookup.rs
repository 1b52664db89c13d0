//! One lookup of a name: whom to ask, and what they say.

use std::cell::RefCell;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::lookup_ip::LookupIp;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData};
use tokio::sync::watch;

use super::Place;
use crate::proxy::clock;

/// Who is asked, where that is not the system's to say.
static SERVERS: LazyLock<watch::Sender<Vec<SocketAddr>>> = LazyLock::new(watch::Sender::default);

/// From now on these name servers are asked; without any, the system's.
pub(super) fn ask(servers: &[SocketAddr]) {
    SERVERS.send_if_modified(|asked| {
        let are_others = *asked != servers;
        asked.clear();
        asked.extend(servers);
        are_others
    });
}

/// For whoever has to know that others are asked.
pub(super) fn asked() -> watch::Receiver<Vec<SocketAddr>> {
    SERVERS.subscribe()
}

/// What a lookup found.
pub(super) enum Found {
    Addresses { v4: Looked<IpAddr>, v6: Looked<IpAddr> },
    Places(Looked<Place>),
}

/// The records of a name, none where it has none; or why nobody knows.
pub(super) type Looked<T> = Result<Records<T>, String>;

/// Each once, in order, and how long they hold.
pub(super) struct Records<T> {
    pub(super) all: Vec<T>,
    pub(super) holds: Duration,
}

impl<T: Ord> Records<T> {
    fn of(all: impl IntoIterator<Item = T>, holds: Duration) -> Self {
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_unstable();
        all.dedup();
        Self { all, holds }
    }
}

/// The system's way to resolve: its hosts file, its name servers or others that are asked in their place.
#[derive(Default)]
pub(super) struct System {
    resolvers: RefCell<Option<Resolvers>>,
    /// When its files were changed last, as far as it has read them.
    seen: RefCell<[Option<SystemTime>; 2]>,
    /// Who is asked instead of whom the system would.
    servers: RefCell<Vec<SocketAddr>>,
}

const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// One for each family: what the one does not answer says nothing about the other.
#[derive(Clone)]
struct Resolvers {
    v4: TokioResolver,
    v6: TokioResolver,
}

impl System {
    /// The addresses of `host`, each family for itself.
    pub(super) async fn addresses(&self, host: &str) -> Found {
        let asked = self.resolvers().and_then(|resolvers| Ok((resolvers, as_written(host)?)));
        let (Resolvers { v4, v6 }, name) = match asked {
            Ok(asked) => asked,
            Err(why) => return Found::Addresses { v4: Err(why.clone()), v6: Err(why) },
        };
        let (mut one, mut other) = futures_util::join!(v4.lookup_ip(name.clone()), v6.lookup_ip(name));
        // With a search list several names are asked for, and it is the last one's answer that is told. So the family that
        // has none is asked again by the name that the other one was found under, unless that was it.
        let again = match (&one, &other) {
            (Ok(found), Err(why)) | (Err(why), Ok(found)) => {
                Some(found.query().name()).filter(|name| !has_nothing(why, name)).cloned()
            }
            (Ok(_), Ok(_)) | (Err(_), Err(_)) => None,
        };
        match again {
            Some(name) if one.is_err() => one = v4.lookup_ip(name).await,
            Some(name) => other = v6.lookup_ip(name).await,
            None => {}
        }
        Found::Addresses { v4: ips(one), v6: ips(other) }
    }

    /// The places of the service `name`.
    pub(super) async fn places(&self, name: &str) -> Looked<Place> {
        let Resolvers { v4: resolver, .. } = self.resolvers()?;
        let found = resolver.srv_lookup(as_written(name)?).await.map_err(|error| error.to_string())?;
        let holds = found.valid_until().saturating_duration_since(clock::now());
        let places = found.answers().iter().filter_map(|record| match &record.data {
            // A lone dot says that the service is nowhere (RFC 2782).
            RData::SRV(place) if !place.target.is_root() => {
                let host = place.target.to_ascii().trim_end_matches('.').to_ascii_lowercase();
                Some(Place { priority: place.priority, host, port: place.port })
            }
            _ => None,
        });
        Ok(Records::of(places, holds))
    }

    /// Those that have read the files as they are now.
    fn resolvers(&self) -> Result<Resolvers, String> {
        let now = FILES.map(|file| fs::metadata(file).and_then(|meta| meta.modified()).ok());
        let servers = SERVERS.borrow().clone();
        let mut resolvers = self.resolvers.borrow_mut();
        let is_same = *self.seen.borrow() == now && *self.servers.borrow() == servers;
        if let Some(resolvers) = resolvers.as_ref().filter(|_| is_same) {
            return Ok(resolvers.clone());
        }
        let v4 = resolver(&servers, LookupIpStrategy::Ipv4Only)?;
        let v6 = resolver(&servers, LookupIpStrategy::Ipv6Only)?;
        self.seen.replace(now);
        self.servers.replace(servers);
        Ok(resolvers.insert(Resolvers { v4, v6 }).clone())
    }
}

/// True when it is an answer about this very name, that there is nothing.
fn has_nothing(why: &NetError, name: &Name) -> bool {
    matches!(why, NetError::Dns(DnsError::NoRecordsFound(nothing)) if nothing.query.name() == name)
}

/// A name as it stands: one that is read as text may have no `_`, which the names of containers have.
fn as_written(host: &str) -> Result<Name, String> {
    Name::from_ascii(host).map_err(|error| error.to_string())
}

fn resolver(servers: &[SocketAddr], family: LookupIpStrategy) -> Result<TokioResolver, String> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio().map_err(|error| error.to_string())?
    } else {
        TokioResolver::builder_with_config(config(servers), TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.ip_strategy = family;
    // What was found is kept with its name, and asked for again when that is due; that there was nothing is kept by nobody.
    options.cache_size = 0;
    builder.build().map_err(|error| error.to_string())
}

/// That there is none is an answer (NODATA or NXDOMAIN); everything else is no answer.
fn ips(looked: Result<LookupIp, NetError>) -> Looked<IpAddr> {
    match looked {
        Ok(found) => {
            let holds = found.valid_until().saturating_duration_since(clock::now());
            Ok(Records::of(found.iter(), holds))
        }
        Err(error) if error.is_no_records_found() => Ok(Records { all: Vec::new(), holds: Duration::ZERO }),
        Err(error) => Err(error.to_string()),
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
