//! `[admin]`: who works the switch from elsewhere, and what is wrong with how that is said.

use std::os::unix::fs::PermissionsExt;

use super::*;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// With the listener and a service that every file needs.
fn with(admin: &str) -> String {
    format!(
        "[admin]\nsocket = \"admin.sock\"\n{admin}\n[[listeners]]\nlisten = \"127.0.0.1:8080\"\n[services.shop]\nroutes = [{{}}]\nversions.blue.endpoints = [\"127.0.0.1:9001\"]\n"
    )
}

fn files(admin: &str) -> Files {
    let files = Files::of(&[("switchback.toml", &with(admin)), ("ci.token", &format!("{TOKEN}\n"))]);
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(files.0.path().join("ci.token"), mode).unwrap();
    files
}

#[test]
fn a_token_is_known_by_its_sum_wherever_it_stands() {
    let sum = "aeb98e7aba3a17a1ec9fd7a3d1ce4ee7f2ca3a2bd1bb6e72ee2e2a5e8b3d5c80";
    let admin = format!(
        "listen = \"127.0.0.1:9901\"\n[[admin.tokens]]\nname = \"shop-ci\"\nscopes = [\"read\", \"operate:shop-*\"]\nfile = \"ci.token\"
        [[admin.tokens]]\nname = \"root\"\nscopes = [\"admin\"]\nsha256 = \"{sum}\""
    );
    let files = files(&admin);
    let config = files.load().unwrap();
    assert_eq!(config.warnings, []);
    let remote = config.admin.remote.unwrap();
    let [ci, root] = &remote.known[..] else { panic!("two tokens") };
    assert_eq!(
        (ci.name.as_str(), ci.scopes.read_all(), ci.scopes.operate("shop-eu")),
        ("shop-ci", true, true)
    );
    assert!(!ci.scopes.operate("cart") && root.scopes.are_all());
    let Proof::Token(sum) = &ci.proof else { panic!("a token") };
    assert_eq!(*sum, *aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, TOKEN.as_bytes()).as_ref());
    assert_eq!(named_files(&files.path()), [files.0.path().join("ci.token")], "it is watched");
    // Whoever reads a dump of the configuration has no token.
    assert!(!format!("{remote:?}").contains(TOKEN));
}

#[test]
fn nobody_listens_unless_that_is_said() {
    assert_eq!(files("").load().unwrap().admin.remote, None);
}

#[test]
fn a_token_that_others_can_read_is_warned_of() {
    let files = files(
        "listen = \"127.0.0.1:9901\"\ntokens = [{ name = \"ci\", scopes = [\"read\"], file = \"ci.token\" }]",
    );
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(files.0.path().join("ci.token"), mode).unwrap();
    let said = files.check();
    assert!(said.contains("can be read by others (mode 0640): `chmod 600` it"), "{said}");
    assert!(said.ends_with("ok, 1 warning"), "{said}");
}

