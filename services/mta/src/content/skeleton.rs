//! The skeletons of a text, and which of them is its fingerprint.

use super::words::{Form, Line};
use std::hash::Hasher;
use twox_hash::XxHash64;

/// The loose skeleton counts when it has this many words.
pub(crate) const LOOSE_WORDS: u32 = 12;
/// The strict skeleton counts when it has this many words.
pub(crate) const STRICT_WORDS: u32 = 5;
/// A greeting has at most this many words (`Sehr geehrte Frau Dr. Müller,`).
const MAX_GREETING_WORDS: usize = 6;
/// A line of names below a letter, or a paragraph of a number and what it is, has at most this many words.
const MAX_ASIDE_WORDS: usize = 3;

/// First words of greetings in the languages that most spam is written in. The rest of the greeting is told by
/// its punctuation.
const GREETINGS: [&str; 54] = [
    "hi",
    "hello",
    "hey",
    "dear",
    "dearest",
    "greetings",
    "good",
    "attention",
    "attn", // English
    "hallo",
    "liebe",
    "lieber",
    "liebes",
    "sehr",
    "guten",
    "werte",
    "werter",
    "moin",
    "servus", // German
    "bonjour",
    "bonsoir",
    "cher",
    "ch\u{e8}re",
    "chers",
    "salut",
    "madame",
    "monsieur", // French
    "hola",
    "estimado",
    "estimada",
    "estimados",
    "querido",
    "querida",
    "buenos",
    "buenas", // Spanish
    "ol\u{e1}",
    "prezado",
    "prezada",
    "caro",
    "cara",
    "bom",
    "boa", // Portuguese, Italian
    "ciao",
    "gentile",
    "egregio",
    "salve", // Italian
    "beste",
    "geachte",
    "dag",                                        // Dutch
    "\u{43f}\u{440}\u{438}\u{432}\u{435}\u{442}", // Russian
    "\u{437}\u{434}\u{440}\u{430}\u{432}\u{441}\u{442}\u{432}\u{443}\u{439}\u{442}\u{435}",
    "\u{60a8}\u{597d}",
    "\u{4f60}\u{597d}",                    // Chinese
    "\u{645}\u{631}\u{62d}\u{628}\u{627}", // Arabic
];

/// Small words in names.
const NAME_PARTICLES: [&str; 14] =
    ["de", "der", "den", "van", "von", "zu", "del", "la", "da", "di", "du", "bin", "al", "el"];

/// Hashes a text's words as they come, in several ways.
#[derive(Debug)]
pub(super) struct Skeleton {
    loose: Tier,
    strict: Tier,
    plain: Tier,
    whole: Tier,
    greeted: bool,
    in_signature: bool,
    after_blank_line: bool,
    #[cfg(test)]
    trace: Option<Vec<String>>,
}

#[derive(Debug)]
struct Tier {
    hasher: XxHash64,
    words: u32,
}

impl Skeleton {
    pub fn new(seed: u64) -> Self {
        // Seeds of their own: equal words in different tiers are no equal texts, but for the last two, which differ
        // only in whether there was more than a greeting.
        let tier = |number| Tier { hasher: XxHash64::with_seed(seed.wrapping_add(number)), words: 0 };
        Self {
            loose: tier(1),
            strict: tier(2),
            plain: tier(3),
            whole: tier(3),
            greeted: false,
            in_signature: false,
            after_blank_line: true,
            #[cfg(test)]
            trace: None,
        }
    }

    /// Takes in a line.
    pub fn line(&mut self, line: &Line) {
        if line.signature_mark {
            self.in_signature = true;
        }
        let begins_paragraph = std::mem::replace(&mut self.after_blank_line, line.words().next().is_none());
        if self.after_blank_line {
            return;
        }
        for (text, _) in line.words() {
            self.whole.add(text);
            #[cfg(test)]
            if let Some(trace) = &mut self.trace {
                trace.push(text.to_owned());
            }
        }
        if line.quoted || self.in_signature {
            return;
        }
        let skipped = if self.greeted { 0 } else { greeting_words(line) };
        self.greeted = true;
        let aside = is_aside(line, begins_paragraph);
        for (text, word) in line.words().skip(skipped) {
            self.plain.add(text);
            match word.form {
                _ if aside => {}
                Form::Ordinary => {
                    self.loose.add(text);
                    self.strict.add(text);
                }
                Form::Name | Form::Capitals | Form::Host => self.strict.add(text),
                Form::Variable => {}
            }
        }
    }

    /// The fingerprint of the text so far; 0 when it has no word.
    pub fn fingerprint(&self) -> u64 {
        let tiers = [(&self.loose, LOOSE_WORDS), (&self.strict, STRICT_WORDS), (&self.plain, 1), (&self.whole, 1)];
        let tier = tiers.iter().find(|(tier, least)| tier.words >= *least);
        tier.map_or(0, |(tier, _)| tier.hasher.finish().max(1))
    }

    #[cfg(test)]
    pub fn keep_trace(&mut self) {
        self.trace = Some(Vec::new());
    }

    #[cfg(test)]
    pub fn trace(&self) -> String {
        self.trace.as_ref().unwrap().join(" ")
    }
}

impl Tier {
    fn add(&mut self, word: &str) {
        self.words = self.words.saturating_add(1);
        self.hasher.write(word.as_bytes());
        self.hasher.write(&[0]);
    }
}

/// Whether a short line is no part of the text: names under a letter, or a paragraph with a number (`Ref. A7731`).
fn is_aside(line: &Line, begins_paragraph: bool) -> bool {
    let all_names = line.words().all(|(text, word)| word.form == Form::Name || NAME_PARTICLES.contains(&text));
    let with_number = || line.words().any(|(_, word)| word.form == Form::Variable);
    line.words().count() <= MAX_ASIDE_WORDS && (all_names || (begins_paragraph && with_number()))
}

/// How many words at the beginning of a text's first line greet somebody.
fn greeting_words(line: &Line) -> usize {
    let words: Vec<_> = line.words().take(MAX_GREETING_WORDS + 1).collect();
    let Some((first, word)) = words.first() else { return 0 };
    let pause = words.iter().take(MAX_GREETING_WORDS).position(|(_, word)| word.pause);
    let whole_line = words.len() <= MAX_GREETING_WORDS;
    // In Chinese a greeting is two words of one letter.
    let first_two: String = words.iter().take(2).map(|(text, _)| *text).collect();
    if GREETINGS.contains(first) || GREETINGS.contains(&first_two.as_str()) {
        // `Dear Mr. Smith, ...`: the stop behind a title is no end.
        let end = words.iter().take(MAX_GREETING_WORDS).enumerate().position(|(index, (text, word))| {
            word.pause
                && !(index > 0
                    && matches!(*text, "mr" | "mrs" | "ms" | "dr" | "prof" | "hr" | "fr" | "m" | "sr" | "sra"))
        });
        let names = words.iter().skip(1).take_while(|(_, word)| word.form == Form::Name).count();
        return match end.or(pause) {
            Some(end) => end + 1,
            None if whole_line => words.len(),
            None => 1 + names,
        };
    }
    match pause {
        // `Anna, ...`, or a line that is only `Mrs Anna Smith,`.
        Some(0) if word.form == Form::Name => 1,
        Some(end) if whole_line && end + 1 == words.len() && words.iter().all(|(_, word)| word.form == Form::Name) => {
            words.len()
        }
        _ => 0,
    }
}
