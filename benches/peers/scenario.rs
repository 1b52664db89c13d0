//! What is asked of every peer.

/// One thing to measure.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// One line for the head of the table.
    pub(crate) about: &'static str,
    /// Runs when no scenario is named.
    pub(crate) by_default: bool,
    pub(crate) kind: Kind,
}

/// How a scenario is measured.
pub(crate) enum Kind {
    /// Rounds of load on every target side by side.
    Load(&'static Load),
    /// Resident memory of connections that do nothing.
    IdleMemory,
}

/// The load of one scenario.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// The origin reads the size of its answer from this: `/64k`.
    pub(crate) path: &'static str,
    /// Bytes in the body of each answer; a shorter one fails the round.
    pub(crate) answer: u64,
    /// Bytes in the body of each request; with any, it is a POST.
    pub(crate) upload: usize,
    pub(crate) connections: u16,
    pub(crate) protocol: Protocol,
    pub(crate) reuse: Reuse,
    /// Under TLS 1.3.
    pub(crate) tls: bool,
    /// Requests go to this many hosts in turn.
    pub(crate) hosts: usize,
    pub(crate) upstream: Upstream,
    pub(crate) targets: Targets,
}

/// What the clients speak.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// By prior knowledge in clear text, else by ALPN; with this many requests at a time on each connection.
    Http2 {
        streams: u16,
    },
    /// One message after the other on each connection, each when the one before has come back.
    WebSocket,
}

/// What the servers behind the peers speak.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// HTTP/1.1.
    Http1,
    /// gRPC, over HTTP/2 by prior knowledge in clear text. The requests are gRPC's too.
    Grpc,
}

/// What becomes of a client connection after its first answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    KeepAlive,
    /// Every request says `Connection: close`.
    Close,
}

/// Who stands side by side.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Targets {
    /// Every peer asked for.
    Peers,
    /// Those of them that speak HTTP/2 and TLS: the relay passes on what the origin does not.
    Proxies,
    /// switchback with one service, and with [`MANY_SERVICES`].
    SwitchbackSizes,
    /// Those of the proxies that choose by what is in flight, before [`POOL`] endpoints of which one is slow; and
    /// switchback by what it has measured.
    Balancers,
}

/// Endpoints of the pool with a slow one.
pub(crate) const POOL: usize = 10;
/// How long the slow one, the first, takes for an answer, in milliseconds, and each of the others.
pub(crate) const SLOW_MS: u64 = 20;
pub(crate) const FAST_MS: u64 = 2;

/// Services of the large configuration, each with three routes.
pub(crate) const MANY_SERVICES: usize = 10_000;

/// Bytes of a gRPC message, its prefix of five included.
pub(crate) const GRPC_MESSAGE: usize = 5 + 128;

pub(crate) const GET_1K: Load = Load {
    path: "/1k",
    answer: 1 << 10,
    upload: 0,
    connections: 64,
    protocol: Protocol::Http1,
    reuse: Reuse::KeepAlive,
    tls: false,
    hosts: 1,
    upstream: Upstream::Http1,
    targets: Targets::Peers,
};
const GET_64K: Load = Load { path: "/64k", answer: 64 << 10, ..GET_1K };
const GET_1M: Load = Load { path: "/1m", answer: 1 << 20, ..GET_1K };
const H2C_1K: Load =
    Load { connections: 8, protocol: Protocol::Http2 { streams: 32 }, targets: Targets::Proxies, ..GET_1K };
