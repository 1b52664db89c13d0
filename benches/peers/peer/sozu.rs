//! Sōzu, tuned for what is measured: one worker beside its main process.

use std::{io, path::PathBuf};

use super::{Argv, Peer, Place, Upstream, find_program, write};

pub(super) const NAME: &str = "sozu";

pub(super) struct Sozu;

impl Peer for Sozu {
    fn name(&self) -> &str {
        NAME
    }

    fn program(&self) -> Option<PathBuf> {
        find_program("sozu")
    }

    fn install_hint(&self) -> &'static str {
        "benches/install sozu"
    }

    fn version_arguments(&self) -> &'static [&'static str] {
        &["--version"]
    }

    fn configure(&self, place: &Place) -> io::Result<()> {
        let Place { dir, listen, h2c, tls, origin, pool, speaks } = place;
        let is_h2c = *speaks == Upstream::Grpc;
        let (policy, servers) = if pool.is_empty() {
            let server = |weight| {
                format!(r#"{{ address = "{origin}", weight = {weight}, backend_id = "w{weight}" }}"#)
            };
            ("ROUND_ROBIN", [90, 10].map(server).join(", "))
        } else {
            (
                "LEAST_LOADED",
                pool.iter().map(|at| format!(r#"{{ address = "{at}" }}"#)).collect::<Vec<_>>().join(", "),
            )
        };
        let text = format!(
            r#"command_socket = "{dir}/command.sock"
saved_state = "{dir}/state.json"
log_level = "error"
log_target = "stdout"
worker_count = 1
worker_automatic_restart = false
handle_process_affinity = false
max_connections = 8192
min_buffers = 1024
max_buffers = 32768
buffer_size = 16393
activate_listeners = true
front_timeout = 300
back_timeout = 300
request_timeout = 300
disable_cluster_metrics = true
[[listeners]]
protocol = "http"
address = "{listen}"
[[listeners]]
protocol = "http"
address = "{h2c}"
[[listeners]]
protocol = "https"
address = "{tls}"
tls_versions = ["TLS_V13"]
send_tls13_tickets = 1
certificate = "{dir}/shop.pem"
key = "{dir}/shop.key"
alpn_protocols = ["h2", "http/1.1"]
strict_sni_binding = false
[clusters.shop]
protocol = "http"
http2 = {is_h2c}
load_balancing = "{policy}"
frontends = [
    {{ address = "{listen}", hostname = "*" }},
    {{ address = "{h2c}", hostname = "*" }},
    {{ address = "{tls}", hostname = "*", certificate = "{dir}/shop.pem", key = "{dir}/shop.key", certificate_chain = "{dir}/shop.pem" }},
]
backends = [{servers}]
"#,
            dir = dir.display()
        );
        write(dir, "sozu.toml", &text)
    }

    fn arguments(&self, place: &Place) -> Argv {
        vec!["start".into(), "-c".into(), place.dir.join("sozu.toml").into()]
    }
}
