//! Text to words: what they are, in lower case, line by line.

use super::skeleton::Skeleton;
use crate::encoded_word::push_utf8_or_latin1;

/// Longest run without white space that is looked at when it is ASCII: longer ones are no prose.
const MAX_ASCII_RUN_OCTETS: usize = 512;
/// Other runs are cut behind their last punctuation at this length (Chinese has no spaces).
const MAX_RUN_OCTETS: usize = 1024;
/// Most words of a line that are held; what follows begins a new line.
const MAX_LINE_WORDS: usize = 512;
/// A word of this many ASCII letters without a vowel is noise.
const MIN_NOISE_LETTERS: usize = 5;

/// Words that belong to an amount: `8.5 million dollars` is a number like `$8,500,000`.
const AMOUNT_WORDS: [&str; 20] = [
    "thousand",
    "kr",
    "nr",
    "million",
    "millions",
    "billion",
    "mio",
    "mill",
    "dollar",
    "dollars",
    "usd",
    "euro",
    "euros",
    "eur",
    "pounds",
    "gbp",
    "chf",
    "millionen",
    "millones",
    "k",
];

/// Streaming reader of words. Takes octets of decoded text, UTF-8 or Latin-1.
#[derive(Debug, Default)]
pub(super) struct Words {
    run: Vec<u8>,
    line: Line,
    runs_in_line: usize,
}

/// The words of one line.
#[derive(Debug, Default)]
pub(super) struct Line {
    text: String,
    words: Vec<Word>,
    /// Whether it quotes another message (`> `).
    pub quoted: bool,
    /// Whether it is the line before a signature (`-- `).
    pub signature_mark: bool,
}

/// A word in a [`Line`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    start: usize,
    end: usize,
    /// What it looked like.
    pub form: Form,
    /// Whether a comma, colon or the end of a sentence follows.
    pub pause: bool,
}

/// What a word looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Begins with a small letter, or its alphabet has no capitals.
    Ordinary,
    /// Begins with a capital.
    Name,
    /// All capitals.
    Capitals,
    /// The domain of a link's host.
    Host,
    /// Has a digit or belongs to an amount, is an address, or has no vowel.
    Variable,
}

impl Line {
    /// The words, each with its text in lower case.
    pub fn words(&self) -> impl Iterator<Item = (&str, Word)> {
        self.words.iter().map(|word| (self.text.get(word.start..word.end).unwrap_or_default(), *word))
    }

    fn add(&mut self, text: &str, form: Form) {
        let start = self.text.len();
        self.text.push_str(text);
        self.words.push(Word { start, end: self.text.len(), form, pause: false });
    }

    fn clear(&mut self) {
        self.text.clear();
        self.words.clear();
    }
}

impl Words {
    /// Takes in one octet. Whole lines go on to `skeleton`.
    pub fn push(&mut self, byte: u8, skeleton: &mut Skeleton) {
        if byte == b'\n' {
            self.end_run();
            self.end_line(skeleton);
        } else if byte.is_ascii_whitespace() || byte.is_ascii_control() {
            self.end_run();
        } else if self.run.len() < MAX_ASCII_RUN_OCTETS || (self.run.len() < MAX_RUN_OCTETS && !self.run.is_ascii()) {
            self.run.push(byte);
            if self.run.len() == MAX_RUN_OCTETS {
                self.cut_run();
            }
        }
        if self.line.words.len() >= MAX_LINE_WORDS {
            skeleton.line(&self.line);
            self.line.clear();
        }
    }

    /// Takes in the target of a link that is not in the text itself.
    pub fn link(&mut self, target: &str, skeleton: &mut Skeleton) {
        self.end_run();
        if let Some(domain) = link_domain(target) {
            self.line.add(&domain, Form::Host);
        }
        if self.line.words.len() >= MAX_LINE_WORDS {
            skeleton.line(&self.line);
            self.line.clear();
        }
    }

    /// Ends the last line.
    pub fn finish(&mut self, skeleton: &mut Skeleton) {
        self.end_run();
        self.end_line(skeleton);
    }

    fn end_line(&mut self, skeleton: &mut Skeleton) {
        skeleton.line(&self.line);
        self.line.clear();
        (self.line.quoted, self.line.signature_mark) = (false, false);
        self.runs_in_line = 0;
    }

    fn end_run(&mut self) {
        if !self.run.is_empty() {
            let run = std::mem::take(&mut self.run);
            self.take_run(&run);
        }
    }

