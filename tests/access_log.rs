//! One line a request: what it says, that it comes when the request is over, and that traffic never waits for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, mpsc};

use lab::origin::{Then, nobody};
use lab::{Client, Gate, Lab, Origin, Proxy, wait_until};
use serde_json::{Value, json};

/// `shop` on these origins, with a log in the lab's directory and these keys of it.
fn logging(origins: Vec<Origin>, keys: &str) -> Lab {
    logging_with(origins, keys, "", "")
}

fn logging_with(origins: Vec<Origin>, keys: &str, extra: &str, settings: &str) -> Lab {
    let dir = tempfile::tempdir().unwrap();
    let text = config(dir.path(), &origins, keys, extra, settings);
    Lab::configured(dir, origins, &text)
}

fn config(dir: &Path, origins: &[Origin], keys: &str, extra: &str, settings: &str) -> String {
    let log = dir.join("access.log").display().to_string();
    let head = format!(
        "[access_log]\ntarget = \"file\"\npath = \"{log}\"\n{keys}\n{extra}\n[services.shop]\nroutes = [{{}}]\n\
         stable = \"{}\"\n{settings}\n",
        origins[0].name
    );
    origins.iter().fold(head, |text, origin| {
        format!("{text}[services.shop.versions.{}]\nendpoints = [\"{}\"]\n", origin.name, origin.address)
    })
}

fn path(lab: &Lab) -> PathBuf {
    lab.dir.path().join("access.log")
}

/// Every whole line that is in `file`, as JSON.
fn read(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")))
        .collect()
}

/// The lines of `file` once there are `count` of them.
fn lines(file: &Path, count: usize) -> Vec<Value> {
    wait_until(&format!("{count} lines"), || read(file).len() >= count);
    let lines = read(file);
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

/// The only line.
fn only(lab: &Lab) -> Value {
    lines(&path(lab), 1).remove(0)
}

#[test]
fn a_line_says_all_about_its_request() {
    let lab = logging_with(
        vec![Origin::start("blue")],
        "headers = [\"User-Agent\", \"referer\"]",
        "[proxy]\nrequest_id = { accept = \"always\" }",
        "",
    );
    let mut client = lab.client();
    client.send(
        "POST /a%20b?c=d HTTP/1.1\r\nhost: shop.test:81\r\nx-request-id: id-7\r\nuser-agent: a \"b\"\r\ncontent-length: 5\r\n\r\nhello",
    );
    let answer = client.answer();
    let line = only(&lab);
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(line["client"], "127.0.0.1");
    assert_eq!(
        (&line["method"], &line["scheme"], &line["protocol"]),
        (&json!("POST"), &json!("http"), &json!("HTTP/1.1"))
    );
    assert_eq!((&line["host"], &line["path"]), (&json!("shop.test:81"), &json!("/a%20b?c=d")));
    assert_eq!(
        (&line["service"], &line["version"], &line["epoch"]),
        (&json!("shop"), &json!("blue"), &json!(1))
    );
    assert_eq!(line["endpoint"], lab.origins[0].address.to_string());
    assert_eq!(
        (&line["assigned"], &line["outcome"], &line["status"]),
        (&json!("single"), &json!("ok"), &json!(200))
    );
    assert_eq!((&line["request_bytes"], &line["response_bytes"]), (&json!(5), &json!(answer.body.len())));
    assert_eq!(
        (&line["attempts"], &line["reused"], &line["request_id"]),
        (&json!(1), &json!(false), &json!("id-7"))
    );
    assert_eq!(line["headers"], json!({ "user-agent": "a \"b\"" }));
    let micros = |key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{key}: {line}"));
    assert!(
        micros("connect_us") <= micros("first_byte_us") && micros("first_byte_us") <= micros("duration_us")
    );
    let time = text("time");
    assert!(time.len() == 27 && time.starts_with("20") && time.ends_with('Z'), "{time}");

    client.get("/next");
    assert_eq!(lines(&path(&lab), 2)[1]["reused"], true);
}

#[test]
fn of_attempts_beside_one_another_the_line_tells_of_the_one_that_was_answered() {
    let (tell, let_go) = mpsc::channel();
    let let_go = Mutex::new(let_go);
    let first = Origin::scripted("one", move |proxy| {
        proxy.head()?;
        let_go.lock().unwrap().recv().unwrap();
        proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\none")
    });
    let (asked, is_asked) = mpsc::channel();
    let second = Origin::scripted("two", move |proxy| {
        proxy.head()?;
        asked.send(()).unwrap();
        proxy.rest();
        Ok(())
    });
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[access_log]\ntarget = \"file\"\npath = \"{}\"\n[services.shop]\nroutes = [{{}}]\nbalance = \"round_robin\"\n\
         hedge = {{ after = \"500ms\" }}\nversions.blue.endpoints = [\"{}\", \"{}\"]\n",
        dir.path().join("access.log").display(),
        first.address,
        second.address
    );
    let mut lab = Lab::configured(dir, vec![first, second], &text);
    lab.restrict_to_one_worker();
    let mut client = lab.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    is_asked.recv_timeout(lab::PATIENCE).unwrap();
    tell.send(()).unwrap();
    assert_eq!(client.answer().text(), "one");
    let line = only(&lab);
    assert_eq!(
        (&line["endpoint"], &line["attempts"]),
        (&json!(lab.origins[0].address.to_string()), &json!(2))
    );
    assert!(line["connect_us"].as_u64().unwrap() < 500_000, "before the other was begun: {line}");
    assert!(line["first_byte_us"].as_u64().unwrap() >= 500_000, "{line}");
}

