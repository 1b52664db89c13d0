//! How a TLS handshake ended: the label `result` of `switchback_tls_handshakes_total`.

/// How a client's TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// It was done in full.
    Full,
    /// The client resumed a session.
    Resumed,
    /// It took too long.
    Timeout,
    /// The client left in the middle of it.
    Closed,
    /// There were too many at a time.
    Limit,
    /// What the client sent was not TLS, or against its rules.
    Malformed,
    /// Client and listener have no version, cipher suite, group, signature or application protocol in common.
    Incompatible,
    /// The client's certificate was missing, or not to be trusted.
    ClientCertificate,
    /// The client refused to go on, most often because of our certificate.
    Refused,
}

impl Handshake {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Full,
        Self::Resumed,
        Self::Timeout,
        Self::Closed,
        Self::Limit,
        Self::Malformed,
        Self::Incompatible,
        Self::ClientCertificate,
        Self::Refused,
    ];

    /// The label's value.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Limit => "limit",
            Self::Malformed => "malformed",
            Self::Incompatible => "incompatible",
            Self::ClientCertificate => "client_certificate",
            Self::Refused => "refused",
        }
    }
}
