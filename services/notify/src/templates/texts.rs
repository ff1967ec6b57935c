//! Texts of each language, from the shipped files and from an operator's directory over them.

use super::Reader;
use crate::config::is_language;
use crate::view::View;
use crate::{Kind, values};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use tidegate_proto::v1;

const SHIPPED: [(&str, &str); 5] = [
    ("en", include_str!("../../templates/en.toml")),
    ("de", include_str!("../../templates/de.toml")),
    ("fr", include_str!("../../templates/fr.toml")),
    ("es", include_str!("../../templates/es.toml")),
    ("zh-Hans", include_str!("../../templates/zh-Hans.toml")),
];

const LAYOUTS: [(&str, &str); 2] = [
    ("layout.txt", include_str!("../../templates/layout.txt")),
    ("layout.html", include_str!("../../templates/layout.html")),
];

pub(super) const WEBHOOKS: [(&str, &str); 3] = [
    ("webhook/generic.json", include_str!("../../templates/webhook/generic.json")),
    ("webhook/slack.json", include_str!("../../templates/webhook/slack.json")),
    ("webhook/alertmanager.json", include_str!("../../templates/webhook/alertmanager.json")),
];

/// Largest file that is read from an operator's directory.
const MAX_FILE_BYTES: u64 = 1 << 20;

const USER_TEXTS: [&str; 5] = ["lock", "throttle", "notice", "unlock", "digest"];
const ADMINISTRATOR_TEXTS: [&str; 6] = ["lock", "throttle", "notice", "unlock", "exemption", "digest"];

/// One language.
#[derive(Debug, Clone, Default)]
pub(super) struct Language {
    pub name: String,
    pub date: String,
    pub automatic: String,
    pub texts: BTreeMap<(Reader, String), Text>,
    words: BTreeMap<String, String>,
}

/// One text: templates of its subject and its body.
#[derive(Debug, Clone, Default)]
pub(super) struct Text {
    pub subject: String,
    pub body: String,
}

/// What there is.
pub(super) struct Found {
    pub languages: BTreeMap<String, Language>,
    /// By file name.
    pub layouts: BTreeMap<String, String>,
}

/// A file of one language; what it leaves out is as it was.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    language: Option<String>,
    date: Option<String>,
    automatic: Option<String>,
    user: BTreeMap<String, TextFile>,
    administrator: BTreeMap<String, TextFile>,
    words: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TextFile {
    subject: Option<String>,
    body: Option<String>,
}

impl Language {
    pub fn word(&self, kind: Kind) -> &str {
        self.words.get(kind.as_str()).map_or(kind.as_str(), String::as_str)
    }

    pub fn view(&self, notification: &v1::Notification) -> View {
        View::new(notification, self.word(Kind::of(notification)), Some(&self.date))
    }

    /// Lays a file over it.
    fn take(&mut self, name: &str, text: &str, problems: &mut Vec<String>) {
        let file: File = match toml::from_str(text) {
            Ok(file) => file,
            Err(error) => {
                problems.push(format!("{name}: {error}"));
                return;
            }
        };
        let set = |field: &mut String, value: Option<String>| {
            if let Some(value) = value {
                *field = values::one_line(&value, 300);
            }
        };
        set(&mut self.name, file.language);
        set(&mut self.date, file.date);
        set(&mut self.automatic, file.automatic);
        let user = file.user.into_iter().map(|(text, file)| (Reader::User, &USER_TEXTS[..], text, file));
        let all = file
            .administrator
            .into_iter()
            .map(|(text, file)| (Reader::Administrator, &ADMINISTRATOR_TEXTS[..], text, file));
        for (reader, known, text, file) in user.chain(all) {
            if !known.contains(&text.as_str()) {
                let reader = reader.as_str();
                problems.push(format!("{name}: there is no text {reader}.{text}; there are {}", known.join(", ")));
                continue;
            }
            let over = self.texts.entry((reader, text)).or_default();
            over.subject = file.subject.unwrap_or_else(|| std::mem::take(&mut over.subject));
            over.body = file.body.unwrap_or_else(|| std::mem::take(&mut over.body));
        }
        for (word, value) in file.words {
            if word.parse::<Kind>().is_err() {
                problems.push(format!("{name}: there is no word {word}"));
            }
            self.words.insert(word, values::one_line(&value, 100));
        }
    }
}

/// The shipped files, and those of `directory` over them. A language that only the directory has is English where it
/// says nothing.
pub(super) fn read(directory: Option<&Path>, problems: &mut Vec<String>) -> Found {
    let mut languages = BTreeMap::new();
    for (tag, text) in SHIPPED {
        let mut language = Language::default();
        language.take(tag, text, problems);
        languages.insert(tag.to_owned(), language);
    }
    let mut layouts: BTreeMap<String, String> =
        LAYOUTS.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let Some(directory) = directory else { return Found { languages, layouts } };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            problems.push(format!("cannot read the directory {}: {error}", directory.display()));
            return Found { languages, layouts };
        }
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let tag = name.strip_suffix(".toml").filter(|tag| is_language(tag));
        if tag.is_none() && !layouts.contains_key(&name) {
            continue;
        }
        let too_large = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > MAX_FILE_BYTES);
        match std::fs::read_to_string(&path) {
            Ok(_) if too_large => problems.push(format!("{} is larger than {MAX_FILE_BYTES} octets", path.display())),
            Ok(text) => match tag {
                Some(tag) => {
                    let english = languages.get("en").cloned().unwrap_or_default();
                    languages.entry(tag.to_owned()).or_insert(english).take(&name, &text, problems);
                }
                None => drop(layouts.insert(name, text)),
            },
            Err(error) => problems.push(format!("cannot read {}: {error}", path.display())),
        }
    }
    Found { languages, layouts }
}
