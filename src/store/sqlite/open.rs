//! Opening: the directory, the lock that makes it one process's own, the file and its schema.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::files::log_of;
use super::{StoreError, failed};
use crate::store::REMEDY;

/// The database file.
pub(super) const FILE: &str = "switchback.db";
/// The lock file; it holds the pid of its owner and is never deleted, so that nobody locks a file that is not there.
const LOCK: &str = "switchback.lock";
/// `swbk`: tells our file from any other SQLite file.
const APPLICATION_ID: i64 = 0x7377_626b;
/// How long to wait for an operator's own `sqlite3` that has the file open.
const BUSY: Duration = Duration::from_millis(250);
/// What the log is cut back to after a burst, in bytes.
const LOG_SIZE: i64 = 4 << 20;

/// The schema, as the steps from each version to the next; a step is never edited once released.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE changes (
        epoch      INTEGER PRIMARY KEY,
        at_ms      INTEGER NOT NULL,
        kind       TEXT NOT NULL,
        actor_kind TEXT NOT NULL,
        actor_name TEXT NOT NULL,
        reason     TEXT NOT NULL,
        summary    TEXT NOT NULL
    ) STRICT;
    -- Every service as each change left it. The newest record of a service outlives the change that made it.
    CREATE TABLE service_records (
        service  TEXT NOT NULL,
        epoch    INTEGER NOT NULL,
        position INTEGER NOT NULL,        -- within the change
        standing TEXT,                    -- JSON; NULL when the service was dropped
        PRIMARY KEY (service, epoch)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX service_records_by_epoch ON service_records (epoch, position);
    -- Answers that are given again to the same idempotency key.
    CREATE TABLE answers (
        seq         INTEGER PRIMARY KEY AUTOINCREMENT,
        key         TEXT NOT NULL UNIQUE,
        epoch       INTEGER REFERENCES changes (epoch) ON DELETE CASCADE,
        fingerprint TEXT NOT NULL,
        body        TEXT NOT NULL
    ) STRICT;
    CREATE INDEX answers_by_epoch ON answers (epoch);
"];

fn cannot_open(path: &Path, why: impl std::fmt::Display) -> StoreError {
    StoreError::Open { path: path.display().to_string(), why: why.to_string() }
}

pub(super) fn damaged(path: &Path, why: &str) -> StoreError {
    cannot_open(path, format!("it is damaged ({why}): {REMEDY}"))
}

/// Makes `dir` if it is not there, for this user only.
pub(super) fn directory(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|why| {
        cannot_open(dir, format!("{why}; make the directory writable, or set another state.dir"))
    })?;
    // Those above it may be new as well.
    dir.ancestors().skip(1).filter(|above| above.is_dir()).try_for_each(sync)
}

/// Makes the names in `dir` survive power loss.
pub(super) fn sync(dir: &Path) -> Result<(), StoreError> {
    match File::open(dir).and_then(|dir| dir.sync_all()) {
        // A directory that we may not read is not one that we made.
        Err(why) if why.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced.map_err(|why| cannot_open(dir, why)),
    }
}

/// Claims `dir` for this process, within `patience` if another has it; the claim ends with the process, however it ends.
pub(super) fn lock(dir: &Path, patience: Duration) -> Result<File, StoreError> {
    let path = dir.join(LOCK);
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = opened.map_err(|why| cannot_open(dir, format!("{why}: {}", path.display())))?;
    let is_locked = match file.try_lock() {
        Err(TryLockError::WouldBlock) if !patience.is_zero() => wait_for(&file, patience),
        at_once => at_once,
    };
    match is_locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(cannot_open(dir, in_use(&mut file))),
        Err(TryLockError::Error(why)) => {
            return Err(cannot_open(dir, format!("cannot lock {}: {why}", path.display())));
        }
    }
    // For people only; a full disk is no reason not to start.
    let _ =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}

/// Waits for the lock on `file` to be free. The kernel says when, but not that it is late: so the thread that hears it is left then.
fn wait_for(file: &File, patience: Duration) -> Result<(), TryLockError> {
    let waiting = file.try_clone().map_err(TryLockError::Error)?;
    let (tell, told) = mpsc::channel();
    // Nobody hears it any more: it is given back with the last handle.
    let wait = move || drop(tell.send(waiting.lock()));
    thread::Builder::new().name("store lock".to_owned()).spawn(wait).map_err(TryLockError::Error)?;
    match told.recv_timeout(patience) {
        Ok(locked) => locked.map_err(TryLockError::Error),
        Err(_) => Err(TryLockError::WouldBlock),
    }
}

