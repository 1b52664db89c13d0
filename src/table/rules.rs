//! What a service's routes and versions change about requests and answers, and what routes answer by themselves.
//!
//! Plain values of the file alone: the API's edits of versions and pools leave them as they are. They are kept beside the
//! routes and versions, by index and by name, so that neither a route's identity nor a version's depends on them.

use std::sync::Arc;

use super::field::FieldOp;
use super::name::VersionName;
use super::page::{ErrorPage, Page};
use super::template::{Part, Placeholder, Template};

/// A service's rules. A service that has none has no value of this at all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Rules {
    /// By the route's index in the service; shorter than the routes when the last ones have none.
    pub routes: Vec<Option<RouteRules>>,
    /// By the version's name, whoever defined that version.
    pub versions: Vec<(VersionName, Edits)>,
    /// Bodies for the proxy's own answers: the service's, then everybody's.
    pub pages: Vec<ErrorPage>,
    /// True when services behind this one are told which version a request was assigned to, to follow it.
    pub pins_release: bool,
}

impl Rules {
    /// The rules of the service's route with this index.
    #[must_use]
    pub fn route(&self, index: usize) -> Option<&RouteRules> {
        self.routes.get(index)?.as_ref()
    }

    /// The rules of the version with this name.
    #[must_use]
    pub fn version(&self, name: &VersionName) -> Option<&Edits> {
        self.versions.iter().find(|(version, _)| version == name).map(|(_, edits)| edits)
    }

    /// The names of all fields of requests that are changed.
    pub fn request_fields(&self) -> impl Iterator<Item = &str> {
        let of_routes = self.routes.iter().flatten().map(|route| &route.edits);
        let all = of_routes.chain(self.versions.iter().map(|(_, edits)| edits));
        all.flat_map(|edits| edits.request.iter().map(FieldOp::name))
    }

    /// True when there is no rule at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.iter().all(Option::is_none)
            && self.versions.is_empty()
            && self.pages.is_empty()
            && !self.pins_release
    }
}

/// What is changed about a request on its way to an endpoint, and about its answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Edits {
    /// The request's fields, in this order.
    pub request: Vec<FieldOp>,
    /// The answer's fields, in this order.
    pub response: Vec<FieldOp>,
    /// The request's `Host`.
    pub host: Option<SentHost>,
}

impl Edits {
    /// True when nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty() && self.host.is_none()
    }

    /// True when nothing is changed about the request.
    #[must_use]
    pub fn leaves_request(&self) -> bool {
        self.request.is_empty() && self.host.is_none()
    }
}

/// The `Host` that an endpoint is asked for, where it is not the client's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SentHost {
    /// This one.
    Fixed(Arc<str>),
    /// The endpoint's own address.
    Endpoint,
}

/// The rules of one route. The service's own edits come first in them, then the route's; the version's follow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RouteRules {
    /// What is changed.
    pub edits: Edits,
    /// What is put in the place of the route's path.
    pub path: Option<PathRewrite>,
    /// What is answered instead of asking a version.
    pub answer: Option<OwnAnswer>,
}

/// A route's path prefix replaced by another one, in raw bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathRewrite {
    /// How many bytes of the path are the route's.
    pub prefix: usize,
    /// What stands in their place.
    pub with: Arc<str>,
}

impl PathRewrite {
    /// The rewriting of the route's path `prefix` to `with`: as the route's path ends in `/` or not, so does the other.
    #[must_use]
    pub fn new(prefix: &str, with: &str) -> Self {
        let bare = with.trim_end_matches('/');
        let slash = if prefix.ends_with('/') { "/" } else { "" };
        Self { prefix: prefix.len(), with: format!("{bare}{slash}").into() }
    }

    /// `target` (path and query) with its prefix replaced; it begins with `/`, and the query is kept. `*` stays.
    #[must_use]
    pub fn apply(&self, target: &str) -> String {
        let Some(rest) = target.get(self.prefix..).filter(|_| target.starts_with('/')) else {
            return target.to_owned();
        };
        let slash = if self.with.is_empty() && !rest.starts_with('/') { "/" } else { "" };
        [slash, &self.with, rest].concat()
    }
}

/// What a route answers by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OwnAnswer {
    /// Go elsewhere.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// Where to.
        to: Template,
    },
    /// Always the same.
    Fixed {
        /// The status.
        status: u16,
        /// The body.
        page: Page,
    },
}

impl OwnAnswer {
    /// True when it cannot be given to a client that did not say which host it asks.
    #[must_use]
    pub fn needs_host(&self) -> bool {
        match self {
            Self::Redirect { to, .. } => {
                let mut parts = to.parts().iter();
                parts.any(|part| matches!(part, Part::Of(Placeholder::Host | Placeholder::Authority)))
            }
            Self::Fixed { .. } => false,
        }
    }

    /// The kind of answer, as metrics and the access log call it.
    #[must_use]
    pub fn token(&self) -> &'static str {
        match self {
            Self::Redirect { .. } => "redirect",
            Self::Fixed { .. } => "fixed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_prefix_is_replaced_and_the_rest_is_kept_byte_by_byte() {
        let rewritten = |prefix, with, target| PathRewrite::new(prefix, with).apply(target);
        assert_eq!(rewritten("/api/", "", "/api/x?y=/api/"), "/x?y=/api/");
        assert_eq!(rewritten("/api", "", "/api"), "/");
        assert_eq!(rewritten("/api", "", "/api?q"), "/?q");
        assert_eq!(rewritten("/api", "", "/api/x"), "/x");
        assert_eq!(rewritten("/api/", "/v2", "/api/x%2f"), "/v2/x%2f");
        assert_eq!(rewritten("/api", "/v2/", "/api/x"), "/v2/x");
        assert_eq!(rewritten("/", "/v2", "/x"), "/v2/x");
        assert_eq!(rewritten("/", "/v2", "*"), "*");
    }

    proptest! {
        #[test]
        fn the_result_begins_with_a_slash_and_ends_in_what_followed(
            prefix in "/[a-z/]{0,5}", with in "(/[a-z/]{0,5})?", rest in "[a-z/?&%]{0,8}",
        ) {
            let result = PathRewrite::new(&prefix, &with).apply(&format!("{prefix}{rest}"));
            prop_assert!(result.starts_with('/') && result.ends_with(&rest));
        }
    }
}