    /// The run is full: takes it up to its last punctuation, so that a change before a cut moves no later cut.
    fn cut_run(&mut self) {
        let run = std::mem::take(&mut self.run);
        let whole_characters = match std::str::from_utf8(&run) {
            Ok(text) => text,
            Err(error) if error.error_len().is_none() => {
                std::str::from_utf8(&run[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => "",
        };
        let punctuation = whole_characters.rfind(|c: char| !c.is_alphanumeric()).filter(|at| *at > 0);
        let cut = match (punctuation, whole_characters.len()) {
            (Some(at), _) => at,
            (None, 0) => run.len(),
            (None, whole) => whole,
        };
        self.take_run(&run[..cut]);
        self.run.extend_from_slice(&run[cut..]);
    }

    fn take_run(&mut self, run: &[u8]) {
        let mut text = String::with_capacity(run.len());
        push_utf8_or_latin1(run, &mut text);
        text.retain(|c| !is_invisible(c));
        if self.runs_in_line == 0 {
            self.line.quoted = text.starts_with('>');
            self.line.signature_mark = text == "--";
        } else {
            self.line.signature_mark = false;
        }
        self.runs_in_line += 1;
        for part in text.split(char::is_whitespace).flat_map(split_scripts) {
            if let Some(domain) = link_domain(part) {
                self.line.add(&domain, Form::Host);
            } else if is_address(part) {
                self.line.add(&part.to_lowercase(), Form::Variable);
            } else {
                self.split_words(part);
            }
            if part.ends_with([',', '!', ':', '.', ';', '?']) {
                self.pause();
            }
        }
    }

    fn split_words(&mut self, part: &str) {
        let mut word = String::new();
        for c in part.chars() {
            if is_apostrophe(c) && !word.is_empty() {
                continue;
            }
            if !c.is_alphanumeric() {
                self.end_word(&mut word);
                if is_pause(c) {
                    self.pause();
                }
                continue;
            }
            word.push(c);
            if is_unspaced(c) {
                self.end_word(&mut word);
            }
        }
        self.end_word(&mut word);
    }

    fn end_word(&mut self, word: &mut String) {
        let Some(first) = word.chars().next() else { return };
        let lower = word.to_lowercase();
        let counts = AMOUNT_WORDS.contains(&lower.as_str());
        let form = if counts || word.chars().any(char::is_numeric) || is_noise(word) {
            Form::Variable
        } else if !first.is_uppercase() {
            Form::Ordinary
        } else if word.chars().nth(1).is_some() && word.chars().all(|c| !c.is_lowercase()) {
            Form::Capitals
        } else {
            Form::Name
        };
        if !lower.is_ascii() && lower.bytes().any(|byte| byte.is_ascii_alphabetic()) {
            self.line.add(&lower.chars().map(ascii_look_alike).collect::<String>(), form);
        } else {
            self.line.add(&lower, form);
        }
        word.clear();
    }

    fn pause(&mut self) {
        if let Some(last) = self.line.words.last_mut() {
            last.pause = true;
        }
    }
}

/// The domain of a link's host, without subdomains, which spammers vary: `http://a1.shop.example.org/x?1` gives
/// `example.org`. Below short second-level names (`co.uk`) one label more.
fn link_domain(text: &str) -> Option<String> {
    let text = text.trim_start_matches(|c: char| !c.is_alphanumeric());
    let host = if let Some((scheme, rest)) = text.split_once("://") {
        scheme.ends_with(|c: char| c.is_ascii_alphabetic()).then_some(rest)?
    } else if text.get(..4).is_some_and(|www| www.eq_ignore_ascii_case("www.")) {
        text
    } else {
        // `example.org/x` without a scheme is a link, `and/or` is not.
        let (host, _) = text.split_once('/')?;
        let dot = host.rfind('.').filter(|dot| *dot > 0)?;
        host[dot + 1..].chars().all(|c| c.is_ascii_alphabetic()).then_some(host)?
    };
    let host = host.split(['/', '?', '#', '"', '\'', '<', '>', ')']).next()?;
    let host = host.rsplit('@').next()?.split(':').next()?.trim_end_matches(|c: char| !c.is_alphanumeric());
    let labels: Vec<&str> = host.split('.').collect();
    let numeric = labels.iter().all(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    let kept = match labels.as_slice() {
        _ if numeric => labels.len(),
        [.., second, top] if top.len() == 2 && second.len() <= 3 => 3,
        _ => 2,
    };
    let domain = labels[labels.len().saturating_sub(kept)..].join(".").to_lowercase();
    Some(domain).filter(|domain| !domain.is_empty())
}

/// Cuts where a script without spaces begins or ends: there can be an address right between two of its letters.
fn split_scripts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let unspaced = is_unspaced(rest.chars().next()?);
        let end = rest.find(|c| is_unspaced(c) != unspaced).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        rest = after;
        Some(part)
    })
}

/// Letters and punctuation of scripts that put no spaces between words: Thai, Lao, Khmer, Chinese, Japanese. Each
/// letter counts as a word.
fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1780}'..='\u{17ff}' | '\u{2e80}'..='\u{9fff}')
        || matches!(c, '\u{f900}'..='\u{faff}' | '\u{ff00}'..='\u{ffef}' | '\u{20000}'..='\u{3ffff}')
}

