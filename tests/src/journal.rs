//! Records that tests keep between runs, one JSON value per line, in the folder of the built fixtures.

use std::fs;
use std::io::Write as _;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::matrix::build_root;

/// Appends records to a file.
///
/// # Errors
///
/// Returns an error if the file cannot be written.
pub(crate) fn append<T: Serialize>(name: &str, records: &[T]) -> Result<()> {
    let path = build_root().join(name);
    let mut text = String::new();
    for record in records {
        let line = serde_json::to_string(record).map_err(|source| Error::Record {
            path: path.clone(),
            line: 0,
            source,
        })?;
        text.push_str(&line);
        text.push('\n');
    }
    let mut file =
        fs::OpenOptions::new().create(true).append(true).open(&path).map_err(Error::file(&path))?;
    // One write: tests that record at the same time must not mix their lines.
    file.write_all(text.as_bytes()).map_err(Error::file(&path))
}

/// Reads all records of a file, oldest first.
///
/// # Errors
///
/// Returns an error if the file is missing or has other contents.
pub(crate) fn read<T: DeserializeOwned>(name: &str) -> Result<Vec<T>> {
    let path = build_root().join(name);
    let text = fs::read_to_string(&path).map_err(Error::file(&path))?;
    let record = |(index, line)| {
        serde_json::from_str(line).map_err(|source| Error::Record {
            path: path.clone(),
            line: index + 1,
            source,
        })
    };
    text.lines().enumerate().map(record).collect()
}
