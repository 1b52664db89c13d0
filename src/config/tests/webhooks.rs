//! `[[webhooks]]`: who is told what, and what is wrong with how that is said.

use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[test]
fn a_webhook_is_read_with_its_defaults() {
    let config =
        load_text(&format!("webhooks = [{{ url = \"https://Deploy.example.com:8443/hook?x=1\" }}]\n{SMALL}"));
    let [webhook] = &config.webhooks[..] else { panic!("one webhook") };
    assert_eq!(webhook.name, "deploy.example.com:8443");
    assert_eq!((webhook.timeout, webhook.attempts), (Duration::from_secs(10), 8));
    assert_eq!((webhook.events.len(), webhook.services.len(), webhook.secrets.len()), (0, 0, 0));
}

#[test]
fn secrets_come_from_the_file_or_a_file_of_their_own_and_are_not_shown() {
    let main = format!(
        "listeners = [{{ listen = \"127.0.0.1:8080\" }}]
        webhooks = [{{ url = \"http://a/\", secret = [\"{SECRET}\", \"{SECRET}\"] }}, {{ url = \"http://b/\", secret_file = \"keys\" }}]"
    );
    let files = Files::of(&[("switchback.toml", &main), ("keys", &format!("\n{SECRET}\n"))]);
    let config = files.load().unwrap();
    assert_eq!(config.webhooks[0].secrets[..1], config.webhooks[1].secrets[..]);
    assert_eq!(config.webhooks[0].secrets.len(), 2);
    assert!(!format!("{config:?}").contains("MfKQ"));
    assert_eq!(named_files(&files.path()), [files.0.path().join("keys")], "it is watched");
}

#[test]
fn what_is_wrong_with_webhooks_is_said_at_once() {
    let said = check_text(
        r#"listeners = [{ listen = "127.0.0.1:8080" }]
webhooks = [
    { },
    { url = "ftp://example.com/" },
    { url = "https://user:pass@example.com/" },
    { url = "http://a/", secret = "hunter2" },
    { url = "http://b/", secret = "whsec_c2hvcnQ=", secret_file = "x" },
    { url = "http://c/", secret = [], events = ["draind"], services = "sh op" },
    { url = "http://d/", timeout = "0s", attempts = 0, ca = "none.pem" },
    { url = "http://e/" },
    { url = "http://E/x" },
    { url = "http://:80/" },
    { url = "http://f/", events = [], services = [] },
]
[services.shop]
routes = [{}]
versions.blue.endpoints = ["127.0.0.1:9001"]"#,
    );
    insta::assert_snapshot!(said, @r##"
    switchback.toml:3:5: a webhook has no `url`
    hint: for example: url = "https://deploy.example.com/switchback"
    switchback.toml:4:13: expected a URL such as "https://deploy.example.com/switchback"
    hint: http or https and a host, without a user, a password or a fragment; what stands here is not shown
    switchback.toml:5:13: expected a URL such as "https://deploy.example.com/switchback"
    hint: http or https and a host, without a user, a password or a fragment; what stands here is not shown
    switchback.toml:6:35: a secret is whsec_ and 24 to 64 bytes in base64: `echo whsec_$(openssl rand -base64 32)` makes one
    switchback.toml:7:67: `secret` and `secret_file` do not go together
    hint: leave one of them out
    switchback.toml:8:35: 0 secrets: expected 1 to 4
    switchback.toml:8:49: `draind` is not an event
    hint: did you mean `drained`?
    switchback.toml:8:71: `sh op` is no pattern of service names: expected letters, digits, - _ . and * for anything
    switchback.toml:9:36: 0s is too short: at least 1ms
    switchback.toml:9:53: expected a whole number from 1 to 100, found the integer 0
    switchback.toml:9:61: none.pem cannot be read: No such file or directory (os error 2)
    switchback.toml:9:61: `ca` is of no use with http
    hint: write the url with https
    switchback.toml:11:13: webhook `e` is already defined: switchback.toml:10:5
    hint: give it another name: name = "…"
    switchback.toml:12:13: expected a URL such as "https://deploy.example.com/switchback"
    hint: http or https and a host, without a user, a password or a fragment; what stands here is not shown
    switchback.toml:13:35: an empty list says nothing
    hint: leave it out for all of them, or take the webhook away
    switchback.toml:13:50: an empty list says nothing
    hint: leave it out for all of them, or take the webhook away
    switchback.toml: 16 errors
    "##);
}
