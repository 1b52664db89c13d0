//! What may be said about pools and their endpoints.

use super::*;
use crate::table::{Balance, HashKey, Hashing, Policy, SlowStart, Warmup};

#[test]
fn what_cannot_be_said_about_a_pool_is_refused() {
    insta::assert_snapshot!(check_service(
        r#"
[services.shop]
routes = [{}]
stable = "v1"
balance = "leastconn"
panic_threshold = "101%"
zone_preference = "yes"
slow_start = { curve = 0, floor = 0 }
warmup = { connections = 65, duration = "0s" }
versions.v1.endpoints = [{ weight = 0 }, { address = "b:1", weight = 1001, zone = "a b", wait = 1 }, "b:1", "b:1"]
versions.v2 = { endpoints = ["a:1"], balance = "hash", slow_start = "0s" }
versions.v3 = { endpoints = ["a:1"], balance = { policy = "hash" } }
versions.v4 = { endpoints = ["a:1"], balance = { policy = "hash", key = { header = "a b" }, bound = 0.99 } }
versions.v5 = { endpoints = ["a:1"], balance = { policy = "hash", key = { client = false, path = true } } }
versions.v6 = { endpoints = ["a:1"], balance = { policy = "hash", key = { client = false }, bound = 1.255 } }
versions.v7 = { endpoints = ["a:1"], balance = { policy = "p2c", decay = "1s" } }
versions.v8 = { endpoints = ["a:1"], balance = { policy = "ewma", decay = "0s" } }
"#
    ), @r#"
    conf.d/a.toml:5:11: `leastconn` is no way to choose endpoints
    hint: there are: p2c, round_robin, random, hash, ewma
    conf.d/a.toml:6:19: expected a percentage such as "10%", found the string "101%"
    conf.d/a.toml:7:19: expected true or false, found the string "yes"
    conf.d/a.toml:8:14: `slow_start` has no `duration`
    hint: for example: duration = "30s"
    conf.d/a.toml:8:24: expected a number from 0.1 to 10 such as 1.0, found the integer 0
    conf.d/a.toml:8:35: expected a percentage above 0 such as "10%", found the integer 0
    conf.d/a.toml:9:26: expected a whole number from 1 to 64, found the integer 65
    conf.d/a.toml:9:41: 0s is too short: at least 1ms
    conf.d/a.toml:10:26: an endpoint has no `address`
    hint: for example: address = "127.0.0.1:9001"
    conf.d/a.toml:10:37: an endpoint's weight is at least 1: drain one that shall get nothing
    conf.d/a.toml:10:70: weight 1001 of an endpoint is over 1000
    conf.d/a.toml:10:83: `a b` is not a zone name: 1 to 63 of a-z A-Z 0-9 - _ . and first a letter or digit
    conf.d/a.toml:10:90: unknown key `wait` in an endpoint
    hint: its keys are: address, weight, zone
    conf.d/a.toml:10:109: endpoint b:1 is listed twice
    conf.d/a.toml:11:48: `hash` has no `key`
    hint: for example: balance = { policy = "hash", key = { header = "x-user" } }
    conf.d/a.toml:11:69: 0s is too short: at least 1ms
    conf.d/a.toml:12:48: `balance` has no `key`
    hint: for example: key = { header = "x-user" }
    conf.d/a.toml:13:84: expected the name of a header such as "x-user", found the string "a b"
    conf.d/a.toml:13:101: expected a factor from 1 to 100 such as 1.25, or "none", found the number 0.99
    conf.d/a.toml:14:73: `key` says what is hashed: one of header, cookie, client, path
    hint: for example: key = { header = "x-user" }
    conf.d/a.toml:15:84: expected true, found false
    conf.d/a.toml:15:101: expected a factor from 1 to 100 such as 1.25, or "none", found the number 1.255
    conf.d/a.toml:16:66: unknown key `decay` in `balance`
    hint: its keys are: policy
    conf.d/a.toml:17:75: 0s is too short: at least 1ms
    switchback.toml: 24 errors
    "#);
}

const LISTENER: &str = "[[listeners]]\nlisten = \"0.0.0.0:80\"\n";

/// How the pool of a version `v1` is worked, with this said by its service and by itself.
fn balance(service: &str, version: &str) -> Balance {
    let text = format!(
        "[services.shop]\nroutes = [{{}}]\n{service}\n[services.shop.versions.v1]\nendpoints = [\"a:1\"]\n{version}"
    );
    let config = load_text(&format!("{LISTENER}{text}"));
    let shop = &config.services[0];
    shop.versions[0].pool.as_ref().unwrap_or(&shop.pool).balance.clone()
}

#[test]
fn a_version_goes_by_its_service_where_it_says_nothing() {
    assert_eq!(balance("", ""), Balance::default());
    let service = "balance = \"random\"\nslow_start = \"30s\"";
    let both = balance(service, "balance = { policy = \"ewma\" }");
    assert_eq!(both.policy, Policy::Ewma { decay: Policy::DECAY });
    assert_eq!(both.slow_start, Some(SlowStart::over(Duration::from_secs(30))));
    assert_eq!(balance(service, "").policy, Policy::Random);
}

#[test]
fn a_hash_is_read_with_what_belongs_to_it() {
    let hashing = |text: &str| match balance(&format!("balance = {{ policy = \"hash\", {text} }}"), "").policy
    {
        Policy::Hash(hashing) => hashing,
        other => unreachable!("{other:?}"),
    };
    let expected = |key, bound| Hashing { key, bound };
    assert_eq!(
        hashing("key = { header = \"X-User\" }"),
        expected(HashKey::Header("x-user".into()), Some(125))
    );
    assert_eq!(
        hashing("key = { cookie = \"Id\" }, bound = 2"),
        expected(HashKey::Cookie("Id".into()), Some(200))
    );
    assert_eq!(hashing("key = { client = true }, bound = \"none\""), expected(HashKey::Client, None));
    assert_eq!(hashing("key = { path = true }, bound = 1.5"), expected(HashKey::Path, Some(150)));
}

#[test]
fn warmup_and_slow_start_have_defaults() {
    let text = "[services.a]\nroutes = [{}]\nwarmup = {}\nslow_start = { duration = \"1m\", curve = 0.5, floor = \"2.5%\" }
        versions.v.endpoints = [\"a:1\"]";
    let config = load_text(&format!("{LISTENER}{text}"));
    let pool = &config.services[0].pool;
    assert_eq!(pool.warmup, Some(Warmup::default()));
    let slow_start = pool.balance.slow_start.unwrap();
    assert_eq!((slow_start.curve, slow_start.floor.points()), (50, 250));
}
