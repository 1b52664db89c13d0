//! Laws of retirements, whatever is done meanwhile.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Command, State};
use crate::release::{Deployment, RampEnd, RampOrder};
use crate::table::{BasisPoints, Service, Split, StickyBy, StickyRules};

/// Users who stay by a cookie, which is ours or the application's, or nobody who stays.
pub(super) fn any_users() -> impl Strategy<Value = Option<Arc<StickyRules>>> {
    let cookie = prop::bool::weighted(0.8).prop_map(|mints| {
        let mint = mints.then_some(StickyBy::MAX_AGE);
        let by = StickyBy::Cookie { name: "sb_id".into(), mint };
        Arc::new(StickyRules { by, salt: "a".into() })
    });
    prop::option::weighted(0.7, cookie)
}

/// Nobody new comes to its version, the weights are as they were or as supervision leans back from that, and it can be ended.
pub(super) fn check_standing(service: &Service, deployment: &Deployment) {
    let closed = service.sticky.as_ref().and_then(|sticky| sticky.closed());
    let Some(retirement) = &deployment.retirement else {
        assert_eq!(closed, None, "everybody comes to all");
        return;
    };
    assert!(deployment.ramp.is_none());
    assert_eq!(closed.map(|index| &service.versions[index].name), Some(&retirement.version));
    let asked = deployment.trial.as_ref().map(|trial| &trial.asked);
    let is_as_then = |split: &Split| split.weighs_as(&retirement.split);
    assert!(is_as_then(&service.split) || asked.is_some_and(is_as_then));
    assert_ne!(service.split.weight(&retirement.version), BasisPoints::NONE, "who may come has not drained");
    let previous = deployment.previous.as_ref().unwrap();
    assert_eq!(previous.split.weight(&retirement.version), BasisPoints::NONE);
}

/// It begins by being asked for alone, gives the version nothing, and whatever ends it is told.
pub(super) fn check_step(before: &State, command: &Command, next: &State) {
    for now in next.table.services() {
        let Some(was) = before.deployment(&now.name) else { continue };
        let is = next.deployment(&now.name).unwrap();
        let order = match command {
            Command::Ramp { service, order } if *service == now.name => Some(order),
            _ => None,
        };
        match (&was.retirement, &is.retirement) {
            (None, None) => {}
            (Some(old), Some(new)) if old.begun == new.begun => {
                assert_eq!((&old.version, &old.split), (&new.version, &new.split));
            }
            (_, Some(new)) => {
                assert_eq!(new.begun, next.table.epoch());
                assert!(matches!(
                    (order, command),
                    (Some(RampOrder::Retire { .. }), _) | (_, Command::Undo { .. })
                ));
            }
            (Some(_), None) => {}
        }
        let ended = was
            .retirement
            .as_ref()
            .filter(|old| is.retirement.as_ref().is_none_or(|new| new.begun != old.begun));
        if let Some(old) = ended {
            let retired = is.retired.as_ref().unwrap();
            assert_eq!((retired.begun, retired.epoch), (old.begun, next.table.epoch()));
            if retired.how == RampEnd::Finished {
                assert!(matches!(order, Some(RampOrder::Retired { .. })), "{command:?}");
                assert_eq!(now.split.weight(&old.version), BasisPoints::NONE);
            }
        }
    }
}
