//! What is kept of a name, and what is told of it.

use super::*;

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn looked(texts: &[&str], holds: Duration) -> Looked<IpAddr> {
    Ok(Records { all: addresses(texts), holds })
}

/// Of the first family only.
fn records(texts: &[&str], holds: Duration) -> Found {
    Found::Addresses { v4: looked(texts, holds), v6: looked(&[], holds) }
}

fn failed() -> Looked<IpAddr> {
    Err("no server".to_owned())
}

fn known(name: &Name) -> Arc<[IpAddr]> {
    Arc::clone(&name.answer.borrow().addresses)
}

#[test]
fn the_last_good_answer_is_kept_and_a_new_one_taken_over() {
    let name = Name::new(&"shop.internal".into(), Asked::Addresses);
    assert_eq!(name.on_looked_up(records(&["10.0.0.1"], Duration::from_secs(60))), Duration::from_secs(60));
    assert_eq!(name.on_looked_up(records(&[], MOST)), RETRY);
    assert_eq!(name.on_looked_up(Found::Addresses { v4: failed(), v6: failed() }), RETRY);
    assert_eq!(*known(&name), addresses(&["10.0.0.1"])[..]);
    assert_eq!(name.on_looked_up(records(&["10.0.0.2"], Duration::ZERO)), LEAST);
    assert_eq!(name.on_looked_up(records(&["10.0.0.2"], Duration::MAX)), MOST);
    assert_eq!(*known(&name), addresses(&["10.0.0.2"])[..]);
    let lookups = name.lookups();
    assert_eq!((lookups.found, lookups.failed), (3, 2));
}

#[test]
fn a_family_that_gives_no_answer_keeps_its_addresses() {
    let name = Name::new(&"shop.internal".into(), Asked::Addresses);
    let both = || Found::Addresses { v4: looked(&["10.0.0.1"], MOST), v6: looked(&["::1"], MOST) };
    assert_eq!(name.on_looked_up(both()), MOST);
    let half = Found::Addresses { v4: failed(), v6: looked(&["::2"], MOST) };
    assert_eq!(name.on_looked_up(half), RETRY);
    assert_eq!(*known(&name), addresses(&["10.0.0.1", "::2"])[..]);
    let half = Found::Addresses { v4: failed(), v6: looked(&[], MOST) };
    assert_eq!(name.on_looked_up(half), RETRY);
    assert_eq!(*known(&name), addresses(&["10.0.0.1", "::2"])[..], "nobody is left of nothing");
    let lookups = name.lookups();
    assert_eq!((lookups.found, lookups.failed), (1, 2));
    // What has none of a family says so.
    let one = Found::Addresses { v4: looked(&[], MOST), v6: looked(&["::2"], MOST) };
    assert_eq!(name.on_looked_up(one), MOST);
    assert_eq!(*known(&name), addresses(&["::2"])[..]);
}

#[test]
fn each_failure_is_news_and_so_is_its_end() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let name = Name::new(&"shop.internal".into(), Asked::Addresses);
    let mut heard = name.listener();
    let mut next = || runtime.block_on(name.next_addresses(&mut heard)).map(|list| list.to_vec());
    let good = || name.on_looked_up(records(&["10.0.0.1"], MOST));
    let bad = || name.on_looked_up(Found::Addresses { v4: failed(), v6: failed() });
    good();
    assert_eq!(next(), Ok(addresses(&["10.0.0.1"])));
    for _ in 0..2 {
        bad();
        assert_eq!(next(), Err("IPv4: no server".into()));
    }
    good();
    assert_eq!(next(), Ok(addresses(&["10.0.0.1"])), "they are the same, and found again");
    name.on_looked_up(Found::Addresses { v4: looked(&["10.0.0.2"], MOST), v6: failed() });
    assert_eq!(next(), Ok(addresses(&["10.0.0.2"])));
    assert_eq!(next(), Err("IPv6: no server".into()));
    // A failure that lasts is news to whoever comes later.
    let mut late = name.listener::<Place>();
    assert_eq!(runtime.block_on(name.next_places(&mut late)), Err("IPv6: no server".into()));
}

#[test]
fn localhost_is_known_to_every_system() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let name = Name::shared(&"localhost".into());
    let found = runtime.block_on(name.addresses());
    assert!(found.iter().any(IpAddr::is_loopback), "{found:?}");
}

#[tokio::test]
async fn what_is_known_is_asked_of_other_name_servers_as_soon_as_they_are_named() {
    let name = Arc::new(Name::new(&"shop.internal".into(), Asked::Addresses));
    let (asked, mut asks) = mpsc::unbounded_channel();
    let keeper = keep(Arc::downgrade(&name), async move |_, _| {
        asked.send(()).unwrap();
        records(&["10.0.0.1"], MOST)
    });
    let mut next = async || tokio::time::timeout(RETRY, asks.recv()).await.is_ok();
    let asker = async {
        assert!(next().await);
        for port in [53, 54] {
            ask(&[SocketAddr::from(([127, 0, 0, 1], port))]);
            assert!(next().await);
        }
    };
    tokio::select! {
        () = keeper => panic!("somebody holds the name"),
        () = asker => {}
    }
}
