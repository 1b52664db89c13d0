//! Laws of pins.

use crate::release::Deployment;
use crate::table::{Pinnable, Service};

/// A pin leads where others get, but to nobody who is suspect or retired.
pub(super) fn check_standing(service: &Service, deployment: &Deployment) {
    let trial = deployment.trial.as_ref().filter(|trial| trial.is_suspected(&service.split));
    for version in &service.versions {
        let name = &version.name;
        let is_suspect = trial.is_some_and(|trial| trial.candidate == *name);
        let is_retired = deployment.retirement.as_ref().is_some_and(|retirement| retirement.version == *name);
        let is_led_to = service.split.leads_to(name) && !is_suspect && !is_retired;
        assert_eq!(service.takes_pins(name) == Pinnable::Yes, is_led_to, "{name} of {}", service.name);
    }
}
