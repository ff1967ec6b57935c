//! `fuzz`: libFuzzer over the targets of `tidegate-fuzz`.
//!
//! Only our own crates get coverage counters: cargo calls this program as their compiler (`RUSTC_WORKSPACE_WRAPPER`),
//! so that all dependencies are those of every other build. The counters are a pass of LLVM that the stable compiler
//! has too.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use xtask::error::{Context, Error, Result};
use xtask::paths::target_dir;
use xtask::progress::Progress;
use xtask::setup::{self, Purpose};

use crate::pipeline::{cargo, failure};

/// Set where this program is called as a compiler.
const COMPILER: &str = "TIDEGATE_FUZZ_COMPILER";

/// What makes the compiler put counters in, as libFuzzer wants them.
const COUNTERS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// An input may take so long, in seconds.
const INPUT_TIMEOUT_S: u32 = 20;
/// The whole process may take so much memory: what grows with its inputs is found out.
const MAX_MEMORY_MIB: u32 = 2_048;

/// When cargo calls this program as the compiler of one of our crates: compiles it, with counters.
pub fn compile_with_counters() -> Option<ExitCode> {
    std::env::var_os(COMPILER)?;
    let mut arguments = std::env::args_os().skip(1);
    let mut compiler = Command::new(arguments.next()?);
    let arguments: Vec<_> = arguments.collect();
    // A build script runs without libFuzzer.
    let is_built_script = arguments.windows(2).any(|pair| pair[0] == "--crate-name" && pair[1] == "build_script_build");
    let has_name = arguments.iter().any(|argument| argument == "--crate-name");
    compiler.args(&arguments);
    if has_name && !is_built_script {
        compiler.args(COUNTERS);
    }
    let error = compiler.exec();
    eprintln!("cargo xtask fuzz: cannot start the compiler: {error}");
    Some(ExitCode::FAILURE)
}

/// Builds the targets and gives each of `targets` (all, when none is named) so many inputs.
pub fn run(inputs: u64, seed: u64, targets: &[String], progress: &Progress) -> Result<ExitCode> {
    setup::install_missing(Purpose::Test, progress)?;
    progress.step("building the targets with coverage counters");
    let mut build = cargo(&["build", "-p", "tidegate", "-p", "tidegate-edge", "-p", "tidegate-fuzz"]);
    build.args(["--features", "tidegate-fuzz/coverage", "--bin", "tidegate-fuzz"]);
    let this = std::env::current_exe().context(|| "finding this program".to_owned())?;
    build.env("RUSTC_WORKSPACE_WRAPPER", this).env(COMPILER, "1");
    if let Some(failed) = failure(&mut build)? {
        return Ok(failed);
    }
    // The next build takes this one's place: what runs is a copy, and each run has its own.
    let folder = target_dir().join("fuzz");
    make_folder(&folder)?;
    let program = folder.join(format!("tidegate-fuzz-{}", std::process::id()));
    let built = target_dir().join("debug/tidegate-fuzz");
    fs::copy(&built, &program).context(|| format!("copying {}", built.display()))?;
    let result = run_targets(&program, &folder, inputs, seed, targets, progress);
    fs::remove_file(&program).context(|| format!("removing {}", program.display()))?;
    result
}

fn run_targets(
    program: &Path,
    folder: &Path,
    inputs: u64,
    seed: u64,
    targets: &[String],
    progress: &Progress,
) -> Result<ExitCode> {
    let all = list(program)?;
    if let Some(unknown) = targets.iter().find(|name| !all.iter().any(|(known, _)| known == *name)) {
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Error::new(format!("no target is called {unknown}: {}", names.join(", "))));
    }
    let mut broken = Vec::new();
    for (name, max_octets) in all.iter().filter(|(name, _)| targets.is_empty() || targets.contains(name)) {
        progress.step(&format!("{name}: {inputs} inputs, seed {seed}"));
        let (sound, line) = fuzz(program, &folder.join(name), name, max_octets, inputs, seed)?;
        progress.step(&format!("{name}: {line}"));
        if !sound {
            broken.push(name.as_str());
        }
    }
    if broken.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Error::new(format!("broken: {}; the inputs are below {}", broken.join(", "), folder.display())))
}

/// The targets, with the length of their longest input.
fn list(program: &Path) -> Result<Vec<(String, String)>> {
    let output = Command::new(program).output().context(|| format!("running {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let pair = |line: &str| line.split_once(' ').map(|(name, octets)| (name.to_owned(), octets.to_owned()));
    Ok(text.lines().filter_map(pair).collect())
}

/// Runs one target. What it finds on its way stays in `folder` for the next run; gives whether nothing broke, and the
/// numbers in libFuzzer's words.
fn fuzz(program: &Path, folder: &Path, name: &str, max_octets: &str, inputs: u64, seed: u64) -> Result<(bool, String)> {
    let [found, seeds, broken] = ["found", "seeds", "broken"].map(|part| folder.join(part));
    for folder in [&found, &seeds, &broken] {
        make_folder(folder)?;
    }
    let words = folder.join("words");
    let mut command = Command::new(program);
    command
        .arg(format!("-runs={inputs}"))
        .arg(format!("-seed={seed}"))
        .arg(format!("-max_len={max_octets}"))
        .arg(format!("-timeout={INPUT_TIMEOUT_S}"))
        .arg(format!("-rss_limit_mb={MAX_MEMORY_MIB}"))
        .arg(format!("-artifact_prefix={}/", broken.display()))
        .arg(format!("-dict={}", words.display()))
        .arg("-print_final_stats=1")
        .arg("-verbosity=1")
        .args([&found, &seeds])
        .env("TIDEGATE_FUZZ_TARGET", name)
        .env("TIDEGATE_FUZZ_SEEDS", &seeds)
        .env("TIDEGATE_FUZZ_WORDS", &words)
        .stderr(Stdio::piped());
    let mut child = command.spawn().context(|| format!("running {}", program.display()))?;
    let log_file = folder.join("log");
    let (mut last, mut log) = (String::new(), String::new());
    if let Some(output) = child.stderr.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context(|| format!("reading what {name} says"))?;
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
                // `#1000000 DONE cov: 1803 ft: 6531 corp: 711/212Kb exec/s: 12345 rss: 120Mb`, every so often.
                line.clone_into(&mut last);
            } else {
                log = log + &line + "\n";
            }
            if line.starts_with("Done ") {
                last = format!("{line}; {last}");
            }
        }
    }
    let status = child.wait().context(|| format!("waiting for {name}"))?;
    fs::write(&log_file, &log).context(|| format!("writing {}", log_file.display()))?;
    if !status.success() {
        eprintln!("{}", log.lines().filter(|line| !line.is_empty()).take(40).collect::<Vec<_>>().join("\n"));
    }
    Ok((status.success(), last))
}

fn make_folder(folder: &PathBuf) -> Result<()> {
    fs::create_dir_all(folder).context(|| format!("making {}", folder.display()))
}
