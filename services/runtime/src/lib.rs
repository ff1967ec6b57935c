//! What every service process shares: configuration loading, telemetry, health, shutdown, TLS.
