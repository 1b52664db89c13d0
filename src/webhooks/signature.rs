//! Signatures by the Standard Webhooks' specification: HMAC-SHA256 over id, time and body, in base64.

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::webhook::Secret;

/// The value of `webhook-signature`: one signature a secret, so that a receiver may know the old one or the new one.
pub(super) fn of(secrets: &[Secret], id: &str, seconds: u64, body: &[u8]) -> String {
    let content = [format!("{id}.{seconds}.").as_bytes(), body].concat();
    let sign = |secret: &Secret| {
        let tag = sign(&Key::new(HMAC_SHA256, secret.bytes()), &content);
        format!("v1,{}", STANDARD.encode(tag))
    };
    secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference implementations.
    #[test]
    fn it_is_what_the_specification_says() {
        let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let signed = of(
            std::slice::from_ref(&secret),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let twice = of(&[secret.clone(), secret], "msg", 1, b"");
        assert_eq!(twice.split(' ').count(), 2);
    }
}
