//! What routes and versions change about requests and answers, and what routes answer by themselves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::io::Write;

use lab::origin::Then;
use lab::{Answer, Lab, Origin};
use serde_json::{Value, json};

/// `shop` with these routes, `settings` of the service, and versions with their own settings; the first is stable.
fn lab(extra: &str, routes: &str, settings: &str, versions: &[(&str, &str)]) -> Lab {
    let origins: Vec<_> = versions.iter().map(|(name, _)| Origin::start(name)).collect();
    lab_on(origins, extra, routes, settings, versions)
}

fn lab_on(origins: Vec<Origin>, extra: &str, routes: &str, settings: &str, versions: &[(&str, &str)]) -> Lab {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("page.html"), "<p>soon\n").unwrap();
    let text = config(&origins, extra, routes, settings, versions);
    Lab::configured(dir, origins, &text)
}

fn config(
    origins: &[Origin],
    extra: &str,
    routes: &str,
    settings: &str,
    versions: &[(&str, &str)],
) -> String {
    let stable = versions[0].0;
    let head = format!("{extra}\n[services.shop]\nroutes = [{routes}]\nstable = \"{stable}\"\n{settings}\n");
    versions.iter().zip(origins).fold(head, |text, ((name, own), origin)| {
        format!("{text}[services.shop.versions.{name}]\nendpoints = [\"{}\"]\n{own}\n", origin.address)
    })
}

fn values<'f>(fields: &'f [(String, String)], name: &str) -> Vec<&'f str> {
    fields.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_str()).collect()
}

fn ask(lab: &Lab, request: &str) -> Answer {
    lab.client().send(request).answer()
}

