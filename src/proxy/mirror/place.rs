//! The room for copies: so many of a service's at a time, on one worker.

use std::cell::Cell;
use std::rc::Rc;

use crate::proxy::upstream::Local;

/// How many copies a worker has for one version, those included that are only kept in mind.
#[derive(Debug, Default)]
pub struct Places(Cell<u32>);

/// One of them, until it is dropped.
pub(super) struct Place(Rc<Local>);

impl Place {
    /// One more on this version, unless there are `most` already.
    pub(super) fn take(local: &Rc<Local>, most: u32) -> Option<Self> {
        let Places(count) = local.copies();
        (count.get() < most).then(|| {
            count.set(count.get() + 1);
            Self(Rc::clone(local))
        })
    }

    /// True when it is on this version.
    pub(super) fn is_on(&self, local: &Rc<Local>) -> bool {
        Rc::ptr_eq(&self.0, local)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Places(count) = self.0.copies();
        count.set(count.get() - 1);
    }
}
