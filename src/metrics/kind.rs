//! What sort of work is in flight.

/// What sort of work is in flight, as in the label `kind` of `switchback_in_flight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An ordinary request.
    Request,
    /// A request whose body is still on its way to the version.
    Upload,
    /// A response without a known length.
    Stream,
    /// A server-sent event stream.
    Sse,
    /// A WebSocket.
    Websocket,
    /// A gRPC call.
    Grpc,
    /// Any other upgraded connection.
    Tunnel,
    /// The copy of a request that another version serves.
    Mirror,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Request,
        Self::Upload,
        Self::Stream,
        Self::Sse,
        Self::Websocket,
        Self::Grpc,
        Self::Tunnel,
        Self::Mirror,
    ];

    /// True for what stays with its endpoint: what only an answer can have become, and a copy.
    #[must_use]
    pub fn is_answered(self) -> bool {
        match self {
            Self::Request | Self::Upload | Self::Grpc => false,
            Self::Stream | Self::Sse | Self::Websocket | Self::Tunnel | Self::Mirror => true,
        }
    }

    /// The label's value.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Upload => "upload",
            Self::Stream => "stream",
            Self::Sse => "sse",
            Self::Websocket => "websocket",
            Self::Grpc => "grpc",
            Self::Tunnel => "tunnel",
            Self::Mirror => "mirror",
        }
    }
}
