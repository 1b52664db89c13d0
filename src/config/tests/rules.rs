//! What routes and versions may say about their requests, and about their endpoints.

use super::*;

#[test]
fn a_rule_that_cannot_be_is_refused() {
    insta::assert_snapshot!(check_service(
        r#"
[services.shop]
request_headers = { set = { host = "a", X-Forwarded-For = "1", x-forwarded-port = "1", "a b" = "1", x-a = "%{hots}", x-b = " b" }, sett = {} }
response_headers = { remove = ["content-length", "Switchback-Reason", "via"], add = { x-a = 1, X-A = "2" } }
rewrite_host = "http://a"
error_pages = [{ on = ["no_rout", 200, "5xx"], file = "none.html" }, { on = [404], body = "a", file = "b" }, { body = "a" }]
routes = [
  { path = "/a", strip_prefix = true, replace_prefix = "/b" },
  { path = "/b", replace_prefix = "v2" },
  { path = "/c", redirect = { to = "https://a/", status = 305 }, answer = {} },
  { path = "/d", redirect = { status = 304 } },
  { path = "/e", answer = { status = 302 } },
  { path = "/f", answer = { status = 204, body = "a" } },
  { path = "/g", answer = { content_type = "html" } },
  { path = "/h", answer = { body = "a" }, strip_prefix = true },
  { path = "/i", answer = { body = "a", content_type = "html" } },
]
versions.v1 = { endpoints = ["a:1"], rewrite_host = "@endpoints", request_headers = { set = { te = "trailers" } } }
"#
    ), @r#"
    conf.d/a.toml:3:29: `host` of a request cannot be changed
    hint: use `rewrite_host = "internal.test"`, or "@endpoint" for the endpoint's own address
    conf.d/a.toml:3:41: `x-forwarded-for` of a request cannot be changed
    hint: the proxy says who is asking; `trusted_proxies` of a listener says whom it believes
    conf.d/a.toml:3:64: `x-forwarded-port` of a request cannot be changed
    hint: the proxy says who is asking; `trusted_proxies` of a listener says whom it believes
    conf.d/a.toml:3:88: `a b` is not a header name
    conf.d/a.toml:3:107: `%{hots}` is not known: expected one of client_addr, host, authority, scheme, path, query, rest, service, version, epoch, request_id
    conf.d/a.toml:3:124: ` b` is not a header value
    conf.d/a.toml:3:132: unknown key `sett` in header operations (remove, set, add)
    hint: did you mean `set`?
    conf.d/a.toml:4:32: `content-length` of an answer cannot be changed
    hint: it says where the body ends, which only the proxy knows
    conf.d/a.toml:4:50: `switchback-reason` of an answer cannot be changed
    hint: fields of that name are the proxy's own
    conf.d/a.toml:4:93: expected the header's value, such as "prod" or "%{client_addr}", found the integer 1
    conf.d/a.toml:5:16: expected a host such as "internal.test" or "internal.test:8080", or "@endpoint", found the string "http://a"
    conf.d/a.toml:6:24: `no_rout` is no error of the proxy's
    hint: did you mean `no_route`?
    conf.d/a.toml:6:35: `200` is no error of the proxy's
    hint: a status from 400 to 599, 4xx, 5xx, or a token of switchback-reason such as no_endpoint
    conf.d/a.toml:6:55: conf.d/none.html cannot be read: No such file or directory (os error 2)
    conf.d/a.toml:6:91: the body is given by `body` or by `file`, not by both
    conf.d/a.toml:6:110: an error page has no `on`
    hint: for example: on = [502, "5xx", "no_endpoint"]
    conf.d/a.toml:8:56: the prefix is stripped or replaced, not both: leave out `strip_prefix`
    conf.d/a.toml:9:35: path `v2` does not start with `/`
    conf.d/a.toml:10:75: a route has a `redirect` or an `answer`, not both
    conf.d/a.toml:11:29: a redirect has no `to`
    hint: for example: to = "https://%{host}%{path}%{query}"
    conf.d/a.toml:11:40: expected 301, 302, 303, 307 or 308, found the integer 304
    conf.d/a.toml:12:38: an answer is no redirect
    hint: use `redirect = { to = "https://…" }`
    conf.d/a.toml:13:27: an answer with status 204 has no body
    conf.d/a.toml:14:44: `content_type` is only of use with `body` or `file`
    conf.d/a.toml:15:3: a route that answers by itself sends no request on
    hint: leave out strip_prefix, replace_prefix, rewrite_host and request_headers
    conf.d/a.toml:16:56: expected a media type such as "text/html; charset=utf-8", found the string "html"
    conf.d/a.toml:18:53: expected a host such as "internal.test" or "internal.test:8080", or "@endpoint", found the string "@endpoints"
    conf.d/a.toml:18:95: `te` of a request cannot be changed
    hint: it belongs to one connection and is never passed on
    switchback.toml: 28 errors
    "#);
}

#[test]
fn a_redirect_whose_host_a_client_could_choose_is_refused() {
    let said = |to: &str| {
        let route =
            format!("routes = [{{ redirect = {{ to = \"{to}\" }} }}]\nversions.v1.endpoints = [\"a:1\"]");
        check_service(&format!("[services.shop]\n{route}"))
    };
    for good in [
        "/",
        "/new/%{rest}",
        "%{path}%{query}",
        "https://a.test",
        "https://a.test%{path}",
        "https://a.test?%{rest}",
        "https://a.test%{query}",
        "https://%{host}:8443%{path}%{query}",
        "http://%{authority}/%{rest}",
    ] {
        assert!(said(good).ends_with(": ok"), "{good}: {}", said(good));
    }
    for open in [
        "https://%{path}",
        "https://a.test%{rest}",
        "https://%{rest}/",
        "https://a.test%{query}%{rest}",
        "https:///a",
    ] {
        assert!(said(open).contains("the client could choose the host"), "{open}: {}", said(open));
    }
    for not_a_url in ["", "//a.test/", "a.test", "ftp://a", "%{rest}"] {
        assert!(
            said(not_a_url).contains("a redirect leads to https://…"),
            "{not_a_url}: {}",
            said(not_a_url)
        );
    }
    assert!(said("/a b").contains("` ` cannot stand in a URL"), "{}", said("/a b"));
    assert!(said("/%{nothing}").contains("`%{nothing}` is not known"));
}

#[test]
fn an_access_log_that_cannot_be_is_refused() {
    let main = "listeners = [{ listen = \"0.0.0.0:80\" }]\n";
    insta::assert_snapshot!(check_text(&format!(
        "{main}[access_log]\npath = \"a.log\"\nsample = \"101%\"\nerrors = 1\nheaders = [\"Cookie\", \"a b\"]
        [proxy]\nrequest_id = {{ accept = \"all\", answer = \"yes\" }}\ntrace = {{ sample = true }}"
    )), @r#"
    switchback.toml:3:8: `path` is only of use with a file
    hint: add target = "file"
    switchback.toml:4:10: expected a percentage such as "100%" or 0.25, found the string "101%"
    switchback.toml:5:10: expected true or false, found the integer 1
    switchback.toml:6:12: `cookie` carries secrets, which do not belong in a log
    switchback.toml:6:22: `a b` is not a header name
    switchback.toml:8:25: expected "trusted", "always" or "never", found the string "all"
    switchback.toml:8:41: expected true or false, found the string "yes"
    switchback.toml:9:11: unknown key `sample` in `trace`
    hint: did you mean `sampled`?
    switchback.toml: warning: there are no services: every request is answered 404
    switchback.toml: 8 errors
    "#);
    insta::assert_snapshot!(check_text(&format!("{main}access_log = {{ target = \"file\" }}")), @r#"
    switchback.toml:2:14: [access_log] has no `path`
    hint: for example: path = "access.log"
    switchback.toml: warning: there are no services: every request is answered 404
    switchback.toml: 1 error
    "#);
}

#[test]
fn tls_of_a_version_that_cannot_be_is_refused() {
    let with = |version: &str| {
        check_service(&format!("[services.shop]\nroutes = [{{}}]\n[services.shop.versions.blue]\n{version}"))
    };
    let said = [
        with("endpoints = [\"b:1\"]\ntls = {}"),
        with("endpoints = [\"b:1\"]\nprotocol = \"https\"\ntls = { sever_name = \"a b\", ca = \"nix.pem\" }"),
        with(
            "endpoints = [\"b:1\"]\nprotocol = \"https\"\ntls = { server_name = \"a b\", client_cert = \"x.pem\" }",
        ),
        with("endpoints = [\"unix:/run/a.sock\"]\nprotocol = \"https\""),
    ];
    insta::assert_snapshot!(said.join("\n--\n"), @r#"
    conf.d/a.toml:5:7: `tls` is of no use with protocol `http1`
    hint: use `https`, or `h2` for HTTP/2
    switchback.toml: 1 error
    --
    conf.d/a.toml:6:9: unknown key `sever_name` in `tls`
    hint: did you mean `server_name`?
    conf.d/a.toml:6:34: conf.d/nix.pem cannot be read: No such file or directory (os error 2)
    switchback.toml: 2 errors
    --
    conf.d/a.toml:6:23: expected a host name such as "shop.internal", or an address, found the string "a b"
    conf.d/a.toml:6:44: `client_cert` and `client_key` go together
    hint: client_cert = "proxy.pem", client_key = "proxy.key"
    switchback.toml: 2 errors
    --
    conf.d/a.toml:3:1: endpoint unix:/run/a.sock has no name that could be verified over TLS
    hint: say whose certificate it has: tls = { server_name = "…" }
    switchback.toml: 1 error
    "#);
}

#[test]
fn a_proxy_header_that_cannot_be_is_refused() {
    let with = |version: &str| {
        check_service(&format!("[services.shop]\nroutes = [{{}}]\n[services.shop.versions.blue]\n{version}"))
    };
    let said = with("endpoints = [\"b:1\"]\nprotocol = \"h2c\"\nproxy_protocol = \"v1\"");
    assert!(said.contains("a PROXY header cannot be sent with protocol `h2c`"), "{said}");
    let said = with("endpoints = [\"b:1\"]\nproxy_protocol = 2");
    assert!(said.contains("expected \"v1\" or \"v2\", found the integer 2"), "{said}");
}

#[test]
fn retries_that_cannot_be_are_refused() {
    insta::assert_snapshot!(check_service(
        r#"
[services.shop]
routes = [{}]
retries = { attempts = 11, on = ["connect", "gateway", 5], statuses = [200, 503], budget = "20", min_per_second = -1 }
versions.v1 = { endpoints = ["a:1"], retries = { per_try_timeout = "0s", hedge = 1 } }
"#
    ), @r#"
    conf.d/a.toml:4:24: expected a whole number from 0 to 10, found the integer 11
    conf.d/a.toml:4:45: `gateway` is no failure
    hint: failures are: connect, refused, reset, timeout, gateway_error
    conf.d/a.toml:4:56: expected a failure such as "connect", found the integer 5
    conf.d/a.toml:4:72: expected a whole number from 400 to 599, found the integer 200
    conf.d/a.toml:4:92: expected a share of the requests such as "20%", found the string "20"
    conf.d/a.toml:4:115: expected a whole number from 0 to 1000000, found the integer -1
    conf.d/a.toml:5:68: 0s is too short: at least 1ms
    conf.d/a.toml:5:74: unknown key `hedge` in `retries`
    hint: its keys are: attempts, on, statuses, budget, min_per_second, per_try_timeout
    switchback.toml: 8 errors
    "#);
}

#[test]
fn a_circuit_that_cannot_be_is_refused() {
    insta::assert_snapshot!(check_service(
        r#"
[services.shop]
routes = [{}]
stable = "v1"
hedge = { max = 9 }
circuit = { requests = 0, pending = "many", queue_timeout = "2m", request = 1 }
keepalive = { lifetime = "0s", requests = 0, idle = 5 }
versions.v1 = { endpoints = ["a:1"], hedge = true }
versions.v2 = { endpoints = ["a:1"], hedge = false, circuit = { connections = -1 } }
"#
    ), @r#"
    conf.d/a.toml:5:9: `hedge` has no `after`
    hint: for example: after = "50ms"
    conf.d/a.toml:5:17: expected a whole number from 1 to 5, found the integer 9
    conf.d/a.toml:6:24: expected a whole number from 1 to 10000000, found the integer 0
    conf.d/a.toml:6:37: expected a whole number from 0 to 10000000, found the string "many"
    conf.d/a.toml:6:61: 2m is too long: at most 1m
    conf.d/a.toml:6:67: unknown key `request` in `circuit`
    hint: did you mean `requests`?
    conf.d/a.toml:7:26: 0s is too short: at least 1ms
    conf.d/a.toml:7:43: expected a whole number from 1 to 10000000, found the integer 0
    conf.d/a.toml:7:53: expected a duration such as "500ms", "30s", "5m" or "1h", found the integer 5
    conf.d/a.toml:8:46: expected `hedge = { after = "50ms" }`, or false, found true
    conf.d/a.toml:9:79: expected a whole number from 1 to 10000000, found the integer -1
    switchback.toml: 11 errors
    "#);
}

#[test]
fn a_version_says_of_its_pool_what_is_different_from_the_services() {
    let config = load_text(
        r#"
listeners = [{ listen = "127.0.0.1:8080" }]
[services.shop]
routes = [{}]
stable = "v1"
retries = { attempts = 3, statuses = [503] }
versions.v1 = { endpoints = ["a:1"] }
versions.v2 = { endpoints = ["a:1"], retries = { attempts = 0 } }
"#,
    );
    let service = &config.services[0];
    let retries = |index: usize| {
        let version: &crate::table::VersionSpec = &service.versions[index];
        let rules = &version.pool.as_ref().unwrap_or(&service.pool).retries;
        (rules.attempts, rules.statuses.clone(), rules.min_per_second)
    };
    assert_eq!([retries(0), retries(1)], [(3, vec![503], 10), (0, vec![503], 10)]);
    assert!(service.versions[0].pool.is_none(), "as the service's");
}

#[test]
fn a_drain_that_cannot_be_is_refused() {
    insta::assert_snapshot!(check_service(
        r#"
[services.shop]
routes = [{ path = "/" }]
drain = { patience = "30s", spread = "60s", deadline = "1m", retry = "0s", patients = 1 }
versions.v1 = { endpoints = ["a:1"] }
[services.cart]
routes = [{ path = "/cart" }]
drain = { patience = "10s", spread = "20s", deadline = "20s" }
versions.v1 = { endpoints = ["a:1"] }
"#
    ));
}
