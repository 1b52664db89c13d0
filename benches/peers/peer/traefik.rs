//! Traefik, tuned for what is measured. Go's runtime takes one thread for code, as it sees one CPU.

use std::{ffi::OsString, io, path::PathBuf};

use super::{Argv, Peer, Place, Upstream, find_program, write};

pub(super) const NAME: &str = "traefik";

pub(super) struct Traefik;

impl Peer for Traefik {
    fn name(&self) -> &str {
        NAME
    }

    fn program(&self) -> Option<PathBuf> {
        find_program("traefik")
    }

    fn install_hint(&self) -> &'static str {
        "benches/install traefik"
    }

    fn version_arguments(&self) -> &'static [&'static str] {
        &["version"]
    }

    fn configure(&self, place: &Place) -> io::Result<()> {
        let Place { dir, listen, h2c, tls, origin, pool, speaks } = place;
        let scheme = match speaks {
            Upstream::Http1 => "http",
            Upstream::Grpc => "h2c",
        };
        let entry = |name: &str, at| {
            format!(
                "  {name}:\n    address: \"{at}\"\n    transport: {{ respondingTimeouts: {{ idleTimeout: 300s, readTimeout: 0s }} }}\n"
            )
        };
        let entries = entry("listen", listen) + &entry("h2c", h2c) + &entry("tls", tls);
        let dir_name = dir.display();
        // Its own fast client of HTTP/1.1, in place of Go's: made for what is measured here.
        let text = format!(
            "global: {{ checkNewVersion: false, sendAnonymousUsage: false }}
log: {{ level: ERROR }}
experimental: {{ fastProxy: {{}} }}
entryPoints:
{entries}providers: {{ file: {{ filename: {dir_name}/routes.yaml, watch: false }} }}
"
        );
        write(dir, "traefik.yaml", &text)?;
        let server = |at| format!("{{ url: \"{scheme}://{at}\" }}");
        let balancer = |strategy: &str, servers: Vec<String>| {
            format!(
                "{{ loadBalancer: {{ strategy: {strategy}, serversTransport: many, servers: [{}] }} }}",
                servers.join(", ")
            )
        };
        let services = if pool.is_empty() {
            let one = balancer("wrr", vec![server(origin)]);
            format!(
                "    shop: {{ weighted: {{ services: [{{ name: blue, weight: 90 }}, {{ name: green, weight: 10 }}] }} }}
    blue: {one}
    green: {one}"
            )
        } else {
            format!("    shop: {}", balancer("p2c", pool.iter().map(server).collect()))
        };
        let text = format!(
            "http:
  routers:
    shop: {{ rule: \"PathPrefix(`/`)\", entryPoints: [listen, h2c], service: shop }}
    tls: {{ rule: \"PathPrefix(`/`)\", entryPoints: [tls], service: shop, tls: {{}} }}
  serversTransports:
    many: {{ maxIdleConnsPerHost: 1024, forwardingTimeouts: {{ idleConnTimeout: 300s }} }}
  services:
{services}
tls:
  options: {{ default: {{ minVersion: VersionTLS13 }} }}
  stores: {{ default: {{ defaultCertificate: {{ certFile: {dir_name}/shop.pem, keyFile: {dir_name}/shop.key }} }} }}
"
        );
        write(dir, "routes.yaml", &text)
    }

    fn arguments(&self, place: &Place) -> Argv {
        let mut option = OsString::from("--configFile=");
        option.push(place.dir.join("traefik.yaml"));
        vec![option]
    }
}
