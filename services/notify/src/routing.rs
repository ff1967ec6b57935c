//! Who is told of what: from an account's state to the notifications that are due.

use crate::config::{MAIL_CHANNEL, NotifyConfig};
use crate::contacts::Contacts;
use crate::identity::{notification_id, reminder_id};
use crate::{Kind, values};
use std::collections::{BTreeSet, HashMap};
use tidegate_domain::Account;
use tidegate_proto::v1;
use v1::Audience;

/// How much longer than the greatest age it is known what was told: clocks differ.
const MARGIN_MS: i64 = 2 * 60 * 60 * 1000;

/// Most subjects, addresses and columns of a lock that a notification keeps.
const MAX_SAMPLES: usize = 20;

/// Where one notification goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Recipient {
    channel: String,
    address: String,
    audience: Audience,
}

/// Decides who is told of what. Time is an argument.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Router<'a> {
    pub config: &'a NotifyConfig,
    pub contacts: &'a Contacts,
}

/// Up to which version it is known, for each account, that its decisions were told.
#[derive(Debug, Default)]
pub(crate) struct Told(HashMap<String, (u64, i64)>);

impl Told {
    pub fn version(&self, account: &str) -> u64 {
        self.0.get(account).map_or(0, |(version, _)| *version)
    }

    /// Decisions up to `version`, the last one made at `at_ms`, were told or need not be.
    pub fn note(&mut self, account: &str, version: u64, at_ms: i64) {
        let known = self.0.entry(account.to_owned()).or_insert((version, at_ms));
        *known = (known.0.max(version), known.1.max(at_ms));
    }

    /// Forgets what is so old that it would not be told anyway.
    pub fn forget_before(&mut self, oldest_ms: i64) {
        self.0.retain(|_, (_, at_ms)| *at_ms >= oldest_ms - MARGIN_MS);
    }

    pub fn forget(&mut self, mut is_gone: impl FnMut(&str) -> bool) {
        self.0.retain(|account, _| !is_gone(account));
    }
}

/// From when on the records of what was told have to be read.
pub(crate) fn told_since_ms(config: &NotifyConfig, now_ms: i64) -> i64 {
    let reminders_ms = i64::from(config.reminder_days) * values::DAY_MS;
    now_ms.saturating_sub(config.max_age_ms().max(reminders_ms)).saturating_sub(MARGIN_MS)
}

impl Router<'_> {
    /// The notifications that a state makes due: one for each decision in its timeline that is newer than version
    /// `told` and not too old, for each of its recipients.
    pub fn due(&self, state: &v1::AccountState, told: u64, now_ms: i64) -> Vec<v1::Notification> {
        let oldest_ms = now_ms.saturating_sub(self.config.max_age_ms());
        let is_new = |milestone: &&v1::Milestone| milestone.version > told && milestone.at_ms > oldest_ms;
        let mut due = Vec::new();
        for milestone in state.timeline.iter().filter(is_new) {
            let Some(kind) = Kind::of_change(milestone.change()) else { continue };
            let began = beginning(state, milestone);
            let throttled = began.is_some_and(|began| began.change() == v1::Change::Throttled);
            if milestone.change() == v1::Change::Expired && throttled {
                // Who was throttled was told until when.
                continue;
            }
            let lock = state.lock.as_ref().filter(|lock| !lock.id.is_empty() && lock.id == milestone.lock_id);
            for to in self.recipients(&state.account, kind) {
                due.push(v1::Notification {
                    id: notification_id(&state.account, milestone.version, &to.channel, &to.address),
                    account: state.account.clone(),
                    version: milestone.version,
                    change: milestone.change,
                    lock_id: milestone.lock_id.clone(),
                    channel: to.channel,
                    recipient: to.address,
                    status: v1::NotificationStatus::Pending.into(),
                    due_ms: now_ms,
                    time_ms: now_ms,
                    milestone: Some(milestone.clone()),
                    lock: lock.map(sampled),
                    lock_version: began.map(|began| began.version),
                    audience: to.audience.into(),
                    ..v1::Notification::default()
                });
            }
        }
        due
    }

    /// The reminders of an exemption of an account, or of a domain (`@example.org`).
    pub fn reminders(
        &self,
        subject: &str,
        version: u64,
        exemption: &v1::Exemption,
        now_ms: i64,
    ) -> Vec<v1::Notification> {
        let until_ms = exemption.until_ms.unwrap_or_default();
        let to = self.recipients(subject, Kind::Exemption);
        let reminder = |to: Recipient| v1::Notification {
            id: reminder_id(subject, until_ms, &exemption.rules, &to.channel, &to.address),
            account: subject.to_owned(),
            version,
            change: v1::Change::Amended.into(),
            channel: to.channel,
            recipient: to.address,
            status: v1::NotificationStatus::Pending.into(),
            due_ms: now_ms,
            time_ms: now_ms,
            exemption: Some(exemption.clone()),
            audience: to.audience.into(),
            ..v1::Notification::default()
        };
        to.into_iter().map(reminder).collect()
    }

    /// Each address once, as what it is first: user, domain's administrator, provider's administrator.
    fn recipients(&self, subject: &str, kind: Kind) -> Vec<Recipient> {
        let config = self.config;
        let domain = domain_of(subject);
        let mut found = Vec::new();
        let mut known = BTreeSet::new();
        let mut add = |channel: &str, address: String, audience| {
            if known.insert((channel.to_owned(), address.clone())) {
                found.push(Recipient { channel: channel.to_owned(), address, audience });
            }
        };
        if config.smtp.is_some() {
            if config.user_changes.contains(&kind)
                && kind != Kind::Exemption
                && let Some(contact) = self.contacts.of(subject)
            {
                add(MAIL_CHANNEL, contact.address, Audience::User);
            }
            if config.domain_changes.contains(&kind)
                && let Some(domain) = config.domain(domain.as_deref())
            {
                domain.administrators.iter().for_each(|one| add(MAIL_CHANNEL, one.clone(), Audience::Domain));
            }
            if config.provider_changes.contains(&kind) {
                config.administrators.iter().for_each(|one| add(MAIL_CHANNEL, one.clone(), Audience::Provider));
            }
        }
        for webhook in &config.webhook {
            let is_within =
                webhook.domains.is_empty() || domain.as_ref().is_some_and(|domain| webhook.domains.contains(domain));
            if is_within && webhook.changes.contains(&kind) {
                add(&webhook.name, webhook_recipient(webhook.url.as_deref()), Audience::Webhook);
            }
        }
        found
    }
}

