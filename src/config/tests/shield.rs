//! `shield`: when stable answers in another version's place.

use super::*;
use crate::table::{BasisPoints, ShieldRules};

/// What a file makes of this `shield`.
fn rules(shield: &str) -> Option<ShieldRules> {
    let service = load_text(&format!("{SMALL}\nshield = {shield}")).services.remove(0);
    service.shield.map(|rules| ShieldRules::clone(&rules))
}

#[test]
fn it_is_on_off_or_as_it_says() {
    assert_eq!(load_text(SMALL).services[0].shield, None);
    assert_eq!((rules("false"), rules("true")), (None, Some(ShieldRules::default())));
    assert_eq!(rules("{}"), rules("true"));
    let all = "{ statuses = [\"5xx\", 429, \"4xx\", \"503\"], body = \"1MiB\", budget = \"100%\", min_per_second = 0 }";
    let expected = ShieldRules {
        statuses: vec![(500, 599), (429, 429), (400, 499), (503, 503)],
        body: 1 << 20,
        budget: BasisPoints::ALL,
        min_per_second: 0,
    };
    assert_eq!(rules(all), Some(expected));
    let none = rules("{ statuses = [], body = \"0B\" }").unwrap();
    assert_eq!((none.takes(500), none.body), (false, 0));
    assert!([500, 599].into_iter().all(|status| ShieldRules::default().takes(status)));
    assert!(!ShieldRules::default().takes(499));
}

#[test]
fn what_is_wrong_with_it_is_said() {
    let mut all = String::new();
    for text in [
        "\"yes\"",
        "{ statuses = \"5xx\" }",
        "{ statuses = [399] }",
        "{ statuses = [\"2xx\"] }",
        "{ status = [500] }",
        "{ body = 64 }",
        "{ body = \"17MiB\" }",
        "{ budget = \"200%\" }",
        "{ budget = 20 }",
        "{ min_per_second = -1 }",
    ] {
        all.push_str(&format!("== {text}\n{}\n", check_text(&format!("{SMALL}\nshield = {text}"))));
    }
    insta::assert_snapshot!(all);
}
