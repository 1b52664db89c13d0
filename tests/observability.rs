//! What operators put beside the proxy (`config/prometheus`, `config/grafana`): a real Prometheus takes the files, and each name in them is one
//! that the real proxy shows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lab::origin::{Then, nobody};
use lab::prometheus::{Prometheus, is_here};
use lab::tls::Authority;
use lab::{Client, Lab, Origin, Users};
use serde_json::{Value, json};
use switchback::metrics::names::{ALL, Metric, Sort};
use switchback::metrics::{GRPC_FAILURES, Reason};

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(&read("grafana/switchback.json")).unwrap()
}

/// An expression of PromQL, with where it stands.
type Expression = (String, String);

/// All that the dashboard asks: panels, annotations, variables.
fn asked_by(dashboard: &Value) -> Vec<Expression> {
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            all.push((format!("panel {}", panel["title"]), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        if let Some(expr) = annotation["expr"].as_str() {
            all.push((format!("annotation {}", annotation["name"]), expr.to_owned()));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let values =
            variable["query"]["query"].as_str().and_then(|query| query.strip_prefix("label_values("));
        if let Some((selector, label)) = values.and_then(|values| values.rsplit_once(", ")) {
            let label = label.trim_end_matches(')');
            all.push((format!("variable {}", variable["name"]), format!("count by ({label}) ({selector})")));
        }
    }
    // What Grafana puts in.
    let filled = |(place, expr): Expression| {
        let expr = expr.replace("$__rate_interval", "1m");
        (
            place,
            ["instance", "service", "version"]
                .iter()
                .fold(expr, |expr, name| expr.replace(&format!("${name}"), ".*")),
        )
    };
    all.into_iter().map(filled).collect()
}

/// A metric as an expression names it: with labels that it is selected by, and their values.
#[derive(Debug)]
struct Selected {
    name: String,
    labels: Vec<(String, Vec<String>)>,
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':')
}

/// What of the proxy's an expression names.
fn selected(expr: &str) -> Vec<Selected> {
    let starts =
        expr.char_indices().filter(|(at, letter)| is_word(*letter) && !expr[..*at].ends_with(is_word));
    let words = starts.map(|(at, _)| {
        let rest = &expr[at..];
        rest.split_at(rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()))
    });
    let ours = words.filter(|(word, _)| word.starts_with("switchback_") || word.starts_with("process_"));
    let labels = |rest: &str| -> Vec<_> {
        let Some((inner, _)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
            return Vec::new();
        };
        let matchers = inner.split("\",").map(|matcher| matcher.trim().trim_end_matches('"'));
        let parts = matchers.filter_map(|matcher| {
            let (label, value) = matcher.split_once('"')?;
            let values =
                value.split('|').filter(|value| !value.is_empty() && !value.contains(['.', '{', '$']));
            Some((
                label.trim_end_matches(['=', '~', '!']).trim().to_owned(),
                values.map(str::to_owned).collect(),
            ))
        });
        parts.collect()
    };
    ours.map(|(word, rest)| Selected { name: word.to_owned(), labels: labels(rest) }).collect()
}

/// The metric of that name, as it is or as a part of a histogram.
fn metric(name: &str) -> Option<&'static Metric> {
    let of_histogram = |metric: &Metric| {
        let part = name.strip_prefix(metric.name).unwrap_or("");
        metric.sort == Sort::Histogram && matches!(part, "_bucket" | "_count" | "_sum")
    };
    ALL.iter().find(|metric| (metric.name == name && metric.sort != Sort::Histogram) || of_histogram(metric))
}

