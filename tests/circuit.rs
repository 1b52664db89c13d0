//! No more is asked of a version than it may be, exactly and over all workers; who waits is served in order, or told soon;
//! and connections end when they should.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::fs;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lab::origin::Then;
use lab::{Client, Lab, Origin, wait_until};
use socket2::SockRef;

/// Where requests wait at an origin until they are let go.
#[derive(Clone, Default)]
struct Lock(Arc<(Mutex<bool>, Condvar)>);

impl Lock {
    fn wait(&self) {
        let (is_open, told) = &*self.0;
        let guard = is_open.lock().unwrap();
        drop(told.wait_while(guard, |is_open| !*is_open).unwrap());
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// Answers when it is let go; counts how many it has at a time, and the most ever.
fn holds(name: &str, lock: &Lock) -> (Origin, Arc<[AtomicUsize; 2]>) {
    let counts = Arc::new([const { AtomicUsize::new(0) }; 2]);
    let (seen, lock) = (Arc::clone(&counts), lock.clone());
    let origin = Origin::behaving(name, move |request, stream| {
        let now = seen[0].fetch_add(1, Ordering::SeqCst) + 1;
        seen[1].fetch_max(now, Ordering::SeqCst);
        if request.path() != "/quick" {
            lock.wait();
        }
        seen[0].fetch_sub(1, Ordering::SeqCst);
        let body = request.path();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        std::io::Write::write_all(stream, answer.as_bytes())?;
        Ok(Then::Keep)
    });
    (origin, counts)
}

fn pending(lab: &Lab) -> f64 {
    lab.metric(&["switchback_pending_requests{", "version=\"blue\""]).unwrap()
}

/// Asks for `/number` each, over a connection of its own, and does not wait for the answer.
fn ask(lab: &Lab, numbers: std::ops::Range<usize>) -> Vec<Client> {
    numbers
        .map(|number| {
            let mut client = lab.client();
            client.send(format!("GET /{number} HTTP/1.1\r\nhost: a\r\n\r\n"));
            client
        })
        .collect()
}

#[test]
fn what_is_too_much_and_has_no_place_to_wait_is_refused_at_once() {
    let lock = Lock::default();
    let (origin, counts) = holds("blue", &lock);
    let settings = "circuit = { requests = 3, pending = 0 }";
    let lab = Lab::pool(vec![origin], &[], "", settings);
    let held = ask(&lab, 0..3);
    wait_until("three are there", || counts[0].load(Ordering::SeqCst) == 3);
    for _ in 0..10 {
        let answer = lab.get("/more");
        assert_eq!(answer.said(), (503, "circuit_open"));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    lock.open();
    held.into_iter().for_each(|mut client| assert_eq!(client.answer().status, 200));
    // There is room again.
    for _ in 0..10 {
        assert_eq!(lab.get("/more").status, 200);
    }
    let refused =
        lab.metric(&["switchback_client_requests_total{", "version=\"blue\"", "reason=\"circuit_open\""]);
    assert_eq!(refused, Some(10.0));
    assert_eq!(counts[1].load(Ordering::SeqCst), 3);
}

#[test]
fn those_who_wait_are_served_in_their_order_and_no_more_wait_than_may() {
    let lock = Lock::default();
    let (origin, counts) = holds("blue", &lock);
    let settings = "circuit = { requests = 1, pending = 4, queue_timeout = \"30s\" }";
    let lab = Lab::pool(vec![origin], &[], "", settings);
    let mut clients = ask(&lab, 0..1);
    wait_until("one is there", || counts[0].load(Ordering::SeqCst) == 1);
    for number in 1..5 {
        clients.extend(ask(&lab, number..number + 1));
        wait_until("it waits", || pending(&lab) == number as f64);
    }
    assert_eq!(lab.get("/6").said(), (503, "circuit_open"));
    lock.open();
    clients.into_iter().for_each(|mut client| assert_eq!(client.answer().status, 200));
    let paths: Vec<_> = lab.origins[0].seen().iter().map(|seen| seen.path().to_owned()).collect();
    assert_eq!(paths, ["/0", "/1", "/2", "/3", "/4"]);
    assert_eq!((counts[1].load(Ordering::SeqCst), pending(&lab)), (1, 0.0));
}

#[test]
fn those_who_wait_for_an_endpoint_that_is_drained_go_to_another() {
    let (locks, settings) =
        ([Lock::default(), Lock::default()], "circuit = { endpoint_requests = 1, queue_timeout = \"30s\" }");
    let ([one, two], mut counts) = ([0, 1].map(|at| holds("blue", &locks[at])), Vec::new());
    let (addresses, origins) = ([one.0.address, two.0.address], vec![one.0, two.0]);
    counts.extend([one.1, two.1]);
    let lab = Lab::pool(origins, &[], "", settings);
    let clients = ask(&lab, 0..20);
    wait_until("each has one", || counts.iter().all(|count| count[0].load(Ordering::SeqCst) == 1));
    wait_until("the others wait", || pending(&lab) == 18.0);
    let path = format!("/v1/services/shop/versions/blue/endpoints/{}/drain", addresses[0]);
    let null = serde_json::Value::Null;
    assert_eq!(lab.call("POST", &path, &null).0, 200);
    locks[0].open();
    wait_until("it is drained", || lab.call("GET", &path, &null).1["drained"] == true);
    assert_eq!(lab.origins[0].served(), 1, "nothing new goes there");
    locks[1].open();
    clients.into_iter().for_each(|mut client| assert_eq!(client.answer().status, 200));
    assert_eq!([lab.origins[0].served(), lab.origins[1].served()], [1, 19]);
}

#[test]
fn two_services_that_share_an_endpoints_connections_wait_for_them_no_longer_than_they_may() {
    let lock = Lock::default();
    let (origin, counts) = holds("blue", &lock);
    let service = |name: &str, path: &str| {
        format!(
            "[services.{name}]\nroutes = [{{ path = \"{path}\" }}]\n\
             circuit = {{ connections = 1, queue_timeout = \"200ms\" }}\n\
             [services.{name}.versions.blue]\nendpoints = [\"{}\"]\n",
            origin.address
        )
    };
    let services = service("shop", "/") + &service("cart", "/cart");
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &services);
    let held = ask(&lab, 0..1);
    wait_until("it is there", || counts[0].load(Ordering::SeqCst) == 1);
    assert_eq!(lab.get("/cart").said(), (503, "circuit_open"));
    lock.open();
    held.into_iter().for_each(|mut client| assert_eq!(client.answer().status, 200));
    assert_eq!(lab.get("/cart").status, 200);
}

#[test]
fn who_waits_too_long_is_told_so_and_who_leaves_waits_no_more() {
    let lock = Lock::default();
    let (origin, counts) = holds("blue", &lock);
    let settings = "circuit = { requests = 1, queue_timeout = \"300ms\" }";
    let lab = Lab::pool(vec![origin], &[], "", settings);
    let held = ask(&lab, 0..1);
    wait_until("one is there", || counts[0].load(Ordering::SeqCst) == 1);
    let since = Instant::now();
    assert_eq!(lab.get("/late").said(), (503, "circuit_open"));
    let took = since.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5), "{took:?}");
    drop(ask(&lab, 1..2));
    let ended = || lab.metric_total("switchback_client_requests_total{", "service=\"shop\"");
    wait_until("who has left is done with", || ended() == 2.0);
    assert_eq!(pending(&lab), 0.0);
    lock.open();
    held.into_iter().for_each(|mut client| assert_eq!(client.answer().status, 200));
    assert_eq!(lab.origins[0].served(), 1);
}

