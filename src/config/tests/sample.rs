//! The annotated `config/switchback.toml`, and noise made of it.

use proptest::prelude::*;

use super::*;
use crate::release::{Actor, ActorKind, Command, Event, Order, State, Timestamp, step};

/// The annotated sample, with every line `# key = value` made a setting.
fn sample(uncommented: bool) -> String {
    let setting = |line: &str| {
        let (key, _) = line.strip_prefix("# ")?.split_once(" = ")?;
        key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_').then(|| line[2..].to_owned())
    };
    let sample = include_str!("../../../config/switchback.toml").lines();
    let lines = sample.map(|line| setting(line).filter(|_| uncommented).unwrap_or_else(|| line.to_owned()));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_annotated_sample_documents_the_defaults_as_they_are() {
    let files = Files::of(&[("switchback.toml", &sample(false))]);
    let (defaults, summary) = (files.load().unwrap(), files.check());
    assert_eq!(summary, "switchback.toml: 1 service, 2 versions, 1 listener: ok");
    assert_eq!(defaults.limits, Limits::default());
    is_accepted(defaults.clone());
    files.write("switchback.toml", sample(true));
    assert_eq!(files.load(), Ok(defaults), "a documented default is not the default");
}

#[test]
fn the_annotated_sample_documents_every_key() {
    // A key that is far from every other makes each section tell its keys.
    let said = check_text(
        "zzzzzzzz = 1\nlisteners = [{ zzzzzzzz = 1, redirect_to_https = { zzzzzzzz = 1 } },
        { zzzzzzzz = 1, tls = { zzzzzzzz = 1, certificates = [{ zzzzzzzz = 1 }] }, hsts = { zzzzzzzz = 1 } }]\nadmin = { zzzzzzzz = 1, listen = \"127.0.0.1:1\", tokens = [{ zzzzzzzz = 1 }], certificates = [{ zzzzzzzz = 1 }] }\nmetrics.zzzzzzzz = 1\nstate.zzzzzzzz = 1
        limits.zzzzzzzz = 1\nshutdown.zzzzzzzz = 1\nupgrade.zzzzzzzz = 1\nproxy.zzzzzzzz = 1\naccess_log.zzzzzzzz = 1\nwebhooks = [{ zzzzzzzz = 1 }]
        [services.a]\nzzzzzzzz = 1\nroutes = [{ zzzzzzzz = 1 }]\nrules = [{ zzzzzzzz = 1, headers = { a = { zzzzzzzz = 1 } } }]\ntimeouts.zzzzzzzz = 1\nlimits.zzzzzzzz = 1\ndrain.zzzzzzzz = 1\nhold.zzzzzzzz = 1\nretries.zzzzzzzz = 1\nhedge.zzzzzzzz = 1\nshield.zzzzzzzz = 1\nmirror.zzzzzzzz = 1\nsticky.zzzzzzzz = 1\nsupervise = { zzzzzzzz = 1, tolerate = { zzzzzzzz = 1 }, warmup = { zzzzzzzz = 1 } }\ncircuit.zzzzzzzz = 1\nkeepalive.zzzzzzzz = 1\nslow_start.zzzzzzzz = 1\nwarmup.zzzzzzzz = 1\nhealth.zzzzzzzz = 1\n
        outliers = { zzzzzzzz = 1, success_rate = { zzzzzzzz = 1 } }\nbalance = { zzzzzzzz = 1, policy = \"hash\", key = { zzzzzzzz = 1 } }
        versions.v = { zzzzzzzz = 1, endpoints = [{ zzzzzzzz = 1 }], balance = { policy = \"ewma\", zzzzzzzz = 1 }, health = { type = \"grpc\", zzzzzzzz = 1 }, discover = { zzzzzzzz = 1 } }",
    );
    let keys: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("hint: its keys are: ")).collect();
    assert_eq!(keys.len(), 48, "{said}");
    let sample = sample(true);
    for key in keys.iter().flat_map(|keys| keys.split(", ")) {
        let known = sample.contains(&format!("{key} = "))
            || sample.contains(&format!("[{key}"))
            || sample.contains(&format!(".{key}]"));
        assert!(known || ["versions", "services"].contains(&key), "{key}");
    }
}

/// What loads, the heart accepts.
fn is_accepted(config: Config) {
    let command = Command::Configure { services: config.services, records: Vec::new() };
    let actor = Actor { kind: ActorKind::File, name: String::new() };
    let order = Order {
        command,
        actor,
        reason: String::new(),
        expected: Vec::new(),
        health: crate::release::Health::default(),
    };
    step(&State::default(), Event::Order(order), Timestamp(0)).unwrap();
}

fn checks_without_panic(bytes: &[u8]) {
    let files = Files::of(&[]);
    files.write("switchback.toml", bytes);
    files.write("conf.d/a.toml", bytes);
    let report = check_on(&files.path(), &root());
    if let Ok(config) = files.load() {
        is_accepted(config);
    }
    assert_eq!(report.ok, !report.text.ends_with("error") && !report.text.ends_with("errors"));
}

#[test]
fn depth_and_size_are_told_about() {
    for deep in [
        "[".repeat(100_000),
        format!("{}a = 1", "a.".repeat(100_000)),
        format!("a = {}", "{a=".repeat(100_000)),
        format!("[{}a]", "a.".repeat(100_000)),
    ] {
        checks_without_panic(deep.as_bytes());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_told_about(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        checks_without_panic(&bytes);
    }

    #[test]
    fn arbitrary_text_is_told_about(text in "\\PC*") {
        checks_without_panic(text.as_bytes());
    }

    /// Pieces of a right file in a wrong order get further than noise does.
    #[test]
    fn a_shuffled_sample_is_told_about(
        pieces in proptest::collection::vec(any::<prop::sample::Index>(), 0..60), cut in 1usize..40,
    ) {
        let sample: Vec<char> = sample(true).chars().collect();
        let sample: Vec<_> = sample.chunks(cut).collect();
        let text: String = pieces.iter().flat_map(|piece| sample[piece.index(sample.len())]).collect();
        checks_without_panic(text.as_bytes());
    }

    #[test]
    fn a_sample_with_wrong_values_is_told_about(line in any::<prop::sample::Index>(), value in "[\\[\\]{}\",=a-z0-9. ]{0,12}") {
        let sample = sample(true);
        let lines: Vec<_> = sample.lines().filter(|line| line.contains(" = ")).collect();
        let line = lines[line.index(lines.len())];
        let key = line.split(" = ").next().unwrap();
        checks_without_panic(sample.replace(line, &format!("{key} = {value}")).as_bytes());
    }
}