#[test]
fn the_client_is_whom_trusted_proxies_name() {
    let dir = tempfile::tempdir().unwrap();
    let origins = vec![Origin::start("blue")];
    // The lab's text begins in its listener.
    let trusting = "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n";
    let text = format!("{trusting}{}", config(dir.path(), &origins, "", "", ""));
    let lab = Lab::configured(dir, origins, &text);
    let mut client = lab.client();
    for said in ["x-forwarded-for: 6.6.6.6, 192.0.2.1, 10.0.0.7", "forwarded: for=192.0.2.2", "x-other: 1"] {
        client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{said}\r\n\r\n")).answer();
    }
    client.send("GET / HTTP/1.1\r\nhost : a\r\nx-forwarded-for: 192.0.2.1\r\n\r\n").answer();
    let clients: Vec<_> = lines(&path(&lab), 4).iter().map(|line| line["client"].clone()).collect();
    // Of one that cannot be read nobody knows what its proxy says.
    assert_eq!(clients, ["192.0.2.1", "192.0.2.2", "127.0.0.1", "127.0.0.1"]);
}

#[test]
fn a_request_that_is_refused_or_answered_by_the_proxy_has_a_line_too() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let origins = vec![Origin::start("blue")];
    let text = format!(
        "[access_log]\ntarget = \"file\"\npath = \"{}\"\n[services.shop]\n\
         routes = [{{ path = \"/shop\" }}, {{ path = \"/moved\", redirect = {{ to = \"/shop\" }} }}]\n\
         versions.blue.endpoints = [\"{}\"]\n",
        log.display(),
        nobody()
    );
    let lab = Lab::configured(dir, origins, &text);
    let mut client = lab.client();
    for (path, status) in [("/else", 404), ("/shop", 503), ("/moved", 308)] {
        assert_eq!(client.get(path).status, status);
    }
    lab.client().send("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").answer();
    lab.client().send("GET / HTTP/1.1\r\nhost : a\r\n\r\n").answer();
    let lines = lines(&log, 5);
    let said = |line: &Value| {
        (line["outcome"].clone(), line["status"].clone(), line["service"].clone(), line["version"].clone())
    };
    let expected = [
        ("no_route", 404, Value::Null, Value::Null),
        ("connect_failed", 503, json!("shop"), json!("blue")),
        ("redirect", 308, json!("shop"), Value::Null),
        ("bad_request", 400, Value::Null, Value::Null),
        ("bad_request", 400, Value::Null, Value::Null),
    ];
    // The workers write each for itself: the last two came over other connections.
    let mut found: Vec<_> = lines.iter().map(said).collect();
    for (outcome, status, service, version) in expected {
        let wanted = (json!(outcome), json!(status), service, version);
        let at =
            found.iter().position(|said| *said == wanted).unwrap_or_else(|| panic!("{wanted:?}: {lines:#?}"));
        found.remove(at);
    }
    assert!(lines.iter().all(|line| line["client"] == "127.0.0.1"));
}

