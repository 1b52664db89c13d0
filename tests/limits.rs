//! What is more than somebody may have is refused, by its reason, and counted; what is within its limits is not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use lab::health::everywhere;
use lab::origin::{Peer, Then};
use lab::{Answer, Gate, Group, Lab, Origin, PATIENCE, Proxy};

fn refused(lab: &Lab, reason: &str) -> f64 {
    lab.metric_total("switchback_client_requests_total", &format!("reason=\"{reason}\""))
}

/// A service with these settings.
fn shop(origin: Origin, settings: &str) -> Lab {
    Lab::pool(vec![origin], &[], "", settings)
}

#[test]
fn a_client_has_no_more_connections_than_it_may() {
    let lab = Lab::with(&["blue"], "[limits]\nconnections_per_client = 3");
    let mut clients: Vec<_> = (0..3).map(|_| lab.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    for _ in 0..5 {
        let mut more = lab.client();
        let _ = more.try_send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = Answer::of(&more.rest());
        assert!(answer.is_none_or(|answer| answer.said() == (429, "connections")));
    }
    assert_eq!(refused(&lab, "connections"), 5.0);
    assert_eq!(clients[0].get("/").status, 200, "those who are in stay in");
    clients.pop();
    lab.wait_for_metric(&["switchback_client_connections "], 2.0);
    assert_eq!(lab.get("/").status, 200);
}

#[test]
fn a_trusted_proxy_has_as_many_connections_as_it_likes() {
    let lab = Lab::with(&["blue"], "trusted_proxies = [\"127.0.0.1\"]\n[limits]\nconnections_per_client = 1");
    let mut clients: Vec<_> = (0..5).map(|_| lab.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn a_service_has_no_more_requests_in_flight_than_it_may() {
    let gate = Gate::default();
    let lab = shop(Origin::held("blue", &gate), "limits = { in_flight = 2 }");
    let mut held: Vec<_> = (0..2).map(|_| lab.client()).collect();
    for client in &mut held {
        client.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    lab.origins[0].wait_served(2);
    let mut third = lab.client();
    for _ in 0..3 {
        let answer = third.get("/");
        assert_eq!(answer.said(), (503, "concurrency"));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    // A changed configuration does not forget those in flight.
    let address = lab.origins[0].address;
    lab.write_config(&format!(
        "[services.shop]\nroutes = [{{}}]\nstable = \"blue\"\nlimits = {{ in_flight = 1 }}\n\
         [services.shop.versions.blue]\nendpoints = [\"{address}\"]\n"
    ));
    lab.proxy().wait_for_log("configuration read");
    assert_eq!(third.get("/").said(), (503, "concurrency"));
    gate.open();
    for client in &mut held {
        assert_eq!(client.answer().text(), lab::gate::HELD);
    }
    assert_eq!(third.get("/").status, 200, "over the same connection");
    assert_eq!(refused(&lab, "concurrency"), 4.0);
}

#[test]
fn a_service_gets_no_more_requests_a_time_than_it_may() {
    let lab = shop(Origin::start("blue"), "limits = { rate = \"1/h\", burst = 5 }");
    let mut clients: Vec<_> = (0..4).map(|_| lab.client()).collect();
    // Over connections of all workers: the limit is exact.
    let answers: Vec<_> = (0..20).map(|n| clients[n % 4].get("/")).collect();
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 5);
    let refusal = answers.last().unwrap();
    assert_eq!(refusal.said(), (429, "rate"));
    // An hour, less what this test has taken.
    let retry_after: u32 = refusal.header("retry-after").unwrap().parse().unwrap();
    assert!((3_000..=3_600).contains(&retry_after), "{retry_after}");
    assert_eq!(refused(&lab, "rate"), 15.0);
    let of_service =
        lab.metric_total("switchback_client_requests_total{service=\"shop\",version=\"\"", "reason=\"rate\"");
    assert_eq!(of_service, 15.0, "it says whose limit it is");
    assert_eq!(lab.origins[0].served(), 5);
}

#[test]
fn another_limit_that_changes_forgives_no_rate() {
    let origin = Origin::start("blue");
    let shop = |limits: &str| {
        format!(
            "[services.shop]\nroutes = [{{}}]\nlimits = {{ {limits}, burst = 1 }}\nversions.blue.endpoints = [\"{}\"]\n",
            origin.address
        )
    };
    let [before, other, faster] =
        ["rate = \"1/h\"", "rate = \"1/h\", request_body = \"1MiB\"", "rate = \"2/h\""].map(shop);
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &before);
    assert_eq!([lab.get("/").status, lab.get("/").status], [200, 429]);
    let reload = |text: &str| {
        let read = || lab.proxy().log().matches("configuration read").count();
        let before = read();
        lab.write_config(text);
        lab::wait_until("it is read", || read() > before);
    };
    reload(&other);
    assert_eq!(lab.get("/").status, 429);
    reload(&faster);
    assert_eq!([lab.get("/").status, lab.get("/").status], [200, 429], "another rate begins anew");
}

#[test]
fn a_rate_by_client_is_each_clients_own_as_trusted_proxies_tell_them_apart() {
    let lab = Lab::pool(
        vec![Origin::start("blue")],
        &[],
        "trusted_proxies = [\"127.0.0.1\"]",
        "limits = { rate = \"1/h\", burst = 2, rate_by = \"client\" }",
    );
    let mut client = lab.client();
    let mut ask = |who: &str| {
        client.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {who}\r\n\r\n")).answer().status
    };
    assert_eq!([ask("192.0.2.1"), ask("192.0.2.1"), ask("192.0.2.1")], [200, 200, 429]);
    assert_eq!(ask("192.0.2.2"), 200);
    assert_eq!(ask("6.6.6.6, 192.0.2.1"), 429, "what a client says of itself changes nothing");
    assert_eq!([ask("2001:db8::1"), ask("2001:db8::2"), ask("2001:db8::3")], [200, 200, 429]);
}

#[test]
fn a_request_that_is_too_large_is_refused_before_it_is_sent() {
    let lab = shop(Origin::start("blue"), "limits = { request_body = \"1KiB\" }");
    let answer = lab.client().send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1025\r\n\r\n").answer();
    assert_eq!(answer.said(), (413, "request_too_large"));
    assert_eq!(answer.header("connection"), Some("close"));
    let waits = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1025\r\n\r\n";
    let answer = lab.client().send(waits).answer();
    assert_eq!((answer.said(), answer.interim.len()), ((413, "request_too_large"), 0));
    assert_eq!(lab.origins[0].connections(), 0);
    assert_eq!(lab.client().post("/", &[0; 1024]).status, 200);
}

#[test]
fn a_request_that_becomes_too_large_is_broken_off() {
    let (tell, gone) = mpsc::channel();
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        proxy.head()?;
        let _ = tell.send(proxy.line()?);
        let _ = tell.send(String::from_utf8_lossy(&proxy.rest()).into_owned());
        Ok(())
    });
    let lab = shop(origin, "limits = { request_body = \"1KiB\" }");
    let mut client = lab.client();
    let chunk = format!("200\r\n{}\r\n", "x".repeat(512));
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}"));
    let begun = gone.recv_timeout(PATIENCE).unwrap();
    assert_eq!(begun, "200");
    client.send(chunk.repeat(2));
    assert_eq!(client.answer().said(), (413, "request_too_large"));
    let got = gone.recv_timeout(PATIENCE).unwrap();
    assert!(!got.ends_with("0\r\n\r\n") && got.len() < 1200, "the origin sees that it is not whole: {got:?}");
}

