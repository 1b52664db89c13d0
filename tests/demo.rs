//! The demo is the real thing: the real binary, told without a terminal, ends well only when its checks hold.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::process::{Command, Output};

fn demo() -> Output {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_switchback"))
        .arg("demo")
        // Nothing outside of its own directory may matter, least of all somebody's real proxy.
        .env("SWITCHBACK_SOCKET", dir.path().join("somebody-elses.sock"))
        .env("TMPDIR", dir.path())
        .output()
        .unwrap();
    let left: Vec<_> = dir.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    output
}

/// What stands between `before` and `after` in the text, as a number.
fn number(text: &str, before: &str, after: &str) -> u64 {
    let found = text.lines().find_map(|line| line.split_once(before)?.1.split_once(after));
    let digits: String = found.unwrap_or_else(|| panic!("no `{before}`:\n{text}")).0.replace(',', "");
    digits.trim().parse().unwrap()
}

#[test]
fn the_demo_tells_its_story_and_its_checks_hold() {
    let output = demo();
    let text = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:\n{text}\n{complaints}", output.status);
    assert!(!text.contains('\x1b'), "escape codes without a terminal:\n{text}");

    let commands: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("$ switchback ")).collect();
    let begins = [
        "weights shop green=5",
        "weights shop green=50",
        "flip shop --to green",
        "versions add shop v3",
        "weights shop v3=5",
        "revert shop",
        "flip shop --to v3 --supervise 1m",
        "status shop",
    ];
    assert_eq!(commands.len(), begins.len(), "{commands:#?}");
    assert!(commands.iter().zip(begins).all(|(line, begin)| line.starts_with(begin)), "{commands:#?}");

    let epochs = text.lines().filter_map(|line| line.trim().strip_prefix("epoch ")?.split_once(" · "));
    let epochs: Vec<u64> = epochs.map(|(epoch, _)| epoch.parse().unwrap()).collect();
    assert_eq!(
        epochs,
        [1, 2, 3, 4, 6, 7, 10],
        "each picture is a change on, v3's deployment one by itself, and supervision's are a lean and a revert:\n{text}"
    );
    assert!(text.contains("blue is safe to stop: nothing is left on it"), "{text}");
    assert!(text.contains("green carries the traffic as before: do not stop it"), "{text}");
    assert!(text.contains("v3 is safe to stop: nothing is left on it"), "{text}");

    assert!(number(&text, "✓ ", " requests, 0 failed") > 500, "{text}");
    assert!(number(&text, "✓ ", " errors were answers of v3 itself") > 0, "{text}");
    assert_eq!(number(&text, " began after an acknowledgement; ", " of them"), 0, "{text}");
    assert!(!text.contains('✗'), "{text}");
}
