//! What `/metrics` shows, and that Prometheus' own checker has nothing to say about it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use switchback::metrics::supervision::{Compared, Stands};
use switchback::metrics::{
    Buckets, Certificate, Deliveries, Edge, EndpointState, Exposition, Finds, Inputs, Kind, Lookups,
    Operations, Outcome, Reason, Reloads, Tenure, names,
};
use switchback::proxy::upstream::Upstream;
use switchback::release::{self, Actor, ActorKind, Event, Order, State, Timestamp};
use switchback::table::pool::outliers::Cause;
use switchback::table::{
    DrainRules, Epoch, HoldLimits, PoolTraits, Protocol, Route, ServiceLimits, ServiceSpec, Table, Timeouts,
    VersionSpec,
};

/// `shop`: blue 95 %, green 5 %, at epoch 1.
fn table() -> Arc<Table> {
    let version = |name: &str, port: u16| VersionSpec {
        name: name.parse().unwrap(),
        endpoints: Arc::new([format!("127.0.0.1:{port}").parse().unwrap()]),
        protocol: Protocol::default(),
        tls: None,
        proxy_header: None,
        draining: Arc::default(),
        traits: PoolTraits::default(),
        pool: None,
    };
    let shop = ServiceSpec {
        name: "shop".parse().unwrap(),
        routes: Arc::new([Route { host: "*".parse().unwrap(), path: "/".into(), headers: vec![] }]),
        versions: vec![version("blue", 9001), version("green", 9101)],
        discovering: Vec::new(),
        stable: "blue".parse().unwrap(),
        weights: vec![("blue".parse().unwrap(), 9_500), ("green".parse().unwrap(), 500)],
        timeouts: Timeouts::default(),
        rules: None,
        limits: ServiceLimits::default(),
        drain: DrainRules::default(),
        hold: HoldLimits::standard(),
        pool: Arc::default(),
        supervise: None,
        sticky: None,
        targeting: switchback::table::Targeting::default(),
        shield: None,
        upgrades: Default::default(),
        mirror: None,
    };
    let command = release::Command::Configure { services: vec![shop], records: vec![] };
    let actor = Actor { kind: ActorKind::File, name: String::new() };
    let order =
        Order { command, actor, reason: String::new(), expected: vec![], health: release::Health::default() };
    release::step(&State::at(Epoch(0)), Event::Order(order), Timestamp(1)).unwrap().0.table
}

fn tenure(version: &str) -> Arc<Upstream> {
    Arc::new(Upstream::open("shop".parse().unwrap(), version.parse().unwrap(), 2))
}

