//! What is written: texts in each language, the layout around them, and forms of webhooks' bodies.
//!
//! A text is written once. It is rendered as plain text, and as HTML with all values escaped, where its paragraphs and
//! lists become elements.

mod markup;
mod texts;

use crate::config::{NotifyConfig, WebhookTemplate};
use crate::outbox::Delivery;
use crate::view::View;
use crate::{Kind, values};
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};
use std::collections::BTreeMap;
use texts::Language;
use tidegate_proto::v1;

/// Most notifications that one message names; the rest is counted.
const MAX_NAMED: usize = 200;

/// Texts, layout and forms, shipped or an operator's.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
    languages: BTreeMap<String, Language>,
    default_language: String,
    provider: String,
}

/// Why there are no templates.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// Files have problems.
    #[error("templates have problems:\n  {}", .0.join("\n  "))]
    Problems(Vec<String>),
}

/// Why a text could not be made.
#[derive(Debug, thiserror::Error)]
#[error("rendering {name}")]
pub struct RenderError {
    name: String,
    #[source]
    source: minijinja::Error,
}

/// For whom a text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reader {
    /// The person whose account it is.
    User,
    /// Somebody who administers it.
    Administrator,
}

/// A mail's texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The subject, on one line.
    pub subject: String,
    /// The plain text.
    pub text: String,
    /// The HTML.
    pub html: String,
    /// The language it is written in, as a tag.
    pub language: String,
}

impl Reader {
    /// Whom an audience's mails are written for.
    pub fn of(audience: v1::Audience) -> Self {
        if audience == v1::Audience::User { Self::User } else { Self::Administrator }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Administrator => "administrator",
        }
    }
}

impl Templates {
    /// Takes the shipped ones, and over them those of the configured directory.
    ///
    /// # Errors
    /// When a file of the directory cannot be read or has problems: all of them are told.
    pub fn load(config: &NotifyConfig) -> Result<Self, TemplateError> {
        let mut problems = Vec::new();
        let texts::Found { languages, layouts } = texts::read(config.templates.as_deref(), &mut problems);
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.add_filter("slack", slack_escaped);
        environment.add_filter("shell", shell_quoted);
        environment.set_auto_escape_callback(|name| match name.rsplit('.').next() {
            Some("html") => AutoEscape::Html,
            Some("json") => AutoEscape::Json,
            _ => AutoEscape::None,
        });
        let mut sources: Vec<(String, String)> = layouts.into_iter().collect();
        let mut add = |name: String, source: String| sources.push((name, source));
        for (tag, language) in &languages {
            for ((reader, text), source) in &language.texts {
                let name = format!("{tag}/{}.{text}", reader.as_str());
                add(format!("{name}.subject"), source.subject.clone());
                add(format!("{name}.txt"), source.body.clone());
                add(format!("{name}.html"), source.body.clone());
            }
        }
        for (name, source) in texts::WEBHOOKS {
            add((*name).to_owned(), (*source).to_owned());
        }
        for webhook in &config.webhook {
            if let WebhookTemplate::File(path) = &webhook.template {
                match std::fs::read_to_string(path) {
                    Ok(source) => add(webhook_name(&webhook.template), source),
                    Err(error) => problems.push(format!("cannot read {}: {error}", path.display())),
                }
            }
        }
        for (name, source) in sources {
            if let Err(error) = environment.add_template_owned(name.clone(), source) {
                problems.push(told(&name, &error));
            }
        }
        let known = |tag: &String| languages.contains_key(tag);
        let configured = config.domains.values().filter_map(|domain| domain.language.as_ref());
        for tag in configured.chain([&config.language]).filter(|tag| !known(tag)) {
            let all = languages.keys().cloned().collect::<Vec<_>>().join(", ");
            problems.push(format!("there is no language {tag:?}; there are {all}"));
        }
        let default_language = config.language.clone();
        let templates =
            Self { environment, languages, default_language, provider: values::one_line(&config.provider, 200) };
        if problems.is_empty() {
            templates.try_all(config, &mut problems);
        }
        if problems.is_empty() { Ok(templates) } else { Err(TemplateError::Problems(problems)) }
    }

