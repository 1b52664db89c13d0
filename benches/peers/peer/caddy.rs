//! Caddy, tuned for what is measured. Go's runtime takes one thread for code, as it sees one CPU.

use std::{io, path::PathBuf};

use crate::certificate::NAME as NAME_IN_CERTIFICATE;

use super::{Argv, Peer, Place, Upstream, find_program, write};

pub(super) const NAME: &str = "caddy";

pub(super) struct Caddy;

impl Peer for Caddy {
    fn name(&self) -> &str {
        NAME
    }

    fn program(&self) -> Option<PathBuf> {
        find_program("caddy")
    }

    fn install_hint(&self) -> &'static str {
        "benches/install caddy"
    }

    fn version_arguments(&self) -> &'static [&'static str] {
        &["version"]
    }

    fn configure(&self, place: &Place) -> io::Result<()> {
        let Place { dir, listen, h2c, tls, origin, pool, speaks } = place;
        let versions = match speaks {
            Upstream::Http1 => "1.1",
            Upstream::Grpc => "h2c 2",
        };
        let (policy, servers) = if pool.is_empty() {
            ("weighted_round_robin 90 10", format!("{origin} {origin}"))
        } else {
            let pool: Vec<String> = pool.iter().map(ToString::to_string).collect();
            ("least_conn", pool.join(" "))
        };
        let text = format!(
            "{{
    admin off
    persist_config off
    auto_https off
    default_sni {NAME_IN_CERTIFICATE}
    fallback_sni {NAME_IN_CERTIFICATE}
    storage file_system {dir}/storage
    log {{
        level ERROR
    }}
    servers {{
        protocols h1 h2 h2c
        timeouts {{
            idle 300s
        }}
    }}
}}
(shop) {{
    bind {ip}
    reverse_proxy {servers} {{
        lb_policy {policy}
        transport http {{
            versions {versions}
            keepalive 300s
            keepalive_idle_conns 1024
            keepalive_idle_conns_per_host 1024
            compression off
        }}
    }}
}}
http://:{listen}, http://:{h2c} {{
    import shop
}}
https://:{tls} {{
    tls {dir}/shop.pem {dir}/shop.key {{
        protocols tls1.3
    }}
    import shop
}}
",
            dir = dir.display(),
            ip = listen.ip(),
            listen = listen.port(),
            h2c = h2c.port(),
            tls = tls.port(),
        );
        write(dir, "Caddyfile", &text)
    }

    fn arguments(&self, place: &Place) -> Argv {
        vec![
            "run".into(),
            "--adapter".into(),
            "caddyfile".into(),
            "--config".into(),
            place.dir.join("Caddyfile").into(),
        ]
    }
}
