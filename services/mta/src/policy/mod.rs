//! Postfix policy delegation (`check_policy_service`, Postfix's SMTPD_POLICY_README): requests of `name=value` lines
//! that end in an empty line, each answered by `action=...` and an empty line. Exim speaks it through `readsocket`.
//!
//! One message takes several requests, often over several connections. A [`PolicyJoiner`], shared by all sessions of
//! an edge, joins them to one submission.

mod joiner;
mod request;
mod session;

pub use joiner::{PolicyJoiner, PolicyJoinerConfig, PolicyJoinerStats, SubmissionAt};
pub use request::{PolicyRequest, PolicyState};
pub use session::PolicySession;