    /// The languages, by tag, with their own names.
    pub fn languages(&self) -> impl Iterator<Item = (&str, &str)> {
        self.languages.iter().map(|(tag, language)| (tag.as_str(), language.name.as_str()))
    }

    /// A mail about these notifications in this language, or in the default one when there is none.
    ///
    /// # Errors
    /// When a template cannot be rendered.
    pub fn mail(
        &self,
        notifications: &[v1::Notification],
        reader: Reader,
        language: Option<&str>,
        contact: &str,
    ) -> Result<Written, RenderError> {
        let tag = language.filter(|tag| self.languages.contains_key(*tag)).unwrap_or(&self.default_language);
        // The default one was there when it was loaded.
        let words = self.languages.get(tag).cloned().unwrap_or_default();
        let views: Vec<View> = notifications.iter().map(|one| words.view(one)).collect();
        let contact = values::one_line(contact, 300);
        let (name, context) = match views.as_slice() {
            [one] => (one.kind, single(one, &contact)),
            many => ("digest", digest(many, &contact)),
        };
        let name = format!("{tag}/{}.{name}", reader.as_str());
        let subject = values::one_line(&self.render(&format!("{name}.subject"), context.clone())?, 300);
        let text = markup::tidy(&self.render(&format!("{name}.txt"), context.clone())?);
        let html = markup::to_html(&self.render(&format!("{name}.html"), context)?);
        let around = |content: Value| {
            let (provider, automatic) = (&self.provider, &words.automatic);
            context! { language => tag, subject => &subject, provider, automatic, content }
        };
        let text = self.render("layout.txt", around(Value::from(text)))?;
        let html = self.render("layout.html", around(Value::from_safe_string(html)))?;
        Ok(Written { subject, text: text + "\n", html: html + "\n", language: tag.to_owned() })
    }

    /// A webhook's body about these notifications.
    ///
    /// # Errors
    /// When the template cannot be rendered.
    pub fn body(&self, delivery: &Delivery, template: &WebhookTemplate) -> Result<String, RenderError> {
        let words = self.languages.get(&self.default_language).cloned().unwrap_or_default();
        let views: Vec<View> =
            delivery.notifications.iter().map(|one| View::new(one, words.word(Kind::of(one)), None)).collect();
        let summary = match views.as_slice() {
            [one] => format!("{}: {}", one.account, one.what),
            many => summary(many),
        };
        let context = context! {
            id => &delivery.id,
            channel => &delivery.channel,
            attempt => delivery.attempt,
            summary,
            notifications => Value::from(Serde(&views)),
        };
        self.render(&webhook_name(template), context)
    }

    fn render(&self, name: &str, context: Value) -> Result<String, RenderError> {
        let doing = |source| RenderError { name: name.to_owned(), source };
        self.environment.get_template(name).map_err(doing)?.render(context).map_err(doing)
    }

    /// Renders everything once, so that a mistake is told at the start and not in the night of a lock.
    fn try_all(&self, config: &NotifyConfig, problems: &mut Vec<String>) {
        use crate::preview::sample;
        let mut tell = |result: Result<(), RenderError>| {
            if let Err(error) = result {
                problems.push(told(&error.name, &error.source));
            }
        };
        for tag in self.languages.keys() {
            for reader in [Reader::User, Reader::Administrator] {
                for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Exemption || reader != Reader::User) {
                    let one = sample(kind, "jo@example.org", 0);
                    tell(self.mail(std::slice::from_ref(&one), reader, Some(tag), "x").map(drop));
                    tell(self.mail(&[one.clone(), one], reader, Some(tag), "x").map(drop));
                }
            }
        }
        for webhook in &config.webhook {
            let notifications: Vec<_> = Kind::ALL.iter().map(|kind| sample(*kind, "jo@example.org", 0)).collect();
            let delivery = Delivery {
                id: "x".into(),
                channel: webhook.name.clone(),
                recipient: "x".into(),
                attempt: 1,
                notifications,
            };
            match self.body(&delivery, &webhook.template) {
                Ok(body) => {
                    if let Err(error) = serde_json::from_str::<serde_json::Value>(&body) {
                        problems.push(format!("{} makes no JSON: {error}", webhook_name(&webhook.template)));
                    }
                }
                Err(error) => problems.push(told(&error.name, &error.source)),
            }
        }
    }
}

