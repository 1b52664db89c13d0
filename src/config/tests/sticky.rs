//! `sticky`: by what a service's users stay with a version.

use super::*;
use crate::table::{StickyBy, StickyRules};

fn rules(text: &str) -> Option<StickyRules> {
    let [service] = load_text(&format!("{SMALL}\nsticky = {text}")).services.try_into().unwrap();
    service.sticky.map(|rules| StickyRules::clone(&rules))
}

fn refused(text: &str) -> String {
    check_text(&format!("{SMALL}\nsticky = {text}"))
}

fn cookie(name: &str, mint: Option<Duration>) -> StickyBy {
    StickyBy::Cookie { name: name.into(), mint }
}

#[test]
fn who_says_nothing_has_nobody_who_stays() {
    assert_eq!(load_text(SMALL).services[0].sticky, None);
}

#[test]
fn a_key_a_salt_and_a_life_can_be_said() {
    let by = |text: &str| rules(text).unwrap().by;
    assert_eq!(by("{ cookie = \"connect.sid\" }"), cookie("connect.sid", None));
    assert_eq!(by("{ cookie = \"a\", mint = false }"), cookie("a", None));
    assert_eq!(by("{ cookie = \"a\", mint = true }"), cookie("a", Some(Duration::from_hours(720))));
    let minute = by("{ cookie = \"a\", mint = true, max_age = \"1m\" }");
    assert_eq!(minute, cookie("a", Some(Duration::from_mins(1))));
    assert_eq!(by("{ header = \"X-User\" }"), StickyBy::Header("x-user".into()));
    assert_eq!(by("{ client = true }"), StickyBy::Client);
    let salt = |text: &str| rules(text).unwrap().salt.to_string();
    let name = load_text(SMALL).services[0].name.to_string();
    assert_eq!(salt("{ client = true }"), name);
    assert_eq!(salt("{ client = true, salt = \"2027\" }"), "2027");
}

#[test]
fn what_is_wrong_with_it_is_said() {
    let mut all = String::new();
    for text in [
        "true",
        "{}",
        "{ cookie = \"a\", header = \"b\" }",
        "{ cookie = \"a b\", mint = 1 }",
        "{ header = \"x user\", mint = true }",
        "{ client = false }",
        "{ cookie = \"a\", max_age = \"1h\" }",
        "{ cookie = \"a\", mint = true, max_age = \"10ms\" }",
        "{ client = true, salt = \"\" }",
        "{ client = true, salts = \"a\" }",
    ] {
        all.push_str(&format!("== {text}\n{}\n", refused(text)));
    }
    insta::assert_snapshot!(all);
}
