//! A store in memory, for tests: the same rules as the real ones, and faults by script.
//!
//! Clones share what is kept: keep one to script faults and to "restart" from after control has got the other.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Answer, HistoryQuery, Loaded, MOST_ANSWERS, Store, StoreError};
use crate::release::{Change, ServiceRecord};
use crate::table::{Epoch, ServiceName};

/// The store in memory.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    shared: Arc<Shared>,
}

/// What goes wrong with one append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and nothing is kept.
    BeforeKeeping,
    /// It is kept, and fails nevertheless.
    AfterKeeping,
    /// As [`Fault::AfterKeeping`], and the store is down from then on.
    KeptThenDown,
}

#[derive(Debug, Default)]
struct Shared {
    kept: Mutex<Kept>,
    script: Mutex<Script>,
    /// Told of every change of the script.
    turned: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    changes: VecDeque<Change>,
    records: Vec<ServiceRecord>,
    answers: HashMap<String, Answer>,
    /// Keys, oldest first.
    order: VecDeque<String>,
    /// How many changes are remembered; 0 is all.
    history: usize,
}

#[derive(Debug, Default)]
struct Script {
    appends: u64,
    faults: BTreeMap<u64, Fault>,
    down: bool,
    paused: bool,
    /// An append stands at the gate.
    waiting: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// A store that remembers the last `history` changes, at least one.
    #[must_use]
    pub fn remembering(history: usize) -> Self {
        let memory = Self::default();
        lock(&memory.shared.kept).history = history.max(1);
        memory
    }

    /// The `nth` append from now on (1 is the next) has this fault.
    pub fn fail(&self, nth: u64, fault: Fault) {
        let mut script = lock(&self.shared.script);
        let at = script.appends + nth;
        script.faults.insert(at, fault);
    }

    /// Every call fails from now on.
    pub fn go_down(&self) {
        lock(&self.shared.script).down = true;
    }

    /// Calls work again.
    pub fn come_up(&self) {
        lock(&self.shared.script).down = false;
    }

    /// Appends wait from now on, as on a disk that hangs.
    pub fn pause(&self) {
        lock(&self.shared.script).paused = true;
    }

    /// Appends go on.
    pub fn resume(&self) {
        lock(&self.shared.script).paused = false;
        self.shared.turned.notify_all();
    }

    /// Blocks until an append waits.
    pub fn await_paused_append(&self) {
        let script = lock(&self.shared.script);
        let waited = self.shared.turned.wait_while(script, |script| !script.waiting);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// What is kept, oldest first.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        lock(&self.shared.kept).changes.iter().cloned().collect()
    }

    fn up(&self) -> Result<(), StoreError> {
        if lock(&self.shared.script).down {
            Err(StoreError::Io("down, by script".to_owned()))
        } else {
            Ok(())
        }
    }

    /// Passes the gate, and says what the script has for this append.
    fn next_fault(&self) -> Option<Fault> {
        let mut script = lock(&self.shared.script);
        script.appends += 1;
        script.waiting = script.paused;
        self.shared.turned.notify_all();
        let passed = self.shared.turned.wait_while(script, |script| script.paused);
        let mut script = passed.unwrap_or_else(PoisonError::into_inner);
        script.waiting = false;
        let nth = script.appends;
        script.faults.remove(&nth)
    }
}