#[test]
fn an_answer_that_is_too_large_is_refused_or_seen_to_break_off() {
    let origin = Origin::behaving("blue", |seen, stream| {
        match seen.path() {
            "/told" => write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 1025\r\n\r\n{}", "x".repeat(1025))?,
            "/chunks" => {
                write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                for _ in 0..3 {
                    write!(stream, "200\r\n{}\r\n", "x".repeat(512))?;
                }
                stream.write_all(b"0\r\n\r\n")?;
            }
            _ => write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 1024\r\n\r\n{}", "x".repeat(1024))?,
        }
        Ok(Then::Keep)
    });
    let lab = shop(origin, "limits = { response_body = \"1KiB\" }");
    assert_eq!(lab.get("/told").said(), (502, "response_too_large"));
    let answer = lab.get("/chunks");
    assert!(answer.status == 200 && !answer.is_whole && answer.body.len() <= 1024, "{answer:?}");
    assert_eq!(lab.get("/fits").body.len(), 1024);
    let counted = lab.metric_total("switchback_upstream_requests_total", "reason=\"response_too_large\"");
    assert_eq!(counted, 2.0);
}

#[test]
fn an_answer_whose_head_is_too_large_is_refused_as_that_and_not_asked_for_again() {
    let origin = Origin::behaving("blue", |seen, stream| {
        let fields = match seen.path() {
            "/fields" => "x: y\r\n".repeat(256),
            "/bytes" => format!("x: {}\r\n", "y".repeat(64 * 1024)),
            _ => "x: y\r\n".repeat(255),
        };
        write!(stream, "HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n\r\nhi")?;
        Ok(Then::Keep)
    });
    let lab = shop(origin, "");
    assert_eq!(lab.get("/fits").status, 200);
    assert_eq!(lab.get("/fields").said(), (502, "response_too_large"));
    assert_eq!(lab.get("/bytes").said(), (502, "response_too_large"));
    assert_eq!(lab.origins[0].seen().len(), 3);
}

