//! `demo`, `test` and `lint`: install, build, run.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::thread;

use xtask::deb::{self, Compression};
use xtask::error::{Context, Error, Result};
use xtask::kafka::KafkaRig;
use xtask::paths::{find_program, target_dir, workspace_root};
use xtask::progress::Progress;
use xtask::setup::{self, Purpose};
use xtask::tools;

/// The two programs, built with the features that the tests' build has too, so that both share all their products.
const BUILD_BINARIES: [&str; 5] = ["build", "-p", "tidegate", "-p", "tidegate-edge"];

/// Programs and tests in one build: two could choose other features for a dependency, and build it twice.
const BUILD_ALL: [&str; 4] = ["build", "--workspace", "--bins", "--tests"];

/// Builds the two programs, and becomes `tidegate demo`.
pub fn demo(arguments: Vec<String>, progress: &Progress) -> Result<ExitCode> {
    setup::install_missing(Purpose::Demo, progress)?;
    progress.step("building tidegate and tidegate-edge (some minutes the first time)");
    if let Some(failed) = failure(&mut cargo(&BUILD_BINARIES))? {
        return Ok(failed);
    }
    progress.step("running tidegate demo");
    let program = target_dir().join("debug/tidegate");
    let error = Command::new(&program).arg("demo").args(arguments).exec();
    Err(error).context(|| format!("starting {}", program.display()))
}

