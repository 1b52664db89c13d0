//! A listener's `tls`, `hsts` and `redirect_to_https`, right and wrong.

use rcgen::{Certificate, CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, date_time_ymd};

use super::*;

/// A certificate and its key.
pub(super) struct Pair {
    pub(super) cert: Certificate,
    pub(super) key: KeyPair,
}

impl Pair {
    pub(super) fn of(names: &[&str]) -> Self {
        Self::with(names, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(), |_| ())
    }

    fn with(names: &[&str], key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        Self { cert: params.self_signed(&key).unwrap(), key }
    }

    fn write(&self, files: &Files, name: &str) {
        files.write(&format!("{name}.pem"), self.cert.pem());
        files.write(&format!("{name}.key"), self.key.serialize_pem());
    }
}

/// A directory with `shop` and `cart`, and a listener with these lines.
fn listener(lines: &str) -> Files {
    let files = Files::of(&[(
        "switchback.toml",
        &format!("[[listeners]]\nlisten = \"0.0.0.0:443\"\n{lines}\n{REST}"),
    )]);
    Pair::of(&["shop.test", "*.shop.test"]).write(&files, "shop");
    Pair::of(&["cart.test"]).write(&files, "cart");
    files
}

const REST: &str = "[services.a]\nroutes = [{}]\nversions.v.endpoints = [\"a:1\"]";
const SHOP: &str = "certificates = [{ cert = \"shop.pem\", key = \"shop.key\" }]";

/// What is said about a listener with `tls = { <settings> }`; the last line, which counts, left out.
fn said(settings: &str) -> String {
    said_of(&listener(&format!("tls = {{ {settings} }}")))
}

fn said_of(files: &Files) -> String {
    let all = files.check();
    all.rsplit_once('\n').map_or("", |(said, _)| said).replace("switchback.toml:", "")
}

fn tls_of(files: &Files) -> Tls {
    files.load().unwrap().listeners[0].tls.clone().unwrap()
}

#[test]
fn defaults_are_safe_ones() {
    let tls = tls_of(&listener(&format!("tls = {{ {SHOP} }}")));
    assert_eq!((tls.min_version, tls.client_auth, tls.tickets), (TlsVersion::Tls12, ClientAuth::None, true));
    assert_eq!(tls.handshake_timeout, Duration::from_secs(10));
    assert_eq!(tls.certificates[0].names, ["*.shop.test", "shop.test"]);
}

