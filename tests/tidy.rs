//! The rules of the house, read from the source text: who may know whom, and what a file looks like.
//!
//! A room is a directory of `src/`. `#[cfg(test)] mod tests` and files under `tests` may know anybody.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "tidy/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use source::{File, identifiers, paths, strip};

/// (room, what it may import of other rooms). A room of its own is always open to itself.
const ROOMS: &[(&str, &[&str])] = &[
    ("table", &[]),
    ("release", &["table"]),
    ("metrics", &["table"]),
    ("proxy", &["table", "metrics"]),
    ("store", &["table", "release"]),
    // The reasons that error pages can be for.
    ("config", &["table", "release", "metrics::Reason"]),
    (
        "control",
        &[
            "table",
            "release",
            "store",
            "metrics",
            "proxy::live",
            "proxy::upstream",
            "proxy::admission",
            "proxy::hold",
            "proxy::ledger",
        ],
    ),
    // Control's handle gives out the snapshot and the tenures, in which a status counts what is in flight.
    ("admin", &["table", "release", "store", "metrics", "control", "proxy::live", "proxy::upstream"]),
    // What happened, as the API words it; whom to tell, as the file says it; and how to get there.
    (
        "webhooks",
        &[
            "admin::api",
            "control::Notice",
            "config::Webhook",
            "config::webhook",
            "metrics::Deliveries",
            "proxy::upstream::Dial",
        ],
    ),
    // The table for the words that people type: names, weights, addresses; and what stands in `/metrics`.
    ("cli", &["admin::api", "config", "table", "metrics::names", "metrics::GRPC_FAILURES"]),
];

/// Where everything is wired together; these may import anything and count for no circle.
const WIRING: &[&str] = &["cli/serve", "cli/scrape", "cli/demo", "lib.rs"];

/// What the pure rooms do not touch: the world, its clock, its dice, and other threads.
const PURE: &[&str] = &["table", "release"];
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "serde",
    "Instant",
    "SystemTime",
    "rand",
    "getrandom",
    "atomic",
    "Mutex",
    "RwLock",
    "thread",
    "fs",
];

/// (crate, the only file that may name it).
const ONLY: &[(&str, &str)] = &[("arc_swap", "proxy/live.rs")];

const MOST_LINES: usize = 400;

/// Files that are longer, and why.
const LONG: &[(&str, &str)] = &[];

const VAGUE: &[&str] = &["manager", "helper", "helpers", "util", "utils", "misc", "common"];

