//! Debian packages of the programs, by `dpkg-deb` from files of `deploy/`: nothing has to be installed to build them that
//! a Debian with a compiler does not have.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Context, Error, Result};
use crate::paths::workspace_root;

/// A package: what of the tree goes where.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    /// Its name, and its program's.
    pub name: &'static str,
    /// Units of `deploy/systemd`.
    units: &'static [&'static str],
    /// Files of the tree that become configuration: what `edit` makes of them goes to `/etc/tidegate/NAME`.
    configuration: &'static [Configuration],
    /// Programs of `deploy/debian/PACKAGE` for `/usr/lib/PACKAGE`.
    scripts: &'static [&'static str],
    /// Folder with examples, for `/usr/share/doc/PACKAGE/examples`.
    examples: Option<&'static str>,
}

/// A file of `/etc/tidegate`.
#[derive(Debug, Clone, Copy)]
struct Configuration {
    name: &'static str,
    source: &'static str,
    /// Lines of the source, each of which is there once, and what stands in their place on an installed host.
    edits: &'static [(&'static str, &'static str)],
}

/// The agent on a mail host.
pub const EDGE: Package = Package {
    name: "tidegate-edge",
    units: &["tidegate-edge.service", "tidegate-edge-renew.service", "tidegate-edge-renew.timer"],
    configuration: &[Configuration {
        name: "edge.toml",
        source: "services/edge/tidegate-edge.toml",
        // What only the administrator knows is not set: the agent does not start under an example's name.
        edits: &[
            ("node = \"mx1.ams.example.org\"", "#: node = \"mx1.ams.example.org\""),
            ("site = \"ams\"", "#: site = \"ams\""),
            (
                "internal_domains = [\"example.org\", \"example.net\"]",
                "#: internal_domains = [\"example.org\", \"example.net\"]",
            ),
            ("admin_addresses = [\"postmaster@example.org\"]", "#: admin_addresses = [\"postmaster@example.org\"]"),
            (
                "listen = [\"unix:/run/tidegate/milter.sock\", \"inet:127.0.0.1:7722\"]",
                "# Below Postfix's queue directory, because Debian's smtpd is in a chroot there.\n\
                 listen = [\"unix:/var/spool/postfix/tidegate/milter.sock\"]",
            ),
            (
                "# Postfix: smtpd_milters = unix:/run/tidegate/milter.sock   milter_default_action = accept",
                "# Postfix: smtpd_milters = unix:tidegate/milter.sock   milter_default_action = accept",
            ),
        ],
    }],
    scripts: &["postfix-wiring"],
    examples: Some("deploy/examples/mail-servers"),
};

/// The server and its commands.
pub const SERVER: Package = Package {
    name: "tidegate",
    units: &["tidegate.service"],
    configuration: &[
        Configuration {
            name: "tidegate.toml",
            source: "services/tidegate/tidegate.toml",
            edits: &[
                (
                    "#: statistics = \"/etc/tidegate/statistics.sql\"   # otherwise the shipped ones",
                    "statistics = \"/etc/tidegate/statistics.sql\"   # otherwise the shipped ones",
                ),
                (
                    "#: rules = \"/etc/tidegate/rules.toml\"            # otherwise the shipped ones; the file is watched",
                    "rules = \"/etc/tidegate/rules.toml\"            # otherwise the shipped ones; the file is watched",
                ),
            ],
        },
        Configuration { name: "rules.toml", source: "services/detect/defaults/rules.toml", edits: &[] },
        Configuration { name: "statistics.sql", source: "services/detect/defaults/statistics.sql", edits: &[] },
    ],
    scripts: &[],
    examples: None,
};

/// How a package is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Small.
    Xz,
    /// At once, for tests.
    None,
}

/// Builds `package` of `program` in `out`; gives the file. A package of the same version is replaced.
///
/// # Errors
/// When a tool is missing or a file cannot be written.
pub fn build(package: &Package, program: &Path, out: &Path, compression: Compression) -> Result<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    let architecture = said(Command::new("dpkg").arg("--print-architecture"))?.trim().to_owned();
    let stage = out.join(package.name);
    if stage.exists() {
        fs::remove_dir_all(&stage).context(|| format!("emptying {}", stage.display()))?;
    }
    let mut tree = Tree { root: stage.clone() };
    tree.put(&format!("usr/bin/{}", package.name), &read(program)?, 0o755)?;
    for unit in package.units {
        let text = text(&workspace_root().join("deploy/systemd").join(unit))?;
        let text = text.replace("/usr/local/bin/", "/usr/bin/");
        tree.put(&format!("usr/lib/systemd/system/{unit}"), text.as_bytes(), 0o644)?;
    }
    for configuration in package.configuration {
        tree.put(&format!("etc/tidegate/{}", configuration.name), configuration.text()?.as_bytes(), 0o644)?;
    }
    let sources = workspace_root().join("deploy/debian").join(package.name);
    for script in package.scripts {
        tree.put(&format!("usr/lib/{}/{script}", package.name), &read(&sources.join(script))?, 0o755)?;
    }
    documentation(package, &sources, &mut tree)?;
    control(package, &sources, &mut tree, version, &architecture)?;
    let file = out.join(format!("{}_{version}_{architecture}.deb", package.name));
    let compression = match compression {
        Compression::Xz => "-Zxz",
        Compression::None => "-Znone",
    };
    said(Command::new("dpkg-deb").args(["--root-owner-group", compression, "--build"]).arg(&stage).arg(&file))?;
    Ok(file)
}

