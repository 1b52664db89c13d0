//! nginx, tuned for what is measured.

use std::{io, path::PathBuf};

use super::{Argv, Peer, Place, Upstream, find_program, write};

pub(super) const NAME: &str = "nginx";

pub(super) struct Nginx;

impl Peer for Nginx {
    fn name(&self) -> &str {
        NAME
    }

    fn program(&self) -> Option<PathBuf> {
        find_program("nginx")
    }

    fn install_hint(&self) -> &'static str {
        "apt install nginx"
    }

    fn version_arguments(&self) -> &'static [&'static str] {
        &["-v"]
    }

    fn configure(&self, place: &Place) -> io::Result<()> {
        // The `user` directive means something to root only; without it root's worker is `nobody`.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let Place { dir, listen, h2c, tls, origin, pool, speaks } = place;
        let servers = if pool.is_empty() {
            format!("server {origin} weight=90; server {origin} weight=10;")
        } else {
            let servers: Vec<_> = pool.iter().map(|at| format!("server {at};")).collect();
            format!("least_conn; {}", servers.join(" "))
        };
        let pass = match speaks {
            Upstream::Http1 => HTTP1,
            Upstream::Grpc => GRPC,
        };
        let text = format!(
            r#"# Stays in the foreground; one worker beside the master, as in service.
daemon off;
{user}
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
events {{
    worker_connections 16384;
    multi_accept on;
}}
http {{
    access_log off;
    tcp_nodelay on;
    # The default of 1000 would close busy connections many times in a round.
    keepalive_requests 100000000;
    keepalive_timeout 300s;
    client_header_timeout 300s;
    # A 64 KiB upload stays in memory.
    client_body_buffer_size 128k;
    client_max_body_size 0;
    client_body_temp_path {dir}/client_body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    # For bodies the default is 8 x 4 KiB, and a file for what does not fit: nearly twice as dear at 64 KiB and at 1 MiB.
    # The buffer for heads is best left at 4 KiB: with 32 KiB small answers cost more.
    proxy_buffer_size 4k;
    proxy_buffers 16 32k;
    proxy_busy_buffers_size 128k;
    proxy_max_temp_file_size 0;
    upstream shop {{
        {servers}
        keepalive 1024;
        keepalive_requests 100000000;
        keepalive_timeout 300s;
    }}
    server {{
        listen {listen} backlog=4096;
        listen {h2c} backlog=4096 http2;
        listen {tls} ssl http2 backlog=4096;
        ssl_certificate {dir}/shop.pem;
        ssl_certificate_key {dir}/shop.key;
        ssl_protocols TLSv1.3;
        # As switchback orders them: what is encrypted with AES-128 takes SHA-256, which the processor has instructions for.
        ssl_prefer_server_ciphers on;
        ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256;
        # OpenSSL's default are two tickets a handshake.
        ssl_conf_command NumTickets 1;
        {pass}
    }}
}}
"#,
            dir = dir.display()
        );
        write(dir, "nginx.conf", &text)
    }

    fn arguments(&self, place: &Place) -> Argv {
        let prefix = place.dir.as_os_str();
        [
            "-p".into(),
            prefix.to_owned(),
            "-c".into(),
            place.dir.join("nginx.conf").into(),
            "-e".into(),
            "stderr".into(),
        ]
        .into()
    }
}

const HTTP1: &str = r#"location / {
            proxy_pass http://shop;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }
        location = /echo {
            proxy_pass http://shop;
            proxy_http_version 1.1;
            proxy_set_header Connection upgrade;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }"#;

const GRPC: &str = r#"location / {
            grpc_pass grpc://shop;
            grpc_buffer_size 4k;
            grpc_set_header Host $http_host;
            grpc_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }"#;
