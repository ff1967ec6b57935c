//! What a container of a rendered pod would find: its mounted files, its arguments and its environment, in a folder of this
//! machine that stands for the container's root.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::chart::Rendered;
use crate::manifests::{Pod, containers, list, of_kind, text};

/// Where the chart mounts things. Paths that begin so are moved into the folder.
const MOUNTED: [&str; 3] = ["/etc/tidegate/", "/var/lib/tidegate", "/run/tidegate"];

/// What is in a Secret: files by key.
pub type Secret = BTreeMap<String, String>;

/// A container's files.
#[derive(Debug)]
pub struct PodFiles {
    root: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl PodFiles {
    /// Writes below `root` what is mounted into the container `name` of a pod. `secret` gives what is in a Secret (or in a
    /// certificate's volume, by the volume's name); `change` is done to the text of each ConfigMap's file, to arguments and to
    /// the environment.
    ///
    /// # Errors
    /// When something that is mounted is not there, or a path in a configuration file is not mounted.
    pub fn write(
        rendered: &Rendered,
        pod: &Pod<'_>,
        name: &str,
        root: &Path,
        secret: &dyn Fn(&str) -> Option<Secret>,
        change: &dyn Fn(&str) -> String,
    ) -> Result<Self> {
        let container = containers(pod.template).find(|container| text(container, "/name") == name);
        let container = container.with_context(|| format!("the pod has no container {name}"))?;
        let claims = list(pod.owner, "/spec/volumeClaimTemplates");
        let mut files = Self { root: root.to_owned(), arguments: Vec::new(), environment: Vec::new() };
        let mut configured = Vec::new();
        for mount in list(container, "/volumeMounts") {
            let (volume_name, path) = (text(mount, "/name"), text(mount, "/mountPath"));
            let folder = files.path(path);
            fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
            let volumes = list(pod.template, "/spec/volumes");
            let Some(volume) = volumes.iter().find(|volume| text(volume, "/name") == volume_name) else {
                if claims.iter().any(|claim| text(claim, "/metadata/name") == volume_name) {
                    continue;
                }
                bail!("{path}: there is no volume {volume_name}");
            };
            for (name, content) in contents(rendered, volume, secret).with_context(|| format!("filling {path}"))? {
                let is_text = volume.pointer("/configMap").is_some();
                let content = if is_text { files.map(&change(&content)) } else { content };
                fs::write(folder.join(&name), &content)?;
                if is_text && Path::new(&name).extension().is_some_and(|ending| ending == "toml") {
                    configured.push((format!("{path}/{name}"), content));
                }
            }
        }
        for (file, content) in configured {
            files.check_paths(&file, &content)?;
        }
        files.arguments = list(container, "/args")
            .iter()
            .filter_map(Value::as_str)
            .map(|argument| files.map(&change(argument)))
            .collect();
        for variable in list(container, "/env") {
            let value = text(variable, "/value");
            // The pod's own name, or its node's: the folder's here.
            let own = || root.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            let value = if variable.pointer("/valueFrom").is_some() { own() } else { files.map(&change(value)) };
            files.environment.push((text(variable, "/name").to_owned(), value));
        }
        Ok(files)
    }

    /// The container's arguments.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// The container's environment.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// Where a path of the container is here.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A text with the container's paths moved here.
    fn map(&self, text: &str) -> String {
        MOUNTED.iter().fold(text.to_owned(), |text, path| text.replace(path, &format!("{}{path}", self.root.display())))
    }

    /// Every path that a configuration file names has to be there, or has a place where it can be made.
    fn check_paths(&self, file: &str, content: &str) -> Result<()> {
        let root = self.root.display().to_string();
        for found in content.split(['"', ':']).filter(|part| part.starts_with(&root)) {
            let path = Path::new(found);
            if !path.exists() && !path.parent().is_some_and(Path::exists) {
                bail!("{file} names {found}, but nothing is mounted there");
            }
            let is_input = found.contains("/etc/tidegate/");
            if is_input && !path.exists() {
                bail!("{file} names {found}, which is not among what is mounted");
            }
        }
        Ok(())
    }
}

/// The files of a volume. Those that are made by the kubelet when a pod starts are empty.
fn contents(
    rendered: &Rendered,
    volume: &Value,
    secret: &dyn Fn(&str) -> Option<Secret>,
) -> Result<BTreeMap<String, String>> {
    let given = |name: &str| secret(name).with_context(|| format!("there is no Secret {name}"));
    if let Some(name) = volume.pointer("/configMap/name").and_then(Value::as_str) {
        let map = of_kind(rendered, "ConfigMap").find(|map| text(map, "/metadata/name") == name);
        // One that values name is as good as a Secret here.
        let Some(map) = map else { return given(name) };
        let data = map.pointer("/data").and_then(Value::as_object).context("the ConfigMap is empty")?;
        return Ok(data
            .iter()
            .map(|(name, text)| (name.clone(), text.as_str().unwrap_or_default().to_owned()))
            .collect());
    }
    if let Some(name) = volume.pointer("/secret/secretName").and_then(Value::as_str) {
        return items(&given(name)?, list(volume, "/secret/items"));
    }
    if volume.pointer("/csi").is_some() || text(volume, "/name") == "edge-tls" {
        return given(text(volume, "/name"));
    }
    let mut files = BTreeMap::new();
    for source in list(volume, "/projected/sources") {
        files.extend(items(&given(text(source, "/secret/name"))?, list(source, "/secret/items"))?);
    }
    Ok(files)
}

fn items(secret: &Secret, items: &[Value]) -> Result<BTreeMap<String, String>> {
    if items.is_empty() {
        return Ok(secret.clone());
    }
    let found = items.iter().map(|item| {
        let key = text(item, "/key");
        let content = secret.get(key).with_context(|| format!("the Secret has no key {key}"))?;
        Ok((text(item, "/path").to_owned(), content.clone()))
    });
    found.collect()
}