fn inputs(tenures: &[Arc<Upstream>]) -> Inputs {
    let buckets = |bound| Buckets { cumulative: vec![(bound, 1)], count: 2, sum: 3.5 };
    let operations = Operations {
        changes: vec![("flip", "operator", 3), ("flip", "supervisor", 0)],
        fence: buckets(0.001),
        drain: buckets(60.0),
    };
    let mut edge = Edge { connections: 2, accepted: 7, ..Edge::default() };
    edge.refused[Reason::NoRoute as usize] = 4;
    Inputs {
        table: table(),
        tenures: tenures.iter().map(|tenure| Arc::clone(tenure) as Arc<dyn Tenure>).collect(),
        operations: vec![("shop".parse().unwrap(), operations)],
        edges: vec![edge, edge],
        refusals: vec![("shop".parse().unwrap(), Reason::Rate, 5)],
        certificates: vec![Certificate {
            listener: "0.0.0.0:443".to_owned(),
            file: "/etc/switchback/shop.pem".to_owned(),
            not_after: 1_800_000_000,
        }],
        reloads: Reloads { applied: 4, failed: 2, is_failed: true },
        held: vec![("shop".parse().unwrap(), 3)],
        log_dropped: 0,
        deliveries: vec![Deliveries {
            webhook: "ci".to_owned(),
            delivered: 5,
            failed: 1,
            dropped: 0,
            waiting: 2,
        }],
        finds: vec![Finds {
            service: "shop".parse().unwrap(),
            version: "blue".parse().unwrap(),
            found: 3,
            failed: 1,
        }],
        compared: vec![Compared {
            service: "shop".parse().unwrap(),
            candidate: "green".parse().unwrap(),
            baseline: "blue".parse().unwrap(),
            stands: Some(Stands {
                state: "suspect",
                log_e: vec![("error_rate", 5.5), ("total", -3.5)],
                excess: Some([-0.25, 0.5, 1.0]),
                common_mode: true,
                is_hindered: true,
            }),
            requests: [[95, 1, 2], [3, 4, 0]],
            suspects: [2, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            reverts: [0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
            ejections: 1,
            last_revert: Some((6, 0.13)),
        }],
        lookups: vec![Lookups { host: "blue.internal".to_owned(), found: 2, failed: 1 }],
        endpoints: vec![EndpointState {
            service: "shop".parse().unwrap(),
            version: "blue".parse().unwrap(),
            endpoint: "127.0.0.1:9001".to_owned(),
            is_up: true,
        }],
    }
}

/// What these tenures look like to Prometheus.
fn shown(tenures: &[Arc<Upstream>]) -> String {
    let tenures = tenures.to_vec();
    Exposition::of(move || inputs(&tenures)).render()
}

fn answer(tenure: &Upstream, worker: usize, code: u16, reason: Option<Reason>) {
    let outcome = Outcome { code, reason, micros: 2_000 };
    tenure.shard(worker).cells().record(outcome);
}

/// The value of a series as it is written.
fn value<'t>(text: &'t str, series: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
}

#[test]
fn a_known_version_has_its_series_from_0_on() {
    let text = shown(&[tenure("blue"), tenure("green")]);
    for code in [200, 404, 499, 500, 502, 503, 504] {
        for metric in ["switchback_upstream_requests_total", "switchback_client_requests_total"] {
            let series =
                format!("{metric}{{service=\"shop\",version=\"green\",code=\"{code}\",reason=\"\"}}");
            assert_eq!(value(&text, &series), Some("0"), "{series}");
        }
    }
    assert!(!text.contains("code=\"418\""), "a code that never came is not shown");
    let gave_up = r#"switchback_client_requests_total{service="shop",version="green",code="503",reason="connect_failed"}"#;
    assert_eq!(value(&text, gave_up), Some("0"));
    let count = r#"switchback_upstream_request_duration_seconds_count{service="shop",version="green"}"#;
    assert_eq!(value(&text, count), Some("0"));
    for kind in Kind::ALL {
        let series =
            format!(r#"switchback_in_flight{{service="shop",version="blue",kind="{}"}}"#, kind.token());
        assert_eq!(value(&text, &series), Some("0"));
    }
}

#[test]
fn workers_and_tenures_of_one_version_are_added_up() {
    let (first, again) = (tenure("blue"), tenure("blue"));
    answer(&first, 0, 200, None);
    answer(&first, 1, 200, None);
    answer(&again, 0, 200, None);
    answer(&again, 0, 418, None);
    answer(&again, 0, 299, None);
    answer(&again, 1, 200, Some(Reason::BodyTruncated));
    again.shard(1).cells().enter(Kind::Websocket);
    let text = shown(&[first, again]);
    let total = |code: &str, reason: &str| {
        let labels = format!(r#"{{service="shop",version="blue",code="{code}",reason="{reason}"}}"#);
        value(&text, &format!("switchback_upstream_requests_total{labels}")).map(str::to_owned)
    };
    assert_eq!(total("200", "").as_deref(), Some("3"));
    assert_eq!(total("418", "").as_deref(), Some("1"));
    assert_eq!(total("2xx", "").as_deref(), Some("1"), "a code without a cell counts in its class");
    assert_eq!(
        total("502", "body_truncated").as_deref(),
        Some("1"),
        "under the reason's code, not the head's"
    );
    let bucket = |bound: &str| {
        let labels = format!(r#"{{service="shop",version="blue",le="{bound}"}}"#);
        value(&text, &format!("switchback_upstream_request_duration_seconds_bucket{labels}"))
            .map(str::to_owned)
    };
    assert_eq!((bucket("0.0015").as_deref(), bucket("0.0025").as_deref()), (Some("0"), Some("6")));
    assert_eq!(bucket("+Inf").as_deref(), Some("6"));
    let sum = r#"switchback_client_request_duration_seconds_sum{service="shop"}"#;
    assert_eq!(value(&text, sum), Some("0.012"));
    let websockets = r#"switchback_in_flight{service="shop",version="blue",kind="websocket"}"#;
    assert_eq!(value(&text, websockets), Some("1"));
}

#[test]
fn the_table_and_control_and_the_doorstep_are_shown() {
    let text = shown(&[tenure("blue"), tenure("green"), tenure("grey")]);
    for (series, expected) in [
        (r#"switchback_config_reloads_total{result="applied"}"#, "4"),
        (r#"switchback_config_reloads_total{result="failed"}"#, "2"),
        ("switchback_config_last_reload_successful", "0"),
        (r#"switchback_split_weight_ratio{service="shop",version="blue"}"#, "0.95"),
        (r#"switchback_split_weight_ratio{service="shop",version="green"}"#, "0.05"),
        (r#"switchback_split_weight_ratio{service="shop",version="grey"}"#, "0"),
        ("switchback_epoch", "1"),
        (r#"switchback_service_epoch{service="shop"}"#, "1"),
        (r#"switchback_changes_total{service="shop",kind="flip",actor="operator"}"#, "3"),
        (r#"switchback_changes_total{service="shop",kind="flip",actor="supervisor"}"#, "0"),
        (r#"switchback_flip_fence_seconds_bucket{service="shop",le="0.001"}"#, "1"),
        (r#"switchback_flip_fence_seconds_count{service="shop"}"#, "2"),
        (r#"switchback_drain_seconds_sum{service="shop"}"#, "3.5"),
        (r#"switchback_client_requests_total{service="",version="",code="404",reason="no_route"}"#, "8"),
        (r#"switchback_webhook_deliveries_total{webhook="ci",result="delivered"}"#, "5"),
        (r#"switchback_webhook_deliveries_total{webhook="ci",result="failed"}"#, "1"),
        (r#"switchback_webhook_waiting{webhook="ci"}"#, "2"),
        (
            r#"switchback_supervision_state{service="shop",candidate="green",baseline="blue",state="suspect"}"#,
            "1",
        ),
        (
            r#"switchback_supervision_state{service="shop",candidate="green",baseline="blue",state="held"}"#,
            "0",
        ),
        (
            r#"switchback_supervision_log_e{service="shop",candidate="green",baseline="blue",metric="total"}"#,
            "-3.5",
        ),
        (
            r#"switchback_supervision_excess_ratio{service="shop",candidate="green",baseline="blue",bound="low"}"#,
            "-0.25",
        ),
        (r#"switchback_supervision_hindered{service="shop",candidate="green",baseline="blue"}"#, "1"),
        (
            r#"switchback_supervision_requests_total{service="shop",candidate="green",baseline="blue",version="green",outcome="failed"}"#,
            "4",
        ),
        (
            r#"switchback_supervision_suspects_total{service="shop",candidate="green",baseline="blue",cause="fuse"}"#,
            "1",
        ),
        (
            r#"switchback_supervision_reverts_total{service="shop",candidate="green",baseline="blue",reason="error_rate"}"#,
            "1",
        ),
        (
            r#"switchback_supervision_last_revert_seconds{service="shop",candidate="green",baseline="blue"}"#,
            "0.13",
        ),
        ("switchback_client_connections", "4"),
        ("switchback_client_connections_accepted_total", "14"),
        (concat!("switchback_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), "1"),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series}");
    }
    let resident: f64 = value(&text, "process_resident_memory_bytes").unwrap().parse().unwrap();
    assert!(resident > 1e6);
}

#[test]
fn what_users_waited_for_never_falls_when_a_version_is_gone() {
    let (blue, green) = (tenure("blue"), tenure("green"));
    let present = Arc::new(Mutex::new(vec![Arc::clone(&blue), Arc::clone(&green)]));
    let source = Arc::clone(&present);
    let exposition = Exposition::of(move || inputs(&source.lock().unwrap()));
    let count = || {
        let text = exposition.render();
        value(&text, r#"switchback_client_request_duration_seconds_count{service="shop"}"#).map(str::to_owned)
    };
    answer(&blue, 0, 200, None);
    answer(&green, 0, 200, None);
    assert_eq!(count().as_deref(), Some("2"));
    answer(&blue, 1, 200, None);
    present.lock().unwrap().remove(0);
    assert_eq!(count().as_deref(), Some("3"), "its last request counts too");
    assert_eq!(count().as_deref(), Some("3"), "and only once");
    present.lock().unwrap().clear();
    assert_eq!(count(), None, "gone with the service");
}

#[test]
fn the_text_is_in_order_and_ends_with_a_newline() {
    let text = shown(&[tenure("green"), tenure("blue")]);
    assert!(text.ends_with('\n') && !text.ends_with("\n\n"));
    let families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(families.is_sorted(), "{families:?}");
    let ours = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with("process_")).map(str::to_owned).collect()
    };
    assert_eq!(ours(&text), ours(&shown(&[tenure("blue"), tenure("green")])));
}

#[test]
fn every_metric_is_shown_with_its_help_and_labels() {
    let blue = tenure("blue");
    blue.shard(0).cells().record_grpc(Some(5));
    blue.checks().record(false, 2_000);
    blue.checks().ejected(Cause::LocalErrors);
    let text = shown(&[blue]);
    let of_blue =
        |metric: &str, label: &str| format!("{metric}{{service=\"shop\",version=\"blue\",{label}}}");
    let [unwell, ejected, up] = [
        of_blue("switchback_health_checks_total", "result=\"unwell\""),
        of_blue("switchback_endpoint_ejections_total", "cause=\"local_errors\""),
        of_blue("switchback_endpoint_up", "endpoint=\"127.0.0.1:9001\""),
    ];
    assert_eq!([unwell, ejected, up].map(|series| value(&text, &series)), [Some("1"); 3]);
    for metric in names::ALL {
        let help = format!("# HELP {} {}\n", metric.name, metric.help);
        assert!(text.contains(&help), "{help}");
        let first = metric.labels.first().map(|label| format!("{{{label}=\""));
        assert!(text.contains(&format!("\n{}", metric.name)), "{}", metric.name);
        assert!(first.is_none_or(|first| text.contains(&first)));
    }
}

/// Needs `promtool`, which is in Debian's `prometheus` package; `tests/run` installs it.
#[test]
fn promtool_has_nothing_to_say() {
    let tool = std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into());
    let (busy, idle) = (tenure("blue"), tenure("green"));
    answer(&busy, 0, 200, None);
    answer(&busy, 0, 504, Some(Reason::ResponseTimeout));
    let mut check = Command::new(tool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: apt-get install prometheus");
    check.stdin.take().unwrap().write_all(shown(&[busy, idle]).as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let says = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && says.is_empty(), "{says}");
}
