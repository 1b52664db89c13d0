//! What others do to the files: it is noticed, said, and left as it is.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use super::{epochs, plain};
use crate::store::Store;
use crate::store::sqlite::Sqlite;
use crate::table::Epoch;

#[test]
fn a_damaged_file_of_our_own_is_called_so() {
    let dir = TempDir::new().unwrap();
    let mut store = Sqlite::open(dir.path(), 9).unwrap();
    store.append(&plain(1), None).unwrap();
    drop(store);
    let path = dir.path().join("switchback.db");
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1_000).unwrap();
    let error = Sqlite::open(dir.path(), 9).unwrap_err().to_string();
    assert!(error.contains("damaged") && !error.contains("not a file of switchback's"), "{error}");
}

#[test]
fn a_file_of_somebody_elses_is_refused_and_left_alone() {
    let text = b"not a database at all, but long enough to have a header".repeat(40);
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("switchback.db"), &text).unwrap();
    let error = Sqlite::open(dir.path(), 9).unwrap_err().to_string();
    assert!(error.contains("not a file of switchback's"), "{error}");
    assert_eq!(std::fs::read(dir.path().join("switchback.db")).unwrap(), text);

    let dir = TempDir::new().unwrap();
    let other = Connection::open(dir.path().join("switchback.db")).unwrap();
    other.execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    drop(other);
    let error = Sqlite::open(dir.path(), 9).unwrap_err().to_string();
    assert!(error.contains("not a file of switchback's"), "{error}");
}

#[test]
fn no_other_program_has_it_while_it_is_open_and_one_that_has_it_first_is_an_error_in_bounded_time() {
    let dir = TempDir::new().unwrap();
    let mut store = Sqlite::open(dir.path(), 9).unwrap();
    let other = Connection::open(dir.path().join("switchback.db")).unwrap();
    other.busy_timeout(Duration::ZERO).unwrap();
    let read = || other.query_row("SELECT count(*) FROM changes", (), |row| row.get::<_, i64>(0));
    assert!(read().unwrap_err().to_string().contains("database is locked"));
    store.append(&plain(1), None).unwrap();
    drop(store);
    assert_eq!(read().unwrap(), 1);
    let error = Sqlite::open(dir.path(), 9).unwrap_err().to_string();
    assert!(error.contains(&*dir.path().display().to_string()), "{error}");
    assert!(error.ends_with("another program has it open; end that program"), "{error}");
    drop(other);
    assert_eq!(Sqlite::open(dir.path(), 9).unwrap().load().unwrap().epoch, Epoch(1));
}

/// A page of a mapped file for which the disk has no room, or that somebody has cut off, ends the process.
#[test]
fn none_of_it_is_mapped_into_memory() {
    let dir = TempDir::new().unwrap();
    let mut store = Sqlite::open(dir.path(), 9).unwrap();
    store.append(&plain(1), None).unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let ours = dir.path().display().to_string();
    assert_eq!(maps.lines().find(|line| line.contains(&ours)), None);
}

#[test]
fn what_another_program_writes_is_noticed_and_found_by_the_next_start() {
    let (dir, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let copy_all = |from: &Path, to: &Path| {
        for file in ["switchback.db", "switchback.db-wal"] {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    };
    let mut store = Sqlite::open(dir.path(), 9).unwrap();
    store.append(&plain(1), None).unwrap();
    copy_all(dir.path(), copy.path());
    store.append(&plain(2), None).unwrap();
    store.check().unwrap();
    copy_all(copy.path(), dir.path());
    for _ in 0..2 {
        let error = store.append(&plain(3), None).unwrap_err().to_string();
        let said = "switchback.db: restart, to begin from what is there";
        assert!(error.contains("another program has written to") && error.ends_with(said), "{error}");
    }
    drop(store);
    let mut store = Sqlite::open(dir.path(), 9).unwrap();
    assert_eq!(epochs(&mut store), [1]);
    store.append(&plain(2), None).unwrap();
}

#[test]
fn an_empty_file_beside_its_log_is_refused_and_the_log_left_alone() {
    let dir = TempDir::new().unwrap();
    let [path, log] = ["switchback.db", "switchback.db-wal"].map(|file| dir.path().join(file));
    let mut store = Sqlite::open(dir.path(), 9).unwrap();
    store.append(&plain(1), None).unwrap();
    let copies = [&path, &log].map(|file| std::fs::read(file).unwrap());
    drop(store);
    std::fs::write(&log, &copies[1]).unwrap();
    let empty = || std::fs::write(&path, "").unwrap();
    let gone = || std::fs::remove_file(&path).unwrap();
    for lose in [&empty as &dyn Fn(), &gone] {
        lose();
        let error = Sqlite::open(dir.path(), 9).unwrap_err().to_string();
        assert!(
            error.contains("it is empty or gone, and its log ") && error.contains("put a copy of both back"),
            "{error}"
        );
        assert!(std::fs::read(&log).unwrap() == copies[1]);
    }
    std::fs::write(&path, &copies[0]).unwrap();
    assert_eq!(Sqlite::open(dir.path(), 9).unwrap().load().unwrap().epoch, Epoch(1));
}

#[test]
fn a_damaged_page_says_what_to_do() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("switchback.db");
    let mut store = Sqlite::open(dir.path(), 99).unwrap();
    (1..40).for_each(|epoch| store.append(&plain(epoch), None).unwrap());
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    let mut said = 0;
    for at in (4096..whole.len()).step_by(4096) {
        let mut damaged = whole.clone();
        damaged[at..at + 4096].fill(0xa5);
        std::fs::write(&path, &damaged).unwrap();
        let opened = Sqlite::open(dir.path(), 99);
        let in_opening = opened.is_err();
        let Err(error) = opened.and_then(|mut store| store.load()) else { continue };
        let error = error.to_string();
        assert!(error.ends_with("or move it away, to begin with the weights of the file"), "{error}");
        assert!(!in_opening || error.contains(&*dir.path().display().to_string()), "{error}");
        said += 1;
    }
    assert!(said > 1);
}
