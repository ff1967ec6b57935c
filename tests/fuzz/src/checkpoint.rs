//! Checkpoints: manifests, segments, and the accounts in them.

use std::sync::LazyLock;

use tidegate_detect::{
    AggregateState, DEFAULT_STATISTICS, Engine, EngineLimits, EventBatchBuilder, Rules, Statistics, Taken,
};
use tidegate_domain::{Account, Recipients, Submission};
use tidegate_stream::checkpoint::{
    Covered, EventPlace, FORMAT, LaneMark, Manifest, SegmentReader, SegmentRef, SegmentWriter,
};
use twox_hash::XxHash64;

use crate::input::{Input, outcome, seed};
use crate::{Outcome, Target};

/// A manifest; after a first octet that is odd, one whose checksum is right whatever it says.
pub const MANIFEST: Target = Target {
    name: "manifest",
    run: run_manifest,
    seeds: manifest_seeds,
    words: &[
        "tidegate-checkpoint ",
        "\"format\": 1",
        "\"segments\": [",
        "\"covered\": {",
        "null",
        "-1",
        "18446744073709551615",
    ],
    max_octets: 2_048,
    test_inputs: 20_000,
};

/// A segment; after a first octet that is odd, one whose checksum is right whatever it says.
pub const SEGMENT: Target = Target {
    name: "segment",
    run: run_segment,
    seeds: segment_seeds,
    words: &["TGSEGM01", "{\"layout\":[", "\"aggregate\":", "\"state\":\"int\"", "\u{28}\u{b5}/\u{fd}", "\0\0\0\0"],
    max_octets: 2_048,
    test_inputs: 10_000,
};

/// Accounts as an engine writes them, read by an engine of the same statistics or of others.
pub const WINDOWS: Target = Target {
    name: "windows",
    run: run_windows,
    seeds: windows_seeds,
    words: &["a1@example.org", "a2@example.org", "\u{1}\u{2}", "\0"],
    max_octets: 1_024,
    test_inputs: 2_000,
};

const NOW_MS: i64 = 1_750_000_000_000;
const OTHERS: &str =
    "messages = count(*) FILTER (WHERE message); largest = max(size); people = distinct(recipient_hashes);";

static SHIPPED: LazyLock<Statistics> = LazyLock::new(|| Statistics::parse("shipped", DEFAULT_STATISTICS).unwrap());
static OTHER: LazyLock<Statistics> = LazyLock::new(|| Statistics::parse("others", OTHERS).unwrap());

fn run_manifest(octets: &[u8]) -> Outcome {
    let mut input = Input::new(octets);
    let is_summed = input.byte() & 1 == 1;
    let body = input.rest();
    let file = if is_summed {
        [format!("tidegate-checkpoint {:016x}\n", XxHash64::oneshot(0, body)).as_bytes(), body].concat()
    } else {
        body.to_vec()
    };
    match Manifest::parse(&file) {
        Ok(manifest) => {
            assert!(manifest.format <= FORMAT);
            let again = manifest.to_octets().unwrap();
            assert_eq!(Manifest::parse(&again).unwrap(), manifest, "what is written is not what was read");
            outcome((manifest.segments.len(), manifest.covered.lanes.len(), manifest.format))
        }
        Err(error) => outcome(error.to_string().len()),
    }
}

fn manifest_seeds() -> Vec<Vec<u8>> {
    let manifest = Manifest {
        format: FORMAT,
        program: "tidegate 0.1.0".into(),
        partition: 1,
        partitions: 4,
        epoch: 2,
        writer: "00ff".into(),
        sequence: 3,
        written_ms: NOW_MS,
        statistics: "abc".into(),
        covered: Covered {
            events_next: 9,
            last_event: Some(EventPlace { offset: 8, time_ms: NOW_MS }),
            ticked_ms: NOW_MS,
            lanes: vec![LaneMark { node: "mx1".into(), spooled: false, sequence: 7 }],
        },
        segments: vec![SegmentRef { name: "s-1-1.tgs".into(), octets: 1, raw_octets: 2, checksum: "0".into() }],
    };
    let whole = manifest.to_octets().unwrap();
    let body = whole.iter().position(|octet| *octet == b'\n').unwrap() + 1;
    vec![seed(&[0], &whole), seed(&[1], &whole[body..]), seed(&[1], b"{\"format\": 2}")]
}

