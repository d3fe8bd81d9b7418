//! What a kernel crate says about itself in `[package.metadata.cuda-builder]`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{CudaBuilderError, NvvmArch};

/// The settings of a kernel crate. All are optional; paths are relative to the crate.
///
/// ```toml
/// [package.metadata.cuda-builder]
/// levels = ["sm_75", "sm_80", "sm_90"]      # one checked-in PTX for each
/// libraries = ["../cuda_std"]               # crates whose sources the PTX depends on, too
/// host-only = ["src/tests.rs"]              # files and folders that do not reach the GPU
/// max-threads = { forward = 256 }           # largest block size, by beginning of the kernel's name;
///                                           # "forward@sm_90" is for this architecture and later ones
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) levels: Vec<NvvmArch>,
    pub(crate) libraries: Vec<PathBuf>,
    pub(crate) host_only: Vec<PathBuf>,
    pub(crate) max_threads: Vec<(String, u32)>,
}

impl Settings {
    /// Reads the settings of the crate in this folder.
    pub(crate) fn read(krate: &Path) -> Result<Self, CudaBuilderError> {
        let path = krate.join("Cargo.toml");
        let text = fs::read_to_string(&path).map_err(CudaBuilderError::io(&path))?;
        parse(&text).map_err(|reason| CudaBuilderError::Settings { path, reason })
    }
}

fn parse(manifest: &str) -> Result<Settings, String> {
    let manifest: toml::Table = manifest.parse().map_err(|error| format!("{error}"))?;
    let mut settings = Settings {
        levels: vec![NvvmArch::Compute75, NvvmArch::Compute80, NvvmArch::Compute90],
        libraries: Vec::new(),
        host_only: Vec::new(),
        max_threads: Vec::new(),
    };
    let table = manifest.get("package").and_then(|package| package.get("metadata"));
    let Some(table) = table.and_then(|metadata| metadata.get("cuda-builder")) else {
        return Ok(settings);
    };
    let table = table.as_table().ok_or("expected a table")?;
    for (key, value) in table {
        match key.as_str() {
            "levels" => {
                settings.levels = strings(key, value)?
                    .iter()
                    .map(|level| level.parse().map_err(|error: CudaBuilderError| error.to_string()))
                    .collect::<Result<_, _>>()?;
            }
            "libraries" => settings.libraries = paths(key, value)?,
            "host-only" => settings.host_only = paths(key, value)?,
            "max-threads" => settings.max_threads = counts(key, value)?,
            _ => return Err(format!("unknown key `{key}`")),
        }
    }
    Ok(settings)
}

fn strings(key: &str, value: &toml::Value) -> Result<Vec<String>, String> {
    let strings: Option<Vec<String>> = value
        .as_array()
        .and_then(|array| array.iter().map(|item| item.as_str().map(str::to_owned)).collect());
    strings.ok_or_else(|| format!("`{key}`: expected an array of strings"))
}

fn paths(key: &str, value: &toml::Value) -> Result<Vec<PathBuf>, String> {
    Ok(strings(key, value)?.into_iter().map(PathBuf::from).collect())
}

fn counts(key: &str, value: &toml::Value) -> Result<Vec<(String, u32)>, String> {
    let table = value.as_table().ok_or_else(|| format!("`{key}`: expected a table"))?;
    table
        .iter()
        .map(|(prefix, count)| {
            kernels_since(prefix).map_err(|error| format!("`{key}.{prefix}`: {error}"))?;
            let count = count.as_integer().and_then(|count| u32::try_from(count).ok());
            match count {
                Some(count @ 1..=1024) => Ok((prefix.clone(), count)),
                _ => Err(format!("`{key}.{prefix}`: expected a number of threads, 1 to 1024")),
            }
        })
        .collect()
}

/// The beginning of kernels' names, and the architecture from which on they are meant if not on all: `forward@sm_90`.
pub(crate) fn kernels_since(text: &str) -> Result<(&str, Option<NvvmArch>), CudaBuilderError> {
    match text.split_once('@') {
        Some((prefix, since)) => Ok((prefix, Some(since.parse()?))),
        None => Ok((text, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let settings = parse(
            "[package.metadata.cuda-builder]\nlevels = [\"sm_80\"]\nlibraries = [\"../std\"]\n\
             host-only = [\"src/a.rs\"]\nmax-threads = { b = 256, a = 128 }\n",
        );
        let expected = Settings {
            levels: vec![NvvmArch::Compute80],
            libraries: vec!["../std".into()],
            host_only: vec!["src/a.rs".into()],
            max_threads: vec![("a".to_owned(), 128), ("b".to_owned(), 256)],
        };
        assert_eq!(settings, Ok(expected));
    }

    #[test]
    fn without_settings_there_are_three_levels() {
        let settings = parse("[package]\nname = \"kernels\"\n").expect("valid");
        assert_eq!(settings.levels.len(), 3);
        assert!(settings.libraries.is_empty() && settings.max_threads.is_empty());
    }

    #[test]
    fn kernels_may_be_meant_from_an_architecture_on() {
        assert_eq!(kernels_since("forward").ok(), Some(("forward", None)));
        let hopper = Some(("forward", Some(NvvmArch::Compute90)));
        assert_eq!(kernels_since("forward@sm_90").ok(), hopper);
        assert!(kernels_since("forward@sm_91").is_err());
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| {
            parse(&format!("[package.metadata.cuda-builder]\n{text}")).expect_err("a mistake")
        };
        assert!(error("level = [\"sm_80\"]").contains("`level`"));
        assert!(error("levels = [\"sm_81\"]").contains("`sm_81`"));
        assert!(error("levels = \"sm_80\"").contains("array of strings"));
        assert!(error("max-threads = { a = 0 }").contains("`max-threads.a`"));
        assert!(error("max-threads = { a = 2048 }").contains("1 to 1024"));
        assert!(error("max-threads = { \"a@sm_81\" = 256 }").contains("`sm_81`"));
    }
}
