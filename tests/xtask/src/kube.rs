//! A real Kubernetes control plane on loopback ports, without nodes: KWOK plays the kubelets, so that pods get ready without
//! running. For installing the chart for real: admission, defaults, upgrades, rollbacks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::daemon::Daemon;
use crate::error::{Context, Error, Result};
use crate::kube_parts::{self, KubeParts};
use crate::paths::workspace_root;
use crate::ports::free_port;
use crate::tools::{output, run};
use crate::wait::wait_for;

const TIMEOUT: Duration = Duration::from_secs(90);
/// The administrator's token. It is worth nothing outside of this machine's loopback address.
const TOKEN: &str = "admin";

/// A running control plane. Dropping it kills it.
#[derive(Debug)]
pub struct ControlPlane {
    dir: PathBuf,
    parts: KubeParts,
    kubeconfig: PathBuf,
    daemons: Vec<Daemon>,
}

impl ControlPlane {
    /// Starts it with its data in `dir`, with three nodes in three zones and the definitions of the custom resources that
    /// the chart knows.
    ///
    /// # Errors
    /// When its parts cannot be built, or one does not start.
    pub fn start(dir: &Path) -> Result<Self> {
        let parts = kube_parts::fetch()?;
        fs::create_dir_all(dir).context(|| format!("making {}", dir.display()))?;
        let dir = dir.canonicalize().context(|| format!("finding {}", dir.display()))?;
        let kubeconfig = dir.join("kubeconfig");
        let mut plane = Self { dir, parts, kubeconfig, daemons: Vec::new() };
        plane.start_api_server()?;
        plane.start_controllers()?;
        plane.start_nodes()?;
        plane.define_resources()?;
        Ok(plane)
    }

    /// The file that tells `kubectl` and `helm` where it is.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs `kubectl ARGUMENTS` and gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.kubectl_command(arguments))
    }

    /// Folder with `kubectl`.
    pub fn programs(&self) -> &Path {
        &self.parts.programs
    }

    /// Lets all of it run on after this process.
    pub fn detach(self) -> Vec<u32> {
        self.daemons.into_iter().map(Daemon::detach).collect()
    }

    fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.parts.programs.join("kubectl"));
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command
    }

    fn start_api_server(&mut self) -> Result<()> {
        let (client, peer, api) = (free_port()?, free_port()?, free_port()?);
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        self.daemon("etcd", |command| {
            command
                .args(["--data-dir", "etcd", "--unsafe-no-fsync", "--listen-client-urls", &client])
                .args(["--advertise-client-urls", &client, "--listen-peer-urls", &peer])
                .args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")]);
        })?;
        let key = self.dir.join("service-accounts.key");
        run(Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048"))?;
        self.write("tokens.csv", &format!("{TOKEN},admin,admin,system:masters\n"))?;
        self.write("kubeconfig", &kubeconfig(api))?;
        self.daemon("kube-apiserver", |command| {
            command
                .arg(format!("--etcd-servers={client}"))
                .arg(format!("--secure-port={api}"))
                .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--cert-dir=certificates"])
                .arg("--service-account-issuer=https://kubernetes.default.svc")
                .args(["--service-account-key-file=service-accounts.key"])
                .args(["--service-account-signing-key-file=service-accounts.key", "--token-auth-file=tokens.csv"])
                .args(["--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16"])
                .args(["--endpoint-reconciler-type=none"]);
        })?;
        self.wait_for("the API server", &["get", "--raw", "/readyz"], |answer| answer == "ok")
    }

    fn start_controllers(&mut self) -> Result<()> {
        for name in ["kube-controller-manager", "kube-scheduler"] {
            self.daemon(name, |command| {
                command
                    .args(["--kubeconfig=kubeconfig", "--authentication-kubeconfig=kubeconfig"])
                    .args(["--authorization-kubeconfig=kubeconfig", "--bind-address=127.0.0.1", "--secure-port=0"])
                    .arg("--leader-elect=false");
                if name == "kube-controller-manager" {
                    command.arg("--service-account-private-key-file=service-accounts.key");
                }
            })?;
        }
        Ok(())
    }

    fn start_nodes(&mut self) -> Result<()> {
        let read = |file: &Path| fs::read_to_string(file).context(|| format!("reading {}", file.display()));
        let mut stages = vec![read(&files().join("stages.yaml"))?];
        let listed = fs::read_dir(&self.parts.stages).context(|| format!("reading {}", self.parts.stages.display()))?;
        for file in listed.filter_map(|entry| Some(entry.ok()?.path())) {
            if !file.ends_with("storage-class.yaml") {
                stages.push(read(&file)?);
            }
        }
        self.write("stages.yaml", &stages.join("\n---\n"))?;
        self.daemon("kwok", |command| {
            command
                .args(["--config=stages.yaml", "--kubeconfig=kubeconfig", "--manage-all-nodes=true"])
                .args(["--node-ip=127.0.0.1", "--server-address=127.0.0.1:0"]);
        })?;
        let storage = self.parts.stages.join("storage-class.yaml");
        for file in [&files().join("nodes.yaml"), &storage] {
            run(self.kubectl_command(&["apply", "-f"]).arg(file))?;
        }
        let ready = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
        self.wait_for("the nodes", &["get", "nodes", "-o", ready], |answer| answer == "True True True")
    }

    fn define_resources(&self) -> Result<()> {
        let mut apply = self.kubectl_command(&["apply", "--server-side"]);
        run(apply.arg("-f").arg(&self.parts.definitions).arg("-f").arg(files().join("crds")))?;
        let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
        run(&mut self.kubectl_command(&wait))
    }

    fn daemon(&mut self, name: &str, arguments: impl FnOnce(&mut Command)) -> Result<()> {
        let mut command = Command::new(self.parts.programs.join(name));
        arguments(command.current_dir(&self.dir));
        self.daemons.push(Daemon::spawn(name, command, &self.dir.join(format!("{name}.log")))?);
        Ok(())
    }

    fn wait_for(&mut self, what: &str, ask: &[&str], is_answer: impl Fn(&str) -> bool) -> Result<()> {
        let mut last = String::new();
        let found = wait_for(what, TIMEOUT, || match output(&mut self.kubectl_command(ask)) {
            Ok(answer) if is_answer(answer.trim()) => Some(()),
            Ok(answer) => {
                last = answer;
                None
            }
            Err(error) => {
                last = error.to_string();
                None
            }
        });
        found.map_err(|error| Error::new(format!("{error}; the last answer was: {last}; logs: {}", self.dir.display())))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.dir.join(name);
        fs::write(&file, text).context(|| format!("writing {}", file.display()))
    }
}

/// The folder with what is ours: nodes, stages, definitions.
fn files() -> PathBuf {
    workspace_root().join("tests/kube")
}

fn kubeconfig(api: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Config\n\
         clusters: [{{name: tests, cluster: {{server: \"https://127.0.0.1:{api}\", insecure-skip-tls-verify: true}}}}]\n\
         users: [{{name: admin, user: {{token: {TOKEN}}}}}]\n\
         contexts: [{{name: tests, context: {{cluster: tests, user: admin}}}}]\n\
         current-context: tests\n"
    )
}