#[test]
fn what_is_wrong_with_tokens_is_said_at_once_and_none_is_shown() {
    let said = files(
        r#"listen = "127.0.0.1:9901"
tokens = [
    { },
    { name = "a b", scopes = [], file = "none.token" },
    { name = "a", scopes = ["write", "operate:", "operate:sh op"], sha256 = "0123456789abcdef0123456789abcdef" },
    { name = "b", scopes = ["read"], file = "ci.token", sha256 = "x" },
    { name = "c", scopes = ["read"], file = "ci.token" },
    { name = "c", scopes = ["read"], sha256 = "aeb98e7aba3a17a1ec9fd7a3d1ce4ee7f2ca3a2bd1bb6e72ee2e2a5e8b3d5c80" },
    { name = "d", scopes = ["read"], file = "ci.token" },
    { name = "e", scopes = ["read"], file = "switchback.toml" },
]"#,
    )
    .check();
    insta::assert_snapshot!(said, @r##"
    switchback.toml:5:5: a token has no `name`
    hint: for example: name = "shop-ci"
    switchback.toml:5:5: a token has no `scopes`
    hint: for example: scopes = ["read", "operate:shop-*"]
    switchback.toml:5:5: a token has neither `file` nor `sha256`
    hint: file = "shop-ci.token", or the SHA-256 of it, sha256 = "…"; `openssl rand -hex 32 > shop-ci.token` makes one
    switchback.toml:6:14: expected a name of letters, digits and - . _, found the string "a b"
    switchback.toml:6:30: without a scope nothing may be done
    hint: read, operate:SERVICE or admin
    switchback.toml:6:41: none.token cannot be read: No such file or directory (os error 2)
    switchback.toml:7:29: `write` is no scope: expected read, operate:SERVICE (a pattern such as operate:shop-*) or admin
    switchback.toml:7:38: `` is no pattern of service names: expected letters, digits, - _ . and * for anything
    switchback.toml:7:50: `sh op` is no pattern of service names: expected letters, digits, - _ . and * for anything
    switchback.toml:7:77: expected the SHA-256 of a token, 64 hexadecimal digits: `printf %s "$TOKEN" | sha256sum`
    hint: what stands here is not shown
    switchback.toml:8:66: `file` and `sha256` do not go together
    hint: leave one of them out
    switchback.toml:10:5: `c` is already somebody: switchback.toml:9:5
    hint: give it another name: the history tells them apart by it
    switchback.toml:11:5: `d` is known by the same as somebody else: switchback.toml:9:5
    hint: each needs a token or a certificate of its own
    switchback.toml:12:45: switchback.toml holds no token: expected 32 to 512 letters, digits and - . _ ~ + / =
    hint: `openssl rand -hex 32 > shop-ci.token` makes one
    switchback.toml: 14 errors
    "##);
}

#[test]
fn a_listener_that_nobody_or_everybody_could_use_is_none() {
    let token = "tokens = [{ name = \"ci\", scopes = [\"read\"], file = \"ci.token\" }]";
    let certificate = "certificates = [{ name = \"cd\", scopes = [\"read\"], dns = \"cd.example.com\" }]";
    let said = [
        "listen = \"127.0.0.1:9901\"".to_owned(),
        "listen = \"localhost\"".to_owned(),
        token.to_owned(),
        format!("listen = \"0.0.0.0:9901\"\n{token}"),
        format!("listen = \"[::1]:9901\"\n{certificate}"),
        format!("listen = \"127.0.0.1:8080\"\n{token}"),
        format!(
            "listen = \"127.0.0.1:9901\"\n{token}\ncertificates = [{{ name = \"ci\" }}, {{ name = \"x\", scopes = [\"read\"], dns = \"a\", uri = \"b:c\" }}]"
        ),
    ];
    let said: Vec<_> = said.iter().map(|admin| files(admin).check()).collect();
    insta::assert_snapshot!(said.join("\n\n"), @r##"
    switchback.toml:3:10: nobody could be known there: there are neither `tokens` nor `certificates`
    hint: [[admin.tokens]] name = "shop-ci", scopes = ["operate:shop"], file = "shop-ci.token"; or `tls` with `client_ca`, and [[admin.certificates]]
    switchback.toml: 1 error

    switchback.toml:3:10: expected an address such as "127.0.0.1:9901", found the string "localhost"
    switchback.toml: 1 error

    switchback.toml:3:10: `tokens` is only of use with `listen`
    hint: say where it is listened over TCP, listen = "127.0.0.1:9901", or take it away
    switchback.toml: 1 error

    switchback.toml:3:10: tokens would pass readable for everybody on the way: without `tls` only a loopback address is listened on
    hint: add tls = { certificates = [{ cert = "admin.pem", key = "admin.key" }] }, or listen on 127.0.0.1
    switchback.toml: 1 error

    switchback.toml:4:16: `certificates` needs a `tls` that asks clients for theirs
    hint: tls = { certificates = […], client_auth = "required", client_ca = "clients.pem" }; or "optional" beside tokens
    switchback.toml: 1 error

    switchback.toml:3:10: 127.0.0.1:8080 is already listened on: switchback.toml:6:10
    switchback.toml: 1 error

    switchback.toml:5:17: a certificate has no `scopes`
    hint: for example: scopes = ["read", "operate:shop-*"]
    switchback.toml:5:17: a certificate has neither `uri` nor `dns`
    hint: one of its alternative names: uri = "spiffe://example.com/shop-cd", or dns = "shop-cd.example.com"
    switchback.toml:5:84: `dns` and `uri` do not go together
    hint: leave one of them out
    switchback.toml: 3 errors
    "##);
}