#[test]
fn a_request_that_waits_is_in_flight_on_its_version_and_no_flip_fails_it() {
    let lock = Lock::default();
    let (origin, counts) = holds("blue", &lock);
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n\
         circuit = {{ requests = 1, queue_timeout = \"30s\" }}\n\
         [services.shop.versions.blue]\nendpoints = [\"{0}\"]\n\
         [services.shop.versions.green]\nendpoints = [\"{0}\"]\n",
        origin.address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &services);
    let mut clients = ask(&lab, 0..1);
    wait_until("one is there", || counts[0].load(Ordering::SeqCst) == 1);
    clients.extend(ask(&lab, 1..2));
    wait_until("it waits", || pending(&lab) == 1.0);
    lab.flip("green");
    let drain = || lab.call("GET", "/v1/services/shop/versions/blue/drain", &serde_json::Value::Null).1;
    let left = drain();
    assert_eq!((&left["drained"], &left["remaining"][0]["count"]), (&false.into(), &2.into()), "{left}");
    // Another version has limits of its own.
    assert_eq!(lab.get("/quick").status, 200);
    lock.open();
    clients.into_iter().for_each(|mut client| assert_eq!(client.answer().status, 200));
    wait_until("it is drained", || drain()["drained"] == true);
}

#[test]
fn an_endpoint_that_has_all_it_may_is_passed_over() {
    let lock = Lock::default();
    let (one, first) = holds("one", &lock);
    let (two, second) = holds("two", &lock);
    let settings = "circuit = { endpoint_requests = 2, pending = 0 }";
    let lab = Lab::pool(vec![one, two], &[], "", settings);
    let held = ask(&lab, 0..4);
    let both = [&first, &second];
    wait_until("both are full", || both.iter().all(|counts| counts[0].load(Ordering::SeqCst) == 2));
    assert_eq!(lab.get("/more").said(), (503, "circuit_open"));
    lock.open();
    held.into_iter().for_each(|mut client| assert_eq!(client.answer().status, 200));
    assert_eq!(both.map(|counts| counts[1].load(Ordering::SeqCst)), [2, 2]);
}

#[test]
fn who_waits_takes_the_first_place_at_any_endpoint_and_is_not_overtaken() {
    for balance in ["\"round_robin\"", "{ policy = \"hash\", key = { path = true } }"] {
        let locks = [Lock::default(), Lock::default()];
        let ([one, two], mut counts) = ([0, 1].map(|at| holds("blue", &locks[at])), Vec::new());
        let origins = vec![one.0, two.0];
        counts.extend([one.1, two.1]);
        let circuit = "circuit = { endpoint_requests = 1, queue_timeout = \"30s\" }";
        let lab = Lab::pool(origins, &[], "", &format!("balance = {balance}\n{circuit}"));
        let held = ask(&lab, 0..2);
        wait_until("each has one", || counts.iter().all(|count| count[0].load(Ordering::SeqCst) == 1));
        let mut clients = Vec::new();
        for number in 2..8 {
            clients.extend(ask(&lab, number..number + 1));
            wait_until("it waits", || pending(&lab) == (number - 1) as f64);
        }
        locks[1].open();
        clients.into_iter().for_each(|mut client| assert_eq!(client.answer().status, 200));
        let paths: Vec<_> = lab.origins[1].seen().iter().skip(1).map(|seen| seen.path().to_owned()).collect();
        assert_eq!(paths, ["/2", "/3", "/4", "/5", "/6", "/7"]);
        locks[0].open();
        held.into_iter().for_each(|mut client| assert_eq!(client.answer().status, 200));
    }
}

#[test]
fn nobody_is_refused_while_one_of_many_endpoints_has_room() {
    for balance in ["random", "p2c"] {
        let lock = Lock::default();
        let (origins, counts): (Vec<_>, Vec<_>) = (0..12).map(|_| holds("blue", &lock)).unzip();
        let settings = format!("balance = \"{balance}\"\ncircuit = {{ endpoint_requests = 1, pending = 0 }}");
        let lab = Lab::pool(origins, &[], "", &settings);
        let held = ask(&lab, 0..11);
        let there = || counts.iter().map(|count| count[0].load(Ordering::SeqCst)).sum::<usize>();
        wait_until("eleven have one", || there() == 11);
        for _ in 0..20 {
            assert_eq!(lab.get("/quick").status, 200);
        }
        lock.open();
        held.into_iter().for_each(|mut client| assert_eq!(client.answer().status, 200));
        assert!(counts.iter().all(|count| count[1].load(Ordering::SeqCst) == 1));
    }
}

/// Whoever waited might get a worse answer for it, or none.
#[test]
fn an_answer_is_not_given_up_for_an_endpoint_that_has_no_room() {
    let lock = Lock::default();
    let (busy, counts) = holds("busy", &lock);
    let lacks = Origin::behaving("lacks", |_, stream| {
        std::io::Write::write_all(stream, b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let settings = "retries = { statuses = [404], min_per_second = 1_000 }\n\
                    circuit = { endpoint_requests = 1, queue_timeout = \"30s\" }";
    let lab = Lab::pool(vec![busy, lacks], &[], "", settings);
    // Sooner or later.
    let held = ask(&lab, 0..1);
    wait_until("it is full", || counts[0].load(Ordering::SeqCst) == 1);
    for _ in 0..4 {
        assert_eq!(lab.get("/").said(), (404, ""));
    }
    lock.open();
    held.into_iter().for_each(|mut client| assert_eq!(client.answer().status, 200));
    for _ in 0..4 {
        assert_eq!(lab.get("/").status, 200, "there is room");
    }
}

#[test]
fn a_choice_among_all_is_counted_once_however_often_a_place_is_looked_for() {
    let lock = Lock::default();
    let (origins, _): (Vec<_>, Vec<_>) = (0..2).map(|_| holds("blue", &lock)).unzip();
    let settings = "health = { path = \"/quick\", status = [204], interval = \"100ms\", fall = 1 }\n\
                    circuit = { endpoint_requests = 1, queue_timeout = \"30s\" }";
    let lab = Lab::pool(origins, &[], "", settings);
    for origin in &lab.origins {
        lab.wait_for_metric(&["switchback_endpoint_up{", &origin.address.to_string()], 0.0);
    }
    let clients = ask(&lab, 0..6);
    lab.wait_for_metric(&["switchback_pending_requests{", "version=\"blue\""], 4.0);
    lock.open();
    clients.into_iter().for_each(|mut client| assert_eq!(client.answer().status, 200));
    assert_eq!(lab.metric(&["switchback_panic_requests_total{", "version=\"blue\""]), Some(6.0));
}

#[test]
fn those_who_wait_go_to_an_endpoint_that_is_added() {
    let lock = Lock::default();
    let (origin, counts) = holds("blue", &lock);
    let settings = "circuit = { endpoint_requests = 1, queue_timeout = \"30s\" }";
    let lab = Lab::pool(vec![origin], &[], "", settings);
    let held = ask(&lab, 0..1);
    wait_until("one is there", || counts[0].load(Ordering::SeqCst) == 1);
    let waiting = ask(&lab, 1..4);
    wait_until("the others wait", || pending(&lab) == 3.0);
    let other = Origin::start("blue");
    let path = format!("/v1/services/shop/versions/blue/endpoints/{}", other.address);
    assert_eq!(lab.call("PUT", &path, &serde_json::Value::Null).0, 200);
    waiting.into_iter().for_each(|mut client| assert_eq!(client.answer().status, 200));
    assert_eq!(other.served(), 3);
    lock.open();
    held.into_iter().for_each(|mut client| assert_eq!(client.answer().status, 200));
}

#[test]
fn an_endpoint_that_goes_and_comes_back_has_room_for_no_more_than_before() {
    let lock = Lock::default();
    let (origins, counts): (Vec<_>, Vec<_>) = (0..2).map(|_| holds("blue", &lock)).unzip();
    let address = origins[0].address;
    let settings = "circuit = { endpoint_requests = 1, pending = 0 }";
    let lab = Lab::pool(origins, &[], "", settings);
    let held = ask(&lab, 0..2);
    wait_until("both are full", || counts.iter().all(|count| count[0].load(Ordering::SeqCst) == 1));
    let path = format!("/v1/services/shop/versions/blue/endpoints/{address}");
    for _ in 0..2 {
        for method in ["DELETE", "PUT"] {
            assert_eq!(lab.call(method, &path, &serde_json::Value::Null).0, 200);
        }
        assert_eq!(lab.get("/quick").said(), (503, "circuit_open"));
    }
    lock.open();
    held.into_iter().for_each(|mut client| assert_eq!(client.answer().status, 200));
    for _ in 0..4 {
        assert_eq!(lab.get("/quick").status, 200, "both have room again");
    }
    assert!(lab.origins[0].served() > 1);
}

#[test]
fn a_limit_that_changes_counts_what_is_there() {
    let lock = Lock::default();
    let (origin, counts) = holds("blue", &lock);
    let services = |requests: u32, address| {
        format!(
            "[services.shop]\nroutes = [{{ path = \"/\" }}]\ncircuit = {{ requests = {requests}, pending = 0 }}\n\
             [services.shop.versions.blue]\nendpoints = [\"{address}\"]\n"
        )
    };
    let address = origin.address;
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::configured(dir, vec![origin], &services(4, address));
    let held = ask(&lab, 0..4);
    wait_until("four are there", || counts[0].load(Ordering::SeqCst) == 4);
    let epoch = lab.epoch();
    lab.write_config(&services(2, address));
    wait_until("the file is taken over", || lab.epoch() > epoch);
    assert_eq!(lab.get("/quick").said(), (503, "circuit_open"));
    lock.open();
    held.into_iter().for_each(|mut client| assert_eq!(client.answer().status, 200));
    assert_eq!(lab.get("/quick").status, 200);
}

#[test]
fn who_waits_need_not_wait_for_a_limit_that_was_raised_or_taken_away() {
    for limit in ["circuit = { requests = 9, queue_timeout = \"30s\" }", ""] {
        let lock = Lock::default();
        let (origin, counts) = holds("blue", &lock);
        let address = origin.address;
        let services = |limit: &str| {
            format!(
                "[services.shop]\nroutes = [{{ path = \"/\" }}]\n{limit}\n\
                 [services.shop.versions.blue]\nendpoints = [\"{address}\"]\n"
            )
        };
        let tight = "circuit = { requests = 2, queue_timeout = \"30s\" }";
        let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &services(tight));
        let all = ask(&lab, 0..5);
        wait_until("three wait", || pending(&lab) == 3.0);
        lab.write_config(&services(limit));
        wait_until("all are there", || counts[0].load(Ordering::SeqCst) == 5);
        lock.open();
        all.into_iter().for_each(|mut client| assert_eq!(client.answer().status, 200));
    }
}

/// True when the other side has closed; what it has sent before stays, and whoever reads it is not disturbed.
fn has_ended(stream: &TcpStream) -> bool {
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    let peeked = SockRef::from(stream).recv_with_flags(&mut [MaybeUninit::uninit()], flags);
    peeked.map_or_else(|error| error.kind() != ErrorKind::WouldBlock, |bytes| bytes == 0)
}

#[test]
fn connections_to_an_endpoint_are_limited_over_all_workers_idle_ones_too() {
    let open = Mutex::<Vec<TcpStream>>::default();
    let origin = Origin::scripted("blue", move |proxy| {
        let mut open = open.lock().unwrap();
        // The proxy ends one before it opens another; the kernel may tell the end a little later.
        wait_until("no more than two are open", || {
            open.retain(|stream| !has_ended(stream));
            open.len() < 2
        });
        open.push(proxy.stream().try_clone()?);
        drop(open);
        while proxy.head().is_ok() {
            proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
        }
        Ok(())
    });
    let settings = "circuit = { connections = 2, queue_timeout = \"30s\" }";
    let lab = Lab::pool(vec![origin], &[], "", settings);
    // Over connections of their own: some on each worker.
    let user = || (0..100).all(|_| lab.get("/").status == 200);
    let are_served = thread::scope(|scope| {
        let users: Vec<_> = (0..8).map(|_| scope.spawn(user)).collect();
        users.into_iter().all(|user| user.join().unwrap())
    });
    assert!(are_served);
}

#[test]
fn a_connection_takes_as_many_requests_as_it_may() {
    let mut lab = Lab::pool(vec![Origin::start("blue")], &[], "", "keepalive = { requests = 3 }");
    lab.restrict_to_one_worker();
    let mut user = lab.client();
    for requests in 1..=9_u64 {
        assert_eq!(user.get("/").status, 200);
        assert_eq!(lab.origins[0].connections(), requests.div_ceil(3));
    }
}

#[test]
fn a_connection_is_not_used_longer_than_it_may_be() {
    let mut lab = Lab::pool(vec![Origin::start("blue")], &[], "", "keepalive = { lifetime = \"300ms\" }");
    lab.restrict_to_one_worker();
    let mut user = lab.client();
    let since = Instant::now();
    while lab.origins[0].connections() < 3 {
        assert_eq!(user.get("/").status, 200);
        assert!(since.elapsed() < lab::PATIENCE);
    }
    // Two of them have come to their end, and not sooner.
    assert!(since.elapsed() >= Duration::from_millis(500), "{:?}", since.elapsed());
}

#[test]
fn a_version_says_how_long_its_connections_may_idle() {
    let (tell, told) = std::sync::mpsc::channel();
    let origin = Origin::scripted("blue", move |proxy| {
        proxy.head()?;
        proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
        let _ = tell.send(proxy.is_closed());
        Ok(())
    });
    let lab = Lab::pool(vec![origin], &[], "", "keepalive = { idle = \"100ms\" }");
    let mut client = lab.client();
    assert_eq!(client.get("/").status, 200);
    assert_eq!(told.recv_timeout(lab::PATIENCE), Ok(true));
}

/// What the kernel's table of TCP connections says about the timer of the one between these ports.
fn timer(local: u16, remote: u16) -> Option<String> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |address: &str| u16::from_str_radix(address.split(':').nth(1)?, 16).ok();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut rows = rows.filter(|row| port(row[1]) == Some(local) && port(row[2]) == Some(remote));
    rows.next().map(|row| row[5].to_owned())
}

#[test]
fn the_kernel_asks_on_quiet_connections_of_both_sides_whether_anybody_is_there() {
    let (tell, told) = std::sync::mpsc::channel();
    let origin = Origin::scripted("blue", move |proxy| {
        proxy.head()?;
        tell.send((proxy.stream().peer_addr()?.port(), proxy.stream().local_addr()?.port())).unwrap();
        proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
        proxy.rest();
        Ok(())
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    assert_eq!(client.get("/").status, 200);
    let (ours, origins) = told.recv_timeout(lab::PATIENCE).unwrap();
    let theirs = client.sender().local_addr().unwrap().port();
    // 02: a keepalive timer runs, and nothing is waited for otherwise.
    let is_kept = |local, remote| timer(local, remote).is_some_and(|timer| timer.starts_with("02:"));
    wait_until("the endpoint's is asked", || is_kept(ours, origins));
    wait_until("the client's is asked", || is_kept(lab.address().port(), theirs));
    assert!(!is_kept(theirs, lab.address().port()), "a client that has not set it has none");
}
