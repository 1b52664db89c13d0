//! `request_id` and `trace` of `[proxy]`: by what a request is known on its whole way.

use super::walk::Node;
use super::{Accept, RequestId, Trace};

/// `{ accept = "trusted", answer = true }`.
pub(super) fn request_id(node: Node<'_>) -> Option<RequestId> {
    let mut section = node.section("`request_id`")?;
    let default = RequestId::default();
    let accept = section.or("accept", default.accept, |node| {
        match node.text("\"trusted\", \"always\" or \"never\"")? {
            "trusted" => Some(Accept::Trusted),
            "always" => Some(Accept::Always),
            "never" => Some(Accept::Never),
            _ => node.unexpected("\"trusted\", \"always\" or \"never\""),
        }
    });
    let answer = section.or("answer", default.answer, Node::flag);
    section.finish();
    Some(RequestId { accept: accept?, answer: answer? })
}

/// `{ start = true, sampled = false }`.
pub(super) fn trace(node: Node<'_>) -> Option<Trace> {
    let mut section = node.section("`trace`")?;
    let default = Trace::default();
    let start = section.or("start", default.start, Node::flag);
    let sampled = section.or("sampled", default.sampled, Node::flag);
    section.finish();
    Some(Trace { start: start?, sampled: sampled? })
}
