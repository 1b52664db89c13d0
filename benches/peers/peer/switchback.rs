//! switchback itself, with one service or with many.

use std::{env, fmt::Write, io, net::SocketAddr, path::PathBuf};

use super::{Argv, Peer, Place, Upstream, write};

pub(super) struct Switchback {
    services: usize,
    /// How it chooses among the endpoints of a pool.
    policy: &'static str,
    name: String,
}

impl Switchback {
    pub(super) const NAME: &str = "switchback";

    pub(super) fn with_services(services: usize) -> Self {
        let name = match services {
            1 => Self::NAME.to_owned(),
            _ => format!("{services} services, {}", Self::NAME),
        };
        Self { services, policy: "p2c", name }
    }

    /// With one service, the endpoints of which are chosen by `policy`.
    pub(super) fn by(policy: &'static str) -> Self {
        Self { services: 1, policy, name: format!("{}, {policy}", Self::NAME) }
    }
}

impl Peer for Switchback {
    fn name(&self) -> &str {
        &self.name
    }

    fn program(&self) -> Option<PathBuf> {
        let program =
            env::var_os("SWITCHBACK_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_switchback").into());
        Some(PathBuf::from(program)).filter(|program| program.exists())
    }

    fn install_hint(&self) -> &'static str {
        "SWITCHBACK_BIN names no file"
    }

    fn version_arguments(&self) -> &'static [&'static str] {
        &["--version"]
    }

    fn configure(&self, place: &Place) -> io::Result<()> {
        let Place { dir, listen, h2c, tls, origin, pool, speaks } = place;
        let protocol = match speaks {
            Upstream::Http1 => "http1",
            Upstream::Grpc => "h2c",
        };
        let mut text = format!(
            r#"[admin]
socket = "{dir}/admin.sock"
[state]
dir = "{dir}/state"
[limits]
# The load is one client.
connections_per_client = 20_000
[[listeners]]
listen = "{listen}"
[[listeners]]
listen = "{h2c}"
[[listeners]]
listen = "{tls}"
tls = {{ certificates = [{{ cert = "shop.pem", key = "shop.key" }}] }}
"#,
            dir = dir.display()
        );
        match self.services {
            1 if !pool.is_empty() => self.pool(&mut text, pool),
            1 => service(&mut text, "shop", r#"{ path = "/" }"#, origin, protocol),
            services => {
                for number in 0..services {
                    let name = format!("s{number:05}");
                    let route = |path| format!(r#"{{ host = "{name}.example.com", path = "{path}" }}"#);
                    let routes = ["/", "/api/", "/static/"].map(route).join(", ");
                    service(&mut text, &name, &routes, origin, protocol);
                }
            }
        }
        write(dir, "switchback.toml", &text)
    }

    fn arguments(&self, place: &Place) -> Argv {
        let config = place.dir.join("switchback.toml");
        vec!["run".into(), "--config".into(), config.into(), "--workers".into(), "1".into()]
    }
}

impl Switchback {
    /// Adds the one service with the one version that all of these are endpoints of.
    fn pool(&self, text: &mut String, pool: &[SocketAddr]) {
        let endpoints: Vec<_> = pool.iter().map(ToString::to_string).collect();
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            r#"[services.shop]
routes = [{{ path = "/" }}]
balance = "{}"
[services.shop.versions.blue]
endpoints = {endpoints:?}
"#,
            self.policy
        );
    }
}

/// Adds one service; both of its versions are the origin.
fn service(text: &mut String, name: &str, routes: &str, origin: &SocketAddr, protocol: &str) {
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        r#"[services.{name}]
routes = [{routes}]
weights = {{ blue = 90, green = 10 }}
[services.{name}.versions.blue]
endpoints = ["{origin}"]
protocol = "{protocol}"
[services.{name}.versions.green]
endpoints = ["{origin}"]
protocol = "{protocol}"
"#
    );
}
