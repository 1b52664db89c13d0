//! Who is believed, and what everything is bounded by.

use super::*;

/// What is said about a file with these lines and a service.
fn said(lines: &str) -> String {
    check_text(&format!("{lines}\n[services.a]\nroutes = [{{}}]\nversions.v.endpoints = [\"a:1\"]\n"))
}

const LISTENER: &str = "[[listeners]]\nlisten = \"0.0.0.0:80\"\n";

#[test]
fn somebody_has_to_be_believed_who_may_introduce_others() {
    insta::assert_snapshot!(said(&format!("{LISTENER}proxy_protocol = true")), @r#"
    switchback.toml:3:18: `proxy_protocol` believes whoever connects, and nobody is trusted
    hint: name the proxies in front: trusted_proxies = ["10.0.0.0/8"]
    switchback.toml: 1 error
    "#);
    let unix = "[[listeners]]\nlisten = \"unix:/run/a.sock\"\nproxy_protocol = true";
    insta::assert_snapshot!(said(unix), @"switchback.toml: 1 service, 1 version, 1 listener: ok");
}

#[test]
fn an_address_is_taken_by_the_one_that_takes_both_families() {
    insta::assert_snapshot!(said("[[listeners]]\nlisten = \"[::]:80\"\n[[listeners]]\nlisten = \"127.0.0.1:80\""), @r"
    switchback.toml:4:10: 127.0.0.1:80 is already listened on by [::]:80: switchback.toml:2:10
    hint: [::] takes IPv4 too, and either takes all addresses: name them one by one, or leave one out
    switchback.toml: 1 error
    ");
}

/// As the kernel has it, whichever comes first.
#[test]
fn listeners_overlap_in_every_order() {
    let overlap = [
        ("[::]:80", "0.0.0.0:80"),
        ("[::]:80", "127.0.0.1:80"),
        ("[::]:80", "[::1]:80"),
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
    ];
    let apart = [("0.0.0.0:80", "[::1]:80"), ("127.0.0.1:80", "127.0.0.2:80"), ("[::]:80", "0.0.0.0:81")];
    let both = |(one, other)| [(one, other), (other, one)];
    let check = |(first, second)| {
        said(&format!("[[listeners]]\nlisten = \"{first}\"\n[metrics]\nlisten = \"{second}\"\n"))
    };
    for pair in overlap.into_iter().flat_map(both) {
        let said = check(pair);
        let (first, second) = pair;
        assert!(said.contains(&format!("4:10: {second} is already listened on by {first}: ")), "{said}");
    }
    for pair in apart.into_iter().flat_map(both) {
        assert!(check(pair).ends_with(": ok"), "{pair:?}: {}", check(pair));
    }
}

#[test]
fn ipv4_in_ipv6s_form_is_ipv4() {
    let text = format!(
        "{LISTENER}trusted_proxies = [\"::ffff:10.0.0.0/104\", \"::ffff:1.2.3.4\", \"fd00::/8\", \"::/0\"]"
    );
    let config =
        load_text(&format!("{text}\n[services.a]\nroutes = [{{}}]\nversions.v.endpoints = [\"a:1\"]"));
    let nets: Vec<_> = config.listeners[0].trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["10.0.0.0/8", "1.2.3.4/32", "fd00::/8", "::/0"]);
}

#[test]
fn underscores_are_dealt_with_in_one_of_three_ways() {
    insta::assert_snapshot!(said(&format!("{LISTENER}[proxy]\nunderscores_in_headers = \"off\"\nforwarded = 1")), @r#"
    switchback.toml:4:26: expected "drop", "allow" or "reject", found the string "off"
    switchback.toml:5:13: expected true or false, found the integer 1
    switchback.toml: 2 errors
    "#);
}

#[test]
fn name_servers_are_addresses_with_or_without_a_port() {
    let servers = |list: &str| {
        load_text(&format!(
            "{LISTENER}[proxy]\nname_servers = {list}\n[services.a]\nroutes = [{{}}]\nversions.v.endpoints = [\"a:1\"]"
        ))
        .proxy
        .name_servers
    };
    let expected = ["10.0.0.53:53", "127.0.0.1:8600", "[::1]:53"].map(|server| server.parse().unwrap());
    assert_eq!(servers("[\"10.0.0.53\", \"127.0.0.1:8600\", \"::1\"]"), expected);
    insta::assert_snapshot!(said(&format!("{LISTENER}[proxy]\nname_servers = [\"ns.internal\"]")), @r#"
    switchback.toml:4:17: expected an address such as "10.0.0.53" or "127.0.0.1:8600", found the string "ns.internal"
    switchback.toml: 1 error
    "#);
}
