//! The channels: from a message that is due to how its attempt ended.

use crate::config::{MAIL_CHANNEL, NotifyConfig, WebhookTemplate};
use crate::mail::{addressed, compose};
use crate::outbox::{ChannelLimits, Delivery, Limits, Outcome};
use crate::smtp::{Smtp, chain};
use crate::{Templates, Webhook};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All channels of a configuration. A clone shares them.
#[derive(Clone)]
pub(crate) struct Channels {
    config: Arc<NotifyConfig>,
    templates: Arc<Templates>,
    smtp: Option<Smtp>,
    webhooks: Arc<BTreeMap<String, (WebhookTemplate, Webhook)>>,
}

impl Channels {
    pub fn new(config: Arc<NotifyConfig>, templates: Arc<Templates>) -> Result<Self, reqwest::Error> {
        let mut webhooks = BTreeMap::new();
        for webhook in &config.webhook {
            webhooks.insert(webhook.name.clone(), (webhook.template.clone(), Webhook::new(webhook.clone())?));
        }
        let smtp = config.smtp.clone().map(Smtp::new);
        Ok(Self { config, templates, smtp, webhooks: Arc::new(webhooks) })
    }

    /// Sends one message; `language` is the one that the user's contact has.
    pub async fn send(&self, delivery: &Delivery, language: Option<String>) -> Outcome {
        if let Some((template, webhook)) = self.webhooks.get(&delivery.channel) {
            return match self.templates.body(delivery, template) {
                Ok(body) => webhook.send(delivery, body).await,
                Err(error) => Outcome::Refused(chain(&error)),
            };
        }
        let (MAIL_CHANNEL, Some(smtp), Some(config)) = (delivery.channel.as_str(), &self.smtp, &self.config.smtp)
        else {
            return Outcome::Refused(format!("no channel {:?} is configured", delivery.channel));
        };
        let (language, contact) = addressed(&self.config, delivery, language.as_deref());
        match compose(delivery, language.as_deref(), &contact, config, &self.templates) {
            Ok(mail) => smtp.send(&mail).await,
            Err(error) => Outcome::Refused(chain(&error)),
        }
    }
}

/// The bounds of all channels.
pub(crate) fn limits(config: &NotifyConfig) -> Limits {
    let milliseconds = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut channels = BTreeMap::new();
    if let Some(smtp) = &config.smtp {
        let limits = ChannelLimits {
            concurrency: smtp.concurrency,
            window_ms: milliseconds(config.group_window_ms),
            max_per_hour: config.max_per_recipient_hour as usize,
        };
        channels.insert(MAIL_CHANNEL.to_owned(), limits);
    }
    for webhook in &config.webhook {
        let limits = ChannelLimits {
            concurrency: webhook.concurrency,
            window_ms: milliseconds(webhook.group_window_ms),
            max_per_hour: webhook.max_per_hour as usize,
        };
        channels.insert(webhook.name.clone(), limits);
    }
    Limits {
        max_age_ms: config.max_age_ms(),
        max_attempts: config.max_attempts,
        retry_first_ms: config.retry_first_ms,
        retry_longest_ms: config.retry_longest_ms,
        max_per_account_hour: config.max_per_account_hour as usize,
        channels,
    }
}
