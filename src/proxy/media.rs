//! What a `Content-Type` calls its content. Names of types are compared without regard to case (RFC 9110 §8.3.1).

/// True for an event stream.
#[must_use]
pub fn is_events(content: &[u8]) -> bool {
    essence(content).eq_ignore_ascii_case(b"text/event-stream")
}

/// True for gRPC in any of its forms.
#[must_use]
pub fn is_grpc(content: &[u8]) -> bool {
    coding(content).is_some()
}

/// True for a gRPC call, whose status comes behind its messages; gRPC-Web has it among them.
#[must_use]
pub fn is_call(content: &[u8]) -> bool {
    coding(content).is_some_and(|coding| matches!(coding.first(), None | Some(b'+')))
}

/// What follows the name of gRPC.
fn coding(content: &[u8]) -> Option<&[u8]> {
    let (name, coding) = essence(content).split_at_checked(b"application/grpc".len())?;
    name.eq_ignore_ascii_case(b"application/grpc").then_some(coding)
}

/// The type without its parameters.
fn essence(content: &[u8]) -> &[u8] {
    content.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_known_in_any_case_and_with_parameters() {
        for events in ["text/event-stream", "Text/Event-Stream; charset=utf-8", "TEXT/EVENT-STREAM ;a"] {
            assert!(is_events(events.as_bytes()), "{events}");
        }
        for other in ["", "text/event-streams", "text/plain; text/event-stream"] {
            assert!(!is_events(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_call_has_its_status_behind_it_and_grpc_web_has_not() {
        let told = |content: &str| (is_grpc(content.as_bytes()), is_call(content.as_bytes()));
        for call in
            ["application/grpc", "Application/gRPC+proto", "application/grpc; a=b", "application/grpc "]
        {
            assert_eq!(told(call), (true, true), "{call}");
        }
        for web in ["application/grpc-web", "application/gRPC-Web+proto", "application/grpc-web-text"] {
            assert_eq!(told(web), (true, false), "{web}");
        }
        for other in ["", "application/grp", "application/json; application/grpc"] {
            assert_eq!(told(other), (false, false), "{other}");
        }
    }
}