/// Builds for speed and measures, with a Kafka of its own beside the embedded log.
pub fn bench(arguments: Vec<String>, progress: &Progress) -> Result<ExitCode> {
    setup::install_missing(Purpose::Bench, progress)?;
    setup::fetch_parts(Purpose::Bench)?;
    progress.step("building for release (a quarter of an hour the first time)");
    if let Some(failed) = failure(&mut cargo(&["build", "--release", "-p", "tidegate", "-p", "tidegate-edge"]))? {
        return Ok(failed);
    }
    let home = target_dir().join("tmp/bench-kafka");
    if home.exists() {
        std::fs::remove_dir_all(&home).context(|| format!("emptying {}", home.display()))?;
    }
    progress.step("starting Kafka");
    let kafka = KafkaRig::start(&home)?;
    progress.step("running tidegate bench; close other programs meanwhile");
    let program = target_dir().join("release/tidegate");
    let mut bench = Command::new(&program);
    bench.arg("bench").args(["--kafka", &kafka.bootstrap()]).args(arguments);
    let ended = bench.status().context(|| format!("starting {}", program.display()))?;
    drop(kafka);
    Ok(ended.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Checks the format, builds, fetches the real parts meanwhile, and runs all tests. Ends as `cargo test` does.
pub fn test(arguments: Vec<String>, progress: &Progress) -> Result<ExitCode> {
    setup::install_missing(Purpose::Test, progress)?;
    if let Some(failed) = check_format(progress)? {
        return Ok(failed);
    }
    let parts = thread::spawn(|| setup::fetch_parts(Purpose::Test));
    progress.step("building (some minutes the first time)");
    let is_selection = |argument: &String| argument.starts_with("-p") || argument.starts_with("--package");
    let (build, test) = if arguments.iter().any(is_selection) {
        (&BUILD_BINARIES[..], &["test", "--no-fail-fast"][..])
    } else {
        (&BUILD_ALL[..], &["test", "--no-fail-fast", "--workspace"][..])
    };
    if let Some(failed) = failure(&mut cargo(build))? {
        return Ok(failed);
    }
    progress.step("fetching Kafka and grpcurl, unless they are here");
    parts.join().map_err(|_| Error::new("fetching the real parts panicked"))??;
    progress.step("running the tests");
    let failed = failure(cargo(test).args(arguments).env("TIDEGATE_PROGRAMS", target_dir().join("debug")))?;
    Ok(failed.unwrap_or(ExitCode::SUCCESS))
}

/// Builds for release, and makes Debian packages of both programs in `out`, or in the target folder.
pub fn deb(out: Option<PathBuf>, progress: &Progress) -> Result<ExitCode> {
    setup::install_missing(Purpose::Deb, progress)?;
    progress.step("building for release (a quarter of an hour the first time)");
    if let Some(failed) = failure(&mut cargo(&["build", "--release", "-p", "tidegate", "-p", "tidegate-edge"]))? {
        return Ok(failed);
    }
    let out = out.unwrap_or_else(|| target_dir().join("debian"));
    for package in [deb::EDGE, deb::SERVER] {
        let program = target_dir().join("release").join(package.name);
        let file = deb::build(&package, &program, &out, Compression::Xz)?;
        progress.step(&format!("made {}", file.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// How long and how hard the chaos tests are run.
#[derive(Debug, Clone, Copy)]
pub struct Chaos {
    /// How long at least on each kind of log, in minutes.
    pub minutes: u64,
    /// How often each kind of process is killed at least.
    pub kills: u64,
    /// Whether the network between the services fails, too.
    pub network: bool,
    /// Repeats a run's random moments.
    pub seed: Option<u64>,
}

/// Runs the chaos tests and shows what they say.
pub fn chaos(chaos: Chaos, progress: &Progress) -> Result<ExitCode> {
    build_for_tests(progress)?;
    let Chaos { minutes, kills, network, seed } = chaos;
    progress.step(&format!(
        "killing each kind of process {kills} times, for {minutes} min or more, on the embedded log, then on Kafka"
    ));
    let mut test = long_test("chaos");
    test.env("TIDEGATE_CHAOS_MINUTES", minutes.to_string()).env("TIDEGATE_CHAOS_KILLS", kills.to_string());
    if network {
        test.env("TIDEGATE_CHAOS_NETWORK", "1");
    }
    if let Some(seed) = seed {
        test.env("TIDEGATE_CHAOS_SEED", seed.to_string());
    }
    Ok(failure(&mut test)?.unwrap_or(ExitCode::SUCCESS))
}

/// Runs the outage test with Kafka and control away for so long, and shows what it says.
pub fn outage(seconds: u64, progress: &Progress) -> Result<ExitCode> {
    build_for_tests(progress)?;
    progress.step(&format!("Kafka and control will be away for {seconds} s under traffic"));
    let mut test = long_test("outage");
    test.env("TIDEGATE_OUTAGE_SECONDS", seconds.to_string());
    Ok(failure(&mut test)?.unwrap_or(ExitCode::SUCCESS))
}

/// Installs, upgrades and rolls the Helm chart back on a real Kubernetes control plane.
pub fn kube(progress: &Progress) -> Result<ExitCode> {
    setup::install_missing(Purpose::Kube, progress)?;
    progress.step("building the control plane, unless it is here (a quarter of an hour the first time)");
    setup::fetch_parts(Purpose::Kube)?;
    progress.step("installing, upgrading and rolling back the chart");
    let mut test = long_test("kubernetes");
    test.env("TIDEGATE_KUBE", "1");
    Ok(failure(&mut test)?.unwrap_or(ExitCode::SUCCESS))
}

/// Runs the test with the large engines, which are fetched when they are not here.
pub fn spark(progress: &Progress) -> Result<ExitCode> {
    setup::install_missing(Purpose::Test, progress)?;
    progress.step("fetching Spark and DuckDB, unless they are here (900 MB)");
    tools::python_with_spark()?;
    run_with_programs("spark", "reading the history's tables with them", progress)
}

/// Installs both Debian packages on a booted Debian, and uses them.
pub fn mail_host(progress: &Progress) -> Result<ExitCode> {
    setup::install_missing(Purpose::MailHost, progress)?;
    run_with_programs("mail_host", "booting a Debian with systemd and Postfix", progress)
}

/// Builds the two programs, and runs the long test `name`, which is `doing` something with them.
fn run_with_programs(name: &str, doing: &str, progress: &Progress) -> Result<ExitCode> {
    progress.step("building (some minutes the first time)");
    if let Some(failed) = failure(&mut cargo(&BUILD_BINARIES))? {
        return Ok(failed);
    }
    progress.step(doing);
    Ok(failure(&mut long_test(name))?.unwrap_or(ExitCode::SUCCESS))
}

/// Builds everything that tests run.
pub fn build_for_tests(progress: &Progress) -> Result<()> {
    setup::install_missing(Purpose::Test, progress)?;
    setup::fetch_parts(Purpose::Test)?;
    progress.step("building (some minutes the first time)");
    match failure(&mut cargo(&BUILD_ALL))? {
        None => Ok(()),
        Some(_) => Err(Error::new("the build failed; see above")),
    }
}

fn long_test(name: &str) -> Command {
    let mut test = cargo(&["test", "--workspace", "--test", name, "--", "--nocapture", "--test-threads", "1"]);
    test.env("TIDEGATE_PROGRAMS", target_dir().join("debug"));
    test
}

/// What no compiler run of the tests needs, but every change should pass.
pub fn lint(progress: &Progress) -> Result<ExitCode> {
    setup::install_missing(Purpose::Lint, progress)?;
    if let Some(failed) = check_format(progress)? {
        return Ok(failed);
    }
    progress.step("clippy");
    if let Some(failed) = failure(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))? {
        return Ok(failed);
    }
    progress.step("buf: style of the protocol files, and whether they break what the last commit promised");
    let buf = tools::buf()?;
    for arguments in [&["lint", "proto"][..], &["breaking", "proto", "--against", ".git#subdir=proto"]] {
        if let Some(failed) = failure(Command::new(&buf).args(arguments).current_dir(workspace_root()))? {
            return Ok(failed);
        }
    }
    if find_program("cargo-deny").is_none() {
        progress
            .step("not checked, since cargo-deny is not installed (cargo install --locked cargo-deny): dependencies");
        return Ok(ExitCode::SUCCESS);
    }
    progress.step("cargo-deny: licences, advisories and sources of the dependencies");
    Ok(failure(&mut cargo(&["deny", "--config", ".deny.toml", "check"]))?.unwrap_or(ExitCode::SUCCESS))
}

fn check_format(progress: &Progress) -> Result<Option<ExitCode>> {
    progress.step("checking the format");
    if find_program("rustfmt").is_none() {
        return Err(Error::new("the format check needs rustfmt: rustup component add rustfmt"));
    }
    let mut command = Command::new(cargo_program());
    command.args(["fmt", "--all", "--check"]).current_dir(workspace_root());
    let failed = failure(&mut command)?;
    if failed.is_some() {
        progress.step("the format differs: `cargo fmt` puts it right");
    }
    Ok(failed)
}

/// cargo, with this program's own target folder, wherever the command was given.
pub fn cargo(arguments: &[&str]) -> Command {
    cargo_into(&target_dir(), arguments)
}

/// The same with this target folder.
pub fn cargo_into(target: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(cargo_program());
    let (subcommand, rest) = arguments.split_first().unwrap_or((&"help", &[]));
    command.arg(subcommand);
    if *subcommand != "deny" {
        command.arg("--target-dir").arg(target);
    }
    command.args(rest).current_dir(workspace_root());
    // `cargo run`, which started this program, said what it is. Some build scripts (ring's) read that of their own
    // environment, and would run again whenever cargo is called from here after it was called by hand.
    for (name, _) in std::env::vars_os() {
        let is_of_this_package =
            name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"));
        if is_of_this_package {
            command.env_remove(name);
        }
    }
    command
}

fn cargo_program() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// Runs a command with this program's own input and output; gives the code to end with if it failed.
pub fn failure(command: &mut Command) -> Result<Option<ExitCode>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status: ExitStatus = command.status().context(|| format!("running {name}"))?;
    if status.success() {
        return Ok(None);
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(Some(ExitCode::from(code)))
}