fn in_use(file: &mut File) -> String {
    let mut pid = String::new();
    let holder = match file.read_to_string(&mut pid) {
        Ok(_) if !pid.is_empty() => format!("process {pid}"),
        Ok(_) | Err(_) => "another process".to_owned(),
    };
    format!("{holder} uses it; stop that one, or set another state.dir")
}

/// Opens the database in `dir`, brings its schema up to date, and makes every commit durable. Nobody else can open it then.
pub(super) fn database(dir: &Path) -> Result<Connection, StoreError> {
    let path = dir.join(FILE);
    is_with_its_log(&path)?;
    // Made here and not by SQLite, so that nobody else can read it.
    let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    made.map_err(|why| cannot_open(&path, why))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(&path, flags).map_err(|why| cannot_open(&path, why))?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    alone(&connection)?;
    let schema = identify(&connection, &path)?;
    configure(&connection)?;
    migrate(&mut connection, schema)?;
    Ok(connection)
}

/// SQLite takes an empty file for a new one, and deletes the log beside it: that may hold all that was acknowledged.
fn is_with_its_log(path: &Path) -> Result<(), StoreError> {
    let is_empty = |path: &Path| fs::metadata(path).map_or(true, |file| file.len() == 0);
    let log = log_of(path);
    if is_empty(path) && !is_empty(&log) {
        let log = log.display();
        return Err(cannot_open(
            path,
            format!(
                "it is empty or gone, and its log {log} is not: put a copy of both back, they say where traffic goes; or move both away, to begin with the weights of the file"
            ),
        ));
    }
    Ok(())
}

/// Keeps everybody else out, before the file is read: SQLite has its index of the log in this process's own memory then. Else it
/// is a file that is mapped, and a full disk (where that copies on write), or whoever cuts the file, ends the process by SIGBUS.
fn alone(connection: &Connection) -> Result<(), StoreError> {
    connection.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(())).map_err(failed)
}

fn pragma<T: rusqlite::types::FromSql>(connection: &Connection, name: &str) -> Result<T, StoreError> {
    connection.pragma_query_value(None, name, |row| row.get(0)).map_err(failed)
}

/// The schema's version, before anything is written: somebody else's file stays as it is.
fn identify(connection: &Connection, path: &Path) -> Result<usize, StoreError> {
    let foreign =
        || cannot_open(path, "it is not a file of switchback's; set another state.dir, or move it away");
    let unreadable = |error| match error {
        StoreError::Corrupt(why) if is_marked(path) => damaged(path, &why),
        StoreError::Corrupt(_) => cannot_open(
            path,
            "it is not a file of switchback's, or damaged from its beginning on: set another state.dir, put a copy of it back, or move it away",
        ),
        other => other,
    };
    let found: i64 = pragma(connection, "user_version").map_err(unreadable)?;
    let objects = connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0));
    let objects: i64 = objects.map_err(failed).map_err(unreadable)?;
    match pragma::<i64>(connection, "application_id")? {
        APPLICATION_ID => {}
        0 if objects == 0 && found == 0 => return Ok(0),
        _ => return Err(foreign()),
    }
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let newer = || StoreError::NewerSchema { path: path.display().to_string(), found, known };
    usize::try_from(found).ok().filter(|_| found <= known).ok_or_else(newer)
}

/// Whether the file has our mark, be the rest of it as it may (SQLite's file format, §1.3: bytes 68 to 71).
fn is_marked(path: &Path) -> bool {
    let mut mark = [0; 4];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut mark, 68));
    read.is_ok() && i64::from(u32::from_be_bytes(mark)) == APPLICATION_ID
}

fn configure(connection: &Connection) -> Result<(), StoreError> {
    let set = |name: &str, value: &dyn rusqlite::ToSql| {
        connection.pragma_update_and_check(None, name, value, |_| Ok(())).map_err(failed)
    };
    set("journal_mode", &"WAL")?;
    set("journal_size_limit", &LOG_SIZE)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    // A change is written when it is kept and not before: until then the files are as they were left.
    connection.pragma_update(None, "cache_spill", false).map_err(failed)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(failed)
}

fn migrate(connection: &mut Connection, schema: usize) -> Result<(), StoreError> {
    for (step, to) in MIGRATIONS.iter().zip(1i64..).skip(schema) {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(step).map_err(failed)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        transaction.pragma_update(None, "user_version", to).map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}
