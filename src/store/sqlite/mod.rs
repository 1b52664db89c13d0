//! The store of a single proxy: one SQLite file in `state.dir`, written with WAL and a sync a change, and nobody else's while
//! it is open.

mod files;
mod open;
mod rows;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tracing::{debug, warn};

use files::Files;

use super::{Answer, HistoryQuery, Loaded, MOST_ANSWERS, Store, StoreError, record};
use crate::release::{Change, ServiceRecord};
use crate::table::Epoch;

/// A directory that is this process's until the claim, or the store that is opened there, is dropped.
#[derive(Debug)]
pub struct Claim {
    dir: PathBuf,
    lock: File,
}

impl Claim {
    /// Claims `dir`, which is made if it is not there. A process that uses it may have it for `patience`: one that was killed has not
    /// given everything back yet when its end is heard of.
    ///
    /// # Errors
    /// [`StoreError::Open`] when the directory cannot be used, or another process uses it.
    pub fn of(dir: &Path, patience: Duration) -> Result<Self, StoreError> {
        open::directory(dir)?;
        Ok(Self { dir: dir.to_owned(), lock: open::lock(dir, patience)? })
    }

    /// Opens the store there, as [`Sqlite::open`] does.
    ///
    /// # Errors
    /// As there.
    pub fn open(self, history: usize) -> Result<Sqlite, StoreError> {
        let Self { dir, lock } = self;
        let connection = open::database(&dir).map_err(at(&dir))?;
        open::sync(&dir)?;
        let history = u64::try_from(history).unwrap_or(u64::MAX).max(1);
        let files = Files::of(&dir.join(open::FILE));
        let mut store = Sqlite { connection, files, history, _lock: lock };
        store.forget_all().map_err(at(&dir))?;
        Ok(store)
    }
}

/// The embedded store.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    /// What is written to.
    files: Files,
    /// How many changes are remembered.
    history: u64,
    /// Held for as long as this process uses the directory.
    _lock: File,
}

impl Sqlite {
    /// Opens the store in `dir`, which is made if it is not there; remembers the last `history` changes, at least one.
    ///
    /// Blocks; syncs what it makes. The directory is this process's until the store is dropped.
    ///
    /// # Errors
    /// [`StoreError::Open`] when the directory cannot be used, or another process uses it;
    /// [`StoreError::NewerSchema`]; [`StoreError::Corrupt`].
    pub fn open(dir: &Path, history: usize) -> Result<Self, StoreError> {
        Claim::of(dir, Duration::ZERO)?.open(history)
    }

    /// Forgets what a shorter history than the last one no longer holds.
    fn forget_all(&mut self) -> Result<(), StoreError> {
        let history = self.history;
        self.transact(|transaction| {
            let newest = rows::newest(transaction)?;
            rows::forget(transaction, 0, oldest_to_keep(newest, history))
        })
    }

    /// All of `work` or nothing of it; on any error the store is as it was, and usable.
    fn transact<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.files.check()?;
        // Dropping the transaction rolls it back, after a failed commit too.
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let value = work(&transaction)?;
        // Once more, as late as can be: a file that goes after this was there when the change was kept.
        self.files.check()?;
        let kept = transaction.commit().map_err(failed);
        if kept.is_err() {
            self.forget_unsynced();
        }
        self.files.look();
        kept.map(|()| value)
    }

    /// What a commit wrote whose sync failed: it would be replayed by the next process, after a crash. Where the disk fails for
    /// this too the next change writes over it.
    fn forget_unsynced(&self) {
        let cut = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()));
        if let Err(error) = cut {
            debug!(%error, "the store's log still has what was refused");
        }
    }
}

