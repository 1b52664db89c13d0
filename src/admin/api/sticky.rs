//! By what a service's users stay with a version.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::table::{self, StickyBy};

/// By what a service's users stay with a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sticky {
    /// `cookie`, `header` or `client`: the client's address.
    #[schema(example = "cookie")]
    pub by: String,
    /// The name of the cookie or header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "sb_id")]
    pub name: Option<String>,
    /// True: a client without the cookie is given one; false: a request without a key is assigned by a coin of its own.
    #[serde(default)]
    pub mint: bool,
}

impl Sticky {
    /// The rules of a service, if it has some.
    #[must_use]
    pub fn of(service: &table::Service) -> Option<Self> {
        service.sticky.as_ref().map(|sticky| Self::from(&sticky.rules.by))
    }

    /// As people read it: `the cookie sb_id`.
    #[must_use]
    pub fn what(&self) -> String {
        match &self.name {
            Some(name) => format!("the {} {name}", self.by),
            None => "the client's address".to_owned(),
        }
    }
}

impl From<&StickyBy> for Sticky {
    fn from(by: &StickyBy) -> Self {
        let (what, name) = match by {
            StickyBy::Cookie { name, .. } => ("cookie", Some(name)),
            StickyBy::Header(name) => ("header", Some(name)),
            StickyBy::Client => ("client", None),
        };
        Self { by: what.to_owned(), name: name.map(ToString::to_string), mint: by.mints() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_on_the_wire_as_in_the_file() {
        let all = [
            StickyBy::Cookie { name: "sb_id".into(), mint: None },
            StickyBy::Header("x-user".into()),
            StickyBy::Client,
        ];
        for by in all {
            assert_eq!(Sticky::from(&by).what(), by.to_string());
        }
    }
}
