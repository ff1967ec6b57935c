//! The Helm chart, rendered by Helm itself, and read as JSON.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use xtask::paths::workspace_root;
use xtask::tools;

/// The release and the namespace that manifests are rendered for.
pub const RELEASE: &str = "t";
/// The namespace that manifests are rendered for.
pub const NAMESPACE: &str = "mail";
/// The version of Kubernetes whose schemas manifests have to meet.
pub const KUBERNETES_VERSION: &str = "1.36";

/// Reads YAML files as JSON: for each file a list of its documents.
const TO_JSON: &str = "import json, sys, yaml
loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
print(json.dumps([[d for d in yaml.load_all(open(f), loader) if d is not None] for f in sys.argv[1:]]))";

/// A set of values: a file, or a file with something changed.
#[derive(Debug, Clone)]
pub struct Case {
    /// What errors call it.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// `key=value` for `--set` over it.
    pub set: Vec<String>,
}

/// What Helm made of a case.
#[derive(Debug)]
pub struct Rendered {
    /// The case's name.
    pub name: String,
    /// All objects, those of hooks too.
    pub objects: Vec<Value>,
}

/// The chart's folder.
pub fn folder() -> PathBuf {
    workspace_root().join("helm/tidegate")
}

/// All cases in a folder of values files, by name.
///
/// # Errors
/// When there are none.
pub fn cases(folder: &Path) -> Result<Vec<Case>> {
    let listed = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    ensure!(!files.is_empty(), "no cases in {}", folder.display());
    let name = |file: &Path| file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(files.into_iter().map(|file| Case { name: name(&file), file, set: Vec::new() }).collect())
}

/// `helm ARGUMENTS`, with no configuration but the chart's.
///
/// # Errors
/// When Helm cannot be built.
pub fn helm(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(tools::helm()?);
    command.args(arguments).env_remove("KUBECONFIG").env("HELM_CACHE_HOME", std::env::temp_dir());
    Ok(command)
}

/// What `helm template` prints for a case; or what it says is wrong.
///
/// # Errors
/// When Helm cannot be run.
pub fn template(case: &Case) -> Result<Result<String, String>> {
    let mut command = helm(&["template", RELEASE, "--namespace", NAMESPACE, "--values"])?;
    command.arg(&case.file).arg(folder());
    for set in &case.set {
        command.args(["--set", set]);
    }
    let output = command.output().context("running helm")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}

/// Renders a case.
///
/// # Errors
/// When Helm refuses it.
pub fn render(case: &Case) -> Result<Rendered> {
    let rendered = render_all(std::slice::from_ref(case))?.pop().context("nothing was rendered")?;
    rendered.map_err(|error| anyhow::anyhow!("helm template refuses {}:\n{error}", case.name))
}

/// Renders many cases; those that Helm refuses are given with what it says.
///
/// # Errors
/// When Helm or Python cannot be run.
pub fn render_all(cases: &[Case]) -> Result<Vec<Result<Rendered, String>>> {
    let dir = tempfile::tempdir()?;
    let texts = in_parallel(cases, template)?;
    let mut files = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let file = dir.path().join(format!("{index}.yaml"));
        fs::write(&file, text.as_deref().unwrap_or_default())?;
        files.push(file);
    }
    let documents = yaml_documents(&files)?;
    let rendered = cases
        .iter()
        .zip(texts)
        .zip(documents)
        .map(|((case, text), objects)| text.map(|_| Rendered { name: case.name.clone(), objects }));
    Ok(rendered.collect())
}

/// The documents of each YAML file.
///
/// # Errors
/// When Python cannot be run, or a file is no YAML.
pub fn yaml_documents(files: &[PathBuf]) -> Result<Vec<Vec<Value>>> {
    let mut command = Command::new(tools::python_with_kubernetes_schemas()?);
    let output = command.args(["-c", TO_JSON]).args(files).output().context("running python")?;
    if !output.status.success() {
        bail!("reading {files:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("reading what python made of the YAML")
}

/// What is wrong with rendered manifests by Kubernetes' own schemas, and how many objects it knew.
///
/// # Errors
/// When `kubernetes-validate` cannot be run.
pub fn schema_problems(rendered: &[&Rendered]) -> Result<(Vec<String>, usize)> {
    let dir = tempfile::tempdir()?;
    let mut files = Vec::new();
    for case in rendered {
        // JSON is YAML.
        let documents: Vec<String> = case.objects.iter().map(ToString::to_string).collect();
        let file = dir.path().join(format!("{}.yaml", case.name.replace('/', "_")));
        fs::write(&file, documents.join("\n---\n"))?;
        files.push(file);
    }
    let program = tools::python_with_kubernetes_schemas()?.with_file_name("kubernetes-validate");
    let mut command = Command::new(program);
    let output = command.args(["--strict", "-k", KUBERNETES_VERSION]).args(&files).output()?;
    let text = [output.stdout, output.stderr].concat();
    let lines: Vec<String> = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
    let known = lines.iter().filter(|line| line.starts_with("INFO")).count();
    // Custom resources are not among the schemas; `cargo xtask kube` has their definitions.
    let is_problem = |line: &&String| !line.starts_with("INFO") && !line.contains("Couldn't find schema for kind");
    Ok((lines.iter().filter(is_problem).cloned().collect(), known))
}

/// As many at a time as there are processors.
fn in_parallel<T: Send>(cases: &[Case], work: fn(&Case) -> Result<T>) -> Result<Vec<T>> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let next = Mutex::new(cases.iter().enumerate());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let taken = next.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
                    let Some((index, case)) = taken else { return };
                    let result = work(case);
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}
