//! What counts where the coin is a client's.

use super::*;
use crate::table::sticky::StickyKey;
use crate::table::{Sticky, StickyBy, StickyRules};

fn sticky() -> Sticky {
    let rules = StickyRules { by: StickyBy::Client, salt: "shop".into() };
    let blue = version("blue");
    Sticky::new(&rules, &Split::all_to(blue.clone()), [blue].iter())
}

fn key(client: u32) -> StickyKey {
    sticky().key(&client.to_be_bytes()).unwrap()
}

fn service_with_users(candidate: Option<&str>) -> Service {
    let mut service = service(0);
    service.sticky = Some(Arc::new(sticky()));
    if let Some(watch) = &mut service.watch {
        watch.candidate = candidate.map(version);
    }
    service
}

struct Clients {
    service: Service,
    ledger: Arc<Ledger>,
    peer: Peer,
}

impl Clients {
    fn new() -> Self {
        let service = service_with_users(Some("green"));
        let ledger = Ledger::of(&service, None, 2).unwrap();
        let peer = Peer::new(Some("192.0.2.1:4000".parse().unwrap()), None, Arc::new(Door::default()));
        Self { service, ledger, peer }
    }

    /// One request of this coin that is answered with this status.
    fn ask(&self, worker: usize, of: &str, drawn: Drawn, code: u16) {
        let counting = Counting::of(&self.service, &version(of), Some(&self.ledger)).unwrap();
        let entry = counting.begin(worker, Kind::Request, (&self.peer, &Fields::default()), drawn);
        entry.answered(code, false, None);
    }

    /// Failed and 4xx, and those of them that say nothing new, of both.
    fn counts(&self) -> [[u64; 4]; 2] {
        let of = |of: Counted| [of.failed, of.client_errors, of.again.failed, of.again.client_errors];
        self.ledger.sums().groups[0].map(of)
    }
}

#[test]
fn a_client_with_a_version_of_its_own_counts_once_for_each_thing_it_meets() {
    let clients = Clients::new();
    for worker in [0, 1, 0, 1, 0] {
        clients.ask(worker, "green", Drawn::Clients(key(1)), 500);
        clients.ask(worker, "green", Drawn::Clients(key(1)), 404);
    }
    clients.ask(0, "green", Drawn::Clients(key(2)), 500);
    clients.ask(0, "blue", Drawn::Clients(key(3)), 500);
    assert_eq!(clients.counts(), [[1, 0, 0, 0], [6, 5, 4, 4]]);
}

#[test]
fn a_request_with_a_coin_of_its_own_counts_whoever_sends_it() {
    let clients = Clients::new();
    (0..5).for_each(|_| clients.ask(0, "green", Drawn::Its, 500));
    assert_eq!(clients.counts()[1], [5, 0, 0, 0]);
    assert_eq!(clients.ledger.clients(), Some(5));
}

#[test]
fn an_answer_that_breaks_off_is_one_of_its_clients_failures() {
    let clients = Clients::new();
    for _ in 0..3 {
        let counting = Counting::of(&clients.service, &version("green"), Some(&clients.ledger)).unwrap();
        let drawn = Drawn::Clients(key(1));
        let entry = counting.begin(0, Kind::Request, (&clients.peer, &Fields::default()), drawn);
        entry.answered(200, false, None);
        entry.failed(Reason::UpstreamClosed, false, None);
    }
    assert_eq!(clients.counts()[1], [3, 0, 2, 0]);
}

#[test]
fn clients_are_counted_and_nobody_is_where_there_is_no_choice() {
    let clients = Clients::new();
    for client in 0..500 {
        clients.ask(0, "blue", Drawn::Clients(key(client)), 200);
        clients.ask(1, "blue", Drawn::Clients(key(client)), 200);
    }
    (0..1_000).for_each(|_| clients.ask(0, "blue", Drawn::Nobodys, 200));
    let found = clients.ledger.clients().unwrap();
    assert!((480..=520).contains(&found), "{found}");
}

#[test]
fn who_stays_with_a_version_matters_where_two_are_compared() {
    let of = |service: &Service| Ledger::of(service, None, 1).unwrap();
    assert!(of(&service_with_users(Some("green"))).is_by_client());
    assert!(!of(&service_with_users(None)).is_by_client());
    assert_eq!((of(&service(0)).is_by_client(), of(&service(0)).clients()), (false, None));
    // From now on users stay: what was counted before was counted otherwise.
    let before = of(&service(0));
    let after = Ledger::of(&service_with_users(Some("green")), Some(&before), 1).unwrap();
    assert!(!Arc::ptr_eq(&before, &after) && after.is_by_client());
}
