//! Programs for tests and checks that come from a language's registry: built or unpacked once into the target folder.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::error::{Context, Error, Result};
use crate::golang;
use crate::parts::part;
use crate::paths::{parts_dir, workspace_root};

/// The newest version that Debian 12's Go 1.19 builds.
const GRPCURL_VERSION: &str = "v1.9.1";
/// The newest ones that Debian 12's Go 1.19 builds.
const GO_PLUGINS: [&str; 2] =
    ["google.golang.org/protobuf/cmd/protoc-gen-go@v1.33.0", "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.3.0"];
const AXE_VERSION: &str = "4.14.1";
const BUF_VERSION: &str = "1.75.0";
const HELM_VERSION: &str = "v4.3.1";
const KUBERNETES_VALIDATE_VERSION: &str = "1.37.0";
/// The newest on Maven Central.
const JDBC_VERSION: &str = "18.3.0";
const MAVEN_COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy";
/// Delta Lake's connector for this Spark is [`DELTA_SPARK`].
const LARGE_PYTHON_PACKAGES: [&str; 2] = ["pyspark==4.2.0", "duckdb==2.0.1"];

/// Delta Lake's connector for Spark, as Maven Central has it.
pub const DELTA_SPARK: &str = "io.delta:delta-spark_4.2_2.13:4.4.0";

/// `grpcurl`, a gRPC client that nobody here wrote; gives its path.
///
/// # Errors
/// When Go is missing or the build fails.
pub fn grpcurl() -> Result<PathBuf> {
    let folder = part(&format!("grpcurl-{GRPCURL_VERSION}"), |folder| {
        run(Command::new("go")
            .arg("install")
            .arg(format!("github.com/fullstorydev/grpcurl/cmd/grpcurl@{GRPCURL_VERSION}"))
            .env("GOBIN", folder)
            // No other Go than the one that is installed.
            .env("GOTOOLCHAIN", "local"))
    })?;
    Ok(folder.join("grpcurl"))
}

/// The plugins that make Go code of protos, `protoc-gen-go` and `protoc-gen-go-grpc`; gives their folder.
///
/// # Errors
/// When Go is missing or a build fails.
pub fn go_plugins() -> Result<PathBuf> {
    part("go-plugins-1", |folder| {
        for plugin in GO_PLUGINS {
            run(Command::new("go").args(["install", plugin]).env("GOBIN", folder).env("GOTOOLCHAIN", "local"))?;
        }
        Ok(())
    })
}

/// A Python that has gRPC, and makes Python code of protos; gives its path.
///
/// # Errors
/// When Python is missing or PyPI cannot be reached.
pub fn python_with_grpc() -> Result<PathBuf> {
    python_for("python")
}

/// A Python with which analysts read the history: ADBC, pandas, Polars and Delta Lake (210 MB); gives its path.
///
/// # Errors
/// When Python is missing or PyPI cannot be reached.
pub fn python_of_analysts() -> Result<PathBuf> {
    python_for("analytics")
}

/// The same with Spark and DuckDB (700 MB more); gives its path.
///
/// # Errors
/// When Python is missing or PyPI cannot be reached.
pub fn python_with_spark() -> Result<PathBuf> {
    let mut packages = required("analytics")?;
    packages.extend(LARGE_PYTHON_PACKAGES.map(str::to_owned));
    python_environment(&format!("python-{}", LARGE_PYTHON_PACKAGES.join("-").replace("==", "-")), &packages)
}

/// The JDBC driver for Flight SQL from Maven Central (45 MB): its jar.
///
/// # Errors
/// When Maven is missing or Maven Central cannot be reached.
pub fn flight_sql_jdbc() -> Result<PathBuf> {
    let name = format!("flight-sql-jdbc-driver-{JDBC_VERSION}");
    let folder = part(&name, |folder| {
        run(Command::new("mvn")
            .args(["-q", "-B", MAVEN_COPY])
            .arg(format!("-Dartifact=org.apache.arrow:flight-sql-jdbc-driver:{JDBC_VERSION}"))
            .arg(format!("-DoutputDirectory={}", folder.display())))
    })?;
    Ok(folder.join(format!("{name}.jar")))
}

/// A Python that has what an example's `requirements.txt` names.
fn python_for(example: &str) -> Result<PathBuf> {
    let packages = required(example)?;
    python_environment(&format!("python-{}", packages.join("-").replace("==", "-")), &packages)
}

fn required(example: &str) -> Result<Vec<String>> {
    let requirements = workspace_root().join("deploy/examples").join(example).join("requirements.txt");
    let text = fs::read_to_string(&requirements).context(|| format!("reading {}", requirements.display()))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// `buf`, which checks protocol files; gives its path.
///
/// # Errors
/// When Python is missing or PyPI cannot be reached.
pub fn buf() -> Result<PathBuf> {
    let python = python_environment(&format!("buf-{BUF_VERSION}"), &[format!("buf-bin=={BUF_VERSION}")])?;
    Ok(python.with_file_name("buf"))
}

/// `helm`, which renders and installs charts; gives its path.
///
/// # Errors
/// When Go is missing or the build fails.
pub fn helm() -> Result<PathBuf> {
    let folder = part(&format!("helm-{HELM_VERSION}"), |folder| {
        run(Command::new(golang::program()?)
            .args(["install", "-trimpath", "-ldflags=-s -w"])
            .arg(format!("helm.sh/helm/v4/cmd/helm@{HELM_VERSION}"))
            .env("GOBIN", folder)
            .env("GOTOOLCHAIN", "local"))
    })?;
    Ok(folder.join("helm"))
}

/// A Python that has `kubernetes-validate` (a program beside it, too), with the schemas of Kubernetes, and reads YAML;
/// gives its path.
///
/// # Errors
/// When Python is missing or PyPI cannot be reached.
pub fn python_with_kubernetes_schemas() -> Result<PathBuf> {
    let version = KUBERNETES_VALIDATE_VERSION;
    python_environment(&format!("kubernetes-validate-{version}"), &[format!("kubernetes-validate=={version}")])
}

/// A Python environment with these packages; gives its interpreter.
fn python_environment(name: &str, packages: &[String]) -> Result<PathBuf> {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // Not a `part`: a Python environment stays where it was made.
    let folder = parts_dir().join(name);
    let whole = folder.join("whole");
    if !whole.is_file() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        run(Command::new(folder.join("bin/pip")).args(["install", "--quiet"]).args(packages))?;
        fs::write(&whole, "").context(|| format!("marking {} as whole", folder.display()))?;
    }
    Ok(folder.join("bin/python"))
}

/// axe-core, which finds faults of accessibility in a page: the text of its script. Taken from npm, never kept here.
///
/// # Errors
/// When npm is missing or its registry cannot be reached.
pub fn axe() -> Result<String> {
    let folder = part(&format!("axe-core-{AXE_VERSION}"), |folder| {
        run(Command::new("npm").args(["pack", "--silent", &format!("axe-core@{AXE_VERSION}")]).current_dir(folder))?;
        let archive = folder.join(format!("axe-core-{AXE_VERSION}.tgz"));
        run(Command::new("tar").arg("-xzf").arg(&archive).args(["--strip-components=1", "-C"]).arg(folder))
    })?;
    let script = folder.join("axe.min.js");
    fs::read_to_string(&script).context(|| format!("reading {}", script.display()))
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started or fails: with what it said.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs a command to its end; gives what it wrote to standard output.
///
/// # Errors
/// When it cannot be started or fails: with what it said.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().context(|| format!("running {command:?}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Error::new(format!("{command:?} failed ({}):\n{}", output.status, String::from_utf8_lossy(&said))))
}