impl Store for Memory {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.up()?;
        let kept = lock(&self.shared.kept);
        Ok(Loaded { epoch: kept.newest(), oldest: kept.oldest(), records: kept.records_until(kept.newest()) })
    }

    fn append(&mut self, change: &Change, answer: Option<&Answer>) -> Result<(), StoreError> {
        let fault = self.next_fault();
        self.up()?;
        let scripted = |when| Err(StoreError::Io(format!("failed {when} keeping it, by script")));
        if fault == Some(Fault::BeforeKeeping) {
            return scripted("before");
        }
        lock(&self.shared.kept).append(change, answer)?;
        match fault {
            Some(Fault::AfterKeeping) => scripted("after"),
            Some(Fault::KeptThenDown) => {
                self.go_down();
                scripted("after")
            }
            Some(Fault::BeforeKeeping) | None => Ok(()),
        }
    }

    fn restate(&mut self, records: &[ServiceRecord]) -> Result<(), StoreError> {
        self.up()?;
        lock(&self.shared.kept).restate(records);
        Ok(())
    }

    fn remember(&mut self, answer: &Answer) -> Result<(), StoreError> {
        self.up()?;
        lock(&self.shared.kept).insert(answer);
        Ok(())
    }

    fn history(&mut self, query: &HistoryQuery) -> Result<Vec<Change>, StoreError> {
        self.up()?;
        let touches =
            |change: &&Change, name: &ServiceName| change.services.iter().any(|r| r.service == *name);
        let kept = lock(&self.shared.kept);
        let newest_first = kept.changes.iter().rev();
        let older = newest_first.filter(|change| query.before.is_none_or(|before| change.epoch < before));
        let asked = older.filter(|change| query.service.as_ref().is_none_or(|name| touches(change, name)));
        Ok(asked.take(query.limit).cloned().collect())
    }

    fn records_at(&mut self, epoch: Epoch) -> Result<Option<Vec<ServiceRecord>>, StoreError> {
        self.up()?;
        let kept = lock(&self.shared.kept);
        if epoch < kept.oldest() || epoch > kept.newest() {
            return Ok(None);
        }
        let mut records = kept.records_until(epoch);
        records.retain(|record| record.standing.is_some());
        Ok(Some(records))
    }

    fn answer(&mut self, key: &str) -> Result<Option<Answer>, StoreError> {
        self.up()?;
        Ok(lock(&self.shared.kept).answers.get(key).cloned())
    }

    fn check(&mut self) -> Result<(), StoreError> {
        self.up()
    }
}

impl Kept {
    fn newest(&self) -> Epoch {
        self.changes.back().map_or(Epoch(0), |change| change.epoch)
    }

    fn oldest(&self) -> Epoch {
        self.changes.front().map(|change| change.epoch).filter(|first| *first > Epoch(1)).unwrap_or_default()
    }

    fn append(&mut self, change: &Change, answer: Option<&Answer>) -> Result<(), StoreError> {
        if change.epoch != self.newest().next() {
            return Err(StoreError::Io(format!("change {} is out of order", change.epoch)));
        }
        self.changes.push_back(change.clone());
        self.records.extend(change.services.iter().cloned());
        if let Some(answer) = answer {
            self.insert(answer);
        }
        while self.history > 0 && self.changes.len() > self.history {
            self.changes.pop_front();
        }
        Ok(())
    }

    fn restate(&mut self, records: &[ServiceRecord]) {
        let Self { changes, records: kept, .. } = self;
        let all = changes.iter_mut().flat_map(|change| &mut change.services).chain(kept);
        for old in all {
            let of_it = |new: &&ServiceRecord| (&new.service, new.epoch) == (&old.service, old.epoch);
            if let Some(new) = records.iter().find(of_it) {
                old.clone_from(new);
            }
        }
    }

    fn insert(&mut self, answer: &Answer) {
        self.answers.insert(answer.key.clone(), answer.clone());
        self.order.push_back(answer.key.clone());
        while self.order.len() > MOST_ANSWERS {
            let oldest = self.order.pop_front();
            oldest.and_then(|key| self.answers.remove(&key));
        }
    }

    fn records_until(&self, epoch: Epoch) -> Vec<ServiceRecord> {
        let until = self.records.iter().filter(|record| record.epoch <= epoch);
        let newest: BTreeMap<_, _> = until.map(|record| (&record.service, record)).collect();
        newest.into_values().cloned().collect()
    }
}
