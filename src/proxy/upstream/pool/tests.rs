//! What is kept, for whom, and when it closes.

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::*;

fn there(text: &str) -> Destination {
    Destination { address: text.parse().unwrap(), protocol: Protocol::Http1, proxy_header: None, tls: None }
}

async fn connection() -> (Stream, Stream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Stream::Unix(ours), Stream::Unix(theirs))
}

async fn is_closed(mut peer: Stream) -> bool {
    peer.read(&mut [0]).await.is_ok_and(|read| read == 0)
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap().block_on(test);
}

#[test]
fn those_who_name_the_same_address_share_its_connections() {
    run(async {
        let (pools, clock) = (Rc::<Pools>::default(), Clock::default());
        let (one, other) = (pools.name(there("127.0.0.1:1")), pools.name(there("127.0.0.1:1")));
        let (stream, _peer) = connection().await;
        one.keep(stream, Past::default(), 1, &clock);
        assert!(other.reuse().is_some());
        assert!(pools.name(there("127.0.0.1:2")).reuse().is_none());
    });
}

#[test]
fn one_that_is_for_a_client_alone_is_given_to_nobody_else_and_closes_after_it() {
    run(async {
        let (pools, clock) = (Rc::<Pools>::default(), Clock::default());
        let endpoint = pools.name(there("127.0.0.1:1"));
        let [client, other] = [(); 2].map(|()| Peer::unknown(Arc::default()));
        let keep = |stream| {
            let mut past = Past::default();
            past.belongs_to(client.owner());
            endpoint.keep(stream, past, 1, &clock);
        };
        let (stream, mut peer) = connection().await;
        keep(stream);
        assert!(!Arc::ptr_eq(other.owner(), client.owner()));
        assert!(endpoint.reuse().is_none() && endpoint.reuse_own(&other).is_none());
        let (stream, _) = endpoint.reuse_own(&client).unwrap();
        assert!(endpoint.reuse_own(&client).is_none(), "it is in use");
        keep(stream);
        pools.sweep(0);
        assert!(peer.is_quiet());
        drop(client);
        pools.sweep(0);
        assert!(is_closed(peer).await);
    });
}

#[test]
fn those_that_are_for_a_client_alone_are_kept_for_all_who_are_there() {
    run(async {
        let (pools, clock) = (Rc::<Pools>::default(), Clock::default());
        let endpoint = pools.name(there("127.0.0.1:1"));
        let (mut clients, mut peers) = (Vec::new(), Vec::new());
        for number in 0..1_000 {
            let client = Peer::unknown(Arc::default());
            let (stream, peer) = connection().await;
            let mut past = Past::default();
            past.belongs_to(client.owner());
            endpoint.keep(stream, past, 1, &clock);
            if number % 20 == 0 {
                clients.push(client);
                peers.push(peer);
            }
        }
        assert!(endpoint.private.borrow().len() <= 2 * clients.len() + 8, "of some who have gone");
        assert!(peers.iter_mut().all(Stream::is_quiet));
        assert!(clients.iter().all(|client| endpoint.reuse_own(client).is_some()));
    });
}

#[test]
fn the_last_who_names_it_closes_its_connections() {
    run(async {
        let (pools, clock) = (Rc::<Pools>::default(), Clock::default());
        let (one, other) = (pools.name(there("127.0.0.1:1")), pools.name(there("127.0.0.1:1")));
        let (stream, mut peer) = connection().await;
        one.keep(stream, Past::default(), 1, &clock);
        one.unname();
        assert!(peer.is_quiet());
        other.unname();
        assert!(is_closed(peer).await);
        let (stream, peer) = connection().await;
        one.keep(stream, Past::default(), 1, &clock);
        assert!(is_closed(peer).await, "an exchange that ends later keeps nothing");
        let again = pools.name(there("127.0.0.1:1"));
        let (stream, _peer) = connection().await;
        one.keep(stream, Past::default(), 1, &clock);
        assert!(again.reuse().is_some(), "back again");
    });
}

#[test]
fn a_sweep_looks_only_at_what_is_idle_and_nothing_is_left_of_what_went() {
    run(async {
        let (pools, clock) = (Rc::<Pools>::default(), Clock::default());
        let endpoints: Vec<_> = (1..=100).map(|port| pools.name(there(&format!("[::1]:{port}")))).collect();
        let (stream, mut peer) = connection().await;
        endpoints[7].keep(stream, Past::default(), 1, &clock);
        assert_eq!(pools.idle.borrow().len(), 1);
        pools.sweep(0);
        assert!(peer.is_quiet());
        pools.sweep(1);
        assert!(is_closed(peer).await, "too old");
        assert_eq!(pools.idle.borrow().len(), 0);
        drop(endpoints);
        assert_eq!(pools.endpoints.borrow().len(), 0);
    });
}
