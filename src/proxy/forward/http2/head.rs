//! A request's head as HTTP/2 has it.

use bytes::Bytes;
use h2::ext::Protocol;
use http::header::SEC_WEBSOCKET_KEY;
use http::{HeaderMap, Method, Request, Uri, Version};

use crate::metrics::Reason;
use crate::proxy::fields::{LIST_OVERHEAD, Lexicon, Note, lines_of, list_size_of};

/// How many fields there is room for at first: ours, and as many as most requests have.
const MANY: usize = 24;

/// A request's head as HTTP/2 has it, from the one that was written for HTTP/1.1: which fields pass and which are ours
/// is said in one place only.
///
/// # Errors
/// When its host cannot be an authority.
pub fn request(written: &[u8], scheme: &'static str, lexicon: &Lexicon) -> Result<Request<()>, Reason> {
    head(written, scheme, lexicon).ok_or(Reason::BadRequest)
}

fn head(written: &[u8], scheme: &'static str, lexicon: &Lexicon) -> Option<Request<()>> {
    let mut lines = lines_of(written);
    let (method, target) = start(lines.next()?)?;
    let (mut host, mut is_upgrade) = (None, false);
    let mut fields = HeaderMap::with_capacity(MANY);
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = lexicon.field(line)?;
        match Note::of(name.as_str().as_bytes()) {
            Some(Note::Host) => host = Some(value),
            // There is no other change of protocol.
            Some(Note::Upgrade) => is_upgrade = true,
            Some(Note::Connection | Note::TransferEncoding) => {}
            _ => drop(fields.append(name, value)),
        }
    }
    let uri = Uri::builder().scheme(scheme).authority(host?.as_bytes());
    let mut request = Request::new(());
    *request.uri_mut() = uri.path_and_query(target.path_and_query()?.clone()).build().ok()?;
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = method;
    if is_upgrade {
        // Without a key, which proves nothing here (RFC 8441 §5).
        *request.method_mut() = Method::CONNECT;
        fields.remove(SEC_WEBSOCKET_KEY);
        request.extensions_mut().insert(Protocol::from_static("websocket"));
    }
    *request.headers_mut() = fields;
    Some(request)
}

/// How large it is as a list of fields (RFC 9113 §6.5.2).
pub(super) fn list_size(request: &Request<()>) -> usize {
    let uri = request.uri();
    let pseudo = [
        (":method", request.method().as_str()),
        (":scheme", uri.scheme_str().unwrap_or_default()),
        (":authority", uri.authority().map_or("", |authority| authority.as_str())),
        (":path", uri.path_and_query().map_or("", |target| target.as_str())),
    ];
    let pseudo = pseudo.iter().map(|(name, value)| name.len() + value.len() + LIST_OVERHEAD);
    pseudo.sum::<usize>() + list_size_of(request.headers())
}

/// What the first line asks for.
fn start(line: &[u8]) -> Option<(Method, Uri)> {
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next()?, words.next()?);
    Some((Method::from_bytes(method).ok()?, Uri::from_maybe_shared(Bytes::copy_from_slice(target)).ok()?))
}
