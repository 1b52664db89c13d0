//! How a version's pool is worked: what all of its endpoints have in common.

/// How a pool is worked. A service says it for all of its versions, those that the API adds too; a version of the file may
/// say it again for itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PoolRules {}
