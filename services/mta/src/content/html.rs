//! HTML to text, as far as a fingerprint needs it: tags, comments, styles and scripts go, entities become letters.

use super::skeleton::Skeleton;
use super::words::Words;

/// Longest part of a tag that is looked at.
const MAX_TAG_OCTETS: usize = 512;
/// Longest entity, e.g. `&CounterClockwiseContourIntegral;`.
const MAX_ENTITY_OCTETS: usize = 32;
/// Elements whose content is not shown.
const HIDDEN: [&str; 4] = ["head", "script", "style", "title"];
/// Elements inside a line: a word goes on across them.
const INLINE: [&str; 18] = [
    "a", "abbr", "b", "big", "code", "em", "font", "i", "ins", "mark", "s", "small", "span", "strong", "sub", "sup",
    "u", "wbr",
];

/// Streaming HTML reader.
#[derive(Debug, Default)]
pub(super) struct Html {
    state: State,
    held: Vec<u8>,
    hidden: Option<&'static str>,
}

#[derive(Debug, Default, PartialEq)]
enum State {
    #[default]
    Text,
    Tag,
    Comment,
    Entity,
}

impl Html {
    /// Takes in one octet; what is shown goes to `words`.
    pub fn push(&mut self, byte: u8, words: &mut Words, skeleton: &mut Skeleton) {
        match (&self.state, byte) {
            (State::Text, b'<') => self.begin(State::Tag),
            (State::Text, b'&') if self.hidden.is_none() => self.begin(State::Entity),
            (State::Text, _) => {
                if self.hidden.is_none() {
                    // In HTML a line break is a space.
                    words.push(if byte == b'\n' || byte == b'\r' { b' ' } else { byte }, skeleton);
                }
            }
            (State::Tag, b'>') => {
                self.state = State::Text;
                self.tag(words, skeleton);
            }
            (State::Tag, _) => {
                if self.held.len() < MAX_TAG_OCTETS {
                    self.held.push(byte);
                }
                if self.held == b"!--" {
                    self.begin(State::Comment);
                }
            }
            (State::Comment, b'>') if self.held.ends_with(b"--") => self.begin(State::Text),
            (State::Comment, _) => {
                if self.held.len() >= 2 {
                    self.held.remove(0);
                }
                self.held.push(byte);
            }
            (State::Entity, b';') => {
                self.state = State::Text;
                if let Some(letter) = entity(&self.held) {
                    let mut utf8 = [0; 4];
                    letter.encode_utf8(&mut utf8).bytes().for_each(|byte| words.push(byte, skeleton));
                }
            }
            (State::Entity, _) if byte.is_ascii_alphanumeric() || byte == b'#' => {
                self.held.push(byte);
                if self.held.len() > MAX_ENTITY_OCTETS {
                    self.begin(State::Text);
                }
            }
            (State::Entity, _) => {
                // An ampersand that is only that.
                words.push(b' ', skeleton);
                for held in std::mem::take(&mut self.held) {
                    words.push(held, skeleton);
                }
                self.state = State::Text;
                self.push(byte, words, skeleton);
            }
        }
    }

    fn begin(&mut self, state: State) {
        self.held.clear();
        self.state = state;
    }

    fn tag(&mut self, words: &mut Words, skeleton: &mut Skeleton) {
        let held = String::from_utf8_lossy(&self.held).to_ascii_lowercase();
        let (closing, inside) = held.strip_prefix('/').map_or((false, held.as_str()), |inside| (true, inside));
        let name = inside.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        if let Some(hidden) = self.hidden {
            if closing && name == hidden {
                self.hidden = None;
            }
            return;
        }
        if !closing && let Some(hidden) = HIDDEN.iter().find(|hidden| **hidden == name) {
            self.hidden = Some(hidden);
        }
        if name == "a"
            && let Some(at) = inside.find("href=")
        {
            let target = inside[at + 5..].trim_start_matches(['"', '\'']);
            let target =
                target.split(|c: char| matches!(c, '"' | '\'') || c.is_whitespace()).next().unwrap_or_default();
            words.link(target, skeleton);
        }
        if !INLINE.contains(&name) {
            words.push(b'\n', skeleton);
        }
    }
}

/// The character of an entity; none for those that are not letters anyway.
fn entity(name: &[u8]) -> Option<char> {
    let name = std::str::from_utf8(name).ok()?;
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16),
            None => number.parse(),
        };
        return code.ok().and_then(char::from_u32);
    }
    let accented = |base: char, accent: &str| {
        let row = match accent {
            "grave" => "\u{e0}\u{e8}\u{ec}\u{f2}\u{f9}",
            "acute" => "\u{e1}\u{e9}\u{ed}\u{f3}\u{fa}",
            "circ" => "\u{e2}\u{ea}\u{ee}\u{f4}\u{fb}",
            "uml" => "\u{e4}\u{eb}\u{ef}\u{f6}\u{fc}",
            _ => return None,
        };
        let letter = row.chars().nth("aeiou".find(base.to_ascii_lowercase())?)?;
        Some(if base.is_ascii_uppercase() { letter.to_uppercase().next()? } else { letter })
    };
    match name {
        "szlig" => Some('\u{df}'),
        "ccedil" => Some('\u{e7}'),
        "ntilde" => Some('\u{f1}'),
        "shy" | "zwnj" | "zwj" => Some('\u{ad}'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "apos" | "rsquo" => Some('\''),
        _ => name.chars().next().and_then(|base| accented(base, &name[base.len_utf8()..])).or(Some(' ')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(html: &str) -> String {
        let (mut reader, mut words, mut skeleton) = (Html::default(), Words::default(), Skeleton::new(1));
        skeleton.keep_trace();
        html.bytes().for_each(|byte| reader.push(byte, &mut words, &mut skeleton));
        words.finish(&mut skeleton);
        skeleton.trace()
    }

    #[test]
    fn what_is_shown_stays() {
        assert_eq!(
            text("<p>one<br>two</p><!-- a > b --> th<b>r</b>ee&nbsp;four &lt;5 & six"),
            "one two three four 5 six"
        );
        assert_eq!(text("<head><title>t</title><p>x</head><style>p > q {}</style><div class='a'>y</div>"), "y");
        assert_eq!(
            text("caf&eacute; &Uuml;ber &#228;&#xdf; na&shy;tion &unknown; x"),
            "caf\u{e9} \u{fc}ber \u{e4}\u{df} nation x"
        );
        assert_eq!(text("look <a class=x href=\"https://a.b.example.org/z?1\">here</a>"), "look example.org here");
        assert_eq!(text("<script>if (a<b) document.write('<p>')</script>end"), "end");
    }
}
