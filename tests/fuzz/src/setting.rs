//! Settings: what administrators set at run time.

use prost::Message as _;
use tidegate_domain::{Account, DomainExemption, Setting, SettingKind};
use tidegate_proto::{setting_from_proto, setting_to_proto};

use crate::input::{Input, outcome};
use crate::wire::failed;
use crate::{Outcome, Target};

/// A record of `settings`: the length of its key, the key, and the value.
pub const SETTING: Target = Target {
    name: "setting",
    run,
    seeds,
    words: &["rule/", "exemption/", "limits/", "burst", "example.org", "jo@example.org", "\u{e9}", "\0"],
    max_octets: 1024,
    test_inputs: 20_000,
};

fn run(octets: &[u8]) -> Outcome {
    let mut input = Input::new(octets);
    let length = usize::from(input.byte());
    let key = input.take(length);
    let setting = match setting_from_proto(key, input.rest()) {
        Ok(setting) => setting,
        Err(error) => return failed(&error),
    };
    assert_eq!(setting.key().as_bytes(), key);
    let written = setting_to_proto(&setting).encode_to_vec();
    assert_eq!(setting_from_proto(key, &written).as_ref(), Ok(&setting), "it is not the same when it is read again");
    outcome(match &setting.kind {
        SettingKind::RuleSwitch { off, .. } => (0, usize::from(*off)),
        SettingKind::DomainExemption(exemption) => {
            let jo = Account::parse("jo@example.org").unwrap();
            assert!(!exemption.covers(&jo, "burst", i64::MAX) || exemption.until_ms.is_none());
            (1, exemption.rules.len())
        }
        SettingKind::LimitsFor { limits, .. } => {
            assert!(limits.len() <= 100 && limits.values().all(|limit| limit.is_finite() && *limit >= 0.0));
            (2, limits.len())
        }
    })
}

fn seeds() -> Vec<Vec<u8>> {
    let kinds = [
        SettingKind::RuleSwitch { rule: "burst".into(), off: true },
        SettingKind::DomainExemption(DomainExemption {
            domain: "example.org".into(),
            rules: vec!["burst".into(), "spam-lock".into()],
            until_ms: Some(1 << 50),
        }),
        SettingKind::LimitsFor { subject: "jo@example.org".into(), limits: [("most".to_owned(), 5.0)].into() },
    ];
    let seed = |kind| {
        let setting = Setting { actor: "amy".into(), reason: "busy".into(), set_ms: 7, kind };
        let key = setting.key();
        [&[key.len() as u8][..], key.as_bytes(), &setting_to_proto(&setting).encode_to_vec()].concat()
    };
    kinds.map(seed).to_vec()
}
