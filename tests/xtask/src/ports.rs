//! Free TCP ports on the loopback address.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes a port between the moment it
/// was found free and the moment a server binds it.
const FIRST_PORT: u16 = 18_000;
const PORT_COUNT: u16 = 14_000;

/// A TCP port that is free on 127.0.0.1, and that this process has not given out before.
///
/// # Errors
/// When no port of the range is free.
pub fn free_port() -> Result<u16> {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let given = given.get_or_insert_default();
    let start = starting_point();
    (0..PORT_COUNT)
        .map(|step| FIRST_PORT + (start + step) % PORT_COUNT)
        .find(|&port| !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .inspect(|&port| {
            given.insert(port);
        })
        .ok_or_else(|| Error::new(format!("no free TCP port on 127.0.0.1 from {FIRST_PORT} on")))
}

/// Differs between processes and calls, so that test processes that run side by side rarely try the same port.
fn starting_point() -> u16 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.subsec_nanos());
    ((u64::from(nanos) / 1_000 + u64::from(std::process::id()) * 7_919) % u64::from(PORT_COUNT)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_gives_the_same_port_twice() {
        let ports: HashSet<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 50);
    }
}
