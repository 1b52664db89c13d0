//! A real file on a real disk: what survives, what is refused, and that nothing is half there.

mod files;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::release::{Actor, ActorKind, ChangeKind, Timestamp};
use crate::store::arbitrary;
use crate::store::memory::Memory;

fn plain(epoch: u64) -> Change {
    Change {
        epoch: Epoch(epoch),
        at: Timestamp(epoch),
        kind: ChangeKind::Flip,
        actor: Actor { kind: ActorKind::Operator, name: "uid=0".to_owned() },
        reason: String::new(),
        summary: "x".repeat(2_000),
        services: Vec::new(),
    }
}

fn answer(key: &str) -> Answer {
    Answer { key: key.to_owned(), fingerprint: "f".to_owned(), body: format!("{{\"key\":{key:?}}}") }
}

fn all() -> HistoryQuery {
    HistoryQuery { before: None, limit: usize::MAX, service: None }
}

fn epochs(store: &mut Sqlite) -> Vec<u64> {
    store.history(&all()).unwrap().iter().map(|change| change.epoch.0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The same as the store in memory, which is written to be read, at every epoch, before and after reopening.
    #[test]
    fn it_remembers_what_the_model_remembers(changes in arbitrary::changes(8), history in 1usize..6) {
        let dir = TempDir::new().unwrap();
        let mut model = Memory::remembering(history);
        let mut store = Sqlite::open(dir.path(), history).unwrap();
        for change in &changes {
            let answer = answer(&change.epoch.to_string());
            model.append(change, Some(&answer)).unwrap();
            store.append(change, Some(&answer)).unwrap();
        }
        for _ in 0..2 {
            prop_assert_eq!(store.load().unwrap(), model.load().unwrap());
            for epoch in (0..10).map(Epoch) {
                prop_assert_eq!(store.records_at(epoch).unwrap(), model.records_at(epoch).unwrap());
                let query = HistoryQuery { before: Some(epoch), limit: 3, service: Some("t".parse().unwrap()) };
                prop_assert_eq!(store.history(&query).unwrap(), model.history(&query).unwrap());
            }
            prop_assert_eq!(store.history(&all()).unwrap(), model.history(&all()).unwrap());
            drop(store);
            store = Sqlite::open(dir.path(), history).unwrap();
        }
    }

    #[test]
    fn a_record_that_is_restated_stands_in_the_place_of_the_old_one(changes in arbitrary::changes(8)) {
        let dir = TempDir::new().unwrap();
        let (mut model, mut store) = (Memory::remembering(9), Sqlite::open(dir.path(), 9).unwrap());
        for change in &changes {
            model.append(change, None).unwrap();
            store.append(change, None).unwrap();
        }
        let mut records = store.load().unwrap().records;
        for standing in records.iter_mut().filter_map(|record| record.standing.as_mut()) {
            standing.file_digest.form ^= 1;
        }
        model.restate(&records).unwrap();
        store.restate(&records).unwrap();
        prop_assert_eq!(&store.load().unwrap().records, &records);
        prop_assert_eq!(&model.load().unwrap().records, &records);
        prop_assert_eq!(store.history(&all()).unwrap(), model.history(&all()).unwrap());
    }
}

#[test]
fn an_answer_is_forgotten_with_its_change() {
    let dir = TempDir::new().unwrap();
    let mut store = Sqlite::open(dir.path(), 2).unwrap();
    store.remember(&answer("before")).unwrap();
    store.append(&plain(1), Some(&answer("first"))).unwrap();
    store.remember(&answer("nothing")).unwrap();
    store.append(&plain(2), None).unwrap();
    assert_eq!(store.answer("first").unwrap(), Some(answer("first")));
    store.append(&plain(3), Some(&answer("third"))).unwrap();
    assert_eq!(store.answer("first").unwrap(), None);
    assert_eq!(store.answer("nothing").unwrap(), None);
    assert_eq!(store.answer("third").unwrap(), Some(answer("third")));
}

#[test]
fn answers_are_bounded_in_number() {
    let dir = TempDir::new().unwrap();
    let mut store = Sqlite::open(dir.path(), 2).unwrap();
    store.connection.pragma_update(None, "synchronous", "OFF").unwrap();
    for key in 0..MOST_ANSWERS + 2 {
        store.remember(&answer(&key.to_string())).unwrap();
    }
    assert_eq!(store.answer("1").unwrap(), None);
    assert_eq!(store.answer("2").unwrap(), Some(answer("2")));
}

#[test]
fn a_key_is_not_taken_twice_and_the_change_goes_with_it() {
    let dir = TempDir::new().unwrap();
    let mut store = Sqlite::open(dir.path(), 9).unwrap();
    store.append(&plain(1), Some(&answer("key"))).unwrap();
    assert!(store.append(&plain(2), Some(&answer("key"))).is_err());
    assert_eq!(epochs(&mut store), [1]);
}

#[test]
fn a_gap_in_the_epochs_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut store = Sqlite::open(dir.path(), 9).unwrap();
    store.append(&plain(1), None).unwrap();
    for epoch in [0, 1, 3] {
        let error = store.append(&plain(epoch), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the state store failed: change {epoch} is out of order: the next one is 2")
        );
    }
    assert_eq!(epochs(&mut store), [1]);
}

#[test]
fn the_files_at_any_instant_hold_every_acknowledged_change() {
    let dir = TempDir::new().unwrap();
    let mut store = Sqlite::open(dir.path(), 99).unwrap();
    for epoch in 1..=20 {
        store.append(&plain(epoch), None).unwrap();
        let copy = TempDir::new().unwrap();
        for file in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        assert_eq!(Sqlite::open(copy.path(), 99).unwrap().load().unwrap().epoch, Epoch(epoch));
    }
}

