//! The sections of the main file, and what of it a team's file may hold.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::document::Place;
use super::service::Services;
use super::upstream_tls;
use super::walk::{Node, Section};
use super::{
    AccessLog, Admin, Config, Host, Limits, ListenAddr, Listener, Metrics, Proxy, Shutdown, StateDir,
    Underscores, Upgrade, Webhook,
};
use super::{access_log, admin, affinity, answer, ending, endpoint, https, identity, limits, tls, webhook};
use crate::table::{Discovery, ServiceSpec};

/// The shortest duration where none at all makes no sense.
pub(super) const SOME_TIME: Duration = Duration::from_millis(1);

/// The longest path of a Unix socket on Linux: `sun_path` less its final zero.
const MAX_SOCKET_PATH: usize = 107;

const SECTIONS: [&str; 10] = [
    "listeners",
    "admin",
    "metrics",
    "state",
    "limits",
    "shutdown",
    "upgrade",
    "proxy",
    "access_log",
    "webhooks",
];

/// What the main file says, without its services.
pub(super) struct Main {
    listeners: Vec<Listener>,
    admin: Admin,
    metrics: Option<Metrics>,
    state: StateDir,
    limits: Limits,
    shutdown: Shutdown,
    upgrade: Upgrade,
    proxy: Proxy,
    access_log: Option<AccessLog>,
    webhooks: Vec<Webhook>,
}

impl Main {
    /// Reads the whole file; its services go to `services`.
    pub(super) fn read(
        mut root: Section<'_>,
        base: &Path,
        host: &Host,
        services: &mut Services,
    ) -> Option<Self> {
        let mut taken = Taken::default();
        let listeners = listeners(&mut root, base, &mut taken);
        let admin = admin::read(&mut root, base, host, &mut taken);
        let metrics = root.take("metrics").map(|node| metrics(node, &mut taken));
        let state = state(&mut root, base, host);
        let limits = root.or("limits", Limits::default(), limits::of_process);
        let shutdown = root.or("shutdown", Shutdown::default(), ending::shutdown);
        let upgrade = root.or("upgrade", Upgrade::default(), ending::upgrade);
        let proxy = root.or("proxy", Proxy::default(), |node| proxy(node, base));
        let access_log = root.or("access_log", None, |node| access_log::read(node, base).map(Some));
        let webhooks = root.or("webhooks", Vec::new(), |node| webhook::read(node, base));
        services.common_pages(proxy.as_ref().map_or(&[], |proxy| &proxy.error_pages));
        services.subjects_of(listeners.as_deref().unwrap_or_default());
        services.beside(base);
        if let Some(section) = root.take("services").and_then(|node| node.section("[services]")) {
            services.read(&section);
        }
        root.finish();
        let metrics = metrics.map_or(Some(None), |metrics| metrics.map(Some))?;
        Some(Self {
            listeners: listeners?,
            admin: admin?,
            metrics,
            state: state?,
            limits: limits?,
            shutdown: shutdown?,
            upgrade: upgrade?,
            proxy: proxy?,
            access_log: access_log?,
            webhooks: webhooks?,
        })
    }

    /// The config of this file with the services of all.
    pub(super) fn into_config(
        self,
        services: Vec<ServiceSpec>,
        discoveries: Vec<Discovery>,
        files: Vec<PathBuf>,
    ) -> Config {
        let Self { listeners, admin, metrics, state, limits, shutdown, upgrade, proxy, access_log, webhooks } =
            self;
        let warnings = Vec::new();
        Config {
            listeners,
            admin,
            metrics,
            state,
            limits,
            shutdown,
            upgrade,
            proxy,
            access_log,
            webhooks,
            services,
            discoveries,
            warnings,
            files,
        }
    }
}

/// Every file that the main file names; what is wrong with them is not told.
pub(super) fn named_files(mut root: Section<'_>, base: &Path) -> Vec<PathBuf> {
    let listeners = root.take("listeners").and_then(|node| node.list("")).unwrap_or_default();
    let listeners = listeners.into_iter().filter_map(|node| node.section(""));
    let tls = listeners.filter_map(|mut listener| listener.take("tls"));
    let mut files: Vec<_> = tls.flat_map(|node| tls::files(node, base)).collect();
    files.extend(admin::files(&mut root, base));
    files.extend(webhook::files(&mut root, base));
    files.into_iter().chain(root.take("services").map(upstream_tls::files).unwrap_or_default()).collect()
}

