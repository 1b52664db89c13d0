//! What is wanted of control.

use super::exclusive::Exclusively;
use super::{Control, Failed};
use crate::release::{Actor, Command, Effects, Refused, Scopes, State};
use crate::table::{Epoch, ServiceName};

/// A wanted change with all that comes with it.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What.
    pub command: Asked,
    /// Who.
    pub actor: Actor,
    /// What they may do: a change that goes beyond is refused.
    pub scopes: Scopes,
    /// Why; may be empty.
    pub reason: String,
    /// Refuse unless these services are at these epochs.
    pub expected: Vec<(ServiceName, Epoch)>,
    /// Whether endpoints are well or not.
    pub force: bool,
    /// The caller's idempotency key with a digest of what is asked.
    pub idempotency: Option<(String, String)>,
    /// Only say what would happen.
    pub dry_run: bool,
    /// A flip that is made so that two versions never serve at the same time; control answers when it is made, or was not.
    pub exclusive: Option<Exclusively>,
    /// The services that it is about, also where nothing of them changes.
    pub about: Vec<ServiceName>,
    /// Makes the answer's body from the state after the change, and what that is about, so that it can be kept with it for the
    /// idempotency key.
    pub render: fn(&State, &Effects, &[ServiceName]) -> String,
}

impl Wanted {
    /// Nothing but this command, by nobody who waits for an answer's body.
    pub(super) fn plain(command: Command, actor: Actor, reason: String) -> Self {
        Self {
            command: Asked::Command(command),
            actor,
            scopes: Scopes::all(),
            reason,
            expected: Vec::new(),
            force: false,
            idempotency: None,
            dry_run: false,
            exclusive: None,
            about: Vec::new(),
            render: |_, _, _| String::new(),
        }
    }
}

/// What is asked for; an undo needs the store's memory before it becomes a command.
#[derive(Debug, Clone)]
pub enum Asked {
    /// A command of the heart.
    Command(Command),
    /// Everything back to where it was at this epoch.
    UndoTo(Epoch),
}

impl Control {
    /// The command that is asked for; an undo with what the store remembers of then.
    pub(super) async fn command(&self, asked: Asked, scopes: &Scopes) -> Result<Command, Failed> {
        let to = match asked {
            Asked::Command(command) => {
                self.check_no_rollout(&command)?;
                return Ok(command);
            }
            Asked::UndoTo(to) => to,
        };
        let newest = self.state.table.epoch();
        let remembered = self.keeper.ask(move |store| match store.records_at(to)? {
            Some(records) => Ok(Ok(records)),
            None => Ok(Err(store.load()?.oldest)),
        });
        match remembered.await? {
            Ok(records) => Ok(Command::Undo { to, records, scopes: scopes.clone() }),
            Err(oldest) => Err(Refused::UnknownEpoch { to, oldest, newest }.into()),
        }
    }
}