#[test]
fn the_coin_is_told_where_there_is_a_choice() {
    let lab = logging(vec![Origin::start("blue"), Origin::start("green")], "");
    lab.weights(&json!({ "blue": 5_000, "green": 5_000 }));
    let version = lab.get("/").version().to_owned();
    let line = only(&lab);
    assert_eq!(
        (&line["assigned"], &line["version"], &line["epoch"]),
        (&json!("coin"), &json!(version), &json!(2))
    );
}

#[test]
fn the_line_comes_with_the_last_byte() {
    let gate = Gate::default();
    let hold = gate.clone();
    let origin = Origin::behaving("blue", move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")?;
        hold.wait();
        stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let lab = logging(vec![origin], "");
    let mut client = lab.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    while !client.line().contains("one") {}
    // Another request's line comes meanwhile, on a version's and a connection of its own.
    assert_eq!(lab.client().send("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").answer().status, 400);
    assert_eq!(only(&lab)["status"], 400);
    gate.open();
    while !client.line().contains("two") {}
    let line = lines(&path(&lab), 2).remove(1);
    assert_eq!((&line["outcome"], &line["response_bytes"]), (&json!("ok"), &json!(6)));
}

#[test]
fn a_client_that_leaves_is_told_of() {
    let gate = Gate::default();
    let hold = gate.clone();
    let origin = Origin::behaving("blue", move |_, stream| {
        hold.wait();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let lab = logging(vec![origin], "sample = 0");
    let mut client = lab.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    wait_until("the origin has it", || lab.origins[0].served() == 1);
    drop(client);
    let line = only(&lab);
    assert_eq!(
        (&line["outcome"], &line["status"], &line["first_byte_us"]),
        (&json!("client_gone"), &json!(499), &Value::Null)
    );
    gate.open();
}

#[test]
fn who_leaves_in_the_middle_of_a_body_has_sent_so_much_and_got_nothing() {
    let lab = logging(vec![Origin::start("blue")], "");
    let mut client = lab.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nabc");
    drop(client);
    let line = only(&lab);
    assert_eq!((&line["outcome"], &line["status"]), (&json!("client_gone"), &json!(499)));
    assert_eq!((&line["request_bytes"], &line["response_bytes"]), (&json!(3), &json!(0)));
}

#[test]
fn what_had_come_of_a_body_that_is_too_large_is_told() {
    let lab = logging_with(vec![Origin::start("blue")], "", "", "limits = { request_body = \"1KiB\" }");
    let chunk = format!("200\r\n{}\r\n", "x".repeat(512)).repeat(3);
    let request = format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n");
    let answer = lab.client().send(request).answer();
    let line = only(&lab);
    assert_eq!((&line["outcome"], &line["status"]), (&json!("request_too_large"), &json!(413)));
    assert!(line["request_bytes"].as_u64().unwrap() > 1024, "{line}");
    assert_eq!(line["response_bytes"], json!(answer.body.len()));
}

#[test]
fn an_answer_that_breaks_off_is_an_error_with_the_status_that_went_out() {
    let origin = Origin::behaving("blue", |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")?;
        Ok(Then::Close)
    });
    let lab = logging(vec![origin], "sample = 0");
    assert!(!lab.get("/").is_whole);
    let line = only(&lab);
    assert_eq!(
        (&line["outcome"], &line["status"], &line["response_bytes"]),
        (&json!("body_truncated"), &json!(200), &json!(4))
    );
}

#[test]
fn the_sample_leaves_out_what_is_well_and_keeps_what_failed() {
    let origin = Origin::behaving("blue", |seen, stream| {
        let status = if seen.path() == "/bad" { "500 No" } else { "200 OK" };
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let lab = logging(vec![origin], "sample = 0");
    let mut client = lab.client();
    for path in ["/a", "/b", "/bad", "/c"] {
        client.get(path);
    }
    assert_eq!(only(&lab)["path"], "/bad");

    let lab = logging(vec![Origin::start("blue")], "sample = \"0%\"\nerrors = false");
    lab.get("/");
    lab.client().send("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").answer();
    let file = path(&lab);
    let (status, _) = stop(lab);
    assert!(status && read(&file).is_empty());
}

/// Ends the proxy in good order, and keeps its directory for another look.
fn stop(mut lab: Lab) -> (bool, tempfile::TempDir) {
    let (status, _) = lab.proxy.take().unwrap().stop();
    let dir = std::mem::replace(&mut lab.dir, tempfile::tempdir().unwrap());
    (status.success(), dir)
}

#[test]
fn nothing_a_client_sends_forges_a_line() {
    let lab = logging(vec![Origin::start("blue")], "headers = [\"x-odd\"]\nquery = false");
    let mut client = lab.client();
    client.send(b"GET /\"},{\"a\":\"?secret=1 HTTP/1.1\r\nhost: a\r\nx-odd: \xc3\xa4\xc2\x85\"\\\t\xe2\x80\xa8\r\n\r\n").answer();
    let line = only(&lab);
    assert_eq!(line["path"], "/\"},{\"a\":\"");
    assert_eq!(line["headers"]["x-odd"], "\u{e4}\u{85}\"\\\t\u{2028}");
    let text = fs::read_to_string(path(&lab)).unwrap();
    assert!(!text.contains("secret") && !text.trim_end().chars().any(char::is_control), "{text}");
}

#[test]
fn long_values_are_cut() {
    let lab = logging(vec![Origin::start("blue")], "headers = [\"x-long\"]");
    let (target, value) = (format!("/{}", "p".repeat(12_000)), "v".repeat(3_000));
    lab.client().send(format!("GET {target} HTTP/1.1\r\nhost: a\r\nx-long: {value}\r\n\r\n")).answer();
    let line = only(&lab);
    assert_eq!(line["path"].as_str().unwrap().len(), 8 * 1024 + "…".len());
    assert_eq!(line["headers"]["x-long"].as_str().unwrap().len(), 1024 + "…".len());
}

#[test]
fn the_file_is_opened_anew_on_a_hang_up() {
    let lab = logging(vec![Origin::start("blue")], "");
    lab.get("/one");
    only(&lab);
    let moved = lab.dir.path().join("access.log.1");
    fs::rename(path(&lab), &moved).unwrap();
    lab.proxy().signal("HUP");
    wait_until("the file is there again", || path(&lab).exists());
    lab.get("/two");
    assert_eq!(only(&lab)["path"], "/two");
    assert_eq!(lines(&moved, 1)[0]["path"], "/one");
    // The same by the signal that is for this alone.
    let read = || lab.proxy().log().matches("configuration read").count();
    wait_until("the hang-up is done", || read() == 1);
    fs::rename(path(&lab), &moved).unwrap();
    lab.proxy().signal("USR1");
    wait_until("the file is there once more", || path(&lab).exists());
    lab.get("/three");
    assert_eq!(only(&lab)["path"], "/three");
    assert_eq!(lines(&moved, 1)[0]["path"], "/two");
    assert_eq!(read(), 1);
}

#[test]
fn a_reload_turns_the_log_on_elsewhere_and_off_for_open_connections_too() {
    let origins = vec![Origin::start("blue")];
    let lab = Lab::on(origins, "");
    let mut client = lab.client();
    client.get("/unseen");
    let reload = |text: &str| {
        let before = lab.proxy().log().matches("configuration read").count();
        lab.write_config(text);
        wait_until("the file is read", || lab.proxy().log().matches("configuration read").count() > before);
    };
    let on = config(lab.dir.path(), &lab.origins, "", "", "");
    reload(&on);
    client.get("/first");
    assert_eq!(only(&lab)["path"], "/first");
    reload(&on.replace("access.log", "other.log"));
    client.get("/second");
    assert_eq!(lines(&lab.dir.path().join("other.log"), 1)[0]["path"], "/second");
    reload(&on[on.find("[services").unwrap()..]);
    client.get("/unseen");
    // A file that cannot be had changes nothing, and says so.
    let mut lab = lab;
    lab.expected_errors.push("the configuration is not used");
    lab.write_config(&on.replace("access.log", "no/such/folder/access.log"));
    lab.proxy().wait_for_log("cannot open the access log");
    assert_eq!(client.get("/still").status, 200);
    assert_eq!((lines(&path(&lab), 1).len(), lines(&lab.dir.path().join("other.log"), 1).len()), (1, 1));
}

#[test]
fn a_full_disk_costs_lines_and_no_request() {
    let origins = vec![Origin::start("blue")];
    let dir = tempfile::tempdir().unwrap();
    let text = config(dir.path(), &origins, "", "", "");
    let full = format!("path = \"{}\"", dir.path().join("access.log").display());
    let lab = Lab::configured(dir, origins, &text.replace(&full, "path = \"/dev/full\""));
    let mut client = lab.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 200);
    }
    lab.wait_for_metric(&["switchback_access_log_dropped_total"], 10.0);
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 200);
    }
    lab.wait_for_metric(&["switchback_access_log_dropped_total"], 20.0);
    assert_eq!(lab.proxy().log().matches("the access log cannot be written").count(), 1, "said once");
}