/// Reads a file of `conf.d`, which holds services and nothing else; `main` is where the rest belongs.
pub(super) fn read_team(root: &Section<'_>, main: &Path, services: &mut Services) {
    for entry in root.entries() {
        if entry.key == "services" {
            if let Some(section) = entry.value.section("[services]") {
                services.read(&section);
            }
        } else if SECTIONS.contains(&entry.key) {
            let message = format!("`{}` belongs in {}", entry.key, main.display());
            entry.at.error_with(message, "a file of conf.d holds [services.…] and nothing else");
        } else {
            entry.unknown(&root.what, &["services"]);
        }
    }
}

/// Addresses that are listened on, and where the file says so, in its order.
#[derive(Default)]
pub(super) struct Taken(Vec<(ListenAddr, Place)>);

impl Taken {
    /// Notes it when the kernel would not let us listen at `node`'s address beside another one.
    pub(super) fn claim(&mut self, node: Node<'_>, address: &ListenAddr) {
        if matches!(address, ListenAddr::Tcp(address) if address.port() == 0) {
            return;
        }
        let overlapping = self.0.iter().find(|(other, _)| takes(other, address) || takes(address, other));
        match overlapping {
            None => self.0.push((address.clone(), node.at.place())),
            Some((other, first)) if other == address => {
                node.at.error(format_args!("{address} is already listened on: {first}"));
            }
            Some((other, first)) => {
                let hint = "[::] takes IPv4 too, and either takes all addresses: name them one by one, or leave one out";
                node.at
                    .error_with(format_args!("{address} is already listened on by {other}: {first}"), hint);
            }
        }
    }
}

/// True when who listens on `wide` gets what comes to `narrow`: `[::]` takes both families, `0.0.0.0` its own.
fn takes(wide: &ListenAddr, narrow: &ListenAddr) -> bool {
    match (wide, narrow) {
        (ListenAddr::Tcp(wide), ListenAddr::Tcp(narrow)) => {
            let (all, one) = (wide.ip().to_canonical(), narrow.ip().to_canonical());
            let is_within = all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
            wide.port() == narrow.port() && (all == one || is_within)
        }
        (wide, narrow) => wide == narrow,
    }
}

fn listeners(root: &mut Section<'_>, base: &Path, taken: &mut Taken) -> Option<Vec<Listener>> {
    let node = root.required("listeners", "[[listeners]] with listen = \"0.0.0.0:8080\"")?;
    let list = node.list("one or more [[listeners]]")?;
    if list.is_empty() {
        node.at.error("there has to be at least one listener");
    }
    let read = list.into_iter().map(|node| listener(node, base, taken));
    // All are read, whether or not one of them is wrong.
    let read: Vec<_> = read.collect();
    read.into_iter().collect()
}

fn listener(node: Node<'_>, base: &Path, taken: &mut Taken) -> Option<Listener> {
    let mut section = node.section("a listener")?;
    let listen = section.required("listen", "listen = \"0.0.0.0:8080\"");
    let listen = listen.and_then(|node| {
        let address = node.parse::<ListenAddr>("an address such as \"0.0.0.0:8080\"")?;
        if let ListenAddr::Unix(path) = &address {
            fits_a_socket(node, path)?;
        }
        taken.claim(node, &address);
        Some(address)
    });
    let trusted = section.or("trusted_proxies", Vec::new(), networks);
    let told = section.take("proxy_protocol");
    let proxy_protocol = told.map_or(Some(false), Node::flag);
    if let (Some(node), Some(true), Some([])) = (told, proxy_protocol, trusted.as_deref()) {
        // Over a Unix socket, the socket's permissions say who may.
        if matches!(listen, Some(ListenAddr::Tcp(_))) {
            node.at.error_with(
                "`proxy_protocol` believes whoever connects, and nobody is trusted",
                "name the proxies in front: trusted_proxies = [\"10.0.0.0/8\"]",
            );
        }
    }
    let tls = section.take("tls");
    let redirect = https::redirect(&mut section, tls.is_some());
    let hsts = https::hsts(&mut section, tls.is_some());
    section.finish();
    let tls = tls.map_or(Some(None), |node| tls::read(node, base).map(Some));
    Some(Listener {
        listen: listen?,
        trusted_proxies: trusted?,
        proxy_protocol: proxy_protocol?,
        tls: tls?,
        redirect_to_https: redirect?,
        hsts: hsts?,
    })
}

fn networks(node: Node<'_>) -> Option<Vec<IpNet>> {
    let list = node.list("a list of networks such as [\"10.0.0.0/8\"]")?;
    let networks: Vec<_> = list.into_iter().map(network).collect();
    networks.into_iter().collect()
}

fn network(node: Node<'_>) -> Option<IpNet> {
    let expected = "a network such as \"10.0.0.0/8\" or \"fd00::/8\"";
    let text = node.text(expected)?;
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    let net = text.parse::<IpNet>().or_else(|_| address()).ok();
    net.map(canonical).or_else(|| node.unexpected(expected))
}

