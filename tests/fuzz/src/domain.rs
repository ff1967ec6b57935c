//! Accounts: the canonical form is a fixed point.

use tidegate_domain::{Account, AccountForm, AccountKind};

use crate::input::{Input, outcome};
use crate::{Outcome, Target};

/// A login, or an account as a topic has it.
pub const ACCOUNT: Target = Target {
    name: "account",
    run,
    seeds,
    words: &[
        "@",
        ".",
        "example.org",
        "local:",
        "address:",
        "LOCAL:",
        " ",
        "\u{130}",
        "\u{1e9e}",
        "\u{3a3}",
        "\u{212a}",
    ],
    max_octets: 512,
    test_inputs: 20_000,
};

fn run(octets: &[u8]) -> Outcome {
    let mut input = Input::new(octets);
    let choices = input.byte();
    let form = AccountForm {
        default_realm: [None, Some("Example.ORG".to_owned()), Some(String::new())][usize::from(choices % 3)].clone(),
        lower_case_local_part: choices & 8 == 0,
    };
    let raw = String::from_utf8_lossy(input.rest());
    let login = Account::login(&raw, &form);
    if let Ok(account) = &login {
        assert_eq!(Account::login(account.as_str(), &form).as_ref(), Ok(account), "the form is no fixed point");
        assert_eq!(Account::parse(account.as_str()).as_ref(), Ok(account));
        assert_eq!(account.kind(), AccountKind::Login);
        check(account);
    }
    let local = Account::local_user(&raw);
    if let Ok(account) = &local {
        assert_eq!(account.kind(), AccountKind::LocalUser);
        check(account);
    }
    let parsed = Account::parse(&raw);
    if let Ok(account) = &parsed {
        assert_eq!(Account::parse(account.as_str()).as_ref(), Ok(account));
        check(account);
    }
    let kind = |result: &Result<Account, _>| result.as_ref().map(Account::kind).map_err(std::mem::discriminant).err();
    outcome((kind(&login), kind(&local), kind(&parsed), parsed.map(|account| account.domain().is_some()).ok()))
}

fn check(account: &Account) {
    let text = account.as_str();
    assert!(!text.is_empty() && text.len() <= 320);
    assert!(!text.chars().any(|c| c.is_control() || c.is_whitespace()), "{text:?}");
    assert!(account.domain().is_none_or(|domain| text.ends_with(domain)));
}

fn seeds() -> Vec<Vec<u8>> {
    [
        "\0jo@example.org",
        "\x01Jo",
        "\x02JO@Example.ORG.",
        "\x08a@b@c",
        "\x01local:root",
        "\0address:192.0.2.1",
        "\0jo@@.",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
