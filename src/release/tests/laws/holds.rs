//! Laws of what is held.

use std::time::Duration;

use crate::release::{Act, Command, State};
use crate::table::{HoldScope, Holder, Service, ServiceName};

/// A hold begins and ends by what its holder does, and by nothing else; asked for once more it begins anew.
pub(super) fn check(before: &State, command: &Command, next: &State) {
    let is_by = |holder: Holder, of: &ServiceName| match command {
        Command::Hold { service, holder: by, .. } | Command::Release { service, holder: by } => {
            (service, *by) == (of, holder)
        }
        Command::Switch { service, .. } | Command::Supervise { service, act: Act::Convict, .. } => {
            (service, Holder::Exclusive) == (of, holder)
        }
        Command::Batch(_) => true,
        _ => false,
    };
    for (now, holder) in next.table.services().iter().flat_map(|now| Holder::ALL.map(|holder| (now, holder)))
    {
        let was = before.table.service(&now.name).and_then(|was| was.holds.of(holder));
        if !is_by(holder, &now.name) {
            assert_eq!(now.holds.of(holder), was, "{command:?}");
        }
    }
    let since = |service, holder| {
        let holds = next.table.service(service).map(|now| now.holds).unwrap_or_default();
        holds.of(holder).map(|hold| hold.since)
    };
    match command {
        Command::Hold { service, holder, .. } => {
            assert_eq!(since(service, *holder), Some(next.table.epoch()))
        }
        Command::Release { service, holder } => assert_eq!(since(service, *holder), None),
        Command::Switch { service, .. } => assert_eq!(since(service, Holder::Exclusive), None),
        _ => {}
    }
}

/// What is held of it, whenever that began.
pub(super) fn held(service: &Service) -> Vec<(Holder, HoldScope, Duration)> {
    service.holds.iter().map(|hold| (hold.holder, hold.scope, hold.timeout)).collect()
}
