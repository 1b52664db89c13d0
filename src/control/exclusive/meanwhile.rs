//! What may be done with a service while an exclusive flip of it is under way.

use crate::control::{Control, Failed};
use crate::release::{Command, Effects};
use crate::table::{Holder, ServiceName};

impl Control {
    /// Refuses whatever would come in the way of an exclusive flip.
    ///
    /// # Errors
    /// [`Failed::Underway`].
    pub(in crate::control) fn check_free(&mut self, service: &ServiceName) -> Result<(), Failed> {
        match self.holds.errand(service) {
            Some(errand) => Err(Failed::Underway { service: service.clone(), to: errand.to.clone() }),
            None => Ok(()),
        }
    }

    /// The same for all that a change would touch, and for the services that it `moved`: an order that asks for what is so already
    /// is not left standing.
    ///
    /// # Errors
    /// [`Failed::Underway`].
    pub(in crate::control) fn check_none_underway(
        &mut self,
        effects: &Effects,
        moved: &[ServiceName],
    ) -> Result<(), Failed> {
        let touched = effects.change.iter().flat_map(|change| &change.services).map(|record| &record.service);
        touched.chain(moved).try_for_each(|service| self.check_free(service))
    }

    /// What `command` is while an exclusive flip is under way: a revert or a release of the service calls it off, and ends nothing
    /// else. When it is supervision's way back, a revert has that made at once, and no release ends it.
    ///
    /// # Errors
    /// [`Failed::Underway`].
    pub(in crate::control) fn meanwhile(
        &mut self,
        command: Command,
    ) -> Result<(Command, Option<String>), Failed> {
        match command {
            Command::Revert { service } => Ok(self.revert(service)),
            Command::Release { service, holder: Holder::Operator } => self.release_asked_for(service),
            other => Ok((other, None)),
        }
    }

    fn revert(&mut self, service: ServiceName) -> (Command, Option<String>) {
        let Some(errand) = self.holds.errand(&service) else { return (Command::Revert { service }, None) };
        if errand.is_way_back() {
            let to = &errand.to;
            let note = format!(
                "`{service}` was on its way back to `{to}`: that is made at once, whatever is left on the others"
            );
            return (errand.last.clone(), Some(note));
        }
        let note = format!("the exclusive flip of `{service}` is called off; nothing else was reverted");
        (Command::Release { service, holder: Holder::Exclusive }, Some(note))
    }

    fn release_asked_for(&mut self, service: ServiceName) -> Result<(Command, Option<String>), Failed> {
        let holds = self.state.table.service(&service).map(|service| service.holds).unwrap_or_default();
        let is_held_by = |holder| holds.of(holder).is_some();
        let errand = self.holds.errand(&service);
        if is_held_by(Holder::Operator) {
            let waits = |to| format!("requests of `{service}` still wait, for an exclusive flip to `{to}`");
            let note = errand.map(|errand| waits(&errand.to));
            return Ok((Command::Release { service, holder: Holder::Operator }, note));
        }
        match errand {
            Some(errand) if errand.is_way_back() => Err(Failed::Underway { service, to: errand.to.clone() }),
            // Without an errand: of a flip that has failed before the store said that it had kept its hold.
            _ if is_held_by(Holder::Exclusive) => {
                Ok((Command::Release { service, holder: Holder::Exclusive }, None))
            }
            _ => Ok((Command::Release { service, holder: Holder::Operator }, None)),
        }
    }
}