#[test]
fn a_request_takes_no_longer_in_all_than_it_may() {
    let gate = Gate::default();
    let lab = shop(Origin::held("blue", &gate), "timeouts = { total = \"300ms\" }");
    assert_eq!(lab.get("/late").said(), (504, "deadline"));
    let answer = lab.get("/held");
    assert!(answer.status == 200 && !answer.is_whole, "{answer:?}");
    assert_eq!(refused(&lab, "deadline"), 2.0);
    gate.open();
    assert_eq!(lab.get("/").status, 200);
}

#[test]
fn an_answer_that_keeps_moving_ends_at_its_deadline_too() {
    let origin = Origin::behaving("blue", |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        loop {
            stream.write_all(b"1\r\nx\r\n")?;
            thread::sleep(Duration::from_millis(10));
        }
    });
    let lab = shop(origin, "timeouts = { total = \"300ms\" }");
    assert!(!lab.get("/").is_whole);
}

#[test]
fn when_memory_is_tight_connections_and_requests_are_refused_until_it_is_not() {
    let origin = Origin::start("blue");
    let service =
        format!("[services.shop]\nroutes = [{{}}]\nversions.blue.endpoints = [\"{}\"]\n", origin.address);
    let config = |memory: &str| format!("[limits]\nmemory = \"{memory}\"\n{service}");
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &config("off"));
    let mut client = lab.client();
    assert_eq!(client.get("/").status, 200);
    // Less than it has already.
    lab.write_config(&config("1MiB"));
    lab.proxy().wait_for_log("pressure has changed");
    let answer = client.get("/");
    assert_eq!(answer.said(), (503, "overload"));
    assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("1"), Some("close")));
    let mut new = lab.client();
    let _ = new.try_send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let answer = Answer::of(&new.rest());
    assert!(answer.is_none_or(|answer| answer.said() == (503, "overload")));
    assert_eq!(refused(&lab, "overload"), 2.0);
    lab.write_config(&config("off"));
    lab.proxy().wait_for_log("now=Calm");
    assert_eq!(lab.get("/").status, 200);
}

