//! Who may do what: the scopes that an operator gives to a token or a certificate.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::gate::Bereft;
use super::retire::Barred;
use super::targeting::Misaimed;
use super::{Change, Refused, State};
use crate::table::{EndpointAddr, Glob, Invalid, RouteTaken, ServiceName};

/// One thing that may be done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything may be looked at, and nothing changed.
    Read,
    /// The services of this pattern may be looked at and changed.
    Operate(Glob),
    /// Everything.
    Admin,
}

impl FromStr for Scope {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match (text, text.strip_prefix("operate:")) {
            ("read", _) => Ok(Self::Read),
            ("admin", _) => Ok(Self::Admin),
            (_, Some(services)) => services.parse().map(Self::Operate),
            (_, None) => Err(Invalid(format!(
                "`{}` is no scope: expected read, operate:SERVICE (a pattern such as operate:shop-*) or admin",
                text.escape_default()
            ))),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
            Self::Operate(services) => write!(f, "operate:{services}"),
            Self::Admin => f.write_str("admin"),
        }
    }
}

/// All that somebody may do. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes(Arc<[Scope]>);

impl Scopes {
    /// These.
    #[must_use]
    pub fn of(scopes: Vec<Scope>) -> Self {
        Self(scopes.into())
    }

    /// Everything: who is on the machine itself, and the proxy's own doing.
    #[must_use]
    pub fn all() -> Self {
        Self(Arc::new([Scope::Admin]))
    }

    /// Nothing.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::new([]))
    }

    /// True for who may do everything.
    #[must_use]
    pub fn are_all(&self) -> bool {
        self.0.contains(&Scope::Admin)
    }

    /// True for who may look at everything.
    #[must_use]
    pub fn read_all(&self) -> bool {
        self.are_all() || self.0.contains(&Scope::Read)
    }

    /// True for who may look at this service.
    #[must_use]
    pub fn read(&self, service: &str) -> bool {
        self.read_all() || self.operate(service)
    }

    /// True for who may change this service.
    #[must_use]
    pub fn operate(&self, service: &str) -> bool {
        self.0.iter().any(|scope| match scope {
            Scope::Read => false,
            Scope::Operate(services) => services.matches(service),
            Scope::Admin => true,
        })
    }

    /// True for who may change something, whatever it is.
    #[must_use]
    pub fn operate_some(&self) -> bool {
        self.0.iter().any(|scope| !matches!(scope, Scope::Read))
    }

    /// True for who may hear of a refusal: it names no service, or none that may not be looked at.
    pub(crate) fn hear(&self, refused: &Refused) -> bool {
        match refused {
            Refused::UnknownEpoch { .. } | Refused::EmptyChange => true,
            Refused::Edit { why, .. } => self.hear(why),
            Refused::RouteTaken(RouteTaken { first, second, .. }) => {
                self.read(first.as_str()) && self.read(second.as_str())
            }
            Refused::Retire(
                Barred::Retiring { service, .. }
                | Barred::Nothing { service, .. }
                | Barred::NobodyIsNew { service, .. },
            )
            | Refused::Rules(Misaimed::TooMany { service, .. } | Misaimed::Targeted { service, .. })
            | Refused::UnknownService { service }
            | Refused::UnknownVersion { service, .. }
            | Refused::EmptyVersion { service, .. }
            | Refused::NothingToRevert { service }
            | Refused::Ramping { service, .. }
            | Refused::NoRamp { service }
            | Refused::NothingToRamp { service, .. }
            | Refused::Suspect { service, .. }
            | Refused::RampInBatch { service }
            | Refused::BadWeights { service, .. }
            | Refused::VersionInUse { service, .. }
            | Refused::Mirrored { service, .. }
            | Refused::UnknownEndpoint { service, .. }
            | Refused::Draining { service, .. }
            | Refused::LastEndpoint { service, .. }
            | Refused::Measure { service, .. }
            | Refused::NotReady { service, .. }
            | Refused::File(Bereft::LeftEmpty { service, .. } | Bereft::NoHeir { service, .. })
            | Refused::Discovered { service, .. }
            | Refused::Conflict { service, .. }
            | Refused::Gone { service, .. }
            | Refused::NoTrial { service } => self.read(service.as_str()),
        }
    }

    /// Whether somebody of these scopes may make `change`, which leads from `before` to `after`.
    ///
    /// A path on the proxy's machine may be anything that answers there, the admin socket too: who may not do everything
    /// brings no endpoint that is one.
    ///
    /// # Errors
    /// [`Beyond`] with what it would take.
    pub fn check(&self, change: &Change, before: &State, after: &State) -> Result<(), Beyond> {
        if self.are_all() {
            return Ok(());
        }
        let others = change.services.iter().map(|record| &record.service);
        let others: Vec<_> = others.filter(|service| !self.operate(service.as_str())).cloned().collect();
        if !others.is_empty() {
            return Err(if self.read_all() { Beyond::Services(others) } else { Beyond::Others });
        }
        let came = change.services.iter().find_map(|record| new_path(&record.service, before, after));
        came.map_or(Ok(()), |endpoint| Err(Beyond::Path(endpoint)))
    }
}

