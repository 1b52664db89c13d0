//! What operators write, right and wrong.

mod admin;
mod balance;
mod discover;
mod edge;
mod health;
mod mirror;
mod refused;
mod rules;
mod sample;
mod shield;
mod sticky;
mod supervise;
mod targeting;
mod tls;
mod upgrades;
mod webhooks;

use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::table::{StickyBy, StickyRules};

/// A directory with configuration files.
struct Files(TempDir);

impl Files {
    fn of(files: &[(&str, &str)]) -> Self {
        let directory = Self(TempDir::new().unwrap());
        for (name, text) in files {
            directory.write(name, text);
        }
        directory
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Whoever opens it waits for somebody who writes into it.
    fn pipe(&self, name: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("switchback.toml")
    }

    fn load(&self) -> Result<Config, Errors> {
        Config::load_on(&self.path(), &root())
    }

    /// What `check` says, as if the directory were the working directory.
    fn check(&self) -> String {
        let report = check_on(&self.path(), &root());
        assert_eq!(report.ok, self.load().is_ok());
        self.relative(&report.text)
    }

    fn relative(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn root() -> Host {
    Host { root: true, ..Host::default() }
}

fn check_text(text: &str) -> String {
    Files::of(&[("switchback.toml", text)]).check()
}

/// What is said about a service, after a main file that is in order.
fn check_service(text: &str) -> String {
    Files::of(&[("switchback.toml", "listeners = [{ listen = \"0.0.0.0:80\" }]"), ("conf.d/a.toml", text)])
        .check()
}

fn load_text(text: &str) -> Config {
    Files::of(&[("switchback.toml", text)]).load().unwrap()
}

const SMALL: &str = r#"
    listeners = [{ listen = "127.0.0.1:8080" }]
    [services.shop]
    routes = [{}]
    versions.blue.endpoints = ["127.0.0.1:9001"]
"#;

#[test]
fn the_contracts_sample_loads() {
    let files = Files::of(&[(
        "switchback.toml",
        r#"
[admin]
socket = "run/admin.sock"
[metrics]
listen = "127.0.0.1:19900"
[state]
dir = "state"
[[listeners]]
listen = "127.0.0.1:18080"
[[listeners]]
listen = "127.0.0.1:18443"
tls = { certificates = [{ cert = "shop.pem", key = "shop.key" }] }   # ALPN h2, http/1.1
[services.shop]
routes = [{ host = "shop.example.com", path = "/" }]
stable = "blue"
sticky = { cookie = "sb_id", mint = true } # or { header = "x-user" } or { client = true }; [none]
[services.shop.versions.blue]
endpoints = ["127.0.0.1:9001", "127.0.0.1:9002"]
protocol = "http1"
[services.shop.versions.green]
endpoints = ["127.0.0.1:9101"]
"#,
    )]);
    let shop = tls::Pair::of(&["shop.example.com"]);
    files.write("shop.pem", shop.cert.pem());
    files.write("shop.key", shop.key.serialize_pem());
    let config = files.load().unwrap();
    assert_eq!(config.admin.socket, files.0.path().join("run/admin.sock"));
    assert_eq!(config.state.dir, files.0.path().join("state"));
    assert_eq!(config.listeners.len(), 2);
    let tls = config.listeners[1].tls.as_ref().unwrap();
    assert_eq!(tls.certificates[0].names, ["shop.example.com"]);
    assert_eq!(tls.alpn, [Alpn::Http2, Alpn::Http11]);
    insta::assert_snapshot!(files.check(), @"switchback.toml: 1 service, 2 versions, 2 listeners: ok");
    let [shop] = &config.services[..] else { panic!("one service") };
    let by = StickyBy::Cookie { name: "sb_id".into(), mint: Some(StickyBy::MAX_AGE) };
    assert_eq!(shop.sticky.as_deref(), Some(&StickyRules { by, salt: "shop".into() }));
    let pools: Vec<_> =
        shop.versions.iter().map(|version| (version.name.as_str(), version.endpoints.len())).collect();
    assert_eq!(pools, [("blue", 2), ("green", 1)]);
    assert_eq!(shop.routes[0].to_string(), "shop.example.com/");
    assert_eq!((shop.stable.as_str(), &shop.weights[..]), ("blue", &[("blue".parse().unwrap(), 10_000)][..]));
}

#[test]
fn the_smallest_file_needs_a_listener_a_route_and_a_version() {
    let config = load_text(SMALL);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.services[0].stable.as_str(), "blue");
    assert_eq!(config.admin.socket, PathBuf::from("/run/switchback/admin.sock"));
    assert_eq!(config.metrics, None);
    insta::assert_snapshot!(check_text("[limits]"), @r#"
    switchback.toml:1:1: the file has no `listeners`
    hint: for example: [[listeners]] with listen = "0.0.0.0:8080"
    switchback.toml: warning: there are no services: every request is answered 404
    switchback.toml: 1 error
    "#);
}

#[test]
fn weights_are_exact_however_they_are_written() {
    let service = |weights: &str| {
        let config = load_text(&format!(
            "listeners = [{{ listen = \"0.0.0.0:80\" }}]
            [services.a]\nroutes = [{{}}]\nweights = {weights}
            versions.blue.endpoints = [\"b:1\"]\nversions.green.endpoints = [\"g:1\"]"
        ));
        let [service] = config.services.try_into().unwrap();
        (service.stable.to_string(), service.weights.iter().map(|(_, points)| *points).collect::<Vec<_>>())
    };
    assert_eq!(service("{ blue = 5, green = 95 }"), ("green".into(), vec![500, 9_500]));
    assert_eq!(service("{ blue = 99.75, green = \"0.25%\" }"), ("blue".into(), vec![9_975, 25]));
    assert_eq!(service("{ blue = 0.29, green = 99.71 }"), ("green".into(), vec![29, 9_971]));
    assert_eq!(service("{ blue = 0x32, green = +5_0 }"), ("blue".into(), vec![5_000, 5_000]));
    assert_eq!(service("{ blue = 0, green = 100.0 }\nstable = \"green\""), ("green".into(), vec![10_000]));
    assert_eq!(service("{ blue = 1, green = 99 }\nstable = \"blue\""), ("blue".into(), vec![100, 9_900]));
}

#[test]
fn each_team_has_its_own_file() {
    let service = |name: &str, port: u16| {
        format!(
            "[services.{name}]\nroutes = [{{ path = \"/{name}\" }}]\nversions.v1.endpoints = [\"a:{port}\"]"
        )
    };
    let files = Files::of(&[
        ("switchback.toml", "listeners = [{ listen = \"0.0.0.0:80\" }]"),
        ("conf.d/b.toml", &service("cart", 1)),
        ("conf.d/a.toml", &service("shop", 2)),
        ("conf.d/.hidden.toml", "]"),
        ("conf.d/README.md", "]"),
    ]);
    let config = files.load().unwrap();
    let names: Vec<_> = config.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["shop", "cart"]);
    let read: Vec<_> = config.files.iter().map(|file| files.relative(&file.display().to_string())).collect();
    assert_eq!(read, ["switchback.toml", "conf.d", "conf.d/a.toml", "conf.d/b.toml"]);
    insta::assert_snapshot!(files.check(), @"switchback.toml: 2 services, 2 versions, 1 listener: ok");

    files.write("conf.d/c.toml", format!("limits = {{}}\nservice = 1\n{}", service("shop", 3)));
    std::fs::create_dir(files.0.path().join("conf.d/d.toml")).unwrap();
    insta::assert_snapshot!(files.check(), @r#"
    conf.d/c.toml:1:1: `limits` belongs in switchback.toml
    hint: a file of conf.d holds [services.…] and nothing else
    conf.d/c.toml:2:1: unknown key `service` in the file
    hint: did you mean `services`?
    conf.d/c.toml:3:11: service `shop` is already defined: conf.d/a.toml:1:11
    hint: one service, one file
    conf.d/d.toml: cannot be read: it is not a file
    switchback.toml: 4 errors
    "#);
}

#[test]
fn a_protocol_that_is_not_known_is_said() {
    insta::assert_snapshot!(check_text(&SMALL.replace("versions.blue", "versions.blue.protocol = \"http3\"\nversions.blue")), @r"
    switchback.toml:5:30: `http3` is not a protocol
    hint: did you mean `http1`?
    switchback.toml: 1 error
    ");
}

#[test]
fn a_user_without_directories_is_told_what_to_name() {
    let files = Files::of(&[("switchback.toml", SMALL)]);
    let report = check_on(&files.path(), &Host::default());
    insta::assert_snapshot!(files.relative(&report.text), @r#"
    switchback.toml:1:1: there is no place for the admin socket: XDG_RUNTIME_DIR is not set
    hint: name one: [admin] socket = "/path/to/admin.sock"
    switchback.toml:1:1: there is no place for the state: neither XDG_STATE_HOME nor HOME is set
    hint: name one: [state] dir = "/path/to/directory"
    switchback.toml: 2 errors
    "#);
    let host =
        Host { runtime_dir: Some("/run/user/7".into()), state_home: Some("/home/a/s".into()), root: false };
    let config = Config::load_on(&files.path(), &host).unwrap();
    assert_eq!(config.admin.socket, PathBuf::from("/run/user/7/switchback/admin.sock"));
    assert_eq!(config.state.dir, PathBuf::from("/home/a/s/switchback"));
}

#[test]
fn no_pipe_is_waited_for_while_the_proxy_runs() {
    let page = "[services.shop]\nroutes = [{ answer = { file = \"sorry.html\" } }]\nversions.v.endpoints = [\"a:1\"]";
    let files = Files::of(&[
        ("switchback.toml", "listeners = [{ listen = \"0.0.0.0:80\" }]"),
        ("conf.d/a.toml", page),
    ]);
    files.pipe("conf.d/sorry.html");
    files.pipe("conf.d/x.toml");
    let said = files.check();
    assert!(said.contains("conf.d/sorry.html cannot be read: it is not a file"), "{said}");
    assert!(said.contains("conf.d/x.toml: cannot be read: it is not a file"), "{said}");
    let piped = Files::of(&[]);
    piped.pipe("switchback.toml");
    assert!(named_files(&piped.path()).is_empty());
    let again = Config::load_again(&piped.path()).unwrap_err().to_string();
    assert_eq!(piped.relative(&again), "switchback.toml: cannot be read: it is not a file");
}

#[test]
fn a_pipe_can_be_read_once_at_the_start() {
    let files = Files::of(&[]);
    files.pipe("switchback.toml");
    let path = files.path();
    let writer = std::thread::spawn(move || std::fs::write(path, SMALL).unwrap());
    assert_eq!(files.load().unwrap().listeners.len(), 1);
    writer.join().unwrap();
}
