//! Credentials of all kinds against files that change.

use super::*;
use crate::{Authority, FailureBounds, NewToken, Role, Scope};
use rustls::pki_types::pem::PemObject as _;
use std::fs;
use tempfile::TempDir;

const NOW_MS: i64 = 1_795_000_000_000;
const HOUR: Duration = Duration::from_hours(1);

struct Lab {
    access: Arc<Access>,
    authority: Authority,
    folder: TempDir,
}

fn peer(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

impl Lab {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let (people, tokens) = (folder.path().join("people.toml"), folder.path().join("tokens.toml"));
        fs::write(&people, "[[person]]\nname = 'jo'\nrole = 'operator'\n").unwrap();
        fs::write(&tokens, "").unwrap();
        let access = Access::open(&AccessConfig {
            people: Some(people),
            tokens: Some(tokens),
            failures: FailureBounds { max: 3, ..FailureBounds::default() },
            ..AccessConfig::default()
        });
        let (authority, _) = Authority::create("test", HOUR * 24, NOW_MS).unwrap();
        Self { access: access.unwrap(), authority, folder }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
        self.look();
    }

    /// Twice: a change counts when it has stayed.
    fn look(&self) {
        self.access.look();
        self.access.look();
    }

    fn token(&self) -> (String, String) {
        let new = NewToken { name: "tool".into(), role: Role::Viewer, domains: None, lifetime: Some(HOUR) };
        let (token, _) = TokenFile::create(&self.folder.path().join("tokens.toml"), new, NOW_MS).unwrap();
        self.look();
        (token.id().to_owned(), format!("Bearer {}", token.reveal()))
    }

    fn certificate(&self, name: &CertificateName) -> CertificateDer<'static> {
        let issued = self.authority.client(name, "example.org", HOUR, NOW_MS).unwrap();
        CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()
    }

    async fn by_certificate(&self, certificate: &CertificateDer<'_>, now_ms: i64) -> Result<Principal, Refusal> {
        self.access.identify(peer(1), Some(std::slice::from_ref(certificate)), None, now_ms).await
    }

    async fn by_bearer(&self, from: u8, bearer: &str, now_ms: i64) -> Result<Principal, Refusal> {
        self.access.identify(peer(from), None, Some(bearer), now_ms).await
    }
}

#[tokio::test]
async fn a_principal_holds_until_its_certificate_ends_or_the_files_say_otherwise() {
    let lab = Lab::new();
    let jo = lab.certificate(&CertificateName::User("jo".into()));
    let edge = lab.certificate(&CertificateName::Edge { site: "ams".into(), node: "mx1".into() });
    let (jo, edge) = (lab.by_certificate(&jo, NOW_MS).await.unwrap(), lab.by_certificate(&edge, NOW_MS).await.unwrap());
    let holds = |principal: &Principal, now_ms| lab.access.still_holds(principal, now_ms);
    for principal in [&jo, &edge] {
        assert!(holds(principal, NOW_MS + 3_600_000) && !holds(principal, NOW_MS + 3_601_000));
    }
    let mut changes = lab.access.changes();
    let good = "[[person]]\nname = 'jo'\nrole = 'operator'\n";
    for (text, jo_holds, edge_holds) in [
        ("", false, true),
        (good, true, true),
        ("[[person]]\nname = 'jo'\nrole = 'admin'\n", false, true),
        ("[[person]]\nname = 'jo'\nrole = 'operator'\ndomains = ['a.org']\n", false, true),
        (&format!("revoked = ['user/jo']\n{good}"), false, true),
        (&format!("revoked = ['edge/*/mx1']\n{good}"), true, false),
    ] {
        lab.write("people.toml", text);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!((holds(&jo, NOW_MS), holds(&edge, NOW_MS)), (jo_holds, edge_holds), "{text}");
    }
    lab.write("people.toml", "a mistake");
    assert!(!changes.has_changed().unwrap() && holds(&jo, NOW_MS), "what was in force stays");
    assert!(!Access::off().still_holds(&jo, NOW_MS));
    assert!(!holds(&Principal::Person(Person::on_loopback()), NOW_MS));
}

