//! The SQL of statistics and predicates: tokens with their places, what is allowed, and planning by DataFusion.

pub(crate) mod check;
pub(crate) mod finite;
pub(crate) mod plan;
pub(crate) mod text;
