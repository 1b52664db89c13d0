//! Connections are shared out over the workers by what each of them has to do, and one that was passed on is served as any.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test"
)]

mod lab;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use http::Method;
use lab::tls::{Authority, Caller};
use lab::{Answer, Client, Gate, Http2, Lab, Origin, Proxy, http2, wait_until};
use serde_json::{Value, json};

/// A lab with so many workers.
fn with_workers(mut lab: Lab, workers: usize) -> Lab {
    let (status, log) = lab.proxy.take().expect("a proxy").stop();
    assert!(status.success(), "{log}");
    lab.proxy = Some(lab.spawn(workers));
    lab
}

/// What a worker's metric is, for each of them.
fn each(lab: &Lab, name: &str, workers: usize) -> Vec<f64> {
    let worker = |id| lab.metric(&[&format!("{name}{{worker=\"{id}\"}}")]).expect("a sample");
    (0..workers).map(worker).collect()
}

fn connections(lab: &Lab, workers: usize) -> Vec<f64> {
    each(lab, "switchback_worker_connections", workers)
}

fn passed_on(lab: &Lab) -> f64 {
    lab.metric_sum("switchback_worker_connections_passed_on_total{")
}

/// Opens `count` connections, one after the other.
fn open(lab: &Lab, count: u32) -> Vec<Client> {
    let before = lab.metric_sum("switchback_client_connections ");
    let open = |number| {
        let client = lab.client();
        lab.wait_for_metric(&["switchback_client_connections "], before + f64::from(number));
        client
    };
    (1..=count).map(open).collect()
}

/// What a test opens until some of it was passed on: the kernel's choice is not ours.
fn until_some_are_passed_on<T>(lab: &Lab, mut open: impl FnMut(usize) -> T) -> Vec<T> {
    let mut all = Vec::new();
    while passed_on(lab) < 5.0 {
        assert!(all.len() < 200, "hardly any is ever passed on");
        all.push(open(all.len()));
    }
    all
}

#[test]
fn few_connections_are_spread_evenly() {
    for workers in [2, 4, 8] {
        let lab = with_workers(Lab::start(&["blue"]), workers);
        let mut clients = open(&lab, 3 * u32::try_from(workers).unwrap());
        assert_eq!(connections(&lab, workers), vec![3.0; workers]);
        for client in &mut clients {
            assert_eq!(client.get("/").status, 200);
        }
    }
}

#[test]
fn who_leaves_makes_room_for_who_comes() {
    let workers = 4;
    let lab = with_workers(Lab::start(&["blue"]), workers);
    let mut clients = open(&lab, 16);
    for _ in 0..4 {
        // Any six of them: it does not show whose they are.
        clients.rotate_left(5);
        clients.truncate(10);
        lab.wait_for_metric(&["switchback_client_connections "], 10.0);
        clients.extend(open(&lab, 6));
        assert_eq!(connections(&lab, workers), vec![4.0; workers]);
    }
}

#[test]
fn a_worker_with_many_streams_gets_no_connections_while_another_has_less_to_do() {
    let gate = Gate::default();
    let lab = with_workers(Lab::on(vec![Origin::held("blue", &gate)], ""), 2);
    http2::run(async {
        let busy = Http2::to(lab.address()).await;
        let mut answers = Vec::new();
        for _ in 0..30 {
            answers.push(busy.start(http2::request(Method::GET, "/late"), true).await.0);
        }
        http2::wait_until("the streams are counted", || {
            lab.metric_sum("switchback_worker_streams{").round() as u64 == 30
        })
        .await;
        let streams = each(&lab, "switchback_worker_streams", 2);
        let hot = streams.iter().position(|count| *count > 0.0).unwrap();
        let clients = open(&lab, 12);
        let now = connections(&lab, 2);
        assert_eq!((now[hot], now[1 - hot]), (1.0, 12.0), "{streams:?}");
        gate.open();
        for answer in answers {
            assert_eq!(http2::answer(answer).await.unwrap().status, 200);
        }
        http2::wait_until("the streams are over", || lab.metric_sum("switchback_worker_streams{") == 0.0)
            .await;
        drop(clients);
    });
}

#[test]
fn how_busy_a_worker_is_is_told() {
    let lab = with_workers(Lab::start(&["blue"]), 1);
    let mut client = lab.client();
    wait_until("it is seen to work", || {
        (0..50).for_each(|_| assert_eq!(client.get("/").status, 200));
        lab.metric(&["switchback_worker_busy_ratio{worker=\"0\"}"]).is_some_and(|busy| busy > 0.01)
    });
}