/// The URL's beginning: what follows the host can be a secret.
fn webhook_recipient(url: Option<&str>) -> String {
    let url = url.and_then(|url| url::Url::parse(url).ok());
    url.map_or_else(|| "webhook".to_owned(), |url| url.origin().ascii_serialization())
}

/// The domain of an account, or of `@DOMAIN`.
pub(crate) fn domain_of(subject: &str) -> Option<String> {
    match subject.strip_prefix('@') {
        Some(domain) => Some(domain.to_owned()),
        None => Account::parse(subject).ok()?.domain().map(ToOwned::to_owned),
    }
}

/// The decision that began the lock which `milestone` ends.
fn beginning<'a>(state: &'a v1::AccountState, milestone: &v1::Milestone) -> Option<&'a v1::Milestone> {
    let ends = matches!(milestone.change(), v1::Change::Unlocked | v1::Change::Expired);
    let began = |other: &&v1::Milestone| {
        other.version < milestone.version
            && other.lock_id == milestone.lock_id
            && matches!(other.change(), v1::Change::Locked | v1::Change::Throttled)
    };
    (ends && !milestone.lock_id.is_empty()).then(|| state.timeline.iter().rev().find(began)).flatten()
}

/// The lock with samples of what can be many.
fn sampled(lock: &v1::Lock) -> v1::Lock {
    let mut lock = lock.clone();
    lock.evidence.truncate(MAX_SAMPLES);
    lock.clients.truncate(MAX_SAMPLES);
    lock.subjects.truncate(MAX_SAMPLES);
    lock
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::{DomainConfig, SmtpConfig, WebhookConfig};
    use proptest::prelude::*;

    pub(crate) const NOW: i64 = 1_790_000_000_000;

    pub(crate) fn milestone(version: u64, change: v1::Change, lock_id: &str) -> v1::Milestone {
        v1::Milestone {
            version,
            at_ms: NOW - 1000 + version.cast_signed(),
            change: change.into(),
            rule: "burst".into(),
            reason: "many alike".into(),
            lock_id: lock_id.into(),
            ..Default::default()
        }
    }

    pub(crate) fn state(account: &str, timeline: Vec<v1::Milestone>) -> v1::AccountState {
        let version = timeline.last().map_or(0, |last| last.version);
        v1::AccountState { account: account.into(), version, timeline, ..Default::default() }
    }

    fn config() -> NotifyConfig {
        let smtp: SmtpConfig = toml::from_str("host = 'localhost'\nfrom = 'a@b.test'").unwrap();
        let webhook = |text: &str| toml::from_str::<WebhookConfig>(text).unwrap();
        let domain = DomainConfig { administrators: vec!["boss@example.org".into()], ..Default::default() };
        NotifyConfig {
            smtp: Some(smtp),
            administrators: vec!["abuse@provider.test".into()],
            webhook: vec![
                webhook("name = 'all'\nurl = 'https://hooks.test/T1/secret'"),
                webhook("name = 'locks'\nurl = 'https://h.test'\nchanges = ['lock']\ndomains = ['example.com']"),
            ],
            domains: [("example.org".to_owned(), domain)].into(),
            ..NotifyConfig::default()
        }
    }

    fn told(config: &NotifyConfig, state: &v1::AccountState, told: u64) -> Vec<String> {
        let contacts = Contacts::default();
        let due = Router { config, contacts: &contacts }.due(state, told, NOW);
        due.iter().map(|one| format!("{} {} {}", Kind::of(one).as_str(), one.channel, one.recipient)).collect()
    }

    #[test]
    fn each_change_goes_to_those_who_are_to_know() {
        let config = config();
        let locked = state("jo@example.org", vec![milestone(1, v1::Change::Locked, "L-1")]);
        let all = [
            "lock mail jo@example.org",
            "lock mail boss@example.org",
            "lock mail abuse@provider.test",
            "lock all https://hooks.test",
        ];
        assert_eq!(told(&config, &locked, 0), all);
        assert_eq!(told(&config, &locked, 1), [""; 0]);
        let noticed = state("jo@example.com", vec![milestone(1, v1::Change::Noticed, "")]);
        assert_eq!(told(&config, &noticed, 0), ["notice mail jo@example.com", "notice all https://hooks.test"]);
        let nobody = state("local:cron", vec![milestone(1, v1::Change::Locked, "L-1")]);
        assert_eq!(told(&config, &nobody, 0), ["lock mail abuse@provider.test", "lock all https://hooks.test"]);
        let own = state("boss@example.org", vec![milestone(1, v1::Change::Locked, "L-1")]);
        assert_eq!(told(&config, &own, 0)[0], "lock mail boss@example.org");
        assert_eq!(told(&config, &own, 0).len(), 3, "once to the same address");
    }

    #[test]
    fn intermediate_states_that_compaction_took_lose_nothing() {
        let config = config();
        let timeline = vec![
            milestone(3, v1::Change::Locked, "L-1"),
            milestone(4, v1::Change::Amended, ""),
            milestone(5, v1::Change::Unlocked, "L-1"),
            milestone(6, v1::Change::Throttled, "L-2"),
            milestone(7, v1::Change::Expired, "L-2"),
        ];
        let state = state("jo@example.org", timeline);
        let contacts = Contacts::default();
        let router = Router { config: &config, contacts: &contacts };
        let due = router.due(&state, 0, NOW);
        let users = due.iter().filter(|one| one.audience() == Audience::User);
        let users: Vec<_> = users.map(|one| (Kind::of(one), one.version, one.lock_version)).collect();
        assert_eq!(
            users,
            [(Kind::Lock, 3, None), (Kind::Unlock, 5, Some(3)), (Kind::Throttle, 6, None)],
            "the end of a throttle tells itself"
        );
        assert!(router.due(&state, 0, NOW + config.max_age_ms() + 10_000).is_empty(), "what is old is not told");
    }

    proptest! {
        /// However a timeline is cut into states, each decision is due exactly once.
        #[test]
        fn each_decision_is_due_once(cuts in proptest::collection::vec(1_u64..5, 1..8), kept in 1_usize..30) {
            let config = config();
            let contacts = Contacts::default();
            let router = Router { config: &config, contacts: &contacts };
            let (mut known, mut told, mut last) = (Told::default(), Vec::new(), 0);
            let all: u64 = cuts.iter().sum();
            for cut in cuts {
                last += cut;
                let timeline: Vec<_> = (1..=last).map(|version| milestone(version, v1::Change::Locked, "L")).collect();
                // The stream's timeline is bounded, but longer than what happens between two looks.
                let from = timeline.len().saturating_sub(kept.max(cut as usize));
                let state = state("local:jo", timeline[from..].to_vec());
                for one in router.due(&state, known.version("local:jo"), NOW).iter().filter(|one| one.channel == "all") {
                    told.push(one.version);
                }
                known.note("local:jo", last, NOW);
            }
            prop_assert_eq!(told, (1..=all).collect::<Vec<_>>());
        }
    }
}