/// What is wrong with the names in an expression, by what the proxy's code knows and what its `/metrics` shows.
fn wrong_in(expr: &str, shown: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for Selected { name, labels } in selected(expr) {
        let Some(metric) = metric(&name) else {
            wrong.push(format!("no metric `{name}`"));
            continue;
        };
        if !shown
            .lines()
            .any(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")))
        {
            wrong.push(format!("`{name}` is not shown"));
        }
        for (label, values) in labels {
            if !metric.labels.contains(&label.as_str()) && label != "job" && label != "instance" {
                wrong.push(format!("`{name}` has no label `{label}`"));
            }
            let is_known = |value: &String| match label.as_str() {
                "state" | "outcome" | "result" | "kind" => {
                    let sample = format!("{label}=\"{value}\"");
                    shown.lines().any(|line| line.starts_with(&name) && line.contains(&sample))
                }
                "reason" => Reason::ALL.iter().any(|reason| reason.token() == value),
                _ => true,
            };
            let unknown = values.iter().filter(|value| !is_known(value));
            wrong.extend(unknown.map(|value| format!("`{name}` has no {label} `{value}`")));
        }
    }
    wrong
}

/// A proxy that shows all there is: versions that are compared, of which one has an endpoint that is discovered, a certificate, a webhook.
struct World {
    lab: Lab,
    metrics: SocketAddr,
    _webhook: Origin,
}

fn world() -> World {
    let speaks = |name: &'static str| {
        Origin::behaving(name, move |seen, stream| {
            let rest = if seen.path() == "/grpc" {
                "content-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n1\r\n0\r\n0\r\ngrpc-status: 0\r\n\r\n"
            } else {
                "content-length: 0\r\n\r\n"
            };
            write!(stream, "HTTP/1.1 200 OK\r\nx-version: {name}\r\n{rest}")?;
            Ok(Then::Keep)
        })
    };
    let (metrics, dir, webhook) = (nobody(), tempfile::tempdir().unwrap(), Origin::start("webhook"));
    let origins = vec![speaks("blue"), speaks("green")];
    Authority::new("us").issue(&["shop.test"]).write(dir.path(), "shop");
    fs::write(dir.path().join("endpoints.json"), format!("[\"{}\"]", origins[1].address)).unwrap();
    let services = format!(
        "[[listeners]]\nlisten = \"127.0.0.2:0\"\ntls = {{ certificates = [{{ cert = \"shop.pem\", key = \"shop.key\" }}] }}\n\
         [metrics]\nlisten = \"{metrics}\"\n[[webhooks]]\nname = \"chat\"\nurl = \"http://{}/\"\n\
         [services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nsupervise = true\nshield = true\n\
         health = {{ path = \"/healthz\", interval = \"100ms\", rise = 1 }}\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n\
         [services.shop.versions.green]\ndiscover = {{ file = \"endpoints.json\" }}\n",
        webhook.address, origins[0].address
    );
    let lab = Lab::configured(dir, origins, &services);
    lab.wait_for_metric(&["switchback_endpoint_up", "green"], 1.0);
    World { lab, metrics, _webhook: webhook }
}

/// `scrape.yml` as it stands, but for where the proxy and the files are, and how long things take.
fn scraping(metrics: SocketAddr) -> String {
    let text = read("prometheus/scrape.yml")
        .replace(": 15s", ": 250ms")
        .replace("127.0.0.1:9900", &metrics.to_string());
    let rules = file("prometheus/switchback.rules.yml");
    text.replace("- switchback.rules.yml", &format!("- {}", rules.display()))
        .replace("127.0.0.1:9115", &nobody().to_string())
}

