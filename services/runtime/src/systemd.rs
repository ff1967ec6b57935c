//! What systemd is told of a service of `Type=notify` (`sd_notify(3)`); elsewhere nobody is told anything.

use sd_notify::NotifyState;

/// The service listens: `systemctl start` returns, and units that come after this one are started.
pub fn tell_ready() {
    tell(NotifyState::Ready);
}

/// The service has begun to end.
pub(crate) fn tell_stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be told how the service is");
    }
}
