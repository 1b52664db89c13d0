//! How requests get their ids and traces, from the configuration's words to the data plane's.

use crate::config;
use crate::proxy::identity::{Accept, Identity, RequestIds, Traces};

/// What the workers need of it.
pub(super) fn of(proxy: &config::Proxy) -> Identity {
    let request_id = proxy.request_id.map(|ids| RequestIds {
        accept: match ids.accept {
            config::Accept::Trusted => Accept::Trusted,
            config::Accept::Always => Accept::Always,
            config::Accept::Never => Accept::Never,
        },
        answer: ids.answer,
    });
    let trace = proxy.trace.map(|trace| Traces { start: trace.start, sampled: trace.sampled });
    Identity { request_id, trace }
}