#[test]
fn a_log_that_is_as_large_as_it_may_be_costs_lines_and_no_request() {
    let origins = vec![Origin::start("blue")];
    let dir = tempfile::tempdir().unwrap();
    let text = config(dir.path(), &origins, "", "", "");
    let mut lab = Lab::configured(dir, origins, &text);
    assert!(lab.proxy.take().unwrap().stop().0.success());
    // Over what the store needs.
    let (log, most) = (lab.dir.path().join("access.log"), 300_000);
    fs::OpenOptions::new().append(true).create(true).open(log).unwrap().set_len(most).unwrap();
    let limited = ["prlimit", &format!("--fsize={most}")];
    let proxy = Proxy::start_as(&limited, &["--workers", "2"], &lab.config(), &lab.socket());
    lab.proxy = Some(proxy.unwrap_or_else(|log| panic!("the proxy did not start:\n{log}")));
    assert_eq!(lab.get("/").status, 200);
    lab.wait_for_metric(&["switchback_access_log_dropped_total"], 1.0);
    assert_eq!(lab.get("/").status, 200);
}

/// Where the log goes is a named pipe.
fn pipe(dir: &Path) -> PathBuf {
    let path = dir.join("access.log");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

/// Asks until lines are dropped: nothing is read any more, and the queue is full.
fn fill(lab: &Lab) {
    let mut client = lab.client();
    // Long lines fill the pipe (64 KiB) and the queue soon.
    let request =
        format!("GET /{} HTTP/1.1\r\nhost: a\r\nx-long: {}\r\n\r\n", "p".repeat(8_000), "v".repeat(1_000));
    let mut sent = 0;
    while lab.metric(&["switchback_access_log_dropped_total"]) == Some(0.0) {
        for _ in 0..200 {
            assert_eq!(client.send(&request).answer().status, 200);
            sent += 1;
        }
        assert!(sent < 20_000, "the queue has no end");
    }
}

#[test]
fn a_log_that_nobody_reads_delays_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let path = pipe(dir.path());
    let reader = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let origins = vec![Origin::start("blue")];
    let text = config(dir.path(), &origins, "headers = [\"x-long\"]", "", "");
    let lab = Lab::configured(dir, origins, &text);
    fill(&lab);
    lab.proxy().wait_for_log("nobody reads it");
    // It ends in time too, though the writer does not.
    let (is_clean, _dir) = stop(lab);
    assert!(is_clean);
    drop(reader);
}