impl Drop for Sqlite {
    /// Whatever somebody has put there stays as he left it: SQLite would write its log into that, and delete the log.
    fn drop(&mut self) {
        if let Err(error) = self.files.check() {
            warn!(%error, "the store is left as it is");
            // It is closed in any case.
            let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}

/// The oldest change that is remembered once `newest` is the newest.
fn oldest_to_keep(newest: Epoch, history: u64) -> u64 {
    newest.0.saturating_sub(history) + 1
}

impl Store for Sqlite {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let (epoch, oldest) = (rows::newest(&self.connection)?, rows::oldest(&self.connection)?);
        let records = rows::records_until(&self.connection, Epoch(rows::MOST))?;
        Ok(Loaded { epoch, oldest, records })
    }

    fn append(&mut self, change: &Change, answer: Option<&Answer>) -> Result<(), StoreError> {
        let history = self.history;
        self.transact(|transaction| {
            let newest = rows::newest(transaction)?;
            if change.epoch != newest.next() {
                let (epoch, next) = (change.epoch, newest.next());
                return Err(StoreError::Io(format!(
                    "change {epoch} is out of order: the next one is {next}"
                )));
            }
            rows::insert_change(transaction, change)?;
            for (record, position) in change.services.iter().zip(0..) {
                rows::insert_record(transaction, change.epoch, record, position)?;
            }
            if let Some(answer) = answer {
                rows::insert_answer(transaction, change.epoch, answer)?;
            }
            let oldest = oldest_to_keep(change.epoch, history);
            rows::forget(transaction, oldest.saturating_sub(1), oldest)
        })
    }

    fn restate(&mut self, records: &[ServiceRecord]) -> Result<(), StoreError> {
        self.transact(|transaction| {
            records.iter().try_for_each(|record| rows::restate_record(transaction, record))
        })
    }

    fn remember(&mut self, answer: &Answer) -> Result<(), StoreError> {
        self.transact(|transaction| rows::insert_answer(transaction, rows::newest(transaction)?, answer))
    }

    fn history(&mut self, query: &HistoryQuery) -> Result<Vec<Change>, StoreError> {
        // What was done to the files says more than what comes of it.
        rows::changes(&self.connection, query).map_err(|error| self.files.check().err().unwrap_or(error))
    }

    fn records_at(&mut self, epoch: Epoch) -> Result<Option<Vec<ServiceRecord>>, StoreError> {
        if epoch < rows::oldest(&self.connection)? || epoch > rows::newest(&self.connection)? {
            return Ok(None);
        }
        let mut records = rows::records_until(&self.connection, epoch)?;
        records.retain(|record| record.standing.is_some());
        Ok(Some(records))
    }

    fn answer(&mut self, key: &str) -> Result<Option<Answer>, StoreError> {
        rows::answer(&self.connection, key)
    }

    fn check(&mut self) -> Result<(), StoreError> {
        self.files.check()
    }
}

/// Names the directory in what went wrong while it was opened.
fn at(dir: &Path) -> impl Fn(StoreError) -> StoreError {
    let path = dir.display().to_string();
    move |error| match error {
        StoreError::Io(why) => StoreError::Open { path: path.clone(), why },
        StoreError::Corrupt(why) => open::damaged(Path::new(&path), &why),
        other => other,
    }
}

/// What SQLite says, in our words.
#[expect(clippy::needless_pass_by_value, reason = "so that it fits map_err")]
fn failed(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            StoreError::Corrupt(error.to_string())
        }
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            StoreError::Io(format!("{error}: another program has it open; end that program"))
        }
        Some(rusqlite::ErrorCode::DiskFull) => {
            StoreError::Io(format!("{error}: make room on the disk that holds state.dir"))
        }
        // Which of the two it was SQLite keeps to itself.
        Some(_) if is_unwritten(&error) => StoreError::Io(format!(
            "{error}: a file in state.dir cannot be written, or has come to the limit on the size of files (ulimit -f, LimitFSIZE=)"
        )),
        Some(_) | None => StoreError::Io(error.to_string()),
    }
}

/// True when a write failed for another reason than a full disk.
fn is_unwritten(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE)
}
