//! What is kept on disk is what it was: these numbers are never edited, only added to.

use std::collections::BTreeSet;

use super::*;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn share(points: u64) -> BasisPoints {
    BasisPoints::new(points).unwrap()
}

fn number(number: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(number)
}

fn version(name: &str) -> VersionSpec {
    VersionSpec {
        name: name.parse().unwrap(),
        endpoints: ["127.0.0.1:9001", "app.internal:80", "unix:/run/a.sock"]
            .map(|at| at.parse().unwrap())
            .into(),
        protocol: Protocol::Http1,
        tls: None,
        proxy_header: None,
        draining: Arc::default(),
        traits: PoolTraits::default(),
        pool: None,
    }
}

/// A service of which nothing is said that need not be.
fn plain() -> ServiceSpec {
    ServiceSpec {
        name: "shop".parse().unwrap(),
        routes: [Route { host: HostPattern::Any, path: "/".into(), headers: Vec::new() }].into(),
        versions: vec![version("blue")],
        discovering: Vec::new(),
        stable: "blue".parse().unwrap(),
        weights: vec![("blue".parse().unwrap(), 10_000)],
        timeouts: Timeouts::default(),
        rules: None,
        limits: ServiceLimits::default(),
        drain: DrainRules::default(),
        hold: HoldLimits::standard(),
        pool: Arc::default(),
        supervise: None,
        sticky: None,
        targeting: Default::default(),
        shield: None,
        upgrades: Arc::default(),
        mirror: None,
    }
}

/// A service of which everything is said.
fn whole() -> ServiceSpec {
    let tls = UpstreamTls {
        server_name: Some("a.test".into()),
        found_by: Some("b.test".into()),
        verify: false,
        authorities: Some(b"authorities".as_slice().into()),
        identity: Some(Identity { certificate: b"chain".as_slice().into(), key: b"key".as_slice().into() }),
    };
    let traits = Traits { weight: EndpointWeight::new(3).unwrap(), zone: Some("a".parse().unwrap()) };
    let blue = VersionSpec {
        tls: Some(tls.into()),
        proxy_header: Some(ProxyHeader::V2),
        traits: [("127.0.0.1:9001".parse().unwrap(), traits)].into_iter().collect(),
        pool: Some(pool().into()),
        ..version("blue")
    };
    let rate =
        Rate { requests: NonZeroU32::MIN, per: secs(1), burst: number(7).unwrap(), by: RateBy::Client };
    ServiceSpec {
        routes: [Route {
            host: "*.shop.test".parse().unwrap(),
            path: "/api/".into(),
            headers: vec![("x-beta".into(), "1".into())],
        }]
        .into(),
        versions: vec![blue, version("green")],
        discovering: vec!["green".parse().unwrap()],
        timeouts: Timeouts { total: Some(Duration::from_millis(1_500)), ..Timeouts::default() },
        rules: Some(rules().into()),
        limits: ServiceLimits {
            in_flight: number(9),
            rate: Some(rate),
            request_body: Some(1 << 40),
            response_body: Some(2),
        },
        drain: DrainRules { retry: Some(secs(5)), ..DrainRules::default() },
        supervise: Some(SuperviseRules::default().into()),
        sticky: Some(StickyRules { by: StickyBy::Header("x-user".into()), salt: "shop".into() }.into()),
        ..plain()
    }
}

fn pool() -> PoolRules {
    let deviation = Deviation { factor: 1_900, min_hosts: 5, min_requests: 100 };
    PoolRules {
        retries: RetryRules {
            on: Failing::ALL.into(),
            statuses: vec![429],
            per_try_timeout: Some(secs(2)),
            ..RetryRules::default()
        },
        hedge: Some(HedgeRules { after: Duration::from_millis(50), max: 1 }),
        circuit: CircuitRules {
            requests: number(10),
            endpoint_requests: number(5),
            connections: number(2),
            ..CircuitRules::default()
        },
        keepalive: KeepaliveRules {
            idle: Some(secs(4)),
            requests: number(1_000),
            ..KeepaliveRules::default()
        },
        health: Some(Arc::new(HealthCheck {
            probe: Probe::Http(HttpProbe {
                method: Method::HEAD,
                host: Some(HeaderValue::from_static("a.test")),
                headers: vec![(http::header::ACCEPT, HeaderValue::from_static("*/*"))],
                body: Some("ok".into()),
                ..HttpProbe::default()
            }),
            protocol: Some(Protocol::H2c),
            port: Some(8_080),
            ..HealthCheck::default()
        })),
        outliers: OutlierRules {
            success_rate: Some(deviation),
            latency: Some(deviation),
            ..OutlierRules::default()
        },
        balance: Balance {
            policy: Policy::Hash(Hashing { key: HashKey::Header("x-user".into()), bound: Some(150) }),
            slow_start: Some(SlowStart::over(secs(30))),
            ..Balance::default()
        },
        warmup: Some(Warmup::default()),
    }
}