fn is_address(text: &str) -> bool {
    text.split_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && domain.contains(|c: char| c.is_alphanumeric()))
}

fn is_noise(word: &str) -> bool {
    word.len() >= MIN_NOISE_LETTERS
        && word.is_ascii()
        && !word.bytes().any(|byte| matches!(byte.to_ascii_lowercase(), b'a' | b'e' | b'i' | b'o' | b'u' | b'y'))
}

/// Characters that are not seen, put into words so that they do not compare equal.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '\u{2019}' | '\u{02bc}')
}

/// Punctuation that ends what comes before it, also in scripts that put no space behind it.
fn is_pause(c: char) -> bool {
    matches!(c, '\u{ff0c}' | '\u{3001}' | '\u{3002}' | '\u{ff01}' | '\u{ff1a}' | '\u{ff1f}' | '\u{060c}' | '\u{061f}')
}

/// The ASCII letter that a Cyrillic or Greek one passes for in a word that has ASCII letters too.
fn ascii_look_alike(c: char) -> char {
    match c {
        '\u{430}' | '\u{3b1}' => 'a',
        '\u{435}' => 'e',
        '\u{43e}' | '\u{3bf}' => 'o',
        '\u{440}' | '\u{3c1}' => 'p',
        '\u{441}' => 'c',
        '\u{443}' => 'y',
        '\u{445}' => 'x',
        '\u{456}' | '\u{3b9}' => 'i',
        '\u{458}' => 'j',
        '\u{455}' => 's',
        '\u{3bd}' => 'v',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_keep_their_domain() {
        for (text, domain) in [
            ("http://a1.shop.example.org/x?1", Some("example.org")),
            ("(https://www.shop.co.uk:8080/a)", Some("shop.co.uk")),
            ("www.Example.org,", Some("example.org")),
            ("<http://user@192.0.2.1/x>", Some("192.0.2.1")),
            ("example.org/abc", Some("example.org")),
            ("HTTPS://EXAMPLE.ORG", Some("example.org")),
            ("and/or", None),
            ("1.5/2.0", None),
            ("example", None),
            ("http://", None),
            ("./x", None),
        ] {
            assert_eq!(link_domain(text).as_deref(), domain, "{text}");
        }
    }

    fn words(text: &str) -> Vec<(String, Form)> {
        let mut words = Words::default();
        words.take_run(text.as_bytes());
        words.line.words().map(|(text, word)| (text.to_owned(), word.form)).collect()
    }

    #[test]
    fn words_are_told_apart() {
        let one = |text: &str| words(text).first().map(|(text, form)| (text.clone(), *form)).unwrap();
        assert_eq!(one("Don\u{2019}t"), ("dont".into(), Form::Name));
        assert_eq!(one("fr\u{200b}ee,"), ("free".into(), Form::Ordinary));
        assert_eq!(one("p\u{430}yp\u{430}l"), ("paypal".into(), Form::Ordinary));
        assert_eq!(one("\u{43f}\u{440}\u{438}\u{432}\u{435}\u{442}").0, "\u{43f}\u{440}\u{438}\u{432}\u{435}\u{442}");
        assert_eq!(one("NOW").1, Form::Capitals);
        assert_eq!(one("I").1, Form::Name);
        for variable in ["X7kf", "xkqjz", "a@b.test", "2026", "$500"] {
            assert_eq!(one(variable).1, Form::Variable, "{variable}");
        }
        assert_eq!(words("5\u{6708}3\u{65e5}").len(), 4);
        let mail: Vec<Form> = words("\u{90ae}\u{7bb1}a@b.test\u{5df2}").into_iter().map(|(_, form)| form).collect();
        assert_eq!(mail, [Form::Ordinary, Form::Ordinary, Form::Variable, Form::Ordinary]);
        assert_eq!(words("one-two/three").len(), 3);
    }
}