fn run_segment(octets: &[u8]) -> Outcome {
    let mut input = Input::new(octets);
    let is_summed = input.byte() & 1 == 1;
    let mut file = input.rest().to_vec();
    if is_summed {
        file.extend_from_slice(&XxHash64::oneshot(0, &file).to_le_bytes());
    }
    let mut reader = match SegmentReader::open(&file) {
        Ok(reader) => reader,
        Err(error) => return outcome(error.to_string().len()),
    };
    let (mut blocks, mut raw) = (0, 0);
    loop {
        match reader.next_block() {
            Ok(Some(block)) => {
                blocks += 1;
                raw += block.len();
            }
            Ok(None) => return outcome((blocks, raw, reader.layout().len())),
            Err(error) => return outcome((blocks, error.to_string().len())),
        }
    }
}

fn segment_seeds() -> Vec<Vec<u8>> {
    let mut writer = SegmentWriter::new(&[AggregateState { name: "count(*)".into(), state: "int".into() }]);
    writer.add(&[7; 300]).unwrap();
    writer.add(b"abc").unwrap();
    let octets = writer.finish().octets;
    vec![seed(&[0], &octets), seed(&[1], &octets[..octets.len() - 8])]
}

fn engine_of(statistics: &Statistics) -> Engine {
    let rules = Rules::parse("rules.toml", "", statistics).unwrap();
    Engine::new(statistics.clone(), rules, EngineLimits::default()).unwrap()
}

fn sending(statistics: &Statistics, messages: u64) -> Engine {
    let mut engine = engine_of(statistics);
    send(&mut engine, messages);
    engine
}

fn send(engine: &mut Engine, messages: u64) {
    let mut builder = EventBatchBuilder::new();
    for number in 0..2 * messages {
        let account = Account::parse(&format!("a{}@example.org", 1 + number % 2)).unwrap();
        let recipients = Recipients { count: 1, internal: 0, domains: Vec::new(), hashes: vec![number] };
        let submission =
            Submission { size: 1_000 + number, fingerprint: number + 1, recipients, ..Submission::default() };
        builder.push(&account, number, NOW_MS - number.cast_signed() * 40_000, &submission, true);
    }
    engine.process(&builder.finish().unwrap()).unwrap();
}

fn written(engine: &mut Engine) -> Vec<u8> {
    engine.begin_changes(true);
    let mut octets = Vec::new();
    assert_eq!(engine.take_changes(usize::MAX, &mut octets), Taken::Last);
    octets
}

fn run_windows(octets: &[u8]) -> Outcome {
    let mut input = Input::new(octets);
    let statistics = if input.byte() & 1 == 1 { &*OTHER } else { &*SHIPPED };
    let mut engine = engine_of(statistics);
    let loaded = match engine.load(&OTHER.layout(), input.rest()) {
        Ok(loaded) => loaded,
        Err(error) => return outcome(error.to_string().len()),
    };
    // What was read can be written and read again, and worked with.
    let accounts = engine.stats().accounts;
    let again = written(&mut engine);
    let mut second = engine_of(statistics);
    second.load(&statistics.layout(), &again).unwrap();
    assert_eq!(second.stats().accounts, accounts);
    send(&mut engine, 3);
    engine.expire(NOW_MS);
    for name in ["a1@example.org", "a2@example.org"] {
        engine.columns(&Account::parse(name).unwrap(), NOW_MS).unwrap();
    }
    outcome((accounts, loaded.accounts, engine.stats().panes))
}

fn windows_seeds() -> Vec<Vec<u8>> {
    [1, 5, 80].map(|messages| seed(&[1], &written(&mut sending(&OTHER, messages)))).to_vec()
}
