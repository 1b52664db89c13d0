//! Bodies of answers that no version makes: fixed answers of a route, and error pages.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// A body that was read when the configuration was.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Page {
    /// Its `content-type`.
    pub content_type: Arc<str>,
    /// Its bytes.
    pub bytes: Bytes,
    /// A strong entity tag, quotes included: the same for the same bytes on every instance.
    pub tag: Arc<str>,
}

impl Page {
    /// A page of these bytes.
    #[must_use]
    pub fn new(content_type: &str, bytes: Vec<u8>) -> Self {
        // FNV-1a in 128 bits: no secret, only a name for the bytes.
        let fold = |hash: u128, byte: &u8| {
            (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        };
        let hash = bytes.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, fold);
        Self {
            content_type: content_type.into(),
            bytes: bytes.into(),
            tag: format!("\"{hash:032x}\"").into(),
        }
    }
}

/// The tag stands for the bytes, which may be many.
impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Page({} {} {})", self.content_type, self.bytes.len(), self.tag)
    }
}

/// Which of the proxy's own answers get an [`ErrorPage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum On {
    /// Those with this status.
    Status(u16),
    /// Those of this class: 4 or 5.
    Class(u16),
    /// Those with this token in `switchback-reason`.
    Reason(&'static str),
}

/// A body for answers that the proxy makes itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ErrorPage {
    /// For any of these.
    pub on: Arc<[On]>,
    /// What is sent.
    pub page: Page,
}

impl ErrorPage {
    /// The first of `pages` for an answer with this status and reason.
    #[must_use]
    pub fn find<'p>(pages: &'p [Self], status: u16, reason: &str) -> Option<&'p Page> {
        let matches = |on: &On| match on {
            On::Status(wanted) => *wanted == status,
            On::Class(wanted) => *wanted == status / 100,
            On::Reason(wanted) => *wanted == reason,
        };
        pages.iter().find(|page| page.on.iter().any(matches)).map(|page| &page.page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_page_that_fits_is_taken() {
        let page = |on: On, text: &str| ErrorPage {
            on: [on].into(),
            page: Page::new("text/plain", text.as_bytes().to_vec()),
        };
        let pages = [
            page(On::Reason("no_endpoint"), "reason"),
            page(On::Status(502), "status"),
            page(On::Class(5), "class"),
        ];
        let found = |status, reason| ErrorPage::find(&pages, status, reason).map(|page| page.bytes.clone());
        assert_eq!(found(503, "no_endpoint").unwrap(), "reason");
        assert_eq!(found(502, "connect_failed").unwrap(), "status");
        assert_eq!(found(504, "connect_timeout").unwrap(), "class");
        assert_eq!(found(404, "no_route"), None);
    }

    #[test]
    fn the_tag_follows_the_bytes() {
        let tag = |bytes: &[u8]| Page::new("text/plain", bytes.to_vec()).tag;
        assert_eq!(tag(b"a"), tag(b"a"));
        assert_ne!(tag(b"a"), tag(b"b"));
    }
}
