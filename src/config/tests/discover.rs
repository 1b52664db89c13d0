//! `discover` of a version: where its endpoints are found, and what is wrong with how that is said.

use super::*;
use crate::table::{Source, VersionName};

#[test]
fn each_source_is_read_and_the_version_is_known_to_be_discovered() {
    let config = load_text(
        r#"listeners = [{ listen = "127.0.0.1:8080" }]
[services.shop]
routes = [{}]
stable = "blue"
versions.blue.discover = { dns = "shop.internal:9001" }
versions.green.discover = { srv = "_http._tcp.shop.internal" }
versions.red.discover = { file = "/run/red.json" }
versions.red.endpoints = ["127.0.0.1:9001"]
versions.white.endpoints = ["127.0.0.1:9002"]"#,
    );
    let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<VersionName>>();
    assert_eq!(config.services[0].discovering, names(&["blue", "green", "red"]));
    let sources: Vec<_> = config.discoveries.iter().map(|found| found.source.clone()).collect();
    let [Source::Dns { host, port: 9001 }, Source::Srv { name }, Source::File(path)] = &sources[..] else {
        panic!("{sources:?}")
    };
    assert_eq!((&**host, &**name), ("shop.internal", "_http._tcp.shop.internal"));
    assert_eq!(&**path, std::path::Path::new("/run/red.json"));
}

#[test]
fn what_is_wrong_with_discovery_is_said_at_once() {
    let said = check_text(
        r#"listeners = [{ listen = "127.0.0.1:8080" }]
[services.shop]
routes = [{}]
stable = "a"
versions.a.discover = "shop.internal"
versions.b.discover = {}
versions.c.discover = { dns = "a:1", file = "a.json" }
versions.d.discover = { dns = "10.0.0.1:80" }
versions.e.discover = { dns = "shop.internal" }
versions.f.discover = { srv = "_http._tcp.shop.internal:80" }
versions.g.discover = { file = "endpoints.yaml" }
versions.h.discover = { file = "" }
versions.i.discover = { dsn = "a:1" }
versions.j.endpoints = []"#,
    );
    insta::assert_snapshot!(said, @r#"
    switchback.toml:5:23: expected a table for `discover`, found the string "shop.internal"
    switchback.toml:6:23: `discover` is by exactly one of dns, srv and file
    hint: { dns = "shop.internal:8080" }, { srv = "_http._tcp.shop.internal" } or { file = "endpoints.json" }
    switchback.toml:7:23: `discover` is by exactly one of dns, srv and file
    hint: { dns = "shop.internal:8080" }, { srv = "_http._tcp.shop.internal" } or { file = "endpoints.json" }
    switchback.toml:8:31: expected a name and a port such as "shop.internal:8080", found the string "10.0.0.1:80"
    switchback.toml:9:31: expected a name and a port such as "shop.internal:8080", found the string "shop.internal"
    switchback.toml:10:31: expected the name of a service such as "_http._tcp.shop.internal", found the string "_http._tcp.shop.internal:80"
    switchback.toml:11:32: expected the path of a file that ends with .json or .toml, found the string "endpoints.yaml"
    switchback.toml:12:32: expected the path of a file that ends with .json or .toml, found an empty string
    switchback.toml:13:23: `discover` is by exactly one of dns, srv and file
    hint: { dns = "shop.internal:8080" }, { srv = "_http._tcp.shop.internal" } or { file = "endpoints.json" }
    switchback.toml:13:25: unknown key `dsn` in `discover`
    hint: did you mean `dns`?
    switchback.toml: 10 errors
    "#);
}