#[test]
fn a_pipe_whose_reader_is_away_delays_no_command_and_its_lines_wait() {
    let mut lab = logging(vec![Origin::start("blue"), Origin::start("green")], "");
    fs::remove_file(path(&lab)).unwrap();
    let path = pipe(lab.dir.path());
    lab.proxy().signal("HUP");
    lab.proxy().wait_for_log("configuration read");
    lab.flip("green");
    assert_eq!(lab.get("/waits").version(), "green");
    let mut line = String::new();
    BufReader::new(fs::File::open(&path).unwrap()).read_line(&mut line).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["path"], "/waits");
    // One that is started does not wait for a reader either.
    assert!(lab.proxy.take().unwrap().stop().0.success());
    lab.proxy = Some(lab.spawn(2));
    assert_eq!(lab.get("/").version(), "green");
}

#[test]
fn a_log_that_is_full_can_be_turned_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    pipe(dir.path());
    let origins = vec![Origin::start("blue")];
    let text = config(dir.path(), &origins, "headers = [\"x-long\"]", "", "");
    let lab = Lab::configured(dir, origins, &text);
    fill(&lab);
    let other = lab.dir.path().join("other.log");
    lab.write_config(&text.replace("access.log", "other.log"));
    wait_until("what waited is written there", || !read(&other).is_empty());
    lab.get("/last");
    wait_until("what comes is", || read(&other).last().unwrap()["path"] == "/last");
}