fn rules() -> Rules {
    let redirect = OwnAnswer::Redirect { status: 308, to: "https://%{host}%{path}".parse().unwrap() };
    let edits = Edits {
        request: vec![
            FieldOp::Remove("x-a".into()),
            FieldOp::Set("x-b".into(), "%{client_addr}".parse().unwrap()),
        ],
        response: vec![FieldOp::Add("x-c".into(), "1".parse().unwrap())],
        host: Some(SentHost::Fixed("inside.test".into())),
    };
    let route = RouteRules { edits, path: Some(PathRewrite::new("/api/", "/v2")), answer: Some(redirect) };
    Rules {
        routes: vec![None, Some(route)],
        versions: vec![(
            "blue".parse().unwrap(),
            Edits { host: Some(SentHost::Endpoint), ..Edits::default() },
        )],
        pages: vec![page(On::Class(5)), page(On::Status(404)), page(On::Reason("no_endpoint"))],
        pins_release: false,
    }
}

fn page(on: On) -> ErrorPage {
    ErrorPage { on: [on].into(), page: Page::new("text/plain", b"sorry".to_vec()) }
}

fn hash(spec: &ServiceSpec) -> u64 {
    FileDigest::of(spec).hash
}

#[test]
fn the_first_form_is_never_another_one() {
    assert_eq!(FileDigest::FORM, 1);
    assert_eq!((hash(&plain()), hash(&whole())), (18_252_569_067_130_249_814, 17_619_513_904_566_694_628));
}

#[test]
fn whatever_the_file_says_else_is_another_digest() {
    let with = |edit: fn(&mut ServiceSpec)| {
        let mut spec = plain();
        edit(&mut spec);
        hash(&spec)
    };
    let pool = |edit: fn(&mut PoolRules)| {
        let mut spec = plain();
        edit(Arc::make_mut(&mut spec.pool));
        hash(&spec)
    };
    let policies = [Policy::RoundRobin, Policy::Random, Policy::Ewma { decay: Policy::DECAY }];
    let keys = [HashKey::Cookie("a".into()), HashKey::Header("a".into()), HashKey::Client, HashKey::Path];
    let keys = keys.map(|key| Policy::Hash(Hashing { key, bound: None }));
    let policies = policies.into_iter().chain(keys).map(|policy| {
        let mut spec = plain();
        Arc::make_mut(&mut spec.pool).balance.policy = policy;
        hash(&spec)
    });
    let all = [
        hash(&plain()),
        with(|spec| spec.versions[0].protocol = Protocol::H2),
        with(|spec| spec.versions[0].endpoints = Arc::default()),
        with(|spec| spec.versions[0].tls = Some(Arc::default())),
        with(|spec| spec.versions[0].proxy_header = Some(ProxyHeader::V1)),
        with(|spec| spec.versions.push(version("green"))),
        with(|spec| spec.timeouts.response = Duration::from_millis(59_999)),
        with(|spec| spec.timeouts.total = Some(Duration::ZERO)),
        with(|spec| spec.rules = Some(Arc::default())),
        with(|spec| spec.rules = Some(Rules { pins_release: true, ..Default::default() }.into())),
        with(|spec| spec.limits.request_body = Some(1)),
        with(|spec| spec.limits.response_body = Some(1)),
        with(|spec| spec.limits.in_flight = number(1)),
        with(|spec| spec.drain.deadline = Duration::ZERO),
        with(|spec| Arc::make_mut(&mut spec.hold).answer = vec!["/health".into(), "z".into()]),
        with(|spec| spec.supervise = Some(Arc::default())),
        with(|spec| spec.shield = Some(Arc::default())),
        with(|spec| spec.upgrades = ["tcp".parse().unwrap()].into()),
        with(|spec| spec.mirror = Some(MirrorRules::to("green".parse().unwrap()).into())),
        with(|spec| {
            let to = MirrorRules::to("green".parse().unwrap());
            spec.mirror = Some(MirrorRules { compare: Compare::None, ..to }.into());
        }),
        with(|spec| spec.shield = Some(ShieldRules { statuses: Vec::new(), ..Default::default() }.into())),
        with(|spec| {
            spec.supervise = Some(SuperviseRules { mode: SuperviseMode::Off, ..Default::default() }.into())
        }),
        pool(|rules| rules.balance.panic_threshold = share(0)),
        pool(|rules| rules.balance.zone_preference = false),
        pool(|rules| rules.health = Some(Arc::default())),
        pool(|rules| rules.health = Some(HealthCheck { probe: Probe::Tcp, ..Default::default() }.into())),
        pool(|rules| {
            rules.health = Some(HealthCheck { probe: Probe::Grpc("".into()), ..Default::default() }.into())
        }),
        pool(|rules| {
            rules.health =
                Some(HealthCheck { min_healthy: Least::Share(share(1)), ..Default::default() }.into())
        }),
    ];
    let all: Vec<_> = all.into_iter().chain(policies).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}

struct Before {
    a: u32,
}

struct Later {
    a: u32,
    b: Option<u32>,
    c: Option<u32>,
}

fields! {
    Before { a }
    Later { a; b, c }
}

#[test]
fn a_field_that_came_later_changes_nothing_where_it_says_nothing() {
    let written = |value: &dyn Written| {
        let mut to = Fnv::default();
        value.write(&mut to);
        to.finish()
    };
    let later = |b, c| written(&Later { a: 1, b, c });
    assert_eq!(written(&Before { a: 1 }), later(None, None));
    let others = [later(None, None), later(Some(1), None), later(None, Some(1)), later(Some(1), Some(1))];
    assert_eq!(BTreeSet::from(others).len(), others.len());
}