const H2_TLS_1K: Load = Load { tls: true, ..H2C_1K };
const NEW_CONNECTION: Load = Load { reuse: Reuse::Close, ..GET_1K };
const UPLOAD_64K: Load = Load { path: "/0", answer: 0, upload: 64 << 10, ..GET_1K };
const TLS_1K: Load = Load { tls: true, targets: Targets::Proxies, ..GET_1K };
const TLS_HANDSHAKE: Load = Load { reuse: Reuse::Close, ..TLS_1K };
const GRPC: Load = Load {
    path: "/peers.Echo/Unary",
    answer: GRPC_MESSAGE as u64,
    upload: GRPC_MESSAGE,
    upstream: Upstream::Grpc,
    ..H2C_1K
};
const WEBSOCKET: Load = Load { protocol: Protocol::WebSocket, ..GET_1K };
const ROUTES_10K: Load = Load { hosts: MANY_SERVICES, targets: Targets::SwitchbackSizes, ..GET_1K };

/// Two requests an endpoint: few enough that the proxy's own time does not matter.
const SLOW_ENDPOINT: Load = Load { connections: 20, targets: Targets::Balancers, ..GET_1K };

/// Every scenario, in the order of the report.
pub(crate) const ALL: [Scenario; 14] = [
    Scenario {
        name: "h1-1k",
        about: "GET, answers of 1 KiB, 64 keep-alive connections",
        by_default: true,
        kind: Kind::Load(&GET_1K),
    },
    Scenario {
        name: "h1-64k",
        about: "GET, answers of 64 KiB, 64 keep-alive connections",
        by_default: true,
        kind: Kind::Load(&GET_64K),
    },
    Scenario {
        name: "h1-1m",
        about: "GET, answers of 1 MiB, 64 keep-alive connections",
        by_default: false,
        kind: Kind::Load(&GET_1M),
    },
    Scenario {
        name: "h2c",
        about: "GET over HTTP/2 in clear text, answers of 1 KiB, 8 connections with 32 requests at a time each",
        by_default: true,
        kind: Kind::Load(&H2C_1K),
    },
    Scenario {
        name: "h2-tls",
        about: "the same under TLS 1.3",
        by_default: false,
        kind: Kind::Load(&H2_TLS_1K),
    },
    Scenario {
        name: "grpc-unary",
        about: "gRPC in clear text on both sides, messages of 128 bytes, 8 connections with 32 calls at a time each",
        by_default: false,
        kind: Kind::Load(&GRPC),
    },
    Scenario {
        name: "websocket-echo",
        about: "messages of 1 KiB that come back, 64 WebSockets; a request is a message both ways",
        by_default: false,
        kind: Kind::Load(&WEBSOCKET),
    },
    Scenario {
        name: "new-connection",
        about: "GET, answers of 1 KiB, a new client connection for each request, 64 at a time",
        by_default: true,
        kind: Kind::Load(&NEW_CONNECTION),
    },
    Scenario {
        name: "upload-64k",
        about: "POST of 64 KiB, empty answers, 64 keep-alive connections",
        by_default: false,
        kind: Kind::Load(&UPLOAD_64K),
    },
    Scenario {
        name: "tls-h1",
        about: "GET, answers of 1 KiB, 64 keep-alive connections under TLS 1.3",
        by_default: true,
        kind: Kind::Load(&TLS_1K),
    },
    Scenario {
        name: "tls-handshake",
        about: "GET, answers of 1 KiB, a full TLS 1.3 handshake (X25519, ECDSA P-256) for each request, 64 at a time",
        by_default: true,
        kind: Kind::Load(&TLS_HANDSHAKE),
    },
    Scenario {
        name: "routes-10k",
        about: "as h1-1k, requests to 10,000 hosts in turn: 10,000 services of 3 routes, beside 1 service for all",
        by_default: false,
        kind: Kind::Load(&ROUTES_10K),
    },
    Scenario {
        name: "slow-endpoint",
        about: "GET, answers of 1 KiB, 20 keep-alive connections; 10 endpoints, of which one takes 20 ms and the others 2 ms",
        by_default: false,
        kind: Kind::Load(&SLOW_ENDPOINT),
    },
    Scenario {
        name: "idle-memory",
        about: "resident memory of idle client connections",
        by_default: false,
        kind: Kind::IdleMemory,
    },
];