/// A Unix socket among the endpoints of a service that was not there before.
fn new_path(service: &ServiceName, before: &State, after: &State) -> Option<EndpointAddr> {
    let known = before.table.service(service);
    let is_known = |address: &EndpointAddr| {
        known.is_some_and(|known| known.versions.iter().any(|version| version.endpoints.contains(address)))
    };
    let endpoints =
        after.table.service(service)?.versions.iter().flat_map(|version| version.endpoints.iter());
    let mut paths = endpoints.filter(|address| matches!(address, EndpointAddr::Unix(_)));
    paths.find(|address| !is_known(address)).cloned()
}

/// More than somebody may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beyond {
    /// These services would change too.
    Services(Vec<ServiceName>),
    /// Services would change that are not told of.
    Others,
    /// An endpoint that is a path on the proxy's machine would come.
    Path(EndpointAddr),
}

impl Beyond {
    /// The scopes that it would take.
    #[must_use]
    pub fn needed(&self) -> Vec<String> {
        match self {
            Self::Services(services) => services.iter().map(|service| format!("operate:{service}")).collect(),
            Self::Others => vec!["operate:*".to_owned()],
            Self::Path(_) => vec!["admin".to_owned()],
        }
    }
}

impl fmt::Display for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Services(services) => {
                let names: Vec<_> = services.iter().map(|service| format!("`{service}`")).collect();
                write!(f, "it would change {}", names.join(", "))
            }
            Self::Others => f.write_str("it would change services that may not be looked at"),
            Self::Path(endpoint) => write!(f, "{endpoint} is a path on the proxy's own machine"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scopes(all: &[String]) -> Scopes {
        Scopes::of(all.iter().map(|scope| scope.parse().unwrap()).collect())
    }

    #[test]
    fn a_scope_is_read_as_it_is_written() {
        for text in ["read", "admin", "operate:shop", "operate:shop-*", "operate:*"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for bad in ["", "Read", "write", "operate", "operate:", "operate:a b", "admin:shop", " read"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
    }

    #[test]
    fn of_a_refusal_hears_who_may_look_at_what_it_is_about() {
        let [service, version, candidate] = ["secret", "blue", "green"];
        let measure = || Refused::Measure {
            service: service.parse().unwrap(),
            version: version.parse().unwrap(),
            candidate: candidate.parse().unwrap(),
        };
        let edit = Refused::Edit { index: 0, why: Box::new(measure()) };
        let is_heard = |scope: &str, why: &Refused| scopes(&[scope.to_owned()]).hear(why);
        for why in [measure(), edit] {
            assert!(!is_heard("operate:shop", &why), "{why}");
            assert!(is_heard("operate:s*", &why) && is_heard("read", &why) && is_heard("admin", &why));
        }
        assert!(is_heard("operate:shop", &Refused::EmptyChange));
    }

    proptest! {
        /// Each scope gives what it says, and none takes anything away.
        #[test]
        fn together_they_give_what_each_gives(
            all in proptest::collection::vec("read|admin|operate:[ab*]{1,3}", 0..4),
            service in "[ab]{1,3}",
        ) {
            let (together, name) = (scopes(&all), service.as_str());
            let some = |may: &dyn Fn(&Scopes) -> bool| {
                all.iter().any(|scope| may(&scopes(std::slice::from_ref(scope))))
            };
            prop_assert_eq!(together.are_all(), some(&Scopes::are_all));
            prop_assert_eq!(together.read_all(), some(&Scopes::read_all));
            prop_assert_eq!(together.read(name), some(&|alone| alone.read(name)));
            prop_assert_eq!(together.operate(name), some(&|alone| alone.operate(name)));
            prop_assert!(!together.operate(name) || together.read(name), "who changes it sees it");
            prop_assert!(!together.operate(name) || together.operate_some());
            prop_assert!(!together.are_all() || together.operate(name) && together.read_all());
            prop_assert!(!Scopes::none().read(name) && Scopes::all().operate(name));
        }
    }
}
