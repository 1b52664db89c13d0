//! h2o, tuned for what is measured. It has one server only: Debian's 2.2 cannot split.

use std::{io, path::PathBuf};

use super::{Argv, Load, Peer, Place, Targets, Upstream, find_program, write};

pub(super) const NAME: &str = "h2o";

pub(super) struct H2o;

impl Peer for H2o {
    fn name(&self) -> &str {
        NAME
    }

    fn lacks(&self, load: &Load) -> Option<&'static str> {
        match load {
            Load { upstream: Upstream::Grpc, .. } => Some("HTTP/2 to servers"),
            Load { targets: Targets::Balancers, .. } => Some("pools of servers"),
            _ => None,
        }
    }

    fn program(&self) -> Option<PathBuf> {
        find_program("h2o")
    }

    fn install_hint(&self) -> &'static str {
        "benches/install h2o"
    }

    fn version_arguments(&self) -> &'static [&'static str] {
        &["-v"]
    }

    fn configure(&self, place: &Place) -> io::Result<()> {
        // The `user` directive means something to root only; without it root's workers are `nobody`.
        let user = if rustix::process::geteuid().is_root() { "user: root" } else { "" };
        let Place { dir, listen, h2c, tls, origin, .. } = place;
        let text = format!(
            r#"{user}
num-threads: 1
max-connections: 16384
pid-file: {dir}/h2o.pid
error-log: {dir}/error.log
http1-request-timeout: 300
http2-idle-timeout: 300
http2-max-concurrent-requests-per-connection: 256
listen:
  host: {host}
  port: {listen}
listen:
  host: {host}
  port: {h2c}
listen:
  host: {host}
  port: {tls}
  ssl:
    certificate-file: {dir}/shop.pem
    key-file: {dir}/shop.key
    minimum-version: TLSv1.2
hosts:
  default:
    paths:
      /:
        proxy.reverse.url: http://{origin}/
        proxy.preserve-host: ON
        proxy.timeout.keepalive: 300000
        proxy.timeout.io: 300000
        proxy.websocket: ON
        proxy.websocket.timeout: 300000
"#,
            dir = dir.display(),
            host = listen.ip(),
            listen = listen.port(),
            h2c = h2c.port(),
            tls = tls.port(),
        );
        write(dir, "h2o.conf", &text)
    }

    fn arguments(&self, place: &Place) -> Argv {
        vec!["-m".into(), "worker".into(), "-c".into(), place.dir.join("h2o.conf").into()]
    }
}