/// Where nothing is known a text has an empty value, which prints nothing.
fn single(view: &View, contact: &str) -> Value {
    // A structure of texts and numbers is always an object.
    let mut fields = match serde_json::to_value(view) {
        Ok(serde_json::Value::Object(fields)) => fields,
        Ok(_) | Err(_) => serde_json::Map::new(),
    };
    for value in fields.values_mut().filter(|value| value.is_null()) {
        *value = "".into();
    }
    fields.insert("rules".to_owned(), view.rules.join(", ").into());
    fields.insert("contact".to_owned(), contact.into());
    Value::from(Serde(fields))
}

fn digest(views: &[View], contact: &str) -> Value {
    let named = &views[..views.len().min(MAX_NAMED)];
    let items: Vec<Value> = named.iter().map(|view| single(view, contact)).collect();
    context! {
        count => views.len(),
        locks => views.iter().filter(|view| view.kind == Kind::Lock.as_str()).count(),
        what => views.first().map_or("", |view| view.what.as_str()),
        items,
        more => views.len() - named.len(),
        contact,
    }
}

/// How many of each.
fn summary(views: &[View]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for view in views {
        *counts.entry(&view.what).or_default() += 1;
    }
    counts.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

fn webhook_name(template: &WebhookTemplate) -> String {
    match template {
        WebhookTemplate::File(path) => path.to_string_lossy().into_owned(),
        shipped => format!("webhook/{}.json", String::from(shipped.clone())),
    }
}

/// Slack's own escaping: with it nothing can be a link, a mention or a call to the channel.
fn slack_escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// An argument that a shell takes as it is: commands in mails are there to be copied, and a thief may have chosen the name.
fn shell_quoted(text: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "@._+:-".contains(character);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

fn told(name: &str, error: &minijinja::Error) -> String {
    let line = error.line().map(|line| format!(" line {line}")).unwrap_or_default();
    format!("{name}{line}: {}", error.detail().map_or_else(|| error.kind().to_string(), ToOwned::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_an_account_for_one_word() {
        assert_eq!(shell_quoted("jo+x@example.org"), "jo+x@example.org");
        assert_eq!(shell_quoted("a;$(reboot)'@x.test"), "'a;$(reboot)'\\''@x.test'");
        assert_eq!(shell_quoted("--json"), "'--json'");
    }

    #[test]
    fn slack_sees_no_mention_and_no_link() {
        assert_eq!(slack_escaped("<!channel> & <http://x|y>"), "&lt;!channel&gt; &amp; &lt;http://x|y&gt;");
    }

    #[test]
    fn all_languages_have_all_texts_and_words() {
        let templates = Templates::load(&NotifyConfig::default()).unwrap();
        let english: Vec<_> = templates.languages["en"].texts.keys().collect();
        assert_eq!(english.len(), 11);
        for (tag, language) in &templates.languages {
            assert_eq!(language.texts.keys().collect::<Vec<_>>(), english, "{tag}");
            for kind in Kind::ALL {
                assert!(tag == "en" || language.word(kind) != templates.languages["en"].word(kind), "{tag} {kind:?}");
            }
            for (name, text) in &language.texts {
                let of_user = name.0 == Reader::User;
                assert!(!of_user || !text.body.contains("reason"), "{tag} {name:?}: reasons are for administrators");
                assert!(text.body.contains("account"), "{tag} {name:?}");
            }
        }
    }
}
