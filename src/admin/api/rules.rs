//! Targeting rules as they are written: the same words as in the file.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Problem;
use crate::table::targeting::network;
use crate::table::{Condition, Conditions, Matching, Split, TargetRule, VersionRef};

/// Whoever shows all of this goes to that version; the first rule of the list that fits decides, before any sticky key or coin. At least one
/// condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Headers by name: a text is exactly that value, of any line of that name; true is any value; `{"starts": "…"}` how it begins.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "once")]
    #[schema(example = json!({"x-beta": "yes"}))]
    pub headers: BTreeMap<String, Value>,
    /// Cookies by name, likewise; of several of one name the first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "once")]
    pub cookies: BTreeMap<String, Value>,
    /// Parameters of the query by name, likewise; names and values percent-decoded, `+` is itself, and of several of one name any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "once")]
    pub query: BTreeMap<String, Value>,
    /// Networks, in one of which the client's address is, as trusted proxies tell it; at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, example = json!(["10.0.0.0/8"]))]
    pub client: Option<Vec<String>>,
    /// The host that is asked for, without its port: `beta.example.com` or `*.beta.example.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The version that it leads to: its label, `@stable` or `@candidate`.
    #[schema(example = "green")]
    pub to: String,
}

/// A name that is there twice is an error, not the last one winning.
fn once<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Value>, D::Error> {
    struct Pairs(PhantomData<Value>);
    impl<'de> Visitor<'de> for Pairs {
        type Value = BTreeMap<String, Value>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object by name, such as {\"x-beta\": \"yes\"}")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = BTreeMap::new();
            while let Some((name, value)) = map.next_entry::<String, Value>()? {
                if all.insert(name.clone(), value).is_some() {
                    return Err(serde::de::Error::custom(format!("`{name}` is named twice")));
                }
            }
            Ok(all)
        }
    }
    deserializer.deserialize_map(Pairs(PhantomData))
}

impl Rule {
    /// The rule with these conditions.
    #[must_use]
    pub fn new(when: &Conditions, to: &VersionRef) -> Self {
        let mut rule = Self { to: to.to_string(), ..Self::default() };
        for condition in when.all() {
            match condition {
                Condition::Header(name, matching) => {
                    drop(rule.headers.insert(name.to_string(), value(matching)))
                }
                Condition::Cookie(name, matching) => {
                    drop(rule.cookies.insert(name.to_string(), value(matching)))
                }
                Condition::Query(name, matching) => {
                    drop(rule.query.insert(name.to_string(), value(matching)))
                }
                Condition::Client(networks) => {
                    rule.client = Some(networks.iter().map(ToString::to_string).collect());
                }
                Condition::Host(pattern) => rule.host = Some(pattern.to_string()),
            }
        }
        rule
    }

    /// Those of a split, in order.
    #[must_use]
    pub fn all_of(split: &Split) -> Vec<Self> {
        split.rules().rules().iter().map(Self::from).collect()
    }

    /// In the heart's words.
    ///
    /// # Errors
    /// The problem, with the member at fault.
    pub fn read(&self) -> Result<(Conditions, VersionRef), Box<Problem>> {
        let bad = |field: String, why: String| Problem::new(400, "bad_value", why).at(field);
        let mut all = Vec::new();
        let named = [
            ("headers", &self.headers, Condition::Header as fn(Box<str>, Matching) -> Condition),
            ("cookies", &self.cookies, Condition::Cookie),
            ("query", &self.query, Condition::Query),
        ];
        for (field, values, make) in named {
            for (name, value) in values {
                let matching = matching(value).map_err(|why| bad(format!("{field}.{name}"), why))?;
                all.push(make(name.as_str().into(), matching));
            }
        }
        if let Some(client) = &self.client {
            let networks = client
                .iter()
                .enumerate()
                .map(|(index, text)| network(text).map_err(|why| bad(format!("client[{index}]"), why.0)));
            all.push(Condition::Client(networks.collect::<Result<_, _>>()?));
        }
        if let Some(host) = &self.host {
            all.push(Condition::Host(host.parse().map_err(|why| bad("host".to_owned(), format!("{why}")))?));
        }
        let when = Conditions::new(all).map_err(|why| Problem::new(400, "bad_value", why.0))?;
        let to = self.to.parse().map_err(|why| bad("to".to_owned(), format!("{why}")))?;
        Ok((when, to))
    }

    /// As people type it: `header x-beta=yes -> green`.
    #[must_use]
    pub fn text(&self) -> String {
        match self.read() {
            Ok((when, to)) => format!("{when} -> {to}"),
            Err(_) => json!(self).to_string(),
        }
    }
}

impl From<&TargetRule> for Rule {
    fn from(rule: &TargetRule) -> Self {
        Self::new(&rule.when, &rule.to.clone().into())
    }
}

fn value(matching: &Matching) -> Value {
    match matching {
        Matching::There => Value::Bool(true),
        Matching::Is(value) => Value::String(value.to_string()),
        Matching::Starts(begin) => json!({ "starts": begin }),
    }
}

fn matching(value: &Value) -> Result<Matching, String> {
    let expected = || "expected the value as a text, true for any, or {\"starts\": \"…\"}".to_owned();
    match value {
        Value::Bool(true) => Ok(Matching::There),
        Value::String(value) => Ok(Matching::Is(value.as_str().into())),
        Value::Object(map) if map.len() == 1 => {
            let begin = map.get("starts").and_then(Value::as_str).ok_or_else(expected)?;
            Ok(Matching::Starts(begin.into()))
        }
        _ => Err(expected()),
    }
}