/// `shop` with this limit on memory, in a control group.
fn in_group(group: &Group, memory: &str) -> Lab {
    let origin = Origin::start("blue");
    let service = format!(
        "[limits]\nmemory = \"{memory}\"\n[services.shop]\nroutes = [{{}}]\nversions.blue.endpoints = [\"{}\"]\n",
        origin.address
    );
    let mut lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &service);
    assert!(lab.proxy.take().unwrap().stop().0.success());
    let enter = group.enter();
    let enter = enter.each_ref().map(|word| &**word);
    let proxy = Proxy::start_as(&enter, &["--workers", "2"], &lab.config(), &lab.socket());
    lab.proxy = Some(proxy.unwrap_or_else(|log| panic!("the proxy did not start:\n{log}")));
    lab
}

#[test]
fn files_that_were_read_in_the_control_group_are_no_memory_in_use() {
    let Some(group) = Group::with("memory") else {
        eprintln!("skipped: lacks the right to make a control group (run as root)");
        return;
    };
    group.limit(&(128 << 20).to_string());
    let lab = in_group(&group, "off");
    let [enter @ .., name] = group.enter();
    // Read again, it is kept as one that is used.
    let read = "head -c 70M /dev/zero > \"$1\"; for i in 1 2 3; do cat \"$1\" > /dev/null; done";
    let mut files = Command::new(&enter[0]);
    files.args(&enter[1..]).args([&*name, "sh", "-c", read, "sh"]).arg(lab.dir.path().join("log"));
    assert!(files.status().unwrap().success());
    let text = std::fs::read_to_string(lab.config()).unwrap();
    let services = text.split_once("[limits]").unwrap().1.replace("off", "10%");
    lab.write_config(&format!("[limits]{services}"));
    lab.proxy().wait_for_log("all_mib=128");
    let log = lab.proxy().log();
    let used = log.split_once("used_mib=").unwrap().1.split(' ').next().unwrap();
    assert!(used.parse::<u64>().unwrap() < 70, "{log}");
}

#[test]
fn the_limit_of_a_control_group_above_counts() {
    let Some(above) = Group::with("memory") else {
        eprintln!("skipped: lacks the right to make a control group (run as root)");
        return;
    };
    above.limit(&(96 << 20).to_string());
    let group = above.below().unwrap();
    let lab = in_group(&group, "10%");
    lab.proxy().wait_for_log("all_mib=96");
    assert_eq!(lab.get("/").said(), (503, "overload"));
}

#[test]
fn metrics_that_find_no_thread_say_so_and_are_there_again_with_the_next_one() {
    let Some(group) = Group::with("pids") else {
        eprintln!("skipped: lacks the right to make a control group (run as root)");
        return;
    };
    let lab = in_group(&group, "off");
    let scrape = || lab::admin::call(&lab.socket(), "GET", "/metrics", &[], "").unwrap();
    group.limit("1");
    let refused = scrape();
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("there is no thread to make it on"), "{}", refused.text());
    assert_eq!(lab.get("/").status, 200);
    group.limit("max");
    assert_eq!(scrape().status, 200);
}

#[test]
fn without_file_descriptors_clients_are_turned_away_and_later_served() {
    let mut lab = Lab::start(&["blue"]);
    // A file that is read again just then cannot be opened; it stays as it was.
    lab.expected_errors.push("the configuration is not used");
    assert_eq!(lab.get("/").status, 200);
    let pid = lab.proxy().pid();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let limit = format!("--nofile={0}:{0}", open + 10);
    let set = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status().unwrap();
    assert!(set.success());
    let clients: Vec<_> = (0..100).map(|_| lab.client()).collect();
    // The admin socket has no descriptor for us now either.
    lab.proxy().wait_for_log("turning clients away");
    let warnings = lab.proxy().log().matches("turning clients away").count();
    drop(clients);
    lab::wait_until("it serves again", || lab.client().try_get("/").is_ok_and(|answer| answer.status == 200));
    assert!(refused(&lab, "overload") > 0.0);
    assert!(warnings <= 2, "once a worker: {warnings}");
}