#[tokio::test]
async fn a_certificate_is_looked_at_again_on_a_connection_that_is_open_for_long() {
    let lab = Lab::new();
    let jo = lab.certificate(&CertificateName::User("jo".into()));
    assert!(lab.by_certificate(&jo, NOW_MS + 3_600_000).await.is_ok());
    for now_ms in [NOW_MS + 3_601_000, NOW_MS - 301_000] {
        assert!(matches!(lab.by_certificate(&jo, now_ms).await, Err(Refusal::CertificateTime(_))));
    }
}

#[tokio::test]
async fn a_token_holds_until_it_ends_or_is_revoked() {
    let lab = Lab::new();
    let (id, bearer) = lab.token();
    let principal = lab.by_bearer(1, &bearer, NOW_MS).await.unwrap();
    let Principal::Person(person) = &principal else { panic!("{principal:?}") };
    assert_eq!((person.role, &person.scope), (Role::Viewer, &Scope::all()));
    assert!(lab.access.still_holds(&principal, NOW_MS + 3_599_999));
    assert!(!lab.access.still_holds(&principal, NOW_MS + 3_600_000));
    let expired = lab.by_bearer(2, &bearer, NOW_MS + 3_600_000).await;
    assert!(matches!(expired, Err(Refusal::ExpiredToken { .. })), "{expired:?}");
    TokenFile::revoke(&lab.folder.path().join("tokens.toml"), &id, NOW_MS).unwrap();
    lab.look();
    assert!(!lab.access.still_holds(&principal, NOW_MS));
    assert!(matches!(lab.by_bearer(3, &bearer, NOW_MS).await, Err(Refusal::RevokedToken { .. })));
}

#[tokio::test]
async fn who_guesses_waits_and_who_shares_the_address_mostly_does_not() {
    let lab = Lab::new();
    let (_, known) = lab.token();
    let (_, new) = lab.token();
    lab.by_bearer(1, &known, NOW_MS).await.unwrap();
    for _ in 0..3 {
        let guess = lab.by_bearer(1, "Bearer tg_no", NOW_MS).await;
        assert!(matches!(guess, Err(Refusal::Malformed(_))), "{guess:?}");
    }
    let too_many = Err(Refusal::TooMany { retry_after_ms: 10_000 });
    assert_eq!(lab.by_bearer(1, "Bearer tg_no", NOW_MS).await, too_many);
    assert_eq!(lab.by_bearer(1, &new, NOW_MS).await, too_many, "a right guess tells nothing");
    assert_eq!(lab.access.identify(peer(1), None, None, NOW_MS).await, too_many);
    assert!(lab.by_bearer(1, &known, NOW_MS).await.is_ok());
    let jo = lab.certificate(&CertificateName::User("jo".into()));
    assert!(lab.by_certificate(&jo, NOW_MS).await.is_ok());
    // One with a certificate that does not hold is told no more than the others.
    let nobody = lab.certificate(&CertificateName::User("nobody".into()));
    assert_eq!(lab.by_certificate(&nobody, NOW_MS).await, too_many);
    assert!(lab.by_bearer(2, &new, NOW_MS).await.is_ok());
    assert!(lab.by_bearer(1, &new, NOW_MS + 10_000).await.is_ok());
}

#[tokio::test]
async fn where_nothing_is_asked_for_everybody_is_on_loopback() {
    let anybody = Access::off().identify(peer(1), None, Some("Bearer x"), NOW_MS).await;
    assert_eq!(anybody, Ok(Principal::Person(Person::on_loopback())));
    assert!(Access::off().is_off() && Access::off().still_holds(&anybody.unwrap(), NOW_MS));
}
