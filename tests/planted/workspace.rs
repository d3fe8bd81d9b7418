//! The workspace, and the copy of it that errors are planted in.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// Files of the workspace's root that a build looks at.
const ROOT_FILES: [&str; 4] =
    ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", ".cargo/config.toml"];

/// The workspace, as `cargo metadata` describes it.
#[derive(Deserialize)]
pub(crate) struct Workspace {
    workspace_root: PathBuf,
    target_directory: PathBuf,
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    manifest_path: PathBuf,
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

impl Workspace {
    /// The workspace of this program.
    pub(crate) fn find() -> Result<Self> {
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .output()
            .context("cargo metadata")?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cargo metadata: {message}");
        serde_json::from_slice(&output.stdout).context("what cargo metadata printed")
    }

    /// Its root folder.
    pub(crate) fn root(&self) -> &Path {
        &self.workspace_root
    }

    /// Brings the copy up to date: files that have not changed keep their time stamps, so that only what has changed is built
    /// again.
    pub(crate) fn copy(&self) -> Result<Copy> {
        let folder = self.target_directory.join("planted");
        fs::create_dir_all(&folder)?;
        let lock = File::create(folder.join("lock"))?;
        lock.try_lock().with_context(|| format!("{} is in use", folder.display()))?;
        let root = folder.join("workspace");

        let mut files: HashSet<PathBuf> = ROOT_FILES.iter().map(PathBuf::from).collect();
        for package in &self.packages {
            let folder = package.manifest_path.parent().context("a manifest lies in a folder")?;
            self.collect(folder, &mut files)?;
        }
        for file in &files {
            let (source, target) = (self.workspace_root.join(file), root.join(file));
            let text = fs::read(&source).with_context(|| source.display().to_string())?;
            if fs::read(&target).is_ok_and(|present| present == text) {
                continue;
            }
            let parent = target.parent().context("a file lies in a folder")?;
            fs::create_dir_all(parent)?;
            fs::write(&target, text).with_context(|| target.display().to_string())?;
        }
        remove_others(&root, &root, &files)?;
        Ok(Copy { root, target: folder.join("target"), _lock: lock })
    }

    /// Adds the files below a folder, from the root on, without hidden ones and what was built.
    fn collect(&self, folder: &Path, files: &mut HashSet<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
            if hidden || path == self.target_directory {
                continue;
            }
            if path.is_dir() {
                self.collect(&path, files)?;
            } else {
                files.insert(path.strip_prefix(&self.workspace_root)?.to_owned());
            }
        }
        Ok(())
    }
}

/// Removes from the copy what is not one of the files.
fn remove_others(root: &Path, folder: &Path, files: &HashSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(root, &path, files)?;
        } else if !files.contains(path.strip_prefix(root)?) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// The copy.
pub(crate) struct Copy {
    /// Its root folder.
    pub(crate) root: PathBuf,
    /// Where it is built: not in the workspace's own target folder, where cargo would take its packages for the workspace's.
    pub(crate) target: PathBuf,
    /// Held so that two runs do not plant in the same copy.
    _lock: File,
}

impl Copy {
    /// Puts a text in the place of a file's.
    pub(crate) fn plant(&self, file: &str, text: &str) -> Result<InPlace> {
        let path = self.root.join(file);
        let original = fs::read(&path)?;
        fs::write(&path, text)?;
        Ok(InPlace { path, original })
    }
}

/// An error that is in the copy.
#[must_use]
pub(crate) struct InPlace {
    path: PathBuf,
    original: Vec<u8>,
}

impl InPlace {
    /// Restores the file.
    pub(crate) fn take_out(self) -> Result<()> {
        fs::write(&self.path, &self.original).with_context(|| self.path.display().to_string())
    }
}
