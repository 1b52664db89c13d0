//! The mirror: copies go to a version that has no traffic, until it has had some. Then it is over: a version that traffic leaves again,
//! by a revert as by a flip, is to become empty, and nobody is to stop what copies still come to. An exclusive flip ends it too: of that
//! service one version alone is to do anything. It begins anew when the file has named another version meanwhile, or none.

use super::draft::Item;
use super::{Deployment, Refused};
use crate::table::{Service, ServiceName, VersionName};

impl Deployment {
    /// True while copies may come to this version of `service`, now or when a hold is over.
    #[must_use]
    pub fn mirrors_to(&self, service: &Service, version: &VersionName) -> bool {
        let to = self.spec.mirror.as_ref().map(|mirror| &mirror.to);
        let has_traffic = service.stable == *version || service.split.leads_to(version);
        to == Some(version) && self.mirror_over.as_ref() != to && !has_traffic
    }
}

impl Item {
    /// The mirror is over once its version has traffic. Notes when that is news.
    pub(super) fn settle_mirror(&mut self) -> Option<String> {
        let Self { service, deployment, exclusive, .. } = self;
        let before = deployment.mirror_over.take();
        let mirror = deployment.spec.mirror.as_ref()?;
        let to = &mirror.to;
        let why = if service.stable == *to || service.split.leads_to(to) {
            Some("that gets its requests now")
        } else if exclusive.is_some() {
            Some("an exclusive flip leaves one version alone")
        } else {
            None
        };
        let was_over = before.as_ref() == Some(to);
        service.mirror_over = was_over || why.is_some();
        deployment.mirror_over = service.mirror_over.then(|| to.clone());
        let why = why.filter(|_| !was_over)?;
        Some(format!("the mirror of `{}` to `{to}` is over: {why}", service.name))
    }
}

/// Why a version that copies come to cannot be taken away.
pub(super) fn mirrored(service: &ServiceName, version: &VersionName) -> Refused {
    Refused::Mirrored { service: service.clone(), version: version.clone() }
}
