//! Keeps every event and decision in Delta Lake tables.
