//! All methods of all services, and what each needs of who calls it.

use tidegate_access::Need;

/// A method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Method {
    /// Its service, e.g. `tidegate.v1.AdminService`.
    pub service: &'static str,
    /// Its name, e.g. `LockAccount`.
    pub name: &'static str,
    /// What it needs.
    pub need: Need,
    /// Whether it changes something, so that it is not done without an audit record.
    pub acts: bool,
    /// Whether it tells of all accounts at once, so that nobody may call it who is limited to domains.
    pub for_all: bool,
}

const ADMIN: &str = "tidegate.v1.AdminService";
const AUDIT: &str = "tidegate.v1.AuditService";

const fn looks(service: &'static str, name: &'static str, need: Need) -> Method {
    Method { service, name, need, acts: false, for_all: false }
}

const fn acts(name: &'static str, need: Need, for_all: bool) -> Method {
    Method { service: ADMIN, name, need, acts: true, for_all }
}

pub(crate) const LIST_ACCOUNTS: Method = looks(ADMIN, "ListAccounts", Need::See);
pub(crate) const GET_ACCOUNT: Method = looks(ADMIN, "GetAccount", Need::See);
pub(crate) const WATCH_ACCOUNTS: Method = looks(ADMIN, "WatchAccounts", Need::See);
pub(crate) const INSPECT_ACCOUNT: Method = looks(ADMIN, "InspectAccount", Need::See);
pub(crate) const LIST_NOTIFICATIONS: Method = looks(ADMIN, "ListNotifications", Need::See);
pub(crate) const LIST_EDGES: Method = Method { for_all: true, ..looks(ADMIN, "ListEdges", Need::See) };
pub(crate) const LIST_RULES: Method = looks(ADMIN, "ListRules", Need::See);
pub(crate) const LIST_SETTINGS: Method = looks(ADMIN, "ListSettings", Need::See);
pub(crate) const GET_OVERVIEW: Method = looks(ADMIN, "GetOverview", Need::See);
pub(crate) const WHO_AM_I: Method = looks(ADMIN, "WhoAmI", Need::Nothing);
pub(crate) const LOCK_ACCOUNT: Method = acts("LockAccount", Need::Act, false);
pub(crate) const UNLOCK_ACCOUNT: Method = acts("UnlockAccount", Need::Act, false);
pub(crate) const EXEMPT_ACCOUNT: Method = acts("ExemptAccount", Need::Act, false);
pub(crate) const CLEAR_ACCOUNT: Method = acts("ClearAccount", Need::Act, false);
pub(crate) const ACT_ON_MANY: Method = acts("ActOnMany", Need::Act, false);
pub(crate) const SWITCH_RULE: Method = acts("SwitchRule", Need::Administer, true);
pub(crate) const EXEMPT_DOMAIN: Method = acts("ExemptDomain", Need::Administer, true);
pub(crate) const SET_LIMITS: Method = acts("SetLimits", Need::Administer, true);
pub(crate) const LIST_AUDIT: Method = looks(AUDIT, "ListAudit", Need::Administer);
pub(crate) const WATCH_AUDIT: Method = looks(AUDIT, "WatchAudit", Need::Administer);
pub(crate) const ATTACH: Method = looks("tidegate.v1.EdgeService", "Attach", Need::Edge);
pub(crate) const PUBLISH: Method = looks("tidegate.v1.EventService", "Publish", Need::Edge);
pub(crate) const ENROL: Method = Method { acts: true, ..looks("tidegate.v1.EnrolService", "Enrol", Need::Enrol) };

/// All of them.
pub(crate) const METHODS: [Method; 23] = [
    LIST_ACCOUNTS,
    GET_ACCOUNT,
    WATCH_ACCOUNTS,
    INSPECT_ACCOUNT,
    LIST_NOTIFICATIONS,
    LIST_EDGES,
    LIST_RULES,
    LIST_SETTINGS,
    GET_OVERVIEW,
    WHO_AM_I,
    LOCK_ACCOUNT,
    UNLOCK_ACCOUNT,
    EXEMPT_ACCOUNT,
    CLEAR_ACCOUNT,
    ACT_ON_MANY,
    SWITCH_RULE,
    EXEMPT_DOMAIN,
    SET_LIMITS,
    LIST_AUDIT,
    WATCH_AUDIT,
    ATTACH,
    PUBLISH,
    ENROL,
];

impl Method {
    /// `service/name`, as it stands in the audit.
    pub fn full_name(self) -> String {
        format!("{}/{}", self.service, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use std::collections::BTreeSet;

    #[test]
    fn every_method_of_every_service_says_what_it_needs() {
        let set = prost_types::FileDescriptorSet::decode(tidegate_proto::FILE_DESCRIPTOR_SET).unwrap();
        let services = set.file.iter().filter(|file| file.package() == "tidegate.v1").flat_map(|file| &file.service);
        let defined: BTreeSet<String> = services
            .flat_map(|service| {
                service.method.iter().map(|method| format!("tidegate.v1.{}/{}", service.name(), method.name()))
            })
            .collect();
        let named: BTreeSet<String> = METHODS.iter().map(|method| method.full_name()).collect();
        assert_eq!(named, defined);
        assert_eq!(named.len(), METHODS.len());
    }
}
