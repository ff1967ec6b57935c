//! The programs of a Kubernetes control plane, and definitions of the custom resources that the chart knows: all of them
//! from Go's module proxy. Each program is an ordinary Go module that imports the component (ten minutes on two cores, once).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Context, Error, Result};
use crate::golang;
use crate::parts::part;
use crate::tools::run;

/// The version of Kubernetes.
pub const KUBERNETES_VERSION: &str = "1.36.3";
const ETCD_VERSION: &str = "3.6.6";
const KWOK_VERSION: &str = "v0.8.0";

/// Programs of `k8s.io/kubernetes`, and the Go that starts each.
const COMPONENTS: [(&str, &str); 4] = [
    ("kube-apiserver", "\"k8s.io/kubernetes/cmd/kube-apiserver/app\"|os.Exit(cli.Run(app.NewAPIServerCommand()))"),
    (
        "kube-controller-manager",
        "\"k8s.io/kubernetes/cmd/kube-controller-manager/app\"|os.Exit(cli.Run(app.NewControllerManagerCommand()))",
    ),
    ("kube-scheduler", "\"k8s.io/kubernetes/cmd/kube-scheduler/app\"|os.Exit(cli.Run(app.NewSchedulerCommand()))"),
    (
        "kubectl",
        "\"k8s.io/kubectl/pkg/cmd\"|if cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()) != nil { os.Exit(1) }",
    ),
];

/// Modules with definitions of custom resources, and which of their files.
const DEFINITIONS: [(&str, &[&str]); 3] = [
    (
        "github.com/cert-manager/cert-manager@v1.21.2",
        &["deploy/crds/cert-manager.io_certificates.yaml", "deploy/crds/cert-manager.io_issuers.yaml"],
    ),
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        &[
            "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        ],
    ),
    (
        "github.com/kedacore/keda/v2@v2.21.0",
        &["config/crd/bases/keda.sh_scaledobjects.yaml", "config/crd/bases/keda.sh_triggerauthentications.yaml"],
    ),
];

/// KWOK's own stages: how nodes, pods and volumes come up.
const STAGES: [&str; 8] = [
    "node/fast/node-initialize.yaml",
    "node/heartbeat/node-heartbeat.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-delete.yaml",
    "volume/fast/pv-bind.yaml",
    "volume/fast/pv-delete.yaml",
    "volume/fast/pvc-delete.yaml",
    "volume/fast/pvc-provision.yaml",
];

/// Its storage class, for volumes that it makes.
const STORAGE_CLASS: &str = "volume/fast/storage-class.yaml";

/// Where the control plane's parts are.
#[derive(Debug, Clone)]
pub struct KubeParts {
    /// Folder with `etcd`, `kube-apiserver`, `kube-controller-manager`, `kube-scheduler`, `kwok` and `kubectl`.
    pub programs: PathBuf,
    /// Folder with definitions of custom resources.
    pub definitions: PathBuf,
    /// Folder with KWOK's stages, and the storage class of volumes that it makes.
    pub stages: PathBuf,
}

/// Builds and fetches everything that is not here yet.
///
/// # Errors
/// When Go is missing, the module proxy cannot be reached, or a build fails.
pub fn fetch() -> Result<KubeParts> {
    let programs = part(&format!("kube-{KUBERNETES_VERSION}"), |folder| {
        let work = folder.join("build");
        let go = golang::program()?;
        build_etcd(&go, &work.join("etcd"), folder)?;
        build_kubernetes(&go, &work.join("kubernetes"), folder)?;
        run(self::go(&go, &work)
            .args(["install", "-trimpath", "-ldflags=-s -w"])
            .arg(format!("sigs.k8s.io/kwok/cmd/kwok@{KWOK_VERSION}"))
            .env("GOBIN", folder))?;
        fs::remove_dir_all(&work).context(|| format!("removing {}", work.display()))
    })?;
    let definitions = part("kube-definitions-1", |folder| {
        let go = golang::program()?;
        for (module, files) in DEFINITIONS {
            let fetched = golang::module_folder(&mut self::go(&go, folder), module)?;
            for file in files {
                let name = Path::new(file).file_name().unwrap_or_default();
                fs::copy(fetched.join(file), folder.join(name)).context(|| format!("copying {file} of {module}"))?;
            }
        }
        Ok(())
    })?;
    let stages = part(&format!("kwok-stages-{KWOK_VERSION}"), |folder| {
        let go = golang::program()?;
        let fetched = golang::module_folder(&mut self::go(&go, folder), &format!("sigs.k8s.io/kwok@{KWOK_VERSION}"))?;
        for file in STAGES.iter().chain(&[STORAGE_CLASS]) {
            let (from, name) = (fetched.join("kustomize/stage").join(file), Path::new(file).file_name());
            fs::copy(&from, folder.join(name.unwrap_or_default())).context(|| format!("copying {}", from.display()))?;
        }
        Ok(())
    })?;
    Ok(KubeParts { programs, definitions, stages })
}

