//! Hashes of the sources that PTX was made from.
//!
//! Only what the files say counts: not where the checkout lies, which line endings it uses or in which order the
//! file system lists it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::CudaBuilderError;
use crate::settings::Settings;

/// The hash of the kernel crate's own sources, in hexadecimal.
pub(crate) fn kernel_hash(krate: &Path, settings: &Settings) -> Result<String, CudaBuilderError> {
    let mut hash = Sha256::new();
    add_crate(&mut hash, "", krate, krate, settings)?;
    Ok(finish(hash))
}

/// The hash of the libraries' sources. `None` if one of them is not there: a crate that was published does not
/// carry its dependencies, and they do not change either.
pub(crate) fn library_hash(
    krate: &Path,
    settings: &Settings,
) -> Result<Option<String>, CudaBuilderError> {
    let mut hash = Sha256::new();
    for library in &settings.libraries {
        let folder = krate.join(library);
        if !folder.is_dir() {
            return Ok(None);
        }
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        add_crate(&mut hash, &name, &folder, krate, settings)?;
    }
    Ok(Some(finish(hash)))
}

/// The folders a build script must watch.
pub(crate) fn folders(krate: &Path, settings: &Settings) -> Vec<PathBuf> {
    let libraries = settings.libraries.iter().map(|library| krate.join(library));
    let folders = std::iter::once(krate.to_owned()).chain(libraries);
    folders.map(|folder| folder.join("src")).filter(|folder| folder.is_dir()).collect()
}

fn add_crate(
    hash: &mut Sha256,
    name: &str,
    folder: &Path,
    krate: &Path,
    settings: &Settings,
) -> Result<(), CudaBuilderError> {
    let root = folder.join("src");
    let excluded: Vec<_> = settings.host_only.iter().map(|path| krate.join(path)).collect();
    let mut files = Vec::new();
    collect(&root, &excluded, &mut files)?;

    let mut named: Vec<(String, PathBuf)> =
        files.into_iter().map(|file| (relative_name(&root, &file), file)).collect();
    named.sort();
    for (file_name, path) in named {
        let text = fs::read(&path).map_err(CudaBuilderError::io(&path))?;
        let text = with_unix_line_ends(&text);
        // The lengths keep two files from hashing like one.
        hash.update(format!("{name}/{file_name}\n{}\n", text.len()));
        hash.update(&text);
    }
    Ok(())
}

fn collect(
    folder: &Path,
    excluded: &[PathBuf],
    files: &mut Vec<PathBuf>,
) -> Result<(), CudaBuilderError> {
    for entry in folder.read_dir().map_err(CudaBuilderError::io(folder))? {
        let path = entry.map_err(CudaBuilderError::io(folder))?.path();
        if excluded.contains(&path) {
            continue;
        }
        if path.is_dir() {
            collect(&path, excluded, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn relative_name(root: &Path, file: &Path) -> String {
    let relative = file.strip_prefix(root).unwrap_or(file);
    let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

fn with_unix_line_ends(text: &[u8]) -> Vec<u8> {
    let mut unix = Vec::with_capacity(text.len());
    for (index, &byte) in text.iter().enumerate() {
        if byte != b'\r' || text.get(index + 1) != Some(&b'\n') {
            unix.push(byte);
        }
    }
    unix
}

/// A name for these texts, of 16 hexadecimal digits.
pub(crate) fn short_hash(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(format!("{}\n{text}\n", text.len()));
    }
    let mut name = finish(hash);
    name.truncate(16);
    name
}

fn finish(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(libraries: &[&str], host_only: &[&str]) -> Settings {
        Settings {
            levels: Vec::new(),
            libraries: libraries.iter().map(PathBuf::from).collect(),
            host_only: host_only.iter().map(PathBuf::from).collect(),
            max_threads: Vec::new(),
        }
    }

    /// A kernel crate `k` and a library `std` side by side.
    fn checkout(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        folder
    }

    fn hash_of(files: &[(&str, &str)]) -> String {
        let folder = checkout(files);
        kernel_hash(&folder.path().join("k"), &settings(&[], &["k/none"])).expect("a hash")
    }

    #[test]
    fn place_order_and_line_ends_do_not_count() {
        let one = hash_of(&[("k/src/lib.rs", "a\nb\n"), ("k/src/m/x.rs", "x\n")]);
        let other = hash_of(&[("k/src/m/x.rs", "x\r\n"), ("k/src/lib.rs", "a\r\nb\r\n")]);
        assert_eq!(one, other);
        assert_eq!(one.len(), 64);
    }

    #[test]
    fn contents_names_and_borders_count() {
        let one = hash_of(&[("k/src/a.rs", "a"), ("k/src/b.rs", "b")]);
        for files in [
            [("k/src/a.rs", "a"), ("k/src/b.rs", "c")],
            [("k/src/a.rs", "a"), ("k/src/c.rs", "b")],
            [("k/src/a.rs", "ab"), ("k/src/b.rs", "")],
            [("k/src/a.rs", "a\r"), ("k/src/b.rs", "b")],
        ] {
            assert_ne!(one, hash_of(&files), "{files:?}");
        }
    }

    #[test]
    fn host_only_files_do_not_count() {
        let hash = |emulator: &str, kernel: &str| {
            let folder = checkout(&[
                ("k/src/lib.rs", kernel),
                ("k/src/host.rs", emulator),
                ("std/src/lib.rs", "std"),
                ("std/src/emulator/mod.rs", emulator),
            ]);
            let settings = settings(&["../std"], &["src/host.rs", "../std/src/emulator"]);
            let krate = folder.path().join("k");
            (
                kernel_hash(&krate, &settings).expect("a hash"),
                library_hash(&krate, &settings).expect("a hash").expect("the library is there"),
            )
        };
        assert_eq!(hash("1", "kernel"), hash("2", "kernel"));
        assert_ne!(hash("1", "kernel").0, hash("1", "changed").0);
    }

    #[test]
    fn libraries_that_are_not_there_have_no_hash() {
        let folder = checkout(&[("k/src/lib.rs", "a"), ("std/src/lib.rs", "std")]);
        let krate = folder.path().join("k");
        let hash = |libraries| library_hash(&krate, &settings(libraries, &[])).expect("readable");
        assert!(hash(&["../std"]).is_some());
        assert_eq!(hash(&["../std", "../gone"]), None);
    }
}
