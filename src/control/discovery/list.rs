//! A file that lists endpoints: JSON, an array or an object with `endpoints`; TOML, with `endpoints`.

use std::path::Path;

use serde::Deserialize;

use crate::table::EndpointAddr;

#[derive(Deserialize)]
#[serde(untagged)]
enum List {
    Bare(Vec<Item>),
    Named(Named),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    endpoints: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Address(String),
    Full(Full),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    address: String,
}

/// The endpoints that `text` lists, each once, in their order.
///
/// # Errors
/// What is wrong with it: then nothing of it is taken.
pub(super) fn read(path: &Path, text: &str) -> Result<Vec<EndpointAddr>, String> {
    let items = match path.extension().and_then(|end| end.to_str()) {
        Some("toml") => toml::from_str::<Named>(text).map_err(|why| why.to_string())?.endpoints,
        _ => match serde_json::from_str::<List>(text).map_err(|why| why.to_string())? {
            List::Bare(items) | List::Named(Named { endpoints: items }) => items,
        },
    };
    let mut endpoints = Vec::with_capacity(items.len());
    for item in items {
        let (Item::Address(address) | Item::Full(Full { address })) = item;
        let endpoint: EndpointAddr = address.parse().map_err(|why: crate::table::Invalid| why.0)?;
        if endpoints.contains(&endpoint) {
            return Err(format!("{endpoint} is listed twice"));
        }
        endpoints.push(endpoint);
    }
    Ok(endpoints)
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
    fn what_is_wrong_anywhere_makes_the_whole_list_wrong() {
        for (name, text) in [
            ("a.json", "["),
            ("a.json", r#"["10.0.0.1"]"#),
            ("a.json", r#"["a:1", "a:1"]"#),
            ("a.json", r#"{"endpoints": [], "more": 1}"#),
            ("a.json", r#"[{"adress": "a:1"}]"#),
            ("a.toml", "endpoints = \"a:1\""),
            ("a.toml", "[endpoints]"),
        ] {
            assert!(texts(name, text).is_err(), "{text}");
        }
    }
}