#[test]
fn the_house_is_tidy() {
    let files = source_files();
    assert!(files.len() > 20, "where is the source?");
    let found = [problems(&files), stale(&files)].concat();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Everything that is against the rules, one line each.
fn problems(files: &[File]) -> Vec<String> {
    let mut found: Vec<_> = files.iter().flat_map(file_problems).collect();
    let imports: Vec<_> = files.iter().flat_map(imports).collect();
    found.extend(imports.iter().filter_map(Import::problem));
    found.extend(circle(&imports));
    found
}

fn file_problems(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    let mut say = |what: String| found.push(format!("src/{}: {what}", file.path));
    if !file.text.starts_with("//!") {
        say("does not start with `//!`: say what it is and why it exists".to_owned());
    }
    let lines = file.text.lines().count();
    if lines > MOST_LINES && !LONG.iter().any(|(path, _)| *path == file.path) {
        say(format!(
            "has {lines} lines: look for the second noun, or list it in tests/tidy.rs with a reason"
        ));
    }
    let code = identifiers(&file.code);
    for pair in code.windows(2) {
        match (pair[0], pair[1]) {
            ("fn", name) if name.starts_with("get_") => {
                say(format!("`{name}`: say what it returns, without get_"))
            }
            ("mod", name) if VAGUE.contains(&name) => say(format!("`mod {name}` says nothing")),
            _ => {}
        }
    }
    for (name, only) in ONLY.iter().filter(|(name, only)| code.contains(name) && file.path != *only) {
        say(format!("names {name}; only {only} does"));
    }
    for name in
        IMPURE.iter().filter(|name| PURE.contains(&file.room()) && !file.is_test() && code.contains(name))
    {
        say(format!("names {name}; {} is pure", file.room()));
    }
    found
}

/// Exceptions that nothing needs any more.
fn stale(files: &[File]) -> Vec<String> {
    let is_long =
        |path: &str| files.iter().any(|file| file.path == path && file.text.lines().count() > MOST_LINES);
    let unneeded = LONG.iter().filter(|(path, _)| !is_long(path));
    unneeded.map(|(path, _)| format!("src/{path} is not long any more: take it off the list")).collect()
}

/// One file's import of another room.
struct Import {
    file: String,
    room: String,
    /// The path, from the crate's root.
    path: Vec<String>,
}

fn imports(file: &File) -> Vec<Import> {
    let is_free =
        file.is_test() || WIRING.iter().any(|wiring| file.path.starts_with(wiring)) || file.path == "main.rs";
    if is_free {
        return Vec::new();
    }
    let is_room =
        |path: &Vec<String>| path.first().is_some_and(|first| ROOMS.iter().any(|(room, _)| room == first));
    let foreign = paths(file).into_iter().filter(|path| is_room(path) && path[0] != file.room());
    let import = |path| Import { file: file.path.clone(), room: file.room().to_owned(), path };
    foreign.map(import).collect()
}

impl Import {
    fn problem(&self) -> Option<String> {
        let Some((_, allowed)) = ROOMS.iter().find(|(room, _)| *room == self.room) else {
            return Some(format!("src/{}: `{}` is no room of tests/tidy.rs", self.file, self.room));
        };
        let path = self.path.join("::");
        let is_under = |allowed: &&&str| path == ***allowed || path.starts_with(&format!("{allowed}::"));
        match allowed.iter().find(is_under) {
            Some(_) => None,
            None => Some(format!("src/{}: {} may not know {path}", self.file, self.room)),
        }
    }
}

/// A circle among the rooms, if there is one.
fn circle(imports: &[Import]) -> Option<String> {
    let mut open: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for import in imports {
        open.entry(&import.room).or_default().insert(&import.path[0]);
    }
    // Rooms that know nobody left are taken away until none is; what stays is in a circle, or leads to one.
    loop {
        let known: BTreeSet<_> = open.keys().copied().collect();
        open.values_mut().for_each(|knows| knows.retain(|room| known.contains(room)));
        let before = open.len();
        open.retain(|_, knows| !knows.is_empty());
        if open.len() == before {
            break;
        }
    }
    (!open.is_empty()).then(|| format!("rooms import each other in a circle: {open:?}"))
}

fn source_files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut files, mut open) = (Vec::new(), vec![root.clone()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                files.push(File::new(name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

// ---- The checker catches what it is for ----

/// What is wrong with this one file.
fn planted(path: &str, code: &str) -> Vec<String> {
    problems(&[File::new(path.to_owned(), format!("//! Planted.\n{code}\n"))])
}

#[test]
fn an_import_against_the_rules_is_caught_however_it_is_written() {
    for (path, code) in [
        ("table/split.rs", "use crate::release::State;"),
        ("release/mod.rs", "use crate::{table::Epoch, store::Record};"),
        ("release/mod.rs", "fn f() -> crate::metrics::Kind { todo() }"),
        ("release/mod.rs", "use super::proxy::live;"),
        ("proxy/live.rs", "use super::super::control::Handle;"),
        ("proxy/live.rs", "pub(crate) use crate::{\n    table::{Epoch, Table},\n    config as c,\n};"),
        ("control/mod.rs", "use crate::proxy::worker::Worker;"),
        ("control/mod.rs", "use crate::proxy::{live, worker::Worker};"),
        ("admin/mod.rs", "use crate::config::Config;"),
        ("cli/flip.rs", "use crate::control::Handle;"),
        ("cli/flip.rs", "use crate::admin::socket::Socket;"),
        ("metrics/mod.rs", "use crate::proxy::upstream::Upstream;"),
        ("attic/mod.rs", "use crate::table::Epoch;"),
    ] {
        assert_eq!(planted(path, code).len(), 1, "{path}: {code}: {:?}", planted(path, code));
    }
}

#[test]
fn what_is_allowed_is_let_through() {
    for (path, code) in [
        ("release/mod.rs", "use crate::table::{Epoch, Table};"),
        ("control/mod.rs", "use crate::proxy::{live::Live, upstream::Upstream};"),
        ("cli/serve.rs", "use crate::{control, proxy::worker::Worker};"),
        ("cli/flip.rs", "use crate::admin::api;"),
        (
            "table/split.rs",
            "/// See [`crate::release`].\nconst X: &str = \"crate::release::State\"; // use crate::proxy;",
        ),
        ("table/split.rs", "#[cfg(test)]\nmod tests {\n    use crate::release::State;\n}"),
        ("table/tests/laws.rs", "use crate::release::State;"),
        ("proxy/upstream/pool.rs", "use super::super::live::Live;"),
        ("proxy/live.rs", "use arc_swap::ArcSwap;"),
    ] {
        assert_eq!(planted(path, code), [""; 0], "{path}: {code}");
    }
}

#[test]
fn every_other_rule_is_checked_too() {
    for (path, code) in [
        ("table/mod.rs", "use std::time::Instant;"),
        ("release/mod.rs", "use std::sync::atomic::AtomicU64;"),
        ("release/mod.rs", "#[derive(serde::Serialize)] struct S;"),
        ("proxy/mod.rs", "use arc_swap::Guard;"),
        ("proxy/mod.rs", "fn get_epoch() {}"),
        ("proxy/mod.rs", "mod util;"),
        ("proxy/mod.rs", &"\n".repeat(MOST_LINES)),
    ] {
        assert_eq!(planted(path, code).len(), 1, "{path}: {code}: {:?}", planted(path, code));
    }
    let bare = File::new("table/mod.rs".to_owned(), "pub mod name;\n".to_owned());
    assert_eq!(problems(&[bare]).len(), 1, "no `//!`");
}

#[test]
fn a_circle_is_caught_even_where_each_import_is_allowed() {
    let import = |room: &str, path: &str| Import {
        file: String::new(),
        room: room.to_owned(),
        path: vec![path.to_owned()],
    };
    assert!(circle(&[import("a", "b"), import("b", "c"), import("c", "a"), import("d", "a")]).is_some());
    assert!(circle(&[import("a", "b"), import("b", "c"), import("a", "c")]).is_none());
}

#[test]
fn comments_and_literals_are_not_code() {
    let code = r##"a /* b /* c */ d */ "e \" f" 'g' '\'' b"h" r#"i " j"# 'k: l // m
n"##;
    assert_eq!(identifiers(&strip(code)), ["a", "b", "r", "k", "l", "n"]);
}

/// The fuzzers are a package of their own, in the same target directory: with another profile every library is built twice.
#[test]
fn the_fuzzers_are_built_in_the_programs_profile() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let profile = |manifest: &str| {
        let manifest: toml::Table = fs::read_to_string(root.join(manifest)).unwrap().parse().unwrap();
        manifest["profile"]["dev"].clone()
    };
    assert_eq!(profile("tests/fuzz/Cargo.toml"), profile("Cargo.toml"));
}
