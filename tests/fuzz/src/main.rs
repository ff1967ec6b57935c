//! The targets under libFuzzer. Run it through `cargo xtask fuzz`, which builds it with coverage counters.
//!
//! `TIDEGATE_FUZZ_TARGET` says which target; without it the names of all are printed. The seeds are written into the
//! folder `TIDEGATE_FUZZ_SEEDS`, the words into the file `TIDEGATE_FUZZ_WORDS`; the arguments are libFuzzer's.
#![no_main]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of the tests, which speaks to xtask")]

use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::{TARGETS, Target, target};

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

/// Finds the target, and writes what libFuzzer is to begin with.
fn set_up() {
    let variable = |name: &str| std::env::var_os(name);
    let Some(name) = variable("TIDEGATE_FUZZ_TARGET") else {
        for target in TARGETS {
            println!("{} {}", target.name, target.max_octets);
        }
        std::process::exit(0);
    };
    let chosen = target(name.to_str().unwrap()).unwrap_or_else(|| panic!("no target is called {name:?}"));
    if let Some(folder) = variable("TIDEGATE_FUZZ_SEEDS").map(PathBuf::from) {
        for (number, seed) in (chosen.seeds)().into_iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number:04}")), seed).unwrap();
        }
    }
    if let Some(file) = variable("TIDEGATE_FUZZ_WORDS") {
        let mut text = String::new();
        for word in chosen.words {
            let octets: Vec<String> = word.bytes().map(|octet| format!("\\x{octet:02x}")).collect();
            text = text + "\"" + &octets.concat() + "\"\n";
        }
        std::fs::write(file, text).unwrap();
    }
    CHOSEN.get_or_init(|| chosen);
}

fuzz_target!(init: set_up(), |octets: &[u8]| {
    if let Some(chosen) = CHOSEN.get() {
        (chosen.run)(octets);
    }
});
