//! Text with places for what is known of a request: `https://%{host}%{path}%{query}`. Taken apart when it is loaded.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::name::Invalid;

/// What can stand in a [`Template`]: a small fixed set, each a value that is valid in a header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placeholder {
    /// The client's address, as trusted proxies tell it; empty where nobody knows, as on a Unix socket.
    ClientAddr,
    /// The host that was asked for, without its port.
    Host,
    /// The host that was asked for, with its port if one was given.
    Authority,
    /// `http` or `https`.
    Scheme,
    /// The raw path as the client asked for it.
    Path,
    /// `?` and the raw query; empty when there is none.
    Query,
    /// What follows the route's path in the request's.
    Rest,
    /// The service.
    Service,
    /// The version; empty when none was assigned.
    Version,
    /// The epoch of the table that the request was routed by.
    Epoch,
    /// The request's id; empty when `[proxy] request_id` is off.
    RequestId,
}

impl Placeholder {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::ClientAddr,
        Self::Host,
        Self::Authority,
        Self::Scheme,
        Self::Path,
        Self::Query,
        Self::Rest,
        Self::Service,
        Self::Version,
        Self::Epoch,
        Self::RequestId,
    ];

    /// Its name, as it is written between `%{` and `}`.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::ClientAddr => "client_addr",
            Self::Host => "host",
            Self::Authority => "authority",
            Self::Scheme => "scheme",
            Self::Path => "path",
            Self::Query => "query",
            Self::Rest => "rest",
            Self::Service => "service",
            Self::Version => "version",
            Self::Epoch => "epoch",
            Self::RequestId => "request_id",
        }
    }
}

/// One part of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Part {
    /// Text that stays as it is.
    Text(Arc<str>),
    /// Filled in for each request.
    Of(Placeholder),
}

/// Text with placeholders, as parts in order.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Template(Arc<[Part]>);

impl Template {
    /// The parts, in order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Appends the text; `fill` appends the value of a placeholder.
    pub fn write(&self, out: &mut Vec<u8>, mut fill: impl FnMut(Placeholder, &mut Vec<u8>)) {
        for part in self.0.iter() {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Of(placeholder) => fill(*placeholder, out),
            }
        }
    }
}

impl FromStr for Template {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("%{") {
            let unclosed = || Invalid(format!("`%{{{after}` is not closed: expected `}}`"));
            let (name, behind) = after.split_once('}').ok_or_else(unclosed)?;
            let placeholder = Placeholder::ALL.into_iter().find(|known| known.token() == name);
            let unknown = || {
                let known = Placeholder::ALL.map(Placeholder::token).join(", ");
                Invalid(format!("`%{{{}}}` is not known: expected one of {known}", name.escape_debug()))
            };
            let placeholder = placeholder.ok_or_else(unknown)?;
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            parts.push(Part::Of(placeholder));
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self(parts.into()))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Of(placeholder) => write!(f, "%{{{}}}", placeholder.token()),
        })
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(text: &str) -> String {
        let mut out = Vec::new();
        let template: Template = text.parse().unwrap();
        template.write(&mut out, |placeholder, out| {
            out.extend_from_slice(placeholder.token().to_ascii_uppercase().as_bytes());
        });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn placeholders_are_filled_in_and_the_rest_stays() {
        assert_eq!(filled(""), "");
        assert_eq!(filled("a%20b"), "a%20b");
        assert_eq!(filled("%{host}%{path}, 100 % {x}"), "HOSTPATH, 100 % {x}");
    }

    #[test]
    fn an_unknown_or_open_placeholder_is_refused() {
        assert!("%{hots}".parse::<Template>().unwrap_err().to_string().contains("client_addr, host"));
        assert!("a %{host".parse::<Template>().unwrap_err().to_string().contains("is not closed"));
    }

    proptest! {
        #[test]
        fn a_template_is_written_as_it_is_read(text in "([a-z% ]|%\\{(host|query|rest)\\}){0,12}") {
            if let Ok(template) = text.parse::<Template>() {
                prop_assert_eq!(template.to_string(), text);
            }
        }
    }
}
