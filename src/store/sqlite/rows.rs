//! The rows of the store: each statement once.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Answer, HistoryQuery, MOST_ANSWERS, StoreError, failed, record};
use crate::release::history::Standing;
use crate::release::{Actor, Change, ServiceRecord, Timestamp};
use crate::table::{Epoch, Invalid};

/// The largest epoch that a row can hold.
pub(super) const MOST: u64 = i64::MAX.unsigned_abs();

/// SQLite's integers have 63 bits and a sign; neither epochs nor milliseconds get that far.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn natural(row: &Row<'_>, column: &str) -> Result<u64, StoreError> {
    let value: i64 = row.get(column).map_err(failed)?;
    u64::try_from(value).map_err(|_| StoreError::Corrupt(format!("{column} is below zero: {value}")))
}

fn edge(connection: &Connection, sql: &str) -> Result<Epoch, StoreError> {
    let epoch =
        connection.prepare_cached(sql).and_then(|mut query| query.query_one((), |row| row.get::<_, i64>(0)));
    Ok(Epoch(epoch.map_err(failed)?.unsigned_abs()))
}

/// The newest change's epoch, or 0.
pub(super) fn newest(connection: &Connection) -> Result<Epoch, StoreError> {
    edge(connection, "SELECT coalesce(max(epoch), 0) FROM changes")
}

/// The oldest epoch whose records are whole: that of the oldest change, and 0 while even the first one is there.
pub(super) fn oldest(connection: &Connection) -> Result<Epoch, StoreError> {
    let first = edge(connection, "SELECT coalesce(min(epoch), 0) FROM changes")?;
    Ok(if first == Epoch(1) { Epoch(0) } else { first })
}

/// Adds a change without its records.
pub(super) fn insert_change(connection: &Connection, change: &Change) -> Result<(), StoreError> {
    let sql = "INSERT INTO changes (epoch, at_ms, kind, actor_kind, actor_name, reason, summary)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let Change { epoch, at, kind, actor, reason, summary, services: _ } = change;
    let row = params![
        integer(epoch.0),
        integer(at.0),
        kind.token(),
        actor.kind.token(),
        actor.name,
        reason,
        summary
    ];
    connection.prepare_cached(sql).and_then(|mut insert| insert.execute(row)).map_err(failed)?;
    Ok(())
}

/// Adds one service's record to the change of `epoch`.
pub(super) fn insert_record(
    connection: &Connection,
    epoch: Epoch,
    record: &ServiceRecord,
    position: i64,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO service_records (service, epoch, position, standing) VALUES (?1, ?2, ?3, ?4)";
    let row = params![record.service.as_str(), integer(epoch.0), position, standing(record)?];
    connection.prepare_cached(sql).and_then(|mut insert| insert.execute(row)).map_err(failed)?;
    Ok(())
}

/// Puts one service's record in the place of the one of its epoch.
pub(super) fn restate_record(connection: &Connection, record: &ServiceRecord) -> Result<(), StoreError> {
    let sql = "UPDATE service_records SET standing = ?3 WHERE service = ?1 AND epoch = ?2";
    let row = params![record.service.as_str(), integer(record.epoch.0), standing(record)?];
    connection.prepare_cached(sql).and_then(|mut update| update.execute(row)).map_err(failed)?;
    Ok(())
}

fn standing(record: &ServiceRecord) -> Result<Option<String>, StoreError> {
    let standing = record.standing.as_ref().map(record::StandingForm::from);
    standing.map(|form| record::to_text(&form)).transpose()
}

/// Adds an answer, to be forgotten with the change of `epoch`, and forgets the oldest one beyond the limit.
pub(super) fn insert_answer(
    connection: &Connection,
    epoch: Epoch,
    answer: &Answer,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO answers (key, epoch, fingerprint, body) VALUES (?1, nullif(?2, 0), ?3, ?4)";
    let row = params![answer.key, integer(epoch.0), answer.fingerprint, answer.body];
    connection.prepare_cached(sql).and_then(|mut insert| insert.execute(row)).map_err(failed)?;
    let sql = "DELETE FROM answers WHERE seq <= (SELECT max(seq) FROM answers) - ?1";
    let most = i64::try_from(MOST_ANSWERS).unwrap_or(i64::MAX);
    connection.prepare_cached(sql).and_then(|mut delete| delete.execute([most])).map_err(failed)?;
    Ok(())
}

/// Forgets the changes before `oldest` with their answers, and the records that no epoch from `oldest` on needs.
///
/// What the changes up to `already` made superfluous is gone before: a step of one epoch costs the same
/// however many services there are.
pub(super) fn forget(connection: &Connection, already: u64, oldest: u64) -> Result<(), StoreError> {
    let sql = "DELETE FROM changes WHERE epoch < ?1";
    connection
        .prepare_cached(sql)
        .and_then(|mut delete| delete.execute([integer(oldest)]))
        .map_err(failed)?;
    // One by one, by their keys: SQLite makes a temporary table for a statement that deletes what it looks for.
    let sql = "DELETE FROM service_records WHERE service = ?1 AND epoch = ?2";
    let mut delete = connection.prepare_cached(sql).map_err(failed)?;
    for (service, epoch) in superfluous(connection, already, oldest)? {
        delete.execute(params![service, epoch]).map_err(failed)?;
    }
    Ok(())
}

