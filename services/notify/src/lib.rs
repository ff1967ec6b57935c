//! Tells people of decisions: mail and webhooks, at least once, with ids that stay the same.