#[test]
fn everything_can_be_said() {
    let files = listener(&format!(
        "hsts = {{ max_age = \"1h\", preload = true }}\ntls = {{ {SHOP}, min_version = \"1.3\",
        ciphers = [\"TLS_AES_128_GCM_SHA256\"], groups = [\"X25519\"], client_auth = \"required\",
        client_ca = \"cart.pem\", client_subject_header = \"X-Client\", alpn = [\"http/1.1\"],
        handshake_timeout = \"3s\", tickets = false }}"
    ));
    let tls = tls_of(&files);
    assert_eq!((tls.ciphers.len(), tls.groups.len(), tls.min_version), (1, 1, TlsVersion::Tls13));
    assert!(matches!(tls.client_auth, ClientAuth::Required(authorities) if authorities.len() == 1));
    assert_eq!(tls.client_subject_header.unwrap(), "x-client");
    assert_eq!((tls.alpn, tls.tickets), (vec![Alpn::Http11], false));
    assert_eq!(files.load().unwrap().listeners[0].hsts.as_ref().unwrap(), "max-age=3600; preload");
}

#[test]
fn a_key_is_never_printed() {
    let files = listener(&format!("tls = {{ {SHOP} }}"));
    let printed = format!("{:?}", files.load().unwrap());
    assert!(printed.contains("secret key elided"), "{printed}");
}

#[test]
fn a_certificate_and_its_key_belong_together() {
    let pair =
        |cert: &str, key: &str| said(&format!("certificates = [{{ cert = \"{cert}\", key = \"{key}\" }}]"));
    insta::assert_snapshot!(said("certificates = [{ cert = \"shop.pem\" }]"), @r#"
    3:25: a certificate has no `key`
    hint: for example: key = "shop.key"
    "#);
    insta::assert_snapshot!(pair("shop.pem", "cart.key"), @"
    3:52: cart.key is not the key of shop.pem
    hint: a certificate needs the key that it was requested with; are two of them mixed up?
    ");
    insta::assert_snapshot!(pair("shop.key", "shop.pem"), @"
    3:34: shop.key has no certificate, but a private key
    hint: it has to be PEM text with a line -----BEGIN CERTIFICATE-----
    3:52: shop.pem has no private key, but a certificate
    hint: it has to be PEM text with a line -----BEGIN PRIVATE KEY-----
    ");
    insta::assert_snapshot!(pair("none.pem", "."), @"
    3:34: none.pem cannot be read: No such file or directory (os error 2)
    3:52: . cannot be read: it is not a file
    ");
}

#[test]
fn files_that_hold_something_else_are_refused() {
    let files = listener(
        "tls = { certificates = [
        { cert = \"empty.pem\", key = \"sealed.key\" },
        { cert = \"broken.pem\", key = \"odd.key\" },
        { cert = \"shop.pem\", key = \"shop.key\", ocsp = \"shop.pem\" },
        { cert = \"cart.pem\", key = \"odd.key\" },
        { cert = \"shop.pem\", key = \"old.key\" },
        ] }",
    );
    files.write(
        "old.key",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMIIB\n-----END RSA PRIVATE KEY-----\n",
    );
    files.write("empty.pem", " \n");
    files.write(
        "sealed.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    files.write("broken.pem", "-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n");
    files.write("odd.key", "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n");
    insta::assert_snapshot!(said_of(&files), @"
    4:18: empty.pem is empty: it has no certificate
    hint: it has to be PEM text with a line -----BEGIN CERTIFICATE-----
    4:37: sealed.key holds a key under a pass phrase
    hint: decrypt it with `openssl pkey`, and keep it readable for this user only
    5:18: broken.pem is not PEM text: base64 decode error: InvalidCharacter(37)
    6:55: shop.pem holds no successful OCSP response
    hint: it has to be DER as `openssl ocsp -respout` writes it
    7:36: the key in odd.key cannot be used: unexpected error: failed to parse private key as RSA, ECDSA, or EdDSA
    8:36: old.key holds a key under a pass phrase
    hint: decrypt it with `openssl pkey`, and keep it readable for this user only
    ");
}

#[test]
fn a_list_of_certificates_is_not_empty_and_each_name_has_one() {
    insta::assert_snapshot!(said("certificates = []"), @r#"
    3:24: there has to be at least one certificate
    hint: for example: certificates = [{ cert = "shop.pem", key = "shop.key" }]
    "#);
    let files = listener(
        "tls = { certificates = [
        { cert = \"shop.pem\", key = \"shop.key\" },
        { cert = \"again.pem\", key = \"again.key\" },
        { cert = \"ed.pem\", key = \"ed.key\" },
        { cert = \"nobody.pem\", key = \"nobody.key\" },
        ] }",
    );
    Pair::of(&["other.test", "SHOP.test"]).write(&files, "again");
    Pair::with(&["shop.test"], KeyPair::generate_for(&PKCS_ED25519).unwrap(), |_| ()).write(&files, "ed");
    Pair::of(&[]).write(&files, "nobody");
    insta::assert_snapshot!(said_of(&files), @"
    5:9: again.pem is for `shop.test`, and so is shop.pem, with the same kind of key: 4:9
    hint: one certificate for each name and kind of key: ECDSA and RSA may stand side by side
    7:9: warning: nobody.pem is for no DNS name, and not the first: no client will get it
    ");
}

#[test]
fn an_expired_certificate_loads_and_is_said() {
    let files = listener(
        "tls = { certificates = [{ cert = \"old.pem\", key = \"old.key\" }, { cert = \"new.pem\", key = \"new.key\" }] }",
    );
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    Pair::with(&["old.test"], key(), |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    })
    .write(&files, "old");
    Pair::with(&["new.test"], key(), |params| params.not_before = date_time_ymd(4000, 1, 1))
        .write(&files, "new");
    insta::assert_snapshot!(said_of(&files), @"
    3:34: warning: old.pem has expired on Fri, 01 Jan 2021 00:00:00 GMT: clients will refuse it
    3:73: warning: new.pem is only valid from Sat, 01 Jan 4000 00:00:00 GMT: clients will refuse it until then
    ");
    assert_eq!(tls_of(&files).certificates[0].not_after, 1_609_459_200);
}

#[test]
fn unknown_words_are_told_the_known_ones() {
    insta::assert_snapshot!(said(&format!("{SHOP}, ciphers = [\"RC4-MD5\", \"TLS_AES_128_GCM_SHA265\", 5]")), @"
    3:78: `RC4-MD5` is not a known cipher suite
    hint: the cipher suites are: TLS_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    3:89: `TLS_AES_128_GCM_SHA265` is not a known cipher suite
    hint: did you mean `TLS_AES_128_GCM_SHA256`?
    3:115: expected a cipher suite, found the integer 5
    ");
    insta::assert_snapshot!(said(&format!("{SHOP}, groups = [], alpn = [\"h3\", \"h2\", \"h2\"], min_version = \"1.1\"")), @r#"
    3:76: there has to be at least one key exchange group
    hint: or leave the key out
    3:88: `h3` is not a known application protocol
    hint: did you mean `h2`?
    3:100: `h2` is listed twice
    3:121: expected "1.2" or "1.3", found the string "1.1"
    "#);
    insta::assert_snapshot!(said(&format!(
        "{SHOP}, min_version = \"1.3\", ciphers = [\"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\"]"
    )), @"
    3:98: none of these cipher suites is for TLS 1.3, the `min_version`
    hint: those of TLS 1.3 are: TLS_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256
    ");
    insta::assert_snapshot!(said(&format!("{SHOP}, min_versoin = \"1.3\", handshake_timeout = \"0s\"")), @"
    3:67: unknown key `min_versoin` in `tls`
    hint: did you mean `min_version`?
    3:108: 0s is too short: at least 1ms
    ");
}

#[test]
fn what_clients_show_needs_an_authority() {
    insta::assert_snapshot!(said(&format!("{SHOP}, client_auth = \"required\"")), @r#"
    3:7: `client_auth` needs a `client_ca`
    hint: for example: client_ca = "clients.pem", a bundle of the authorities that sign clients
    "#);
    insta::assert_snapshot!(said(&format!("{SHOP}, client_ca = \"shop.pem\"")), @r#"
    3:79: `client_ca` is only of use with `client_auth`
    hint: add client_auth = "required" or "optional", or take it away
    "#);
    insta::assert_snapshot!(said(&format!("{SHOP}, client_auth = \"always\"")), @r#"3:81: expected "none", "optional" or "required", found the string "always""#);
    insta::assert_snapshot!(said(&format!("{SHOP}, client_subject_header = \"x-a\"")), @r#"
    3:91: `client_subject_header` is only of use with `client_auth`
    hint: add client_auth = "required" and client_ca, or take it away
    "#);
    let optional = "client_auth = \"optional\", client_ca = \"shop.pem\"";
    insta::assert_snapshot!(said(&format!("{SHOP}, {optional}, client_subject_header = \"Host\"")), @"
    3:141: `Host` cannot be the client's subject header
    hint: take a name of your own, such as x-client-subject
    ");
    insta::assert_snapshot!(said(&format!("{SHOP}, client_auth = \"optional\", client_ca = \"shop.key\"")), @"
    3:105: shop.key has no certificate, but a private key
    hint: it has to be PEM text with a line -----BEGIN CERTIFICATE-----
    ");
}

#[test]
fn who_a_client_is_by_its_certificate_is_not_for_services_to_say() {
    let tls = format!(
        "tls = {{ {SHOP}, client_auth = \"optional\", client_ca = \"shop.pem\", client_subject_header = \"x-who\" }}"
    );
    let service = |name: &str, fields: &str| {
        format!(
            "[services.{name}]\nroutes = [{{ host = \"{name}\", {fields} }}]\nversions.v.endpoints = [\"b:1\"]\n"
        )
    };
    let set = service("set", "request_headers = { set = { x_who = \"CN=me\" } }");
    let removed = service("removed", "request_headers = { remove = [\"X-Who\"] }");
    let other = service("other", "request_headers = { set = { x-whose = \"1\" } }");
    insta::assert_snapshot!(said_of(&listener(&format!("{tls}\n{set}{removed}{other}"))), @"
    4:11: service `set` cannot change `x_who` of a request
    hint: a listener tells in it whose certificate was verified: its `client_subject_header`
    7:11: service `removed` cannot change `x-who` of a request
    hint: a listener tells in it whose certificate was verified: its `client_subject_header`
    ");
}

#[test]
fn nobody_goes_by_a_subject_that_clients_would_tell_themselves() {
    let tls = format!(
        "tls = {{ {SHOP}, client_auth = \"optional\", client_ca = \"shop.pem\", client_subject_header = \"x-who\" }}"
    );
    let service = |name: &str, settings: &str| {
        format!(
            "[services.{name}]\nroutes = [{{ host = \"{name}\" }}]\nversions.v.endpoints = [\"b:1\"]\n{settings}\n"
        )
    };
    let ruled = service("ruled", "rules = [{ headers = { X-Who = true }, to = \"v\" }]");
    let sticky = service("sticky", "sticky = { header = \"x-who\" }");
    let other = service("other", "sticky = { header = \"x-whose\" }");
    insta::assert_snapshot!(said_of(&listener(&format!("{tls}\n{ruled}{sticky}{other}"))), @"
    4:11: warning: service `ruled` goes by `x-who`, which is taken out of what clients send: it is a listener's `client_subject_header`
    8:11: warning: service `sticky` goes by `x-who`, which is taken out of what clients send: it is a listener's `client_subject_header`
    ");
}

#[test]
fn redirect_and_hsts_are_for_one_kind_of_listener_each() {
    let tls = format!("tls = {{ {SHOP} }}");
    insta::assert_snapshot!(said_of(&listener(&format!("{tls}\nredirect_to_https = true"))), @"
    4:21: a listener with `tls` cannot redirect to itself
    hint: put it on the clear-text listener
    ");
    insta::assert_snapshot!(said_of(&listener("hsts = \"max-age=1\"")), @"
    3:8: `hsts` is only of use on a listener with `tls`
    hint: browsers ignore it there: put it on the listener with `tls`
    ");
    insta::assert_snapshot!(said_of(&listener(&format!("{tls}\nhsts = \"1 year\""))), @r#"
    4:8: `1 year` is not an HSTS policy
    hint: for example: hsts = "max-age=31536000; includeSubDomains"
    "#);
    insta::assert_snapshot!(said_of(&listener("redirect_to_https = { port = 0, status = 303 }")), @"
    3:30: expected a whole number from 1 to 65535, found the integer 0
    3:42: 303 is not one of 301, 302, 307 and 308
    hint: 308 and 307 keep the method, 301 and 302 do not
    ");
    let redirect = |lines: &str| listener(lines).load().unwrap().listeners[0].redirect_to_https;
    assert_eq!(
        redirect("redirect_to_https = true"),
        Some(Redirect { port: 443, status: 308, exempt_acme: true })
    );
    assert_eq!(redirect("redirect_to_https = false"), None);
    let other = "redirect_to_https = { port = 8443, status = 301, exempt_acme = false }";
    assert_eq!(redirect(other), Some(Redirect { port: 8443, status: 301, exempt_acme: false }));
}

#[test]
fn the_files_that_are_named_are_known_though_they_are_not_there() {
    let files = listener(
        "tls = { certificates = [{ cert = \"a.pem\", key = \"/b.key\", ocsp = \"c\" }, 7], client_ca = \"d.pem\" }\nbroken",
    );
    let mut named: Vec<_> =
        named_files(&files.path()).iter().map(|path| files.relative(&path.display().to_string())).collect();
    named.sort();
    assert_eq!(named, ["/b.key", "a.pem", "c", "d.pem"]);
    assert!(named_files(&files.0.path().join("nowhere.toml")).is_empty());
}