#[test]
fn a_standard_output_that_nobody_reads_can_be_left_for_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = pipe(dir.path());
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let origins = vec![Origin::start("blue")];
    let text = config(dir.path(), &origins, "headers = [\"x-long\"]", "", "");
    let mut lab = Lab::configured(dir, origins, &text);
    assert!(lab.proxy.take().unwrap().stop().0.success());
    let file = format!("target = \"file\"\npath = \"{}\"", path.display());
    assert!(text.contains(&file));
    lab.write_config(&text.replace(&file, "target = \"stdout\""));
    let into = format!("exec \"$@\" > {}", path.display());
    let proxy =
        Proxy::start_as(&["sh", "-c", &into, "sh"], &["--workers", "2"], &lab.config(), &lab.socket());
    lab.proxy = Some(proxy.unwrap_or_else(|log| panic!("the proxy did not start:\n{log}")));
    fill(&lab);
    lab.proxy().wait_for_log("nobody reads it");
    let other = lab.dir.path().join("other.log");
    lab.write_config(&text.replace("access.log", "other.log"));
    wait_until("what waited is written there", || !read(&other).is_empty());
    lab.get("/last");
    wait_until("what comes is", || read(&other).last().unwrap()["path"] == "/last");
}

#[test]
fn every_line_is_written_before_the_proxy_ends() {
    let lab = logging(vec![Origin::start("blue")], "");
    let address = lab.address();
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(address)).collect();
    for _ in 0..50 {
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    }
    drop(clients);
    let file = path(&lab);
    let (is_clean, dir) = stop(lab);
    assert!(is_clean);
    assert_eq!(read(&file).len(), 200);
    drop(dir);
}

