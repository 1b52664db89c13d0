//! Files that are refused, and what is said about them.

use super::*;

const MANY_ERRORS: &str = r#"
workers = 4
[[listeners]]
lisen = "0.0.0.0:80"
[[listeners]]
listen = "localhost:80"
[[listeners]]
listen = "0.0.0.0:81"
trusted_proxies = ["10.0.0.0/33", 5]
[[listeners]]
listen = "0.0.0.0:81"
[metrics]
listen = "0.0.0.0:81"
[admin]
socket = ""
[state]
history = 0
[limits]
idle = 60
head = "0s"
head_bytes = 100
pool_idle = "1 minute"
pool_size = -1
[shutdown]
deadline = "2y"
[proxy]
epoch_header = "yes"
via = "a b"
[services.shop]
routes = [{ host = "shop.example.com:80", path = "shop" }, { pth = "/" }, "/x"]
weights = { blue = 90, green = 9, gren = 1 }
timeouts = { connect = "0s", respond = "1s" }
[services.shop.versions.blue]
endpoints = ["127.0.0.1", "127.0.0.1:9001", "127.0.0.1:9001"]
protocol = "h3"
[services.shop.versions.green]
endpoint = ["127.0.0.1:9101"]
[services.cart]
"#;

#[test]
fn all_errors_are_told_at_once() {
    insta::assert_snapshot!(check_text(MANY_ERRORS), @r#"
    switchback.toml:2:1: unknown key `workers` in the file
    hint: its keys are: listeners, admin, metrics, state, limits, shutdown, proxy, access_log, services
    switchback.toml:3:1: a listener has no `listen`
    hint: for example: listen = "0.0.0.0:8080"
    switchback.toml:4:1: unknown key `lisen` in a listener
    hint: did you mean `listen`?
    switchback.toml:6:10: `localhost:80` is not an address to listen on: expected ip:port, [v6]:port or unix:/path
    switchback.toml:9:20: expected a network such as "10.0.0.0/8" or "fd00::/8", found the string "10.0.0.0/33"
    switchback.toml:9:35: expected a network such as "10.0.0.0/8" or "fd00::/8", found the integer 5
    switchback.toml:11:10: 0.0.0.0:81 is already listened on: switchback.toml:8:10
    switchback.toml:13:10: 0.0.0.0:81 is already listened on: switchback.toml:8:10
    switchback.toml:15:10: expected the path of a Unix socket, found an empty string
    switchback.toml:17:11: expected a whole number from 1 to 100000000, found the integer 0
    switchback.toml:19:8: expected a duration such as "500ms", "30s", "5m" or "1h", found the integer 60
    switchback.toml:20:8: 0s is too short: at least 1ms
    switchback.toml:21:14: expected a whole number from 8192 to 1048576, found the integer 100
    switchback.toml:22:13: `1 minute` is not a duration: expected a whole number and a unit, such as 500ms, 30s, 5m or 1h
    switchback.toml:23:13: expected a whole number from 0 to 1000000, found the integer -1
    switchback.toml:25:12: `2y` is not a duration: expected a whole number and a unit, such as 500ms, 30s, 5m or 1h
    switchback.toml:27:16: expected true or false, found the string "yes"
    switchback.toml:28:7: expected a name of letters, digits and - . _ :, found the string "a b"
    switchback.toml:30:20: `shop.example.com:80` is not a host: expected a name such as shop.example.com, or *.example.com, without port or path
    switchback.toml:30:50: path `shop` does not start with `/`
    switchback.toml:30:62: unknown key `pth` in a route
    hint: did you mean `path`?
    switchback.toml:30:75: expected a table for a route, found the string "/x"
    switchback.toml:31:35: service `shop` has no version `gren`
    hint: did you mean `green`?
    switchback.toml:32:24: 0s is too short: at least 1ms
    switchback.toml:32:30: unknown key `respond` in `timeouts`
    hint: did you mean `response`?
    switchback.toml:34:14: `127.0.0.1` is not an endpoint: expected host:port, [v6]:port or unix:/path
    switchback.toml:34:45: endpoint 127.0.0.1:9001 is listed twice
    switchback.toml:35:12: `h3` is not a protocol
    hint: did you mean `h2`?
    switchback.toml:36:1: version `green` of service `shop` has no `endpoints`
    hint: for example: endpoints = ["127.0.0.1:9001"]
    switchback.toml:37:1: unknown key `endpoint` in version `green` of service `shop`
    hint: did you mean `endpoints`?
    switchback.toml:38:1: service `cart` has no `routes`
    hint: for example: routes = [{ host = "shop.example.com", path = "/" }]
    switchback.toml:38:1: service `cart` has no `versions`
    hint: for example: versions.blue.endpoints = ["127.0.0.1:9001"]
    switchback.toml: 32 errors
    "#);
}

#[test]
fn a_split_that_cannot_be_is_refused() {
    let with = |split: &str| {
        check_service(&format!(
            "[services.shop]\nroutes = [{{}}]\n{split}
            versions.blue.endpoints = [\"b:1\"]\nversions.green.endpoints = []"
        ))
    };
    insta::assert_snapshot!(with(""), @r#"
    conf.d/a.toml:1:1: service `shop` has 2 versions and does not say which one carries it
    hint: stable = "blue", or weights = { blue = 90, green = 10 }
    switchback.toml: 1 error
    "#);
    insta::assert_snapshot!(with("stable = \"bleu\""), @r#"
    conf.d/a.toml:3:10: service `shop` has no version `bleu`
    hint: did you mean `blue`?
    switchback.toml: 1 error
    "#);
    insta::assert_snapshot!(with("stable = \"green\""), @r#"
    conf.d/a.toml:5:28: version `green` of service `shop` has a weight of 100 % and no endpoints
    switchback.toml: 1 error
    "#);
    insta::assert_snapshot!(with("stable = \"green\"\nweights = { blue = 100 }"), @r#"
    conf.d/a.toml:4:11: stable `green` of service `shop` has no weight
    hint: give it weight, or name a version that has it as `stable`
    switchback.toml: 1 error
    "#);
    insta::assert_snapshot!(with("weights = { blue = 90, green = 9 }"), @r#"
    conf.d/a.toml:3:11: weights of service `shop` sum to 99.00 %, not 100 %
    switchback.toml: 1 error
    "#);
    insta::assert_snapshot!(with("weights = { blue = 90, green = 10 }"), @r#"
    conf.d/a.toml:5:28: version `green` of service `shop` has a weight of 10 % and no endpoints
    switchback.toml: 1 error
    "#);
    insta::assert_snapshot!(with("weights = { blue = 101, green = 0.001, red = -1 }"), @r#"
    conf.d/a.toml:3:20: `101` is not a weight: expected a percentage from 0 to 100 with at most two decimals, such as 5, 0.25 or 5%
    conf.d/a.toml:3:33: `0.001` is not a weight: expected a percentage from 0 to 100 with at most two decimals, such as 5, 0.25 or 5%
    conf.d/a.toml:3:40: service `shop` has no version `red`
    hint: its versions are: blue, green
    conf.d/a.toml:3:46: `-1` is not a weight: expected a percentage from 0 to 100 with at most two decimals, such as 5, 0.25 or 5%
    switchback.toml: 4 errors
    "#);
    insta::assert_snapshot!(with("weights = [90, 10]"), @r#"
    conf.d/a.toml:3:11: expected a table for weights, such as { blue = 90, green = 10 }, found a list
    switchback.toml: 1 error
    "#);
    insta::assert_snapshot!(with("weights = {}"), @r#"
    conf.d/a.toml:3:11: weights of service `shop` sum to 0.00 %, not 100 %
    switchback.toml: 1 error
    "#);
}

#[test]
fn a_route_belongs_to_one_service() {
    insta::assert_snapshot!(check_service(r#"
[services.shop]
routes = [{ host = "Shop.example.com" }, { path = "/" }, { path = "/a", headers = { X-Beta = "1", x-a = "2" } }]
versions.v1.endpoints = ["a:1"]
[services.cart]
routes = [
  { path = "/a", headers = { x-a = "2", x-beta = "1" } },
  { host = "shop.example.com.", path = "/" },
  { path = "/b" },
  { path = "/b" },
]
versions.v1.endpoints = ["a:1"]
"#), @r#"
    conf.d/a.toml:7:3: route */a [x-a: 2] [x-beta: 1] already leads to service `shop`: conf.d/a.toml:3:58
    conf.d/a.toml:8:3: route shop.example.com/ already leads to service `shop`: conf.d/a.toml:3:11
    conf.d/a.toml:10:3: route */b already leads to service `cart`: conf.d/a.toml:9:3
    switchback.toml: 3 errors
    "#);
}

#[test]
fn a_route_is_what_a_request_can_be() {
    insta::assert_snapshot!(check_service(r#"
[services.shop]
routes = [{ path = "/a?b" }, { path = "/a b" }, { headers = { "a b" = "1", x = " 1", y = 1 } },
  { headers = { x-a = "1", X-A = "1" } }, { host = "" }]
versions.v1.endpoints = ["a:1"]
"#), @r#"
    conf.d/a.toml:3:20: path `/a?b` has a query or a fragment: routes are by path only
    conf.d/a.toml:3:39: path `/a b` has a space or control character, which no request has: write it as it is sent, such as %20
    conf.d/a.toml:3:63: `a b` is not a header name
    conf.d/a.toml:3:80: ` 1` is not a header value
    conf.d/a.toml:3:90: expected the header's value, such as "1", found the integer 1
    conf.d/a.toml:4:15: header `x-a` is named twice: names differ in more than case
    conf.d/a.toml:4:52: `` is not a host: expected a name such as shop.example.com, or *.example.com, without port or path
    switchback.toml: 7 errors
    "#);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    insta::assert_snapshot!(Files::of(&[]).check(), @r#"
    switchback.toml: cannot be read: No such file or directory (os error 2)
    switchback.toml: 1 error
    "#);
    let files = Files::of(&[]);
    files.write("switchback.toml", b"# \xc3\xa4\n# \xc3\xa4\xff");
    insta::assert_snapshot!(files.check(), @r#"
    switchback.toml:2:4: this is not UTF-8 text
    switchback.toml: 1 error
    "#);
}

#[test]
fn a_syntax_error_hides_no_other_error() {
    insta::assert_snapshot!(check_text(r#"
[[listeners]]
listen = 0.0.0.0:80
[limits]
idle = "60s
head = "ten"
[services.shop]
routes = [{ path = "/" }]
stable = blue
[services.shop.versions.blue]
endpoints = ["a:1"]
[services.shop.versions.blue]
endpoints = ["a"]
[services.cart
routes = [{}]
versions.blue.endpoints = [
  { host = "a", port = 1,
[proxy]
via = "x"
[state]
"#), @r#"
    switchback.toml:3:13: invalid float
    hint: text has to be in quotes
    switchback.toml:5:12: invalid basic string, expected `"`
    switchback.toml:6:8: `ten` is not a duration: expected a whole number and a unit, such as 500ms, 30s, 5m or 1h
    switchback.toml:9:10: string values must be quoted, expected literal string
    switchback.toml:12:25: duplicate key
    switchback.toml:13:1: duplicate key
    switchback.toml:14:15: unclosed table, expected `]`
    switchback.toml:18:1: missing key for inline table element, expected key
    switchback.toml:19:1: unknown key `via` in the file
    hint: its keys are: listeners, admin, metrics, state, limits, shutdown, proxy, access_log, services
    switchback.toml: 9 errors
    "#);
}

#[test]
fn a_socket_path_that_the_kernel_would_refuse_is_refused() {
    let long = "x".repeat(108);
    let text = format!("admin.socket = \"/{long}\"\nlisteners = [{{ listen = \"unix:/{long}\" }}]");
    let said = check_text(&text);
    assert_eq!(
        said.matches("a path of 109 bytes is too long for a Unix socket: at most 107").count(),
        2,
        "{said}"
    );
}

#[test]
fn a_rule_that_cannot_be_is_refused() {
    insta::assert_snapshot!(check_service(
        r#"
[services.shop]
request_headers = { set = { host = "a", X-Forwarded-For = "1", "a b" = "1", x-a = "%{hots}", x-b = " b" }, sett = {} }
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
    conf.d/a.toml:3:64: `a b` is not a header name
    conf.d/a.toml:3:83: `%{hots}` is not known: expected one of client_addr, host, authority, scheme, path, query, rest, service, version, epoch, request_id
    conf.d/a.toml:3:100: ` b` is not a header value
    conf.d/a.toml:3:108: unknown key `sett` in header operations (remove, set, add)
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
    switchback.toml: 27 errors
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
