//! `upgrades`: what a service's requests may change to beside WebSocket.

use super::*;

/// What a file makes of these `upgrades`.
fn names(upgrades: &str) -> Vec<String> {
    let service = load_text(&format!("{SMALL}\nupgrades = {upgrades}")).services.remove(0);
    service.upgrades.iter().map(ToString::to_string).collect()
}

#[test]
fn names_are_listed_in_any_case_and_websocket_need_not_be() {
    assert!(load_text(SMALL).services[0].upgrades.is_empty());
    assert_eq!(names("[\"SPDY/3.1\", \"tcp\", \"WebSocket\"]"), ["spdy/3.1", "tcp"]);
    assert_eq!(names("[]"), [""; 0]);
}

#[test]
fn what_is_wrong_with_them_is_said() {
    let mut all = String::new();
    let many = format!("{:?}", ["a"; 17]);
    for text in [
        "\"tcp\"",
        "[1]",
        "[\"\"]",
        "[\"a b\"]",
        "[\"tcp\", \"h2c\"]",
        "[\"HTTP/2.0\"]",
        "[\"TLS/1.3\"]",
        &many,
    ] {
        all.push_str(&format!("== {text}\n{}\n", check_text(&format!("{SMALL}\nupgrades = {text}"))));
    }
    insta::assert_snapshot!(all);
}
