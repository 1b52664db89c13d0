//! Envoy, tuned for what is measured.

use std::{io, net::SocketAddr, path::PathBuf};

use super::{Argv, Peer, Place, Upstream, find_program, write};

pub(super) const NAME: &str = "envoy";

pub(super) struct Envoy;

impl Peer for Envoy {
    fn name(&self) -> &str {
        NAME
    }

    fn program(&self) -> Option<PathBuf> {
        find_program("envoy")
    }

    fn install_hint(&self) -> &'static str {
        "benches/install envoy"
    }

    fn version_arguments(&self) -> &'static [&'static str] {
        &["--version"]
    }

    fn configure(&self, place: &Place) -> io::Result<()> {
        let Place { dir, listen, h2c, tls, origin, pool, speaks } = place;
        let route = if pool.is_empty() {
            "weighted_clusters: { clusters: [{ name: blue, weight: 90 }, { name: green, weight: 10 }] }"
        } else {
            "cluster: pool"
        };
        let clusters = if pool.is_empty() {
            cluster("blue", "ROUND_ROBIN", &[*origin], *speaks)
                + &cluster("green", "ROUND_ROBIN", &[*origin], *speaks)
        } else {
            cluster("pool", "LEAST_REQUEST", pool, *speaks)
        };
        let secure = TLS.replace("DIR", &dir.display().to_string());
        let listeners: String = [("listen", listen, ""), ("h2c", h2c, ""), ("tls", tls, secure.as_str())]
            .map(|(name, at, socket)| listener(name, at, route, socket))
            .concat();
        write(
            dir,
            "envoy.yaml",
            &format!("static_resources:\n  listeners:\n{listeners}  clusters:\n{clusters}"),
        )
    }

    fn arguments(&self, place: &Place) -> Argv {
        let config = place.dir.join("envoy.yaml");
        let fixed = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"];
        fixed.into_iter().map(Into::into).chain([config.into()]).collect()
    }
}

/// One way in. Request ids, its own headers and statistics by route are off: no other peer has them.
fn listener(name: &str, at: &SocketAddr, route: &str, socket: &str) -> String {
    format!(
        r#"  - name: {name}
    address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }}
    tcp_backlog_size: 4096
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          codec_type: AUTO
          use_remote_address: true
          generate_request_id: false
          common_http_protocol_options: {{ idle_timeout: 300s }}
          upgrade_configs: [{{ upgrade_type: websocket }}]
          route_config:
            virtual_hosts:
            - name: shop
              domains: ["*"]
              routes: [{{ match: {{ prefix: "/" }}, route: {{ {route} }} }}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              dynamic_stats: false
              suppress_envoy_headers: true
{socket}"#,
        ip = at.ip(),
        port = at.port(),
    )
}

const TLS: &str = r#"      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_params: { tls_minimum_protocol_version: TLSv1_3 }
            tls_certificates:
            - certificate_chain: { filename: DIR/shop.pem }
              private_key: { filename: DIR/shop.key }
"#;

/// Servers. The default limits of 1024 of everything would refuse some of the loads.
fn cluster(name: &str, policy: &str, servers: &[SocketAddr], speaks: Upstream) -> String {
    let endpoints: Vec<String> = servers
        .iter()
        .map(|at| {
            format!(
                "{{ endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }} }}",
                at.ip(),
                at.port()
            )
        })
        .collect();
    let protocol = match speaks {
        Upstream::Http1 => "http_protocol_options: {}",
        Upstream::Grpc => "http2_protocol_options: {}",
    };
    format!(
        r#"  - name: {name}
    type: STATIC
    connect_timeout: 5s
    lb_policy: {policy}
    circuit_breakers: {{ thresholds: [{{ max_connections: 65536, max_pending_requests: 65536, max_requests: 65536 }}] }}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ {protocol} }}
    load_assignment: {{ cluster_name: {name}, endpoints: [{{ lb_endpoints: [{endpoints}] }}] }}
"#,
        endpoints = endpoints.join(", ")
    )
}
