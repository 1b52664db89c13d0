//! An event as it is delivered: a CloudEvent 1.0 in structured JSON mode, made once for all who are told.

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::RngExt;
use rand::rngs::SmallRng;
use serde::Serialize;

use super::clock;
use crate::admin::api::{Event, text};

/// What deliveries are (CloudEvents 1.0, JSON event format §3).
pub(super) const CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";

/// One event, ready to be sent any number of times.
#[derive(Debug)]
pub(super) struct Letter {
    /// The same for everybody and for every attempt: by it a receiver knows what it has had.
    pub(super) id: String,
    /// The event's name.
    pub(super) event: &'static str,
    pub(super) body: Bytes,
}

/// Makes letters.
#[derive(Debug)]
pub(super) struct Press {
    source: String,
    /// Of this process; with `next` no id is ever used twice.
    nonce: u64,
    next: u64,
}

/// The envelope (CloudEvents 1.0 §3).
#[derive(Serialize)]
struct CloudEvent<'e> {
    specversion: &'static str,
    id: &'e str,
    source: &'e str,
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    time: String,
    datacontenttype: &'static str,
    data: &'e Event,
}

impl Press {
    pub(super) fn new() -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = utf8_percent_encode(host.trim(), NON_ALPHANUMERIC).to_string();
        let nonce = rand::make_rng::<SmallRng>().random();
        Self { source: format!("switchback://{host}"), nonce, next: 1 }
    }

    pub(super) fn print(&mut self, event: &Event) -> Letter {
        let id = format!("evt_{:016x}_{}", self.nonce, self.next);
        self.next += 1;
        let envelope = CloudEvent {
            specversion: "1.0",
            id: &id,
            source: &self.source,
            r#type: format!("switchback.{}", event.name()),
            subject: event.subject(),
            time: text::rfc3339(clock::now()),
            datacontenttype: "application/json",
            data: event,
        };
        // The wire types have string keys only, so this cannot fail.
        let body = serde_json::to_vec(&envelope).unwrap_or_default().into();
        Letter { id, event: event.name(), body }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_event_is_a_cloud_event_whose_data_is_what_the_stream_tells() {
        let mut press = Press::new();
        let event = Event::Drained { service: "shop".to_owned(), version: "blue".to_owned(), seconds: 1.5 };
        let [first, second] = [press.print(&event), press.print(&event)];
        let read: Value = serde_json::from_slice(&first.body).unwrap();
        assert_eq!(read["specversion"], "1.0");
        assert_eq!(read["type"], "switchback.drained");
        assert_eq!(read["subject"], "shop/blue");
        assert_eq!(
            read["data"],
            json!({ "type": "drained", "service": "shop", "version": "blue", "seconds": 1.5 })
        );
        assert!(text::millis(read["time"].as_str().unwrap()).is_some());
        assert!(read["source"].as_str().unwrap().starts_with("switchback://"));
        assert_eq!(read["id"], first.id);
        assert_ne!(first.id, second.id);
    }
}
