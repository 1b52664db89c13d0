//! A file that lists endpoints: JSON, an array or an object with `endpoints`; TOML, with `endpoints`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::MOST;
use crate::table::{EndpointAddr, Invalid};

/// The endpoints that `text` lists, each once, in their order.
///
/// # Errors
/// What is wrong with it, and where: then nothing of it is taken.
pub(super) fn read(path: &Path, text: &str) -> Result<Vec<EndpointAddr>, String> {
    let is_toml = path.extension().is_some_and(|end| end == "toml");
    let items = match (is_toml, parse(is_toml, text)?) {
        (false, Value::Array(items)) => items,
        (_, Value::Object(fields)) => named(fields)?,
        (_, other) => {
            let found = kind(&other);
            return Err(format!("expected an array, or an object with one in `endpoints`, found {found}"));
        }
    };
    if items.len() > MOST {
        return Err(format!("it lists {} endpoints, and at most {MOST} are taken", items.len()));
    }
    let mut known = BTreeSet::new();
    let read = items.into_iter().enumerate().map(|(index, item)| {
        let at = |why: String| format!("endpoints[{index}]: {why}");
        let endpoint: EndpointAddr = address(item).map_err(at)?.parse().map_err(|Invalid(why)| at(why))?;
        match known.insert(endpoint.clone()) {
            true => Ok(endpoint),
            false => Err(at(format!("{endpoint} is listed twice"))),
        }
    });
    read.collect()
}

fn parse(is_toml: bool, text: &str) -> Result<Value, String> {
    match is_toml {
        true => toml::from_str(text).map_err(|why| why.to_string()),
        false => serde_json::from_str(text).map_err(|why| why.to_string()),
    }
}

/// The array in `endpoints`, beside which there is nothing.
fn named(mut fields: Map<String, Value>) -> Result<Vec<Value>, String> {
    let endpoints = fields.remove("endpoints");
    if let Some(key) = fields.keys().next() {
        return Err(format!("unknown key `{}`: expected `endpoints` alone", key.escape_debug()));
    }
    match endpoints {
        Some(Value::Array(items)) => Ok(items),
        Some(other) => Err(format!("endpoints: expected an array, found {}", kind(&other))),
        None => Err("it has no `endpoints`".to_owned()),
    }
}

fn address(item: Value) -> Result<String, String> {
    let mut fields = match item {
        Value::String(address) => return Ok(address),
        Value::Object(fields) => fields,
        other => {
            let found = kind(&other);
            return Err(format!("expected \"host:port\" or an object with `address`, found {found}"));
        }
    };
    let address = fields.remove("address");
    match (fields.keys().next().map(String::as_str), address) {
        (Some(key @ ("weight" | "zone")), _) => {
            Err(format!("`{key}` is not read from a list: only `address` is"))
        }
        (Some(key), _) => Err(format!("unknown key `{}`: expected `address` alone", key.escape_debug())),
        (None, Some(Value::String(address))) => Ok(address),
        (None, Some(other)) => Err(format!("address: expected \"host:port\", found {}", kind(&other))),
        (None, None) => Err("it has no `address`".to_owned()),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(name: &str, text: &str) -> Result<Vec<String>, String> {
        read(Path::new(name), text).map(|list| list.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn lists_are_read_in_either_form() {
        let expected = Ok(vec!["10.0.0.1:80".to_owned(), "b:81".to_owned()]);
        assert_eq!(texts("a.json", r#"["10.0.0.1:80", {"address": "b:81"}]"#), expected);
        assert_eq!(texts("a.json", r#"{"endpoints": ["10.0.0.1:80", "b:81"]}"#), expected);
        assert_eq!(texts("a.toml", "endpoints = [\"10.0.0.1:80\", { address = \"b:81\" }]"), expected);
    }

    #[test]
    fn what_is_wrong_anywhere_makes_the_whole_list_wrong_and_is_told_with_its_place() {
        let said = [
            ("a.json", "["),
            ("a.json", "7"),
            ("a.json", r#"["10.0.0.1"]"#),
            ("a.json", r#"["a:1", "b:1", "a:1"]"#),
            ("a.json", r#"["a:1", 5]"#),
            ("a.json", r#"{"endpoints": [], "more": 1}"#),
            ("a.json", "{}"),
            ("a.json", r#"["a:1", {"adress": "a:1"}]"#),
            ("a.json", r#"[{}]"#),
            ("a.json", r#"[{"address": ["a:1"]}]"#),
            ("a.json", r#"[{"address": "a:1", "weight": 2}]"#),
            ("a.toml", "endpoints = \"a:1\""),
            ("a.toml", "[endpoints]"),
        ]
        .map(|(name, text)| texts(name, text).unwrap_err());
        insta::assert_snapshot!(said.join("\n"), @r#"
        EOF while parsing a list at line 1 column 1
        expected an array, or an object with one in `endpoints`, found a number
        endpoints[0]: `10.0.0.1` is not an endpoint: expected host:port, [v6]:port or unix:/path
        endpoints[2]: a:1 is listed twice
        endpoints[1]: expected "host:port" or an object with `address`, found a number
        unknown key `more`: expected `endpoints` alone
        it has no `endpoints`
        endpoints[1]: unknown key `adress`: expected `address` alone
        endpoints[0]: it has no `address`
        endpoints[0]: address: expected "host:port", found an array
        endpoints[0]: `weight` is not read from a list: only `address` is
        endpoints: expected an array, found a string
        endpoints: expected an array, found an object
        "#);
    }

    #[test]
    fn a_list_that_is_too_long_is_refused_at_once() {
        let long = serde_json::json!(vec!["a:1"; MOST + 1]).to_string();
        assert_eq!(
            texts("a.json", &long),
            Err("it lists 4097 endpoints, and at most 4096 are taken".to_owned())
        );
    }
}