/// The rules that Prometheus has read.
fn rules(prometheus: &Prometheus) -> Vec<Value> {
    let groups = prometheus.ask("rules").unwrap()["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn each_rule_and_each_panel_is_answered_by_a_real_prometheus() {
    if !is_here("prometheus") {
        return;
    }
    let World { lab, metrics, .. } = &world();
    let dir = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::configured(dir.path(), &scraping(*metrics));
    prometheus.until("up{job=\"switchback\"}", |result| result[0]["value"][1] == "1");
    lab.weights(&json!({ "blue": 5_000, "green": 5_000 }));
    let users = Users::of(lab.address(), Duration::from_millis(10));
    let call = "POST /grpc HTTP/1.1\r\nhost: a\r\nte: trailers\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(lab.client().send(call).answer().status, 200);
    let rules = rules(&prometheus);
    let records = rules.iter().filter(|rule| rule["type"] == "recording");
    let records: Vec<_> = records.map(|rule| text(&rule["name"])).collect();
    assert_eq!(records.len(), 11);
    for name in records {
        let versions = if name.starts_with("service_version:") { &["blue", "green"][..] } else { &[""] };
        for version in versions {
            let query = format!("{name}{{service=\"shop\", version=\"{version}\"}}");
            prometheus
                .until(&query, |result| result[0]["value"][1].as_str().is_some_and(|value| value != "NaN"));
        }
    }
    // The share that a version gets is its weight.
    let share = "service_version:switchback_upstream_requests:share_rate1m{version=\"green\"}";
    let share: f64 = text(&prometheus.query(share)[0]["value"][1]).parse().unwrap();
    assert!((0.3..0.7).contains(&share), "{share}");
    prometheus.until("rate(switchback_upstream_grpc_status_total[1m])", |result| result[0].is_object());
    let silent = silent_panels(&prometheus);
    drop(users);
    let expected: Vec<String> = Vec::new();
    assert_eq!(silent, expected);
    let shown = Client::connect(*metrics).get("/metrics").text();
    let of_rules = rules.iter().map(|rule| (text(&rule["name"]).to_owned(), text(&rule["query"]).to_owned()));
    let wrong: Vec<_> = of_rules
        .chain(asked_by(&dashboard()))
        .flat_map(|(place, expr)| {
            wrong_in(&expr, &shown).into_iter().map(move |why| format!("{place}: {why}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the dashboard asks and gets no answer to, though it does not ask for what has gone wrong.
fn silent_panels(prometheus: &Prometheus) -> Vec<String> {
    let only_if = |expr: &str| expr.contains("> 0") && !expr.contains("/ ");
    let silent = asked_by(&dashboard()).into_iter().filter(|(place, expr)| {
        let result = prometheus.try_query(expr).unwrap_or_else(|why| panic!("{place}: {expr}: {why}"));
        result.as_array().unwrap().is_empty() && !only_if(expr)
    });
    silent.map(|(place, expr)| format!("{place}: {expr}")).collect()
}

#[test]
fn a_name_that_is_not_right_is_found() {
    let shown = "switchback_retries_total{service=\"shop\",outcome=\"answered\"} 0\nswitchback_epoch 1\n";
    let wrong = |expr: &str| wrong_in(expr, shown);
    assert!(
        wrong("sum(rate(switchback_retries_total{outcome=\"answered\"}[1m])) > switchback_epoch").is_empty()
    );
    assert_eq!(wrong("switchback_retry_total"), ["no metric `switchback_retry_total`"]);
    assert_eq!(wrong("switchback_drain_seconds"), ["no metric `switchback_drain_seconds`"], "a histogram");
    assert_eq!(wrong("switchback_drain_seconds_bucket"), ["`switchback_drain_seconds_bucket` is not shown"]);
    assert_eq!(wrong("switchback_retries_total{result=\"x\"}").len(), 2);
    let values = wrong("switchback_retries_total{outcome=~\"answered|exhausted\"}");
    assert_eq!(values, ["`switchback_retries_total` has no outcome `exhausted`"]);
}

/// Runs `promtool`, which has nothing to object to.
fn promtool(arguments: &[&str]) {
    let said = Command::new("promtool").args(arguments).current_dir(file("prometheus")).output().unwrap();
    let words = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success(), "{words}");
}

#[test]
fn the_rules_are_right_and_fire_when_they_should() {
    if !is_here("promtool") {
        return;
    }
    promtool(&["check", "rules", "switchback.rules.yml"]);
    promtool(&["check", "config", "--syntax-only", "scrape.yml"]);
    promtool(&["test", "rules", "switchback.rules.test.yml"]);
    // Each alert has a case in which it fires and one in which it is quiet.
    let (rules, tests) =
        (read("prometheus/switchback.rules.yml"), read("prometheus/switchback.rules.test.yml"));
    let named = |text: &str, key: &str| -> BTreeSet<String> {
        text.lines().filter_map(|line| Some(line.trim().strip_prefix(key)?.trim().to_owned())).collect()
    };
    let alerts = named(&rules, "- alert:");
    assert!(alerts.len() > 20, "{alerts:?}");
    for alert in &alerts {
        let cases: Vec<_> = tests.split(&format!("alertname: {alert}\n")).skip(1).collect();
        let quiet = cases.iter().filter(|case| case.trim_start().starts_with("exp_alerts: []")).count();
        assert!(quiet > 0 && quiet < cases.len(), "{alert}: {quiet} of {} cases are quiet", cases.len());
    }
    assert_eq!(named(&tests, "alertname:"), alerts);
}

#[test]
fn each_alert_says_how_bad_it_is_and_what_to_type() {
    if !is_here("prometheus") {
        return;
    }
    let World { lab, metrics, .. } = &world();
    let dir = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::configured(dir.path(), &scraping(*metrics));
    let mut commands = BTreeSet::new();
    for alert in rules(&prometheus).iter().filter(|rule| rule["type"] == "alerting") {
        let (name, annotations) = (&alert["name"], &alert["annotations"]);
        assert!(["critical", "warning"].contains(&text(&alert["labels"]["severity"])), "{name}");
        assert!(!text(&annotations["summary"]).is_empty(), "{name}");
        let description = text(&annotations["description"]);
        let quoted: Vec<_> = description.split('`').skip(1).step_by(2).collect();
        assert!(
            quoted.iter().any(|command| command.contains(' ')),
            "{name} tells nothing to type: {description}"
        );
        commands.extend(quoted.into_iter().filter(|command| command.starts_with("switchback ")).map(filled));
    }
    assert!(commands.len() > 8, "{commands:?}");
    for command in commands {
        let words = words(&command);
        let mut words: Vec<_> = words.iter().map(String::as_str).skip(1).collect();
        match words[0] {
            // Without an end of its own.
            "top" => words.extend(["-n", "1", "--every", "100ms"]),
            // Only read; the others would be made.
            "status" | "history" | "drain" | "check" => {}
            _ => words.push("--dry-run"),
        }
        let (code, _, said) = lab.cli(&words);
        assert_ne!(code, 2, "`{command}`: {said}");
    }
}

/// A command with what an alert of the world would put in.
fn filled(command: &str) -> String {
    let pairs = [
        ("service", "shop"),
        ("version", "green"),
        ("candidate", "green"),
        ("baseline", "blue"),
        ("endpoint", "10.0.0.1:80"),
    ];
    let fill = |text: String, (label, value): (&str, &str)| {
        text.replace(&format!("{{{{ $labels.{label} }}}}"), value)
    };
    let command = pairs.into_iter().fold(command.to_owned(), fill);
    let always = command.replace("{{ if $labels.service }}", "").replace("{{ end }}", "");
    always.replace("HOST:PORT", "10.0.0.1:80").replace("/etc/switchback/", "")
}

/// The words of a command, as a shell reads them.
fn words(command: &str) -> Vec<String> {
    let parts = command.split('\'').enumerate();
    let words = parts.flat_map(|(at, part)| {
        let words = if at % 2 == 1 { vec![part] } else { part.split_whitespace().collect() };
        words.into_iter().map(str::to_owned)
    });
    words.collect()
}

#[test]
fn the_dashboard_is_one_that_grafana_takes() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39, "Grafana 10");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each has an id of its own");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let title = text(&panel["title"]);
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(w > 0 && h > 0 && x + w <= 24, "{title} is outside");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} lies over another one at {cell:?}");
        }
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        assert_eq!(targets.is_empty(), panel["type"] == "row", "{title}");
        let references: BTreeSet<_> = targets.iter().map(|target| text(&target["refId"])).collect();
        assert_eq!(references.len(), targets.len(), "{title}");
        for source in targets.iter().chain((panel["type"] != "row").then_some(panel)) {
            assert_eq!(
                source["datasource"],
                json!({ "type": "prometheus", "uid": "${datasource}" }),
                "{title}"
            );
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: Vec<_> = variables.iter().map(|variable| text(&variable["name"])).collect();
    assert_eq!(variables, ["datasource", "instance", "service", "version"]);
}

#[test]
fn what_counts_as_a_failed_call_is_what_supervision_counts() {
    let expected = GRPC_FAILURES.map(|status| status.to_string()).join("|");
    for text in [read("prometheus/switchback.rules.yml"), read("grafana/switchback.json").replace('\\', "")] {
        assert!(text.contains(&format!("grpc_status=~\"{expected}\"")), "{expected}");
    }
}