#[test]
fn a_session_goes_on_with_the_worker_that_a_connection_was_passed_on_to() {
    let workers = 4;
    let authority = Authority::new("ca");
    let dir = tempfile::tempdir().unwrap();
    authority.issue(&["shop.test"]).write(dir.path(), "shop");
    let origin = Origin::start("blue");
    let services = format!(
        "[[listeners]]\nlisten = \"127.0.0.2:0\"\n\
         tls = {{ certificates = [{{ cert = \"shop.pem\", key = \"shop.key\" }}] }}\n\
         [services.shop]\nroutes = [{{ path = \"/\" }}]\nversions.blue.endpoints = [\"{}\"]\n",
        origin.address
    );
    let lab = with_workers(Lab::configured(dir, vec![origin], &services), workers);
    let (at, caller) = (lab.bound("127.0.0.2:0"), Caller::trusting(&authority));
    // All of them stay, so that every worker has some.
    let all = until_some_are_passed_on(&lab, |number| {
        let mut secure = caller.connect(at, "shop.test").unwrap();
        assert_eq!(secure.get("shop.test", "/").status, 200);
        assert_eq!(secure.is_resumed(), number > 0, "the first one alone does a whole handshake");
        secure
    });
    let now = connections(&lab, workers);
    assert!(all.len() >= workers && now.iter().all(|count| *count > 0.0), "{now:?}");
    assert_eq!(lab.metric(&["switchback_tls_handshakes_total", "\"full\""]), Some(1.0));
}

#[test]
fn who_a_proxy_names_is_known_where_the_connection_was_passed_on_to() {
    let listener = "[[listeners]]\nlisten = \"127.0.0.2:0\"\nproxy_protocol = true\n\
                    trusted_proxies = [\"127.0.0.1\"]";
    let lab = with_workers(Lab::with(&["blue"], listener), 4);
    let at = lab.bound("127.0.0.2:0");
    let all = until_some_are_passed_on(&lab, |number| {
        let mut client = Client::connect(at);
        let answer = client
            .send(format!("PROXY TCP4 192.0.2.{number} 198.51.100.2 4711 443\r\n"))
            .send("GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .answer();
        assert_eq!(answer.status, 200);
        client
    });
    let seen = lab.origins[0].seen();
    assert_eq!(seen.len(), all.len());
    for (number, seen) in seen.iter().enumerate() {
        assert_eq!(seen.header("x-forwarded-for"), Some(&*format!("192.0.2.{number}")));
    }
}

#[test]
fn a_unix_sockets_connections_are_spread_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let extra = format!("[[listeners]]\nlisten = \"unix:{}\"", path.display());
    let lab = with_workers(Lab::with(&["blue"], &extra), 4);
    let mut clients = Vec::new();
    for number in 1..=12_u32 {
        clients.push(UnixStream::connect(&path).unwrap());
        lab.wait_for_metric(&["switchback_client_connections "], f64::from(number));
    }
    assert_eq!(connections(&lab, 4), [3.0; 4]);
    for client in &mut clients {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(Answer::of(&answer).expect("an answer").status, 200);
    }
}

#[test]
fn who_comes_to_a_full_worker_is_served_as_soon_as_any_has_room() {
    let lab = with_workers(Lab::with(&["blue"], "[limits]\nconnections = 4\n"), 2);
    let mut clients = open(&lab, 4);
    assert_eq!(connections(&lab, 2), [2.0; 2]);
    // In eight rounds it comes to either of them, and room is made on either of them.
    for _ in 0..8 {
        let mut waiting = lab.client();
        waiting.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        drop(clients.remove(0));
        assert_eq!(waiting.answer().status, 200);
        clients.push(waiting);
    }
}

/// True when something has come for this client.
fn has_answer(client: &Client) -> bool {
    let stream = client.sender();
    stream.set_nonblocking(true).unwrap();
    let came = stream.peek(&mut [0]).is_ok_and(|bytes| bytes > 0);
    stream.set_nonblocking(false).unwrap();
    came
}

#[test]
fn no_more_clients_are_served_at_a_time_than_may_be_connected() {
    let other = "[[listeners]]\nlisten = \"127.0.0.2:0\"\n[limits]\nconnections = 3\n";
    let lab = with_workers(Lab::with(&["blue"], other), 2);
    // Every worker waits at either address, and the limit is not a multiple of them.
    let places = [lab.address(), lab.bound("127.0.0.2:0")];
    let connect = |number: usize| {
        let mut client = Client::connect(places[number % 2]);
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        client
    };
    let mut clients: Vec<_> = (0..12).map(connect).collect();
    for served in 3..=12 {
        wait_until("somebody has a place", || lab.origins[0].served() >= served);
        assert_eq!(lab.metric(&["switchback_client_connections "]), Some(3.0));
        assert_eq!(lab.origins[0].served(), served);
        // Whoever has one leaves it to the next.
        let mut has_one = None;
        wait_until("it is answered", || {
            has_one = clients.iter().position(has_answer);
            has_one.is_some()
        });
        drop(clients.remove(has_one.expect("a client")));
    }
}

