//! The list of errors.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// An error to plant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Planted {
    /// Its name, unique.
    pub(crate) name: String,
    /// The file to plant it in, from the root of the workspace.
    pub(crate) file: String,
    /// What is wrong then.
    pub(crate) wrong: String,
    /// The text to take out; occurs exactly once in the file.
    find: String,
    /// The text to put in its place.
    replace: String,
    /// The test program that should notice, if it is none of the usual ones.
    pub(crate) program: Option<String>,
    /// Whether it belongs to the quick selection.
    #[serde(default)]
    pub(crate) quick: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    error: Vec<Planted>,
}

/// All errors of `errors.toml`.
pub(crate) fn all() -> Result<Vec<Planted>> {
    let list: List = toml::from_str(include_str!("errors.toml")).context("errors.toml")?;
    let mut names = HashSet::new();
    for error in &list.error {
        ensure!(names.insert(&error.name), "errors.toml: two errors have the name {}", error.name);
    }
    Ok(list.error)
}

impl Planted {
    /// The text of the file with the error in it.
    pub(crate) fn apply(&self, root: &Path) -> Result<String> {
        let Self { name, file, find, replace, .. } = self;
        let text = std::fs::read_to_string(root.join(file))
            .with_context(|| format!("{name} does not apply: {file}"))?;
        let count = text.matches(find.as_str()).count();
        ensure!(count == 1, "{name} does not apply: `{find}` is {count} times in {file}, not once");
        ensure!(find != replace, "{name} changes nothing");
        Ok(text.replacen(find, replace, 1))
    }
}
