//! HAProxy, tuned for what is measured.

use std::{io, path::PathBuf};

use super::{Argv, Peer, Place, Upstream, find_program, write};

pub(super) const NAME: &str = "haproxy";

pub(super) struct Haproxy;

impl Peer for Haproxy {
    fn name(&self) -> &str {
        NAME
    }

    fn program(&self) -> Option<PathBuf> {
        find_program("haproxy")
    }

    fn install_hint(&self) -> &'static str {
        "apt install haproxy"
    }

    fn version_arguments(&self) -> &'static [&'static str] {
        &["-v"]
    }

    fn configure(&self, place: &Place) -> io::Result<()> {
        let Place { dir, listen, h2c, tls, origin, pool, speaks } = place;
        let proto = match speaks {
            Upstream::Http1 => "",
            Upstream::Grpc => " proto h2",
        };
        let mut backend = "backend shop\n".to_owned();
        let mut add = |line: String| backend.push_str(&format!("    {line}\n"));
        if pool.is_empty() {
            add(format!("server blue {origin} weight 90{proto}"));
            add(format!("server green {origin} weight 10{proto}"));
        } else {
            add("balance leastconn".to_owned());
            pool.iter().enumerate().for_each(|(number, at)| add(format!("server s{number} {at}")));
        }
        let text = format!(
            "global
    nbthread 1
    maxconn 6000
    # The default of 16 KiB: larger buffers make small answers dearer and large ones no cheaper than splice does.
    tune.bufsize 16384
    # At 1 MiB, splice into pipes of 256 KiB needs less than half the CPU of copying, and less than the default 64 KiB.
    tune.pipesize 262144
defaults
    mode http
    no log
    balance roundrobin
    http-reuse always
    option forwardfor
    option splice-request
    option splice-response
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    timeout tunnel 300s
    timeout http-request 300s
    timeout http-keep-alive 300s
frontend clients
    bind {listen} backlog 4096
    bind {h2c} backlog 4096 proto h2
    bind {tls} ssl crt {dir}/shop.both ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384 alpn h2,http/1.1 backlog 4096
    default_backend shop
{backend}",
            dir = dir.display()
        );
        write(dir, "haproxy.cfg", &text)
    }

    fn arguments(&self, place: &Place) -> Argv {
        vec!["-db".into(), "-q".into(), "-f".into(), place.dir.join("haproxy.cfg").into()]
    }
}
