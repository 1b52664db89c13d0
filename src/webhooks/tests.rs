//! The end of it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::broadcast;

use super::*;

#[test]
fn what_happened_before_the_end_is_told() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let receiver = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let webhook = Webhook {
            name: "ci".to_owned(),
            url: format!("http://{}/", receiver.local_addr().unwrap()).parse().unwrap(),
            secrets: Vec::new(),
            authorities: None,
            events: Vec::new(),
            services: Vec::new(),
            timeout: Duration::from_secs(20),
            attempts: 1,
        };
        let (notices, heard) = broadcast::channel(4);
        let webhooks = Webhooks::start(&[webhook], heard);
        let figures = webhooks.figures();
        let answer = spawn_local(async move {
            for _ in 0..2 {
                let (mut stream, _) = receiver.accept().await.unwrap();
                let mut seen = Vec::new();
                while !seen.ends_with(b"}") {
                    assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
                }
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            }
        });
        // Nobody has had the time to take them.
        for _ in 0..2 {
            assert!(notices.send(Notice::ReloadFailed { errors: "none".into() }).is_ok());
        }
        webhooks.finish(tokio::time::sleep(Duration::from_secs(20))).await;
        assert_eq!(figures.deliveries()[0].delivered, 2);
        answer.await.unwrap();
    });
}
