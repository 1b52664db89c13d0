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
    hint: its keys are: listeners, admin, metrics, state, limits, shutdown, upgrade, proxy, access_log, webhooks, services
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
    hint: its keys are: listeners, admin, metrics, state, limits, shutdown, upgrade, proxy, access_log, webhooks, services
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