/// IPv4 in IPv6's form is IPv4, as it is in clients' addresses.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    v4.and_then(|(address, length)| IpNet::new(address.into(), length).ok()).unwrap_or(net)
}

fn metrics(node: Node<'_>, taken: &mut Taken) -> Option<Metrics> {
    let mut section = node.section("[metrics]")?;
    let listen = section.required("listen", "listen = \"127.0.0.1:9900\"").and_then(|node| {
        let expected = "an address such as \"127.0.0.1:9900\"";
        let address = node.text(expected)?.parse::<SocketAddr>().ok();
        let listen = address.or_else(|| node.unexpected(expected))?;
        taken.claim(node, &ListenAddr::Tcp(listen));
        Some(listen)
    });
    section.finish();
    Some(Metrics { listen: listen? })
}

pub(super) fn fits_a_socket(node: Node<'_>, path: &Path) -> Option<()> {
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        let message =
            format!("a path of {length} bytes is too long for a Unix socket: at most {MAX_SOCKET_PATH}");
        node.at.error_with(message, format!("it is {}", path.display()));
        return None;
    }
    Some(())
}

fn state(root: &mut Section<'_>, base: &Path, host: &Host) -> Option<StateDir> {
    let (mut at, mut dir, mut history) = (root.at, None, Some(StateDir::HISTORY));
    if let Some(node) = root.take("state") {
        let mut section = node.section("[state]")?;
        at = section.at;
        dir = section.take("dir");
        history = section.or("history", StateDir::HISTORY, |node| node.count(&(1..=100_000_000)));
        section.finish();
    }
    let dir = match dir {
        Some(node) => node.path(base, "the path of a directory"),
        None => host.state_dir().or_else(|| {
            at.missing(
                "there is no place for the state: neither XDG_STATE_HOME nor HOME is set",
                "name one: [state] dir = \"/path/to/directory\"",
            );
            None
        }),
    };
    Some(StateDir { dir: dir?, history: history? })
}

fn proxy(node: Node<'_>, base: &Path) -> Option<Proxy> {
    let mut section = node.section("[proxy]")?;
    let default = Proxy::default();
    let epoch_header = section.or("epoch_header", default.epoch_header, Node::flag);
    let via = section.or("via", default.via, |node| {
        let expected = "a name of letters, digits and - . _ :";
        let text = node.text(expected)?;
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
        if plain && !text.is_empty() && text.len() <= 255 {
            Some(text.to_owned())
        } else {
            node.unexpected(expected)
        }
    });
    let request_id = section.or("request_id", None, |node| identity::request_id(node).map(Some));
    let trace = section.or("trace", None, |node| identity::trace(node).map(Some));
    let error_pages = section.or("error_pages", Vec::new(), |node| answer::pages(node, base));
    let zone = section.or("zone", None, |node| endpoint::zone(node).map(Some));
    let forwarded = section.or("forwarded", default.forwarded, Node::flag);
    let name_servers = section.or("name_servers", Vec::new(), name_servers);
    let underscores = section.or("underscores_in_headers", default.underscores_in_headers, underscores);
    let cpu_affinity = section.or("cpu_affinity", default.cpu_affinity, affinity::read);
    section.finish();
    Some(Proxy {
        epoch_header: epoch_header?,
        via: via?,
        request_id: request_id?,
        trace: trace?,
        error_pages: error_pages?,
        zone: zone?,
        forwarded: forwarded?,
        name_servers: name_servers?,
        underscores_in_headers: underscores?,
        cpu_affinity: cpu_affinity?,
    })
}

fn name_servers(node: Node<'_>) -> Option<Vec<SocketAddr>> {
    const DNS: u16 = 53;
    let expected = "addresses of name servers such as [\"10.0.0.53\", \"127.0.0.1:8600\"]";
    let server = |node: Node<'_>| {
        let expected = "an address such as \"10.0.0.53\" or \"127.0.0.1:8600\"";
        let text = node.text(expected)?;
        let alone = || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, DNS));
        text.parse().ok().or_else(alone).or_else(|| node.unexpected(expected))
    };
    let servers: Vec<_> = node.list(expected)?.into_iter().map(server).collect();
    servers.into_iter().collect()
}

fn underscores(node: Node<'_>) -> Option<Underscores> {
    let expected = "\"drop\", \"allow\" or \"reject\"";
    match node.text(expected)? {
        "drop" => Some(Underscores::Drop),
        "allow" => Some(Underscores::Allow),
        "reject" => Some(Underscores::Reject),
        _ => node.unexpected(expected),
    }
}