/// The CPUs that each thread with a name like this may run on, as the system tells it, by name.
fn allowed(pid: u32, name: &str) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let threads = tasks.map(|task| {
        let read = |file| fs::read_to_string(task.as_ref().unwrap().path().join(file)).unwrap();
        let (name, status) = (read("comm").trim().to_owned(), read("status"));
        let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        (name, cpus.trim().to_owned())
    });
    let mut threads: Vec<_> = threads.filter(|(thread, _)| thread.starts_with(name)).collect();
    threads.sort();
    threads
}

/// The CPUs that this test may run on.
fn own_cpus() -> Vec<usize> {
    let mask = rustix::thread::sched_getaffinity(None).unwrap();
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| mask.is_set(*cpu)).collect()
}

/// Runs the lab's proxy again with these arguments, and `before` the program.
fn again(lab: &mut Lab, before: &[&str], args: &[&str]) {
    if let Some(proxy) = lab.proxy.take() {
        assert!(proxy.stop().0.success());
    }
    lab.proxy = Some(Proxy::start_as(before, args, &lab.config(), &lab.socket()).unwrap());
}

#[test]
fn each_worker_stays_on_its_cpu_and_nobody_else_is_pinned() {
    let cpus = own_cpus();
    let (last, all) = (*cpus.last().unwrap(), cpus.len());
    let mut lab = Lab::with(&["blue"], &format!("[proxy]\ncpu_affinity = [{last}]\n"));
    let everywhere = allowed(std::process::id(), "")[0].1.clone();
    again(&mut lab, &[], &["--workers", "2"]);
    let of = |lab: &Lab, name: &str| allowed(lab.proxy().pid(), name);
    let pinned: Vec<_> = (0..2).map(|id| (format!("worker-{id}"), last.to_string())).collect();
    assert_eq!(of(&lab, "worker-"), pinned);
    let others: Vec<_> = of(&lab, "").into_iter().filter(|(name, _)| !name.starts_with("worker-")).collect();
    assert!(others.iter().any(|(name, _)| name == "control"), "{others:?}");
    assert!(others.iter().all(|(_, cpus)| *cpus == everywhere), "{others:?}");
    let status = lab.call("GET", "/v1/status", &Value::Null).1;
    assert_eq!(status["cpus"], json!([last, last]));
    assert!(lab.cli(&["status"]).1.contains(&format!("2 workers on CPU {last}, {last} ")));
    assert_eq!(lab.get("/").status, 200);

    // As many as the list has; and as the command line says, whatever the file does.
    again(&mut lab, &[], &[]);
    assert_eq!(of(&lab, "worker-").len(), 1);
    again(&mut lab, &[], &["--workers", &(all + 1).to_string(), "--cpu-affinity", "auto"]);
    let in_turn = cpus.iter().cycle().take(all + 1).map(ToString::to_string);
    assert_eq!(
        of(&lab, "worker-").into_iter().map(|(_, cpus)| cpus).collect::<Vec<_>>(),
        in_turn.collect::<Vec<_>>()
    );
    again(&mut lab, &[], &["--cpu-affinity", "off"]);
    assert!(of(&lab, "worker-").iter().all(|(_, cpus)| *cpus == everywhere));
    assert_eq!(lab.call("GET", "/v1/status", &Value::Null).1["cpus"], json!([]));
}

#[test]
fn there_are_as_many_workers_as_the_process_may_run_at_a_time() {
    let cpus = own_cpus();
    let mut lab = Lab::start(&["blue"]);
    again(&mut lab, &[], &[]);
    let workers = |lab: &Lab| allowed(lab.proxy().pid(), "worker-").len();
    assert_eq!(workers(&lab), std::thread::available_parallelism().unwrap().get());
    again(&mut lab, &["taskset", "--cpu-list", &cpus[0].to_string()], &[]);
    assert_eq!(workers(&lab), 1);
    assert_eq!(lab.get("/").status, 200);
}

#[test]
fn a_cpu_that_there_is_not_is_refused_with_those_that_there_are() {
    let lab = Lab::start(&["blue"]);
    let config = lab.dir.path().join("pinned.toml");
    let text = fs::read_to_string(lab.config()).unwrap();
    for (cpus, said) in [
        ("[0, 1000]", "cannot pin workers to CPU 1000: this process may run on CPU "),
        ("[0, 0]", "pinned.toml:1:26: CPU 0 is there twice"),
        ("[]", "pinned.toml:1:22: there is no CPU in the list"),
        (
            "\"on\"",
            "pinned.toml:1:22: expected \"auto\", \"off\" or a list of CPUs such as [0, 1], found the string \"on\"",
        ),
        ("[-1]", "pinned.toml:1:23: expected a whole number from 0 to 1023"),
    ] {
        fs::write(&config, format!("proxy.cpu_affinity = {cpus}\n{text}")).unwrap();
        let (code, log) = Proxy::refused(&config);
        assert!(code == 1 && log.contains(said), "{cpus}: {code}\n{log}");
    }
    assert_eq!(lab.get("/").status, 200);
}
