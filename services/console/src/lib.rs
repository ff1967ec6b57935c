//! The web console: pages over the admin API, with the same roles.
