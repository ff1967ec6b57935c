//! How much of what a topic holds is taken: what an honest writer writes always fits, and a state that was made of it
//! fits a record of the log again.

/// Longest reason, reply or note, in octets.
pub(crate) const MAX_TEXT_OCTETS: usize = 1024;
/// Longest name of a person, a command or a rule set, in octets.
pub(crate) const MAX_NAME_OCTETS: usize = 256;
/// Longest name of a rule or a column, in octets; rules and statistics files allow no longer ones.
pub(crate) const MAX_RULE_OCTETS: usize = 64;
/// Most rules that one exemption names.
pub(crate) const MAX_RULES: usize = 100;
/// Most exemptions of one account.
pub(crate) const MAX_EXEMPTIONS: usize = 100;
/// Most columns of a rule's evidence.
pub(crate) const MAX_EVIDENCE: usize = 200;

/// Most limits that one setting has.
pub(crate) const MAX_LIMITS: usize = 100;
/// Longest domain, in octets (RFC 1035 section 2.3.4).
pub(crate) const MAX_DOMAIN_OCTETS: usize = 255;
/// Most addresses that a lock names.
pub(crate) const MAX_CLIENTS: usize = 8;
/// Most subjects that a lock has as a sample.
pub(crate) const MAX_SUBJECTS: usize = 5;
/// Longest subject, in octets: 120 characters of any kind.
pub(crate) const MAX_SUBJECT_OCTETS: usize = 480;

/// The text, cut at a character when it is longer than `octets`.
pub(crate) fn bounded(mut text: String, octets: usize) -> String {
    if text.len() > octets {
        text.truncate(text.floor_char_boundary(octets));
        text.shrink_to_fit();
    }
    text
}

/// Names of rules. Of too many the rest is left off: an exemption then covers less, never more.
pub(crate) fn rules(mut rules: Vec<String>) -> Vec<String> {
    rules.truncate(MAX_RULES);
    rules.into_iter().map(|rule| bounded(rule, MAX_RULE_OCTETS)).collect()
}