#[test]
fn a_directory_belongs_to_one_process() {
    let dir = TempDir::new().unwrap();
    let first = Sqlite::open(dir.path(), 9).unwrap();
    let error = Sqlite::open(dir.path(), 9).unwrap_err().to_string();
    let holder = format!("process {} uses it; stop that one, or set another state.dir", std::process::id());
    assert!(error.contains(&holder), "{error}");
    drop(first);
    Sqlite::open(dir.path(), 9).unwrap();
}

#[test]
fn nobody_else_can_read_what_it_makes() {
    let dir = TempDir::new().unwrap();
    let made = dir.path().join("a/b");
    let _store = Sqlite::open(&made, 9).unwrap();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(made.clone()), 0o700);
    assert_eq!(mode(made.join("switchback.db")), 0o600);
    assert_eq!(mode(made.join("switchback.db-wal")), 0o600);
}

#[test]
fn a_commit_is_synced() {
    let dir = TempDir::new().unwrap();
    let store = Sqlite::open(dir.path(), 9).unwrap();
    let pragma = |name| store.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(pragma("synchronous"), 2, "FULL");
    let log: String = store.connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(log, "wal");
    assert_eq!(pragma("foreign_keys"), 1);
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let store = Sqlite::open(dir.path(), 9).unwrap();
    store.connection.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let error = Sqlite::open(dir.path(), 9).unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { found: 99, known: 1, .. }), "{error}");
    assert!(error.to_string().ends_with("use a newer switchback, or another state.dir"), "{error}");
}

#[test]
fn a_record_that_cannot_be_read_is_named() {
    let dir = TempDir::new().unwrap();
    let mut store = Sqlite::open(dir.path(), 9).unwrap();
    store.append(&plain(1), None).unwrap();
    store.connection.execute("INSERT INTO service_records VALUES ('shop', 1, 0, '{}')", ()).unwrap();
    let error = store.load().unwrap_err();
    assert!(
        matches!(&error, StoreError::Corrupt(why) if why.starts_with("service `shop` at epoch 1: ")),
        "{error}"
    );
}

#[test]
fn a_full_store_takes_changes_again_once_there_is_room() {
    let dir = TempDir::new().unwrap();
    let mut store = Sqlite::open(dir.path(), 999).unwrap();
    store.append(&plain(1), None).unwrap();
    let limit = |store: &Sqlite, pages: i64| {
        store.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    };
    limit(&store, 1);
    let (refused, error) = fill(&mut store, 2);
    assert!(error.to_string().contains("full"), "{error}");
    limit(&store, 1_000_000);
    store.append(&plain(refused), None).unwrap();
    assert_eq!(store.load().unwrap().epoch, Epoch(refused));
}

/// Appends until it fails: the epoch that was refused, and why.
fn fill(store: &mut Sqlite, from: u64) -> (u64, StoreError) {
    let failed =
        (from..).find_map(|epoch| store.append(&plain(epoch), None).err().map(|error| (epoch, error)));
    failed.unwrap()
}

/// Needs the right to mount a file system; without it there is only the test above.
#[test]
fn a_full_disk_refuses_the_change_and_keeps_the_others() {
    let dir = TempDir::new().unwrap();
    let Some(_mount) = SmallDisk::mount(dir.path()) else {
        eprintln!("skipped: needs the right to mount a tmpfs");
        return;
    };
    let mut store = Sqlite::open(dir.path(), 999).unwrap();
    store.append(&plain(1), None).unwrap();
    let ballast = dir.path().join("ballast");
    let _ = std::fs::write(&ballast, vec![1; 4 << 20]);
    let (refused, error) = fill(&mut store, 2);
    assert!(error.to_string().contains("full"), "{error}");
    assert_eq!(store.load().unwrap().epoch, Epoch(refused - 1));
    std::fs::remove_file(&ballast).unwrap();
    store.append(&plain(refused), None).unwrap();
    drop(store);
    assert_eq!(Sqlite::open(dir.path(), 999).unwrap().load().unwrap().epoch, Epoch(refused));
}

struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"]).arg(at).output();
        mounted.ok().filter(|done| done.status.success()).map(|_| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[test]
fn an_unwritable_store_refuses_the_change_and_still_reads() {
    let dir = TempDir::new().unwrap();
    let mut store = Sqlite::open(dir.path(), 9).unwrap();
    store.append(&plain(1), None).unwrap();
    store.connection.pragma_update(None, "query_only", true).unwrap();
    assert!(store.append(&plain(2), None).unwrap_err().to_string().contains("readonly"));
    assert_eq!(epochs(&mut store), [1]);
    store.connection.pragma_update(None, "query_only", false).unwrap();
    store.append(&plain(2), None).unwrap();
}

#[test]
fn a_directory_that_cannot_be_made_says_what_to_do() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let error = Sqlite::open(&dir.path().join("file/state"), 9).unwrap_err().to_string();
    assert!(error.ends_with("make the directory writable, or set another state.dir"), "{error}");
}

/// More than SQLite's cache holds, which it would write before its time.
#[test]
fn a_large_change_is_kept() {
    let dir = TempDir::new().unwrap();
    let mut store = Sqlite::open(dir.path(), 9).unwrap();
    let large = |epoch| Change { summary: "x".repeat(8 << 20), ..plain(epoch) };
    store.append(&large(1), None).unwrap();
    store.append(&large(2), None).unwrap();
    assert_eq!(Sqlite::load(&mut store).unwrap().epoch, Epoch(2));
}
