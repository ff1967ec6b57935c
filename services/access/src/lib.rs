//! Who may do what: certificates, tokens and JWTs to people and edges, with roles and domains.
//!
//! A credential names a [`Principal`]. A method says what it [`Need`]s. A person's [`Scope`] says about which domains'
//! accounts; who is limited to domains is told nothing of others, not even whether they exist. [`Access`] tells who
//! calls; its files of people, tokens and keys are watched.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod authority;
mod certificate;
mod config;
mod enrolment;
mod error;
mod failures;
mod forwarded;
mod jwks;
mod jwt;
mod metrics;
mod people;
mod principal;
mod provider;
mod refusal;
mod role;
mod scope;
mod token;
mod token_file;
mod token_text;
mod watched_file;

pub use access::Access;
pub use authority::{Authority, Issued, Signed};
pub use certificate::{CertificateName, CertificateNameError};
pub use config::{AccessConfig, EnrolmentConfig};
pub use enrolment::Enrolment;
pub use error::AccessError;
pub use failures::FailureBounds;
pub use forwarded::ForwardedPeer;
pub use jwt::{JwtAlgorithm, JwtConfig};
pub use principal::{Credential, Edge, Enrolling, Person, Principal};
pub use refusal::{JwtRefusal, Refusal};
pub use role::{Need, Role};
pub use scope::Scope;
pub use token::{SecretHash, Token};
pub use token_file::{Grant, NewEnrolment, NewToken, TokenFile, TokenRecord};