fn build_etcd(go: &Path, work: &Path, into: &Path) -> Result<()> {
    write(work, "go.mod", &format!("module etcd\ngo 1.26.0\nrequire go.etcd.io/etcd/server/v3 v{ETCD_VERSION}\n"))?;
    let main = "package main\n\nimport (\n\t\"os\"\n\t\"go.etcd.io/etcd/server/v3/etcdmain\"\n)\n\nfunc main() { etcdmain.Main(os.Args) }\n";
    write(work, "main.go", main)?;
    run(self::go(go, work).args(["mod", "tidy"]))?;
    run(self::go(go, work).args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(into.join("etcd")).arg("."))
}

fn build_kubernetes(go: &Path, work: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(work).context(|| format!("making {}", work.display()))?;
    let module = format!("k8s.io/kubernetes@v{KUBERNETES_VERSION}");
    let source = golang::module_folder(&mut self::go(go, work), &module)?.join("go.mod");
    let source = fs::read_to_string(&source).context(|| format!("reading {}", source.display()))?;
    write(work, "go.mod", &kubernetes_manifest(&source)?)?;
    for (name, start) in COMPONENTS {
        let (import, start) = start.split_once('|').unwrap_or_default();
        let text = format!(
            "package main\n\nimport (\n\t\"os\"\n\t\"k8s.io/component-base/cli\"\n\t{import}\n)\n\nfunc main() {{ {start} }}\n"
        );
        write(&work.join(name), "main.go", &text)?;
    }
    run(self::go(go, work).args(["mod", "tidy"]))?;
    // Charts ask for the version.
    let (major, minor) = KUBERNETES_VERSION.split_once('.').unwrap_or_default();
    let minor = minor.split('.').next().unwrap_or_default();
    let package = "k8s.io/component-base/version";
    let flags = format!(
        "-ldflags=-s -w -X {package}.gitVersion=v{KUBERNETES_VERSION} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    );
    let packages = COMPONENTS.map(|(name, _)| format!("./{name}"));
    // A folder, because there is more than one program.
    let into = format!("{}/", into.display());
    run(self::go(go, work).args(["build", "-trimpath", &flags, "-o", &into]).args(packages))
}

/// A module that has Kubernetes' own parts in the version of the whole: its manifest points them to folders beside it.
fn kubernetes_manifest(source: &str) -> Result<String> {
    let (_, replaced) = source
        .split_once("\nreplace (\n")
        .ok_or_else(|| Error::new("the manifest of k8s.io/kubernetes replaces nothing: it has another form now"))?;
    let replaced = replaced.split("\n)").next().unwrap_or_default();
    let (_, minor) = KUBERNETES_VERSION.split_once('.').unwrap_or_default();
    let parts = replaced.lines().filter_map(|line| line.split("=>").next().map(str::trim));
    let lines: Vec<String> = parts.map(|part| format!("\t{part} => {part} v0.{minor}")).collect();
    let lines = lines.join("\n");
    Ok(format!(
        "module kube\ngo 1.26.0\ngodebug default=go1.26\nrequire k8s.io/kubernetes v{KUBERNETES_VERSION}\nreplace (\n{lines}\n)\n"
    ))
}

fn go(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=mod -buildvcs=false");
    command
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let file = folder.join(name);
    fs::create_dir_all(folder).and_then(|()| fs::write(&file, text)).context(|| format!("writing {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_own_parts_get_its_version() {
        let source = "module k8s.io/kubernetes\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n";
        assert!(kubernetes_manifest(source).unwrap().contains("\n\tk8s.io/api => k8s.io/api v0.36.3\n)"));
        assert!(kubernetes_manifest("module other\n").is_err());
    }
}
