//! `switchback check`: every text is either a configuration that can be put in force, or is refused with a place for
//! everything that is wrong with it.

#![cfg_attr(fuzzing, no_main)]

use std::path::{Path, PathBuf};

use switchback::config::{Config, Diagnostic, Host, Severity, check_on, named_files};
use switchback::release::{Actor, ActorKind, Command, Event, Order, State, Timestamp, step};
use switchback::table::Epoch;
use switchback_fuzz::fuzz_target;

fuzz_target!(|text: &str| {
    // Files that it names are looked for beside it; none that could keep the reader waiting. Behind an empty line a byte
    // order mark is none.
    if text.starts_with('\u{feff}')
        || ["..", "/dev", "/proc"].iter().any(|elsewhere| text.contains(elsewhere))
    {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("switchback.toml");
    let read = |text: &str| {
        std::fs::write(&path, text).expect("a file");
        Config::load_on(&path, &host())
    };
    let moved = read(&format!("\n{text}"));
    let config = read(text);
    let report = check_on(&path, &host());
    assert_eq!(report.ok, config.is_ok(), "{}", report.text);
    let _ = named_files(&path);
    match (config, moved) {
        (Ok(config), Ok(moved)) => {
            is_in_place(&config.warnings, text, &path);
            assert_eq!(below(&config.warnings, 1), below(&moved.warnings, 0));
            it_can_be_put_in_force(config);
        }
        (Err(errors), Err(moved)) => {
            assert!(!errors.0.is_empty());
            is_in_place(&errors.0, text, &path);
            assert_eq!(below(&errors.0, 1), below(&moved.0, 0));
        }
        (config, moved) => panic!("an empty line changes everything: {config:?} {moved:?}"),
    }
});

/// What was found, `by` lines further down; without numbers, because a finding may name the place of another, and without
/// what is said of the very beginning: of the whole text or of what stands there.
fn below(found: &[Diagnostic], by: usize) -> Vec<(usize, usize, Severity, String)> {
    let wordless = |found: &Diagnostic| found.message.replace(|char: char| char.is_ascii_digit(), "");
    let line = |found: &Diagnostic| if found.line > 0 { found.line + by } else { 0 };
    let is_of_the_beginning = |found: &&Diagnostic| found.column == 1 && line(found) <= 2;
    let others = found.iter().filter(|found| !is_of_the_beginning(found));
    others.map(|found| (line(found), found.column, found.severity, wordless(found))).collect()
}

/// Every finding is at a character of the text, or right behind one, and is one line.
fn is_in_place(found: &[Diagnostic], text: &str, path: &Path) {
    let lines: Vec<_> = text.split('\n').collect();
    for found in found {
        assert_eq!(found.file, path);
        if found.line > 0 {
            let line = lines.get(found.line - 1).unwrap_or_else(|| panic!("no such line: {found}"));
            let is_there = (1..=line.chars().count() + 1).contains(&found.column);
            assert!(is_there, "no such column: {found}");
        }
        let said = found.message.chars().chain(found.hint.iter().flat_map(|hint| hint.chars()));
        assert!(!said.clone().any(char::is_control), "control characters: {:?}", said.collect::<String>());
    }
}

fn it_can_be_put_in_force(config: Config) {
    assert!(!config.listeners.is_empty());
    let command = Command::Configure { services: config.services, records: Vec::new() };
    let actor = Actor { kind: ActorKind::File, name: "switchback.toml".to_owned() };
    let order = Order {
        command,
        actor,
        reason: String::new(),
        expected: Vec::new(),
        health: switchback::release::Health::default(),
    };
    let (state, _) = step(&State::at(Epoch(0)), Event::Order(order), Timestamp(1))
        .unwrap_or_else(|why| panic!("a good file is refused: {why}"));
    for service in state.table.services() {
        let sum: u32 = service.split.shares().map(|(_, weight)| u32::from(weight.points())).sum();
        assert_eq!(sum, 10_000);
        assert!(service.version(&service.stable).is_some());
    }
}

fn host() -> Host {
    let run = PathBuf::from("/run/user/0");
    Host { root: false, runtime_dir: Some(run.clone()), state_home: Some(run) }
}
