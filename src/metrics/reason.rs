//! Why a request failed, in the words that answers, metrics and logs share.

/// Why the proxy answered in a version's place, or gave up on it: the token of `switchback-reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// No route leads anywhere.
    NoRoute,
    /// The version has no endpoint.
    NoEndpoint,
    /// The endpoint refused the connection, or was not reachable.
    ConnectFailed,
    /// The endpoint did not accept in time.
    ConnectTimeout,
    /// The TLS handshake with the endpoint failed.
    UpstreamTls,
    /// The endpoint closed or reset the connection before an answer.
    UpstreamClosed,
    /// The endpoint's answer was not HTTP, or ambiguous.
    UpstreamProtocol,
    /// The endpoint speaks HTTP/2 and takes no WebSockets over it.
    NoWebsocket,
    /// No response head in time.
    ResponseTimeout,
    /// The endpoint's body stopped.
    BodyStalled,
    /// The endpoint closed in the middle of a body.
    BodyTruncated,
    /// The client's body stopped, or broke off.
    RequestBody,
    /// The client went away.
    ClientGone,
    /// The client did not take its answer, or too slowly.
    ClientStalled,
    /// The request was malformed or ambiguous.
    BadRequest,
    /// The request's head was over the limit.
    HeadTooLarge,
    /// The request's target alone was over that limit.
    TargetTooLong,
    /// The request is of a version of HTTP that is not spoken here.
    HttpVersion,
    /// The method is not served.
    Method,
    /// An expectation other than 100-continue.
    Expectation,
    /// The request's head or next request did not come in time.
    RequestTimeout,
    /// A limit on connections or memory was reached.
    Overload,
    /// A PROXY header was malformed, missing or not allowed; nothing is answered.
    ProxyProtocol,
    /// The client has as many connections as it may.
    Connections,
    /// The service has as many requests in flight as it may.
    Concurrency,
    /// The version has as many requests as it may, and no room for one that waits, or none in time.
    CircuitOpen,
    /// The service, or this client, had as many requests a time as it may.
    Rate,
    /// The request's body is over the limit.
    RequestTooLarge,
    /// The answer's body is over the limit.
    ResponseTooLarge,
    /// The request took longer in all than it may.
    Deadline,
    /// It was still there when the drain of its version had taken as long as it may.
    DrainDeadline,
    /// Far more of the client's frames carried nothing, or were given up, than an honest one has reason to.
    Flood,
    /// The proxy is shutting down.
    ShuttingDown,
    /// The request is for another host than its connection's TLS.
    Misdirected,
    /// A fault of the proxy's own.
    Internal,
}

impl Reason {
    /// All of them, in order.
    pub const ALL: [Self; 35] = [
        Self::NoRoute,
        Self::NoEndpoint,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::UpstreamTls,
        Self::UpstreamClosed,
        Self::UpstreamProtocol,
        Self::NoWebsocket,
        Self::ResponseTimeout,
        Self::BodyStalled,
        Self::BodyTruncated,
        Self::RequestBody,
        Self::ClientGone,
        Self::ClientStalled,
        Self::BadRequest,
        Self::HeadTooLarge,
        Self::TargetTooLong,
        Self::HttpVersion,
        Self::Method,
        Self::Expectation,
        Self::RequestTimeout,
        Self::Overload,
        Self::ProxyProtocol,
        Self::Connections,
        Self::Concurrency,
        Self::CircuitOpen,
        Self::Rate,
        Self::RequestTooLarge,
        Self::ResponseTooLarge,
        Self::Deadline,
        Self::DrainDeadline,
        Self::Flood,
        Self::ShuttingDown,
        Self::Misdirected,
        Self::Internal,
    ];

    /// The stable token, and the status that goes with it.
    #[must_use]
    pub fn token(self) -> &'static str {
        self.both().0
    }

    /// The status of the proxy's answer, or the code it is counted under (499: the client went away).
    #[must_use]
    pub fn status(self) -> u16 {
        self.both().1
    }

    fn both(self) -> (&'static str, u16) {
        match self {
            Self::NoRoute => ("no_route", 404),
            Self::NoEndpoint => ("no_endpoint", 503),
            Self::ConnectFailed => ("connect_failed", 503),
            Self::ConnectTimeout => ("connect_timeout", 504),
            Self::UpstreamTls => ("upstream_tls", 502),
            Self::UpstreamClosed => ("upstream_closed", 502),
            Self::UpstreamProtocol => ("upstream_protocol", 502),
            Self::NoWebsocket => ("no_websocket", 502),
            Self::ResponseTimeout => ("response_timeout", 504),
            Self::BodyStalled => ("body_stalled", 504),
            Self::BodyTruncated => ("body_truncated", 502),
            Self::RequestBody => ("request_body", 400),
            Self::ClientGone => ("client_gone", 499),
            Self::ClientStalled => ("client_stalled", 499),
            Self::BadRequest => ("bad_request", 400),
            Self::HeadTooLarge => ("head_too_large", 431),
            Self::TargetTooLong => ("target_too_long", 414),
            Self::HttpVersion => ("http_version", 505),
            Self::Method => ("method_not_allowed", 405),
            Self::Expectation => ("expectation_failed", 417),
            Self::RequestTimeout => ("request_timeout", 408),
            Self::Overload => ("overload", 503),
            Self::ProxyProtocol => ("proxy_protocol", 400),
            Self::Connections => ("connections", 429),
            Self::Concurrency => ("concurrency", 503),
            Self::CircuitOpen => ("circuit_open", 503),
            Self::Rate => ("rate", 429),
            Self::RequestTooLarge => ("request_too_large", 413),
            Self::ResponseTooLarge => ("response_too_large", 502),
            Self::Deadline => ("deadline", 504),
            Self::DrainDeadline => ("drain_deadline", 503),
            Self::Flood => ("flood", 429),
            Self::ShuttingDown => ("shutting_down", 503),
            Self::Misdirected => ("misdirected_request", 421),
            Self::Internal => ("internal", 500),
        }
    }
}
