//! Who is refused comes back later and later, up to a bound, and no two at the same moment. Seen at the connections that
//! edges make to control, for states and for events. (Pauses are promises: they may not be shorter. How much longer they
//! are on a busy machine is not asserted.)
// The times are figures to look at.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tidegate_tests::hijack::SITES;
use tidegate_tests::installation::{Edge, TIMEOUT};
use tidegate_tests::proxy::{Fault, Proxy};
use xtask::wait::wait_until;

/// First pauses of the edge, in milliseconds.
const FIRST_CONTROL_MS: u64 = 250;
const FIRST_PUBLISH_MS: u64 = 200;
/// The longest pause, as configured. Pauses that doubled without a bound would be half an hour at [`ATTEMPTS`].
const LONGEST_MS: u64 = 1_000;
const ATTEMPTS: usize = 12;

#[test]
fn attempts_come_later_and_later_and_apart() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = SocketAddr::from(([127, 0, 0, 1], xtask::ports::free_port().unwrap()));
    let refusing = || {
        let proxy = Proxy::start(nobody).unwrap();
        proxy.break_with(Fault::Refuse);
        proxy
    };
    let lines: Vec<(Proxy, Proxy)> = (0..SITES).map(|_| (refusing(), refusing())).collect();
    let edges: Vec<Edge> = lines
        .iter()
        .enumerate()
        .map(|(site, (control, events))| {
            let publish = format!(
                "publish = {{ max_backoff_ms = {LONGEST_MS}, grpc = {{ endpoint = \"http://{}\" }} }}",
                events.address()
            );
            Edge::start_patient(dir.path(), &format!("mx{site}"), control.address(), &publish, LONGEST_MS).unwrap()
        })
        .collect();
    edges.iter().for_each(submit);
    let proxies = || lines.iter().flat_map(|(control, events)| [control, events]);
    wait_until("many attempts of each", TIMEOUT, || proxies().all(|proxy| proxy.connections().len() >= ATTEMPTS))
        .unwrap();

    let mut all = BTreeSet::new();
    for (site, (control, events)) in lines.iter().enumerate() {
        for (name, proxy, first_ms) in [("control", control, FIRST_CONTROL_MS), ("events", events, FIRST_PUBLISH_MS)] {
            let gaps = gaps_ms(&proxy.connections()[..ATTEMPTS]);
            println!("mx{site}, {name}: {gaps:?} ms between attempts");
            for (attempt, gap) in gaps.iter().enumerate() {
                // Half of the whole pause is chance; a millisecond is for the clocks.
                let least = (first_ms << attempt).min(LONGEST_MS) / 2;
                assert!(
                    gap + 1 >= least,
                    "{name}, attempt {attempt}: {gap} ms after the last, must be {least} or more"
                );
            }
            // Half of each pause is chance: seven draws within a tenth of that would be one in a hundred thousand.
            let ends = gaps.iter().skip(4).max().zip(gaps.iter().skip(4).min());
            assert!(ends.is_some_and(|(most, least)| most - least >= LONGEST_MS / 20), "{name}: no chance in {gaps:?}");
            all.insert(gaps);
        }
    }
    assert_eq!(all.len(), 2 * SITES, "two edges come back at the same moments");
}

/// A message by the policy protocol, whose event is to be published.
fn submit(edge: &Edge) {
    let mut stream = TcpStream::connect(edge.policy_address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap()).lines();
    for (stage, more) in
        [("RCPT", "recipient=friend@elsewhere.test\n"), ("END-OF-MESSAGE", "recipient_count=1\nsize=900\n")]
    {
        write!(
            stream,
            "request=smtpd_access_policy\nprotocol_state={stage}\nprotocol_name=ESMTP\nsasl_method=PLAIN\n\
             sasl_username=amy@example.test\nsender=amy@example.test\nqueue_id=4X1Y2Z3\ninstance=1.2.3\n\
             client_address=192.0.2.1\n{more}\n"
        )
        .unwrap();
        assert_eq!(answers.next().unwrap().unwrap(), "action=DUNNO");
        assert_eq!(answers.next().unwrap().unwrap(), "");
    }
}

fn gaps_ms(attempts: &[Instant]) -> Vec<u64> {
    attempts.windows(2).map(|pair| pair[1].duration_since(pair[0])).map(millis).collect()
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}
