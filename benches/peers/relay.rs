//! The blind relay: passes bytes on without looking at them. What is left below it is the price of two sockets.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
    runtime::{Builder, LocalOptions},
    task::spawn_local,
};

/// Relays until killed. Each client connection has an upstream connection of its own.
pub(crate) fn serve(listen: SocketAddr, to: SocketAddr) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (client, _) = listener.accept().await?;
            spawn_local(relay(client, to));
        }
    })
}

/// As much as the proxies get; tokio's own default of 8 KiB would make large bodies look dear.
const BUFFER: usize = 64 << 10;

async fn relay(mut client: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let mut server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await?;
    Ok(())
}