/// Man page, licence and examples.
fn documentation(package: &Package, sources: &Path, tree: &mut Tree) -> Result<()> {
    let name = package.name;
    let manual = format!("usr/share/man/man8/{name}.8");
    tree.put(&manual, &read(&sources.join(format!("{name}.8")))?, 0o644)?;
    said(Command::new("gzip").arg("-9nf").arg(tree.root.join(&manual)))?;
    let licence = read(&workspace_root().join("services/LICENSE"))?;
    tree.put(&format!("usr/share/doc/{name}/copyright"), &licence, 0o644)?;
    let Some(examples) = package.examples else { return Ok(()) };
    let folder = workspace_root().join(examples);
    let entries = fs::read_dir(&folder).context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry.context(|| format!("reading {}", folder.display()))?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tree.put(&format!("usr/share/doc/{name}/examples/{file}"), &read(&path)?, 0o644)?;
    }
    Ok(())
}

/// `DEBIAN/`: what the package is, its scripts, its configuration files, and sums of the others.
fn control(package: &Package, sources: &Path, tree: &mut Tree, version: &str, architecture: &str) -> Result<()> {
    let depends = libraries(package, &tree.root)?;
    let sums = said(
        Command::new("sh")
            .args(["-c", "find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum"])
            .current_dir(&tree.root),
    )?;
    let kib = said(Command::new("du").args(["-sk", "--apparent-size"]).arg(&tree.root))?;
    let kib = kib.split_whitespace().next().unwrap_or("0").to_owned();
    let mut text = text(&sources.join("control"))?;
    for (name, value) in
        [("@VERSION@", version), ("@ARCHITECTURE@", architecture), ("@INSTALLED_SIZE@", &kib), ("@DEPENDS@", &depends)]
    {
        text = text.replace(name, value);
    }
    tree.put("DEBIAN/control", text.as_bytes(), 0o644)?;
    for script in ["postinst", "prerm", "postrm"] {
        tree.put(&format!("DEBIAN/{script}"), &read(&sources.join(script))?, 0o755)?;
    }
    let conffiles: Vec<_> = package.configuration.iter().map(|file| format!("/etc/tidegate/{}\n", file.name)).collect();
    tree.put("DEBIAN/conffiles", conffiles.concat().as_bytes(), 0o644)?;
    tree.put("DEBIAN/md5sums", sums.as_bytes(), 0o644)
}

/// The packages whose libraries the program needs, with their versions.
fn libraries(package: &Package, root: &Path) -> Result<String> {
    let work = root.with_extension("shlibdeps");
    let debian = work.join("debian");
    fs::create_dir_all(&debian).context(|| format!("making {}", debian.display()))?;
    let source = format!("Source: {0}\n\nPackage: {0}\nArchitecture: any\n", package.name);
    fs::write(debian.join("control"), source).context(|| format!("writing {}", debian.display()))?;
    let program = root.join("usr/bin").join(package.name);
    let program = program.canonicalize().context(|| format!("finding {}", program.display()))?;
    let told = said(Command::new("dpkg-shlibdeps").arg("-O").arg(program).current_dir(&work));
    let _ = fs::remove_dir_all(&work);
    let told = told?;
    let depends = told.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    depends.map(str::to_owned).ok_or_else(|| Error::new(format!("dpkg-shlibdeps said no dependencies: {told}")))
}

impl Configuration {
    fn text(&self) -> Result<String> {
        let mut text = text(&workspace_root().join(self.source))?;
        for (line, instead) in self.edits {
            let count = text.lines().filter(|candidate| candidate == line).count();
            if count != 1 {
                return Err(Error::new(format!("{} has {count} times the line `{line}`, not once", self.source)));
            }
            text = text.replace(&format!("\n{line}\n"), &format!("\n{instead}\n"));
        }
        Ok(text)
    }
}

/// The files of a package.
struct Tree {
    root: PathBuf,
}

impl Tree {
    fn put(&mut self, path: &str, octets: &[u8], mode: u32) -> Result<()> {
        let path = self.root.join(path);
        let write = || -> std::io::Result<()> {
            let mut folder = self.root.clone();
            for part in path.parent().and_then(|parent| parent.strip_prefix(&self.root).ok()).into_iter().flatten() {
                folder.push(part);
                fs::create_dir_all(&folder)?;
                // Whatever this user's umask is.
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
            }
            fs::write(&path, octets)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        };
        write().context(|| format!("writing {}", path.display()))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).context(|| format!("reading {}", path.display()))
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).context(|| format!("reading {}", path.display()))
}

/// What a command says on standard output, when it ends well.
fn said(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().context(|| format!("running {command:?}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Error::new(format!("{command:?} failed ({}):\n{}", output.status, String::from_utf8_lossy(&said))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_of_packages_is_made_of_the_references() {
        for package in [EDGE, SERVER] {
            for configuration in package.configuration {
                let text = configuration.text().unwrap();
                for (line, instead) in configuration.edits {
                    assert!(text.contains(instead) && !text.contains(&format!("\n{line}\n")), "{line}");
                }
            }
        }
        let missing = Configuration { name: "x", source: "README.md", edits: &[("no such line", "")] };
        assert!(missing.text().unwrap_err().to_string().contains("has 0 times the line `no such line`"));
    }
}
