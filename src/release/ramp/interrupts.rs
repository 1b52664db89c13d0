//! What a flip does to a colleague's ramp or retirement.

use super::super::Refused;
use super::super::draft::Draft;
use crate::table::ServiceName;

/// Whether a flip ends what moves the traffic already: a ramp, a retirement, or a rollout between versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupts {
    /// It does.
    Yes,
    /// It is refused then.
    No,
}

impl Draft<'_> {
    /// That it may end whatever is under way, or neither a ramp nor a retirement is.
    pub(in crate::release) fn check_interrupts(
        &mut self,
        name: &ServiceName,
        interrupts: Interrupts,
    ) -> Result<(), Refused> {
        if interrupts == Interrupts::Yes {
            return Ok(());
        }
        self.check_not_retiring(name)?;
        match &self.entry(name)?.deployment.ramp {
            Some(ramp) => Err(Refused::Ramping { service: name.clone(), to: ramp.to.clone() }),
            None => Ok(()),
        }
    }
}
