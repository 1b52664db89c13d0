//! What routes and versions change about a request on its way, and about its answer on the way back.
//!
//! Only services that have rules come here. The client's head is copied before it is changed: what was asked stays what
//! was asked. Names and values are copied too, never shared: their counts would be written by every worker.

use std::borrow::Cow;

use super::head::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::gate::Asked;
use super::headers;
use crate::table::{FieldOp, PathRewrite, Placeholder, SentHost};

/// A request as it is sent on, where that is not as it was asked.
#[derive(Debug)]
pub struct Rewritten<'t> {
    /// The head, with its fields changed.
    pub head: Parts,
    target: Option<String>,
    host: Option<&'t SentHost>,
}

impl<'t> Rewritten<'t> {
    /// The request `head` after `operations`, in their order, and with its path and `Host` replaced.
    pub fn new<'o>(
        head: &Parts,
        asked: &Asked<'_>,
        operations: impl Iterator<Item = &'o FieldOp>,
        path: Option<&PathRewrite>,
        host: Option<&'t SentHost>,
        values: &Values<'_>,
    ) -> Self {
        let mut head = head.clone();
        // Else `Connection: x-env` would take away what is put there now.
        headers::drop_nominated(&mut head.headers);
        apply(&mut head.headers, operations, values);
        Self { head, target: path.map(|path| path.apply(asked.target)), host }
    }

    /// What is asked for now.
    pub fn asked<'r>(&'r self, before: &Asked<'r>) -> Asked<'r> {
        before.sent_as(self.target.as_deref().unwrap_or(before.target), self.host)
    }
}

/// The values that templates are filled with.
#[derive(Debug, Clone)]
pub struct Values<'r> {
    /// The client's address as text; empty where nobody knows.
    pub client: Cow<'r, str>,
    /// `http` or `https`.
    pub scheme: &'r str,
    /// What was asked for; `None` when nobody could tell.
    pub asked: Option<&'r Asked<'r>>,
    /// The length of the route's path.
    pub prefix: usize,
    /// The service.
    pub service: &'r str,
    /// The version.
    pub version: &'r str,
    /// The epoch of the table.
    pub epoch: u64,
    /// The request's id.
    pub request_id: &'r [u8],
}

impl Values<'_> {
    /// Appends the value of `placeholder`.
    pub fn write(&self, placeholder: Placeholder, out: &mut Vec<u8>) {
        let (path, query) = match self.asked {
            Some(asked) => {
                (asked.raw_path(), &asked.target[asked.target.find('?').unwrap_or(asked.target.len())..])
            }
            None => ("/", ""),
        };
        let mut epoch = itoa::Buffer::new();
        out.extend_from_slice(match placeholder {
            Placeholder::ClientAddr => self.client.as_bytes(),
            Placeholder::Host => self.asked.map(Asked::bare_host).unwrap_or_default(),
            Placeholder::Authority => self.asked.map(|asked| asked.authority).unwrap_or_default(),
            Placeholder::Scheme => self.scheme.as_bytes(),
            Placeholder::Path => path.as_bytes(),
            Placeholder::Query => query.as_bytes(),
            Placeholder::Rest => path.get(self.prefix..).unwrap_or_default().as_bytes(),
            Placeholder::Service => self.service.as_bytes(),
            Placeholder::Version => self.version.as_bytes(),
            Placeholder::Epoch => epoch.format(self.epoch).as_bytes(),
            Placeholder::RequestId => self.request_id,
        });
    }
}

/// Carries `operations` out, in their order.
pub fn apply<'o>(
    headers: &mut HeaderMap,
    operations: impl Iterator<Item = &'o FieldOp>,
    values: &Values<'_>,
) {
    for operation in operations {
        let template = match operation {
            FieldOp::Remove(name) => {
                headers.remove(&**name);
                continue;
            }
            FieldOp::Set(_, template) | FieldOp::Add(_, template) => template,
        };
        let mut text = Vec::new();
        template.write(&mut text, |placeholder, out| values.write(placeholder, out));
        // What was loaded is valid, and so is every value: a field that is not is better left out than sent.
        let name = HeaderName::from_bytes(operation.name().as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_maybe_shared(bytes::Bytes::from(text))) else {
            continue;
        };
        match operation {
            FieldOp::Set(..) => drop(headers.insert(name, value)),
            FieldOp::Add(..) | FieldOp::Remove(_) => drop(headers.append(name, value)),
        }
    }
}
