//! Holds, and calls that are answered later.

use std::thread::{self, JoinHandle};

use serde_json::Value;

use super::client::Answer;
use super::{Client, Lab, admin};

/// Something that is asked on a thread of its own.
pub struct Later(JoinHandle<Answer>);

impl Later {
    pub fn answer(self) -> Answer {
        self.0.join().expect("an answer")
    }

    pub fn is_answered(&self) -> bool {
        self.0.is_finished()
    }
}

impl Lab {
    /// Holds `shop`.
    pub fn hold(&self, body: &Value) -> Value {
        let (status, answer) = self.call("POST", "/v1/services/shop/hold", body);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Releases `shop`.
    pub fn release(&self) -> Value {
        let (status, answer) = self.call("POST", "/v1/services/shop/release", &Value::Null);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Waits until so many requests of `shop` wait.
    pub fn wait_held(&self, count: u32) {
        self.wait_for_metric(&["switchback_held_requests", "\"shop\""], f64::from(count));
    }

    /// Waits until `shop` is held, or is not.
    pub fn wait_holding(&self, is_held: bool) {
        super::wait_until("it is held", || (self.shop()["phase"] == "holding") == is_held);
    }

    /// One request over a connection of its own, not waited for.
    pub fn ask_later(&self, request: &str) -> Later {
        let (address, request) = (self.address(), request.to_owned());
        Later(thread::spawn(move || Client::connect(address).send(request).answer()))
    }

    pub fn get_later(&self, path: &str) -> Later {
        self.ask_later(&format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\n\r\n"))
    }

    pub fn post_later(&self, path: &str) -> Later {
        self.ask_later(&format!("POST {path} HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 0\r\n\r\n"))
    }

    /// A call to the admin socket, not waited for.
    pub fn call_later(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Later {
        let (socket, method, path, body) =
            (self.socket(), method.to_owned(), path.to_owned(), body.to_string());
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Later(thread::spawn(move || {
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            admin::call(&socket, &method, &path, &headers, &body).expect("an answer")
        }))
    }

    /// An exclusive flip of `shop`, with these members besides, not waited for.
    pub fn flip_later(&self, to: &str, more: &Value) -> Later {
        let mut body = serde_json::json!({ "to": to, "exclusive": true });
        let members = more.as_object().into_iter().flatten();
        members.for_each(|(name, value)| body[name] = value.clone());
        self.call_later("POST", "/v1/services/shop/flip", &[], &body)
    }
}