/// The keys of the records that a change after `already`, and not after `oldest`, has made superfluous.
fn superfluous(connection: &Connection, already: u64, oldest: u64) -> Result<Vec<(String, i64)>, StoreError> {
    let sql = "SELECT old.service, old.epoch
               FROM service_records newer CROSS JOIN service_records old ON old.service = newer.service
               WHERE newer.epoch > ?1 AND newer.epoch <= ?2 AND old.epoch < newer.epoch";
    let mut query = connection.prepare_cached(sql).map_err(failed)?;
    let keys = query.query_map([integer(already), integer(oldest)], |row| Ok((row.get(0)?, row.get(1)?)));
    keys.and_then(Iterator::collect).map_err(failed)
}

/// The newest record up to `epoch` of every service, by name.
pub(super) fn records_until(connection: &Connection, epoch: Epoch) -> Result<Vec<ServiceRecord>, StoreError> {
    // With a lone max(), SQLite takes the other columns from the row that has it: sqlite.org/lang_select.html#bareagg
    let sql = "SELECT service, max(epoch) AS epoch, standing FROM service_records WHERE epoch <= ?1
               GROUP BY service ORDER BY service";
    let mut query = connection.prepare_cached(sql).map_err(failed)?;
    let mut rows = query.query([integer(epoch.0)]).map_err(failed)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        records.push(service_record(row)?);
    }
    Ok(records)
}

fn service_record(row: &Row<'_>) -> Result<ServiceRecord, StoreError> {
    let (service, epoch) = (text(row, "service")?, natural(row, "epoch")?);
    let standing: Option<String> = row.get("standing").map_err(failed)?;
    let place = || format!("service `{service}` at epoch {epoch}");
    let standing =
        standing.map(|text| record::from_text::<record::StandingForm, Standing>(&text, place)).transpose()?;
    let name = service.parse().map_err(|why: Invalid| StoreError::Corrupt(format!("{}: {why}", place())))?;
    Ok(ServiceRecord { service: name, epoch: Epoch(epoch), standing })
}

fn text(row: &Row<'_>, column: &str) -> Result<String, StoreError> {
    row.get(column).map_err(failed)
}

/// The changes that `query` asks for, newest first.
pub(super) fn changes(connection: &Connection, query: &HistoryQuery) -> Result<Vec<Change>, StoreError> {
    let sql = "SELECT * FROM changes WHERE epoch < ?1
               AND (?2 IS NULL OR EXISTS (SELECT 1 FROM service_records
                    WHERE service = ?2 AND service_records.epoch = changes.epoch))
               ORDER BY epoch DESC LIMIT ?3";
    let before = query.before.map_or(i64::MAX, |epoch| integer(epoch.0));
    let service = query.service.as_ref().map(ToString::to_string);
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let mut select = connection.prepare_cached(sql).map_err(failed)?;
    let mut rows = select.query(params![before, service, limit]).map_err(failed)?;
    let mut changes = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let mut change = change(row)?;
        change.services = records_of(connection, change.epoch)?;
        changes.push(change);
    }
    Ok(changes)
}

fn change(row: &Row<'_>) -> Result<Change, StoreError> {
    let epoch = natural(row, "epoch")?;
    let corrupt = |why: Invalid| StoreError::Corrupt(format!("change {epoch}: {why}"));
    let kind = record::change_kind(&text(row, "kind")?).map_err(corrupt)?;
    let actor = record::actor_kind(&text(row, "actor_kind")?).map_err(corrupt)?;
    Ok(Change {
        epoch: Epoch(epoch),
        at: Timestamp(natural(row, "at_ms")?),
        kind,
        actor: Actor { kind: actor, name: text(row, "actor_name")? },
        reason: text(row, "reason")?,
        summary: text(row, "summary")?,
        services: Vec::new(),
    })
}

/// The records of one change, in its order.
fn records_of(connection: &Connection, epoch: Epoch) -> Result<Vec<ServiceRecord>, StoreError> {
    let sql = "SELECT service, epoch, standing FROM service_records WHERE epoch = ?1 ORDER BY position";
    let mut query = connection.prepare_cached(sql).map_err(failed)?;
    let mut rows = query.query([integer(epoch.0)]).map_err(failed)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        records.push(service_record(row)?);
    }
    Ok(records)
}

/// The answer under `key`.
pub(super) fn answer(connection: &Connection, key: &str) -> Result<Option<Answer>, StoreError> {
    let sql = "SELECT key, fingerprint, body FROM answers WHERE key = ?1";
    let answer = |row: &Row<'_>| Ok(Answer { key: row.get(0)?, fingerprint: row.get(1)?, body: row.get(2)? });
    let mut query = connection.prepare_cached(sql).map_err(failed)?;
    query.query_row([key], answer).optional().map_err(failed)
}
