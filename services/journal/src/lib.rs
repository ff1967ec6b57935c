//! Durable, offset-addressed records on SQLite: what the embedded log and the edge's spool both are.