#[test]
fn a_service_that_hangs_leaves_descriptors_to_other_services_and_to_clients() {
    let (gate, well) = (Gate::default(), Origin::start("well"));
    let other = format!(
        "[services.other]\nroutes = [{{ path = \"/other\" }}]\n[services.other.versions.well]\nendpoints = [\"{}\"]",
        well.address
    );
    let mut lab = Lab::on(vec![Origin::held("hangs", &gate)], &other);
    start_with_few_descriptors(&mut lab);
    let mut crowd: Vec<_> = (0..100).map(|_| lab.client()).collect();
    crowd.iter_mut().for_each(|client| drop(client.try_send("GET /late HTTP/1.1\r\nhost: a\r\n\r\n")));
    lab::wait_until("it has all that it may", || refused(&lab, "overload") >= 5.0);
    let answers = (0..5).map(|_| lab.client().try_get("/other").map(|answer| answer.status).ok());
    assert_eq!(answers.collect::<Vec<_>>(), [Some(200); 5]);
    gate.open();
}

#[test]
fn answers_that_wait_in_pipes_leave_descriptors_to_other_services_and_to_the_operator() {
    const CROWD: usize = 60;
    let (gate, taken) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let (opening, taking) = (gate.clone(), Arc::clone(&taken));
    let large = Origin::scripted("large", move |proxy: &mut Peer| {
        proxy.head()?;
        opening.wait();
        proxy.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 256 * PART.len()))?;
        (0..256).try_for_each(|_| {
            proxy.send(PART)?;
            taking.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    });
    let well = Origin::start("well");
    let other = format!(
        "[services.other]\nroutes = [{{ path = \"/other\" }}]\n[services.other.versions.well]\nendpoints = [\"{}\"]",
        well.address
    );
    let mut lab = Lab::on(vec![large], &other);
    start_with_few_descriptors(&mut lab);
    let mut crowd: Vec<_> = (0..CROWD).map(|_| lab.client()).collect();
    for client in &mut crowd {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    // Their connections are all there before the first pipe is.
    lab.wait_for_metric(&["switchback_in_flight{", "kind=\"request\"", "service=\"shop\""], CROWD as f64);
    gate.open();
    let mut before = 0;
    lab::wait_until("what clients do not take is taken by nobody", || {
        thread::sleep(Duration::from_millis(200));
        let now = taken.load(Ordering::SeqCst);
        std::mem::replace(&mut before, now) == now && now >= CROWD
    });
    let answers = (0..5).map(|_| lab.client().try_get("/other").map(|answer| answer.status).ok());
    assert_eq!(answers.collect::<Vec<_>>(), [Some(200); 5]);
    assert_eq!(lab.shop()["weights"]["large"], 10_000);
}

/// Part of a large body.
const PART: &[u8] = &[b'x'; 64 * 1024];

/// Starts its proxy anew, with 256 of them.
fn start_with_few_descriptors(lab: &mut Lab) {
    assert!(lab.proxy.take().unwrap().stop().0.success());
    let few = ["prlimit", "--nofile=256:256"];
    let proxy = Proxy::start_as(&few, &["--workers", "2"], &lab.config(), &lab.socket());
    lab.proxy = Some(proxy.unwrap_or_else(|log| panic!("the proxy did not start:\n{log}")));
    lab.proxy().wait_for_log("raise the limit on open files");
}

#[test]
fn who_has_descriptors_for_its_workers_alone_says_so_and_does_not_serve() {
    let mut lab = Lab::start(&["blue"]);
    assert!(lab.proxy.take().unwrap().stop().0.success());
    let start = |workers: &str| {
        let few = ["prlimit", "--nofile=256:256"];
        Proxy::start_as(&few, &["--workers", workers], &lab.config(), &lab.socket())
    };
    // There is none left for clients, and not even one for each worker.
    for workers in ["24", "48"] {
        let Err(log) = start(workers) else { panic!("{workers} workers serve") };
        assert!(!log.contains("ready"), "{log}");
        assert!(log.contains("ulimit -n") && log.contains("--workers"), "{log}");
    }
    let proxy = start("12").unwrap_or_else(|log| panic!("the proxy did not start:\n{log}"));
    let log = proxy.log();
    let accepted: u64 = log.split("accepted=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((1..100).contains(&accepted), "a worker has some eight: {log}");
    lab.proxy = Some(proxy);
    assert_eq!(lab.get("/").status, 200);
}

#[test]
fn clients_who_take_all_descriptors_leave_some_to_the_operator_and_nobody_else_is_to_blame() {
    let gate = Gate::default();
    let mut lab = Lab::on(["blue", "green"].map(|name| Origin::held(name, &gate)).into(), "");
    start_with_few_descriptors(&mut lab);
    assert_eq!(lab.get("/").version(), "blue");
    // Each takes two descriptors for as long as there are any; then there are none for endpoints.
    let crowd = |lab: &Lab| {
        let before = refused(lab, "overload");
        let mut crowd: Vec<_> = (0..110).map(|_| lab.client()).collect();
        crowd.iter_mut().for_each(|client| drop(client.try_send("GET /late HTTP/1.1\r\nhost: a\r\n\r\n")));
        lab::wait_until("there are none left", || refused(lab, "overload") > before + 10.0);
        crowd
    };
    let on_blue = crowd(&lab);
    let flip = serde_json::json!({ "to": "green", "supervise": "1m" });
    let (status, flipped) = lab.call("POST", "/v1/services/shop/flip", &flip);
    assert_eq!(status, 200, "{flipped}");
    let on_green = crowd(&lab);
    let upstream = "switchback_upstream_requests_total";
    assert_eq!(lab.metric_total(upstream, "reason=\"connect_failed\""), 0.0);
    assert_eq!(lab.metric_sum("switchback_endpoint_ejections_total"), 0.0);
    assert_eq!(lab.shop()["weights"]["green"], 10_000, "nothing is proven of green");
    gate.open();
    drop((on_blue, on_green));
    lab::wait_until("it serves again", || lab.client().try_get("/").is_ok_and(|answer| answer.status == 200));
    assert_eq!(lab.get("/").version(), "green");
}

/// With fewer descriptors than endpoints, which answer their checks so: clients are served, and the operator is.
fn many_endpoints_leave_descriptors(answer: &'static str, is_checked: impl Fn(&Lab) -> bool) {
    let endpoints = everywhere(400, answer);
    let services = format!(
        "[services.many]\nroutes = [{{ path = \"/many\" }}]\nversions.blue.endpoints = {endpoints:?}\n\
         health = {{ path = \"/\", interval = \"1s\", timeout = \"1s\", rise = 1, fall = 1 }}\n"
    );
    let mut lab = Lab::with(&["blue", "green"], &services);
    start_with_few_descriptors(&mut lab);
    lab::wait_until("all are checked", || is_checked(&lab));
    let mut clients: Vec<_> = (0..30).map(|_| lab.client()).collect();
    assert!(clients.iter_mut().all(|client| client.get("/").status == 200));
    lab.flip("green");
    assert!(!lab.proxy().log().contains("could not be checked"));
}

#[test]
fn checks_of_more_endpoints_than_there_are_descriptors_leave_enough_of_them() {
    let up = |lab: &Lab| lab.metric_sum("switchback_endpoint_up{service=\"many\"") >= 400.0;
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    many_endpoints_leave_descriptors(answer, |lab| up(lab) && unwell_or_well(lab, "well") >= 1_200.0);
}

#[test]
fn checks_that_hang_leave_enough_descriptors_too() {
    many_endpoints_leave_descriptors("", |lab| unwell_or_well(lab, "unwell") >= 100.0);
}

fn unwell_or_well(lab: &Lab, which: &str) -> f64 {
    lab.metric_total("switchback_health_checks_total", &format!("result=\"{which}\""))
}