#[test]
fn what_a_listener_sends_on_to_https_has_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let origins = vec![Origin::start("blue")];
    // The lab's text begins in its listener.
    let text = format!("redirect_to_https = {{}}\n{}", config(dir.path(), &origins, "", "", ""));
    let lab = Lab::configured(dir, origins, &text);
    let answer = lab.get("/a?b");
    assert_eq!(answer.header("location"), Some("https://shop.test/a?b"));
    let line = only(&lab);
    assert_eq!((&line["outcome"], &line["status"]), (&json!("redirect"), &json!(answer.status)));
    assert_eq!((&line["path"], &line["service"]), (&json!("/a?b"), &Value::Null));
}

#[test]
fn requests_of_one_http_2_connection_have_a_line_each() {
    let lab = logging_with(
        vec![Origin::start("blue")],
        "",
        "[proxy]\nrequest_id = { answer = true }",
        "response_headers = { set = { x-who = \"%{host}%{path}\" } }",
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ids = runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(lab.address()).await.unwrap();
        let (send, connection) = h2::client::handshake(socket).await.unwrap();
        let mut send = send.ready().await.unwrap();
        let asking = async {
            let mut ids = Vec::new();
            for path in ["/one", "/two?x"] {
                let uri = format!("http://shop.test{path}");
                let request = http::Request::get(uri).body(()).unwrap();
                let answer = send.send_request(request, true).unwrap().0.await.unwrap();
                assert_eq!(answer.headers()["x-who"], format!("shop.test{}", &path[..4]));
                ids.push(answer.headers()["x-request-id"].to_str().unwrap().to_owned());
            }
            ids
        };
        tokio::select! {
            ids = asking => ids,
            ended = connection => panic!("the connection ended: {ended:?}"),
        }
    });
    let lines = lines(&path(&lab), 2);
    let said: Vec<_> = lines
        .iter()
        .map(|line| (line["path"].as_str().unwrap(), line["request_id"].as_str().unwrap()))
        .collect();
    assert_eq!(said, [("/one", &*ids[0]), ("/two?x", &*ids[1])]);
    for line in &lines {
        assert_eq!(
            (&line["protocol"], &line["host"], &line["status"]),
            (&json!("HTTP/2"), &json!("shop.test"), &json!(200))
        );
    }
}

#[test]
fn a_websocket_has_its_line_when_it_ends_and_is_rewritten_as_any_request() {
    let (tell, told) = mpsc::channel();
    let origin = Origin::scripted("blue", move |proxy| {
        let _ = tell.send(proxy.head()?);
        proxy.send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n",
        )?;
        proxy.bytes(5)?;
        proxy.send("welcome")?;
        while !proxy.is_closed() {}
        Ok(())
    });
    let settings =
        "request_headers = { set = { x-env = \"prod\" } }\nresponse_headers = { set = { x-out = \"1\" } }";
    let lab = logging_with(vec![origin], "", "[proxy]\nrequest_id = {}", settings);
    let mut client = lab.client();
    client.send(
        "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade, x-env\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("x-out")), (101, Some("1")));
    let seen = told.recv().unwrap();
    assert_eq!((seen.header("x-env"), seen.header("upgrade")), (Some("prod"), Some("websocket")));
    client.send("hello");
    assert_eq!(client.bytes(7), b"welcome");
    // Another request's line comes first: this one is not over.
    assert_eq!(lab.client().send("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").answer().status, 400);
    assert_eq!(only(&lab)["status"], 400);
    drop(client);
    let line = lines(&path(&lab), 2).remove(1);
    assert_eq!(
        (&line["status"], &line["path"], &line["version"]),
        (&json!(101), &json!("/chat"), &json!("blue"))
    );
    assert!(line["first_byte_us"].as_u64() >= line["connect_us"].as_u64(), "its 101 has come: {line}");
    assert_eq!((&line["request_bytes"], &line["response_bytes"]), (&json!(5), &json!(7)));
}