#[test]
fn fields_are_changed_by_the_service_then_the_route_then_the_version() {
    let lab = lab(
        "",
        "{ path = \"/\", request_headers = { set = { x-who = \"route\" }, add = { x-all = \"route\" } },
           response_headers = { add = { x-out = \"route %{service}\" } } }",
        "request_headers = { remove = [\"x-debug\"], set = { x-who = \"service\", x-all = \"service\" } }",
        &[(
            "blue",
            "request_headers = { add = { x-all = \"version %{version} of %{service} at %{epoch}\" } }
             response_headers = { remove = [\"x-version\"], add = { x-out = \"%{version} %{path}\" } }",
        )],
    );
    let answer =
        ask(&lab, "GET /a?b HTTP/1.1\r\nhost: s.test:81\r\nx-debug: 1\r\nX-Debug: 2\r\nx-all: me\r\n\r\n");
    let seen = lab.origins[0].only();
    assert_eq!(values(&seen.headers, "x-debug"), [""; 0]);
    assert_eq!(values(&seen.headers, "x-who"), ["route"]);
    assert_eq!(values(&seen.headers, "x-all"), ["service", "route", "version blue of shop at 1"]);
    assert_eq!(seen.header("host"), Some("s.test:81"));
    assert_eq!(values(&answer.headers, "x-out"), ["route shop", "blue /a"]);
    assert_eq!(answer.header("x-version"), None);
}

#[test]
fn a_client_cannot_take_away_what_is_set() {
    let lab = lab(
        "[proxy]\nrequest_id = {}",
        "{ request_headers = { set = { x-env = \"prod\" } } }",
        "",
        &[("blue", "")],
    );
    ask(
        &lab,
        "GET / HTTP/1.1\r\nhost: s.test\r\nconnection: keep-alive, X-Env, x-request-id, x-other\r\nx-other: 1\r\nx-env: dev\r\n\r\n",
    );
    let seen = lab.origins[0].only();
    assert_eq!(values(&seen.headers, "x-env"), ["prod"]);
    assert_eq!(values(&seen.headers, "x-request-id").len(), 1);
    assert_eq!(seen.header("x-other"), None);
    assert_eq!(seen.header("connection"), None);
}

#[test]
fn placeholders_are_filled_with_what_the_request_is() {
    let lab = lab(
        "",
        "{ path = \"/in/\", request_headers = { set = {
            x-one = \"%{client_addr} %{host} %{authority} %{scheme}\", x-two = \"%{path}|%{query}|%{rest}\",
            x-none = \"[%{request_id}]\" } } }",
        "",
        &[("blue", "")],
    );
    ask(&lab, "GET /in/a%2fb?c=d&e HTTP/1.1\r\nhost: S.test:81\r\n\r\n");
    let seen = lab.origins[0].only();
    assert_eq!(seen.header("x-one"), Some("127.0.0.1 S.test S.test:81 http"));
    assert_eq!(seen.header("x-two"), Some("/in/a%2fb|?c=d&e|a%2fb"));
    assert_eq!(seen.header("x-none"), Some("[]"));
}

#[test]
fn the_client_is_whom_trusted_proxies_name_and_services_may_say_so_in_their_own_way() {
    for (extra, client, forwarded_for, user) in [
        ("", "127.0.0.1", "127.0.0.1", None),
        ("trusted_proxies = [\"127.0.0.1\"]", "192.0.2.1", "192.0.2.1, 127.0.0.1", Some("root")),
    ] {
        let lab = lab(
            extra,
            "{ path = \"/api/\", strip_prefix = true, request_headers = {
                set = { x-real-ip = \"%{client_addr}\", x-forwarded-prefix = \"/api\" } } }",
            "response_headers = { set = { x-you = \"%{client_addr}\" } }",
            &[("blue", "")],
        );
        let answer = ask(
            &lab,
            "GET /api/ HTTP/1.1\r\nhost: s.test\r\nx-forwarded-for: 192.0.2.1\r\nx-real-ip: 6.6.6.6\r\n\
             x-forwarded-prefix: /no\r\nx-forwarded-user: root\r\nx-forwarded-ssl: on\r\n\r\n",
        );
        assert_eq!(answer.header("x-you"), Some(client));
        let seen = lab.origins[0].only();
        assert_eq!(values(&seen.headers, "x-real-ip"), [client]);
        assert_eq!(values(&seen.headers, "x-forwarded-prefix"), ["/api"]);
        assert_eq!(values(&seen.headers, "x-forwarded-for"), [forwarded_for]);
        assert_eq!(values(&seen.headers, "x-forwarded-host"), ["s.test"]);
        assert_eq!(values(&seen.headers, "x-forwarded-proto"), ["http"]);
        assert_eq!(seen.header("x-forwarded-user"), user);
    }
}

#[test]
fn what_a_service_does_to_the_id_of_its_answers_is_done() {
    let lab = lab(
        "[proxy]\nrequest_id = { answer = true }",
        "{ response_headers = { set = { x-request-id = \"mine\" } } }",
        "",
        &[("blue", "")],
    );
    assert_eq!(lab.get("/").header("x-request-id"), Some("mine"));
}

#[test]
fn a_prefix_is_stripped_or_replaced_and_the_query_is_kept() {
    let lab = lab(
        "",
        "{ path = \"/api/\", strip_prefix = true }, { path = \"/old\", replace_prefix = \"/v2/new\" }, { path = \"/\" }",
        "",
        &[("blue", "")],
    );
    for (asked, sent) in [
        ("/api/x?y=/api/", "/x?y=/api/"),
        ("/api/", "/"),
        ("/api//x", "//x"),
        ("/old", "/v2/new"),
        ("/old/a%20b?", "/v2/new/a%20b?"),
        ("/other/api/", "/other/api/"),
    ] {
        let answer = lab.get(asked);
        assert_eq!(answer.text(), format!("blue GET {sent} HTTP/1.1\n"), "{asked}");
    }
}

#[test]
fn the_host_is_rewritten_and_the_one_that_was_asked_for_is_told() {
    let lab = lab(
        "",
        "{ rewrite_host = \"internal.test:8080\" }",
        "",
        &[("blue", ""), ("green", "rewrite_host = \"@endpoint\"")],
    );
    lab.get("/");
    let blue = lab.origin("blue").only();
    assert_eq!(
        (blue.header("host"), blue.header("x-forwarded-host")),
        (Some("internal.test:8080"), Some("shop.test"))
    );
    lab.flip("green");
    lab.get("/");
    let green = lab.origin("green").only();
    let address = lab.origin("green").address.to_string();
    assert_eq!(
        (green.header("host"), green.header("x-forwarded-host")),
        (Some(&*address), Some("shop.test"))
    );
}

#[test]
fn a_body_passes_through_a_rewritten_request() {
    let lab = lab("", "{ path = \"/api/\", strip_prefix = true }", "", &[("blue", "")]);
    let mut client = lab.client();
    assert_eq!(client.post("/api/x", b"hello").status, 200);
    client
        .send("POST /api/y HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
        .answer();
    let seen = lab.origins[0].seen();
    assert_eq!((seen[0].path(), &seen[0].body[..]), ("/x", &b"hello"[..]));
    assert_eq!((seen[1].path(), &seen[1].body[..]), ("/y", &b"hi"[..]));
}

#[test]
fn a_route_redirects_without_asking_a_version() {
    let lab = lab(
        "",
        "{ path = \"/\", redirect = { to = \"https://%{host}%{path}%{query}\", status = 301 } },
         { path = \"/old/\", redirect = { to = \"/new/%{rest}%{query}\" }, response_headers = { set = { x-why = \"moved\" } } }",
        "",
        &[("blue", "")],
    );
    let answer = lab.get("/a%20b?c=d");
    assert_eq!((answer.status, answer.header("location")), (301, Some("https://shop.test/a%20b?c=d")));
    assert_eq!((answer.header("content-length"), answer.header("x-why")), (Some("0"), None));
    let answer = lab.get("/old/x?y");
    assert_eq!((answer.status, answer.header("location")), (308, Some("/new/x?y")));
    assert_eq!(answer.header("x-why"), Some("moved"));
    assert_eq!(lab.origins[0].served(), 0);
    assert_eq!(lab.metric(&["switchback_route_answers_total", "redirect"]), Some(2.0));
}

#[test]
fn explain_knows_that_no_version_is_asked() {
    let routes =
        "{ path = \"/\" }, { path = \"/old\", redirect = { to = \"/\" } }, { path = \"/off\", answer = {} }";
    let lab = lab("", routes, "", &[("blue", "")]);
    let reason = |path: &str| {
        let asked = json!({ "uri": format!("http://a{path}") });
        lab.call("POST", "/v1/explain", &asked).1
    };
    assert_eq!((&reason("/")["reason"], &reason("/")["version"]), (&json!("single"), &json!("blue")));
    assert_eq!((&reason("/old")["reason"], &reason("/old")["version"]), (&json!("redirect"), &Value::Null));
    assert_eq!(reason("/off")["reason"], "fixed");
    let (code, text, _) = lab.cli(&["explain", "http://a/old"]);
    assert!(
        code == 0 && text.contains("the route redirects by itself, no version is asked"),
        "{code}: {text}"
    );
}

#[test]
fn a_redirect_to_the_host_needs_one() {
    let lab = lab("", "{ redirect = { to = \"https://%{host}/\" } }", "", &[("blue", "")]);
    let answer = ask(&lab, "GET / HTTP/1.0\r\n\r\n");
    assert_eq!((answer.status, answer.header("switchback-reason")), (400, Some("bad_request")));
    assert_eq!(ask(&lab, "GET / HTTP/1.0\r\nhost: a:1\r\n\r\n").header("location"), Some("https://a/"));
}

#[test]
fn a_redirect_does_not_lead_where_a_client_wants() {
    let lab = lab("", "{ path = \"/old/\", redirect = { to = \"/%{rest}\" } }", "", &[("blue", "")]);
    for path in ["/old//evil.test/", "/old///evil.test/", "/old/\\evil.test/"] {
        let location = lab.get(path).header("location").map(str::to_owned);
        assert_eq!(location.as_deref(), Some("/evil.test/"), "{path}");
    }
}

#[test]
fn a_maintenance_page_is_answered_in_every_form() {
    let lab = lab(
        "",
        "{ path = \"/\", answer = { status = 503, file = \"page.html\" }, response_headers = { set = { retry-after = \"60\" } } },
         { path = \"/robots.txt\", answer = { body = \"User-agent: *\\n\" } }, { path = \"/gone\", answer = { status = 204 } }",
        "",
        &[("blue", "")],
    );
    let mut client = lab.client();
    let answer = client.get("/");
    assert_eq!((answer.status, answer.text().as_str()), (503, "<p>soon\n"));
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!((answer.header("retry-after"), answer.header("etag")), (Some("60"), None));
    let head = client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").head_answer();
    assert_eq!((head.status, head.header("content-length")), (503, Some("8")));
    assert_eq!(client.get("/gone").status, 204);

    let robots = client.get("/robots.txt");
    assert_eq!((robots.status, robots.text().as_str()), (200, "User-agent: *\n"));
    let tag = robots.header("etag").unwrap();
    let known = format!("GET /robots.txt HTTP/1.1\r\nhost: a\r\nif-none-match: {tag}\r\n\r\n");
    let same = client.send(known).answer();
    assert_eq!((same.status, same.header("etag")), (304, Some(tag)));
    // The connection is still in step.
    assert_eq!(client.get("/robots.txt").status, 200);
    assert_eq!(lab.origins[0].served(), 0);
}

#[test]
fn a_request_with_a_body_to_a_route_that_answers_by_itself_is_answered() {
    let lab = lab("", "{ answer = { status = 403, body = \"no\" } }", "", &[("blue", "")]);
    let answer = lab.client().post("/", &[b'x'; 4096]);
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    let mut slow = lab.client();
    let answer = slow.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nx").answer();
    assert_eq!((answer.status, answer.header("connection")), (403, Some("close")));
}

#[test]
fn an_error_page_takes_the_place_of_our_words_and_nothing_else() {
    let origins = vec![Origin::behaving("blue", |_, _| Ok(Then::Close))];
    let lab = lab_on(
        origins,
        "[proxy]\nerror_pages = [{ on = [404], body = \"{}\", content_type = \"application/json\" }, { on = [\"5xx\"], body = \"all\" }]",
        "{ path = \"/shop\", response_headers = { set = { x-cors = \"1\" } } }",
        "error_pages = [{ on = [\"upstream_closed\"], file = \"page.html\" }]",
        &[("blue", "")],
    );
    let answer = lab.get("/shop");
    assert_eq!((answer.status, answer.header("switchback-reason")), (502, Some("upstream_closed")));
    assert_eq!(
        (answer.text().as_str(), answer.header("content-type")),
        ("<p>soon\n", Some("text/html; charset=utf-8"))
    );
    assert_eq!(answer.header("x-cors"), Some("1"), "the route's edits are for every answer");
    let answer = lab.get("/else");
    assert_eq!((answer.status, answer.text().as_str()), (404, "{}"));
    assert_eq!(
        (answer.header("content-type"), answer.header("switchback-reason")),
        (Some("application/json"), Some("no_route"))
    );
    let bad = ask(&lab, "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n");
    assert_eq!(bad.header("switchback-reason"), Some("bad_request"), "no page is for it");
    // A version's own errors are the version's to word.
    let (origin, rest) = (
        Origin::behaving("blue", |_, stream| {
            stream.write_all(b"HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nmine")?;
            Ok(Then::Keep)
        }),
        "error_pages = [{ on = [503], body = \"ours\" }]",
    );
    let lab = lab_on(vec![origin], "", "{}", rest, &[("blue", "")]);
    assert_eq!(lab.get("/").text(), "mine");
}

#[test]
fn a_request_id_is_minted_or_taken_over_from_whom_it_may_be() {
    let routes = "{ request_headers = { set = { x-copy = \"%{request_id}\" } } }";
    let minting = lab("[proxy]\nrequest_id = { answer = true }", routes, "", &[("blue", "")]);
    let request = "GET / HTTP/1.1\r\nhost: a\r\nx-request-id: mine-1\r\n\r\n";
    let answer = ask(&minting, request);
    let seen = minting.origins[0].only();
    let id = answer.header("x-request-id").unwrap();
    assert!(
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "a stranger's is not taken: {id}"
    );
    assert_eq!((values(&seen.headers, "x-request-id"), seen.header("x-copy")), (vec![id], Some(id)));
    assert_ne!(ask(&minting, request).header("x-request-id"), Some(id));
    let refused = ask(&minting, "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n");
    assert_eq!((refused.status, refused.header("x-request-id").map(str::len)), (400, Some(32)));

    let taking =
        lab("[proxy]\nrequest_id = { accept = \"always\", answer = true }", "{}", "", &[("blue", "")]);
    assert_eq!(ask(&taking, request).header("x-request-id"), Some("mine-1"));
    for odd in ["x-request-id: a b\r\n", "x-request-id: a\r\nx-request-id: b\r\n", "x-request-id: \u{e4}\r\n"]
    {
        let answer = ask(&taking, &format!("GET / HTTP/1.1\r\nhost: a\r\n{odd}\r\n"));
        assert_eq!(answer.header("x-request-id").map(str::len), Some(32), "{odd}");
    }
}

#[test]
fn a_trace_is_passed_started_or_replaced() {
    let lab = lab("[proxy]\ntrace = { sampled = true }", "{}", "", &[("blue", "")]);
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let sent = |fields: &str| {
        ask(&lab, &format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n"));
        let seen = lab.origins[0].seen().pop().unwrap();
        (seen.header("traceparent").unwrap_or("").to_owned(), seen.header("tracestate").map(str::to_owned))
    };
    assert_eq!(
        sent(&format!("traceparent: {good}\r\ntracestate: a=1\r\n")),
        (good.to_owned(), Some("a=1".to_owned()))
    );
    let (started, state) = sent("");
    assert!(started.len() == 55 && started.ends_with("-01") && state.is_none(), "{started}");
    let (replaced, state) = sent("traceparent: 00-zz\r\ntracestate: a=1\r\n");
    assert!(replaced.len() == 55 && replaced != started && state.is_none(), "{replaced}");
}

#[test]
fn edits_hold_over_the_api_a_restart_and_a_reload() {
    let rule = "request_headers = { set = { x-env = \"%{version}\" } }";
    let versions = [("blue", rule), ("green", "")];
    let mut lab = lab("", "{ response_headers = { set = { x-route = \"1\" } } }", "", &versions);
    let extra = Origin::start("blue");
    let path = format!("/v1/services/shop/versions/blue/endpoints/{}", extra.address);
    assert_eq!(lab.call("PUT", &path, &Value::Null).0, 200);
    let env = |lab: &Lab| {
        // Either of the two endpoints of blue.
        let answer = lab.get("/");
        assert_eq!(answer.header("x-route"), Some("1"));
        let mut seen = [lab.origin("blue").seen(), extra.seen()].concat();
        seen.pop().unwrap().header("x-env").map(str::to_owned)
    };
    assert_eq!(env(&lab).as_deref(), Some("blue"));
    lab.kill_and_restart();
    let shop = lab.shop();
    assert!(shop.to_string().contains(&extra.address.to_string()), "the edit is still there: {shop}");
    for _ in 0..4 {
        lab.get("/");
    }
    let all = [lab.origin("blue").seen(), extra.seen()].concat();
    assert!(all.len() >= 5 && all.iter().all(|seen| seen.header("x-env") == Some("blue")));
    // A version of the API's own has none.
    let added = Origin::start("red");
    let (status, body) = lab.call(
        "PUT",
        "/v1/services/shop/versions/red",
        &json!({ "endpoints": [added.address.to_string()] }),
    );
    assert_eq!(status, 200, "{body}");
    lab.flip("red");
    assert_eq!(lab.get("/").header("x-route"), Some("1"));
    assert_eq!(added.only().header("x-env"), None);
    // A reload that changes nothing but a rule is in force.
    let mut events = lab.events();
    lab.write_config(&config(
        &lab.origins,
        "",
        "{ response_headers = { set = { x-route = \"2\" } } }",
        "",
        &versions,
    ));
    events.change();
    let answer = lab.get("/");
    assert_eq!((answer.header("x-route"), added.served()), (Some("2"), 2), "and the traffic is where it was");
}
