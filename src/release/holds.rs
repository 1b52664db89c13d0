//! Holds: new requests of a service wait, until they go on.

use std::time::Duration;

use super::Refused;
use super::draft::Draft;
use crate::table::{Hold, HoldScope, Holder, LONGEST_HOLD, ServiceName};

impl Draft<'_> {
    pub(super) fn hold(
        &mut self,
        name: &ServiceName,
        holder: Holder,
        scope: HoldScope,
        timeout: Option<Duration>,
    ) -> Result<(), Refused> {
        let since = self.epoch;
        let service = &mut self.entry(name)?.service;
        let present = service.holds.of(holder).map(|hold| hold.timeout);
        let timeout = timeout.or(present).unwrap_or(service.hold_limits.timeout).min(LONGEST_HOLD);
        service.holds.begin(Hold { holder, since, scope, timeout });
        Ok(())
    }

    pub(super) fn release(&mut self, name: &ServiceName, holder: Holder) -> Result<(), Refused> {
        self.entry(name)?.service.holds.end(holder);
        Ok(())
    }
}
