//! A reverse proxy as small as Pingora allows, for the side-by-side benchmark: splits 90/10, adds to `X-Forwarded-For`.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use clap::Parser;
use pingora::{
    apps::HttpServerOptions,
    http::RequestHeader,
    listeners::tls::TlsSettings,
    prelude::{HttpPeer, ProxyHttp, Result, Session},
    proxy::http_proxy_service,
    server::{Server, configuration::ServerConf},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(version)]
struct Args {
    /// HTTP/1.1 in clear text.
    #[arg(long)]
    listen: SocketAddr,
    /// HTTP/2 in clear text.
    #[arg(long)]
    h2c: SocketAddr,
    /// Both under TLS.
    #[arg(long)]
    tls: SocketAddr,
    /// Where `shop.pem` and `shop.key` are.
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    origin: SocketAddr,
    /// The origin speaks HTTP/2 by prior knowledge.
    #[arg(long)]
    origin_h2c: bool,
}

/// Both servers, which are the same one.
struct Split {
    blue: HttpPeer,
    green: HttpPeer,
    /// State of the coin; there is one worker, so that nobody waits for it.
    coin: AtomicU32,
}

fn main() {
    let args = Args::parse();
    // One runtime of its own for the one thread, in place of a pool that steals work.
    let conf = ServerConf {
        threads: 1,
        work_stealing: false,
        upstream_keepalive_pool_size: 1024,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let peer = || {
        let mut peer = HttpPeer::new(args.origin, false, String::new());
        if args.origin_h2c {
            peer.options.set_http_version(2, 2);
            peer.options.max_h2_streams = 128;
        }
        peer
    };
    let split = Split { blue: peer(), green: peer(), coin: AtomicU32::new(0x9e37_79b9) };
    let mut service = http_proxy_service(&server.configuration, split);
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    service.app_logic_mut().expect("just made").server_options = Some(options);
    service.add_tcp(&args.listen.to_string());
    service.add_tcp(&args.h2c.to_string());
    let file = |name: &str| args.dir.join(name).display().to_string();
    let mut tls = TlsSettings::intermediate(&file("shop.pem"), &file("shop.key")).expect("certificate");
    tls.enable_h2();
    service.add_tls_with_settings(&args.tls.to_string(), None, tls);
    server.add_service(service);
    server.run_forever();
}

#[async_trait]
impl ProxyHttp for Split {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        let peer = if self.draw() % 10 == 0 { &self.green } else { &self.blue };
        Ok(Box::new(peer.clone()))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        (): &mut (),
    ) -> Result<()> {
        let Some(client) = session.client_addr().and_then(|client| client.as_inet()) else { return Ok(()) };
        let client = client.ip();
        let value = match request.headers.get("x-forwarded-for").and_then(|value| value.to_str().ok()) {
            Some(before) => format!("{before}, {client}"),
            None => client.to_string(),
        };
        request.insert_header("x-forwarded-for", value)
    }
}

impl Split {
    /// Xorshift.
    fn draw(&self) -> u32 {
        let mut coin = self.coin.load(Ordering::Relaxed);
        coin ^= coin << 13;
        coin ^= coin >> 17;
        coin ^= coin << 5;
        self.coin.store(coin, Ordering::Relaxed);
        coin
    }
}
