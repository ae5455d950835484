//! Files of settings that other programs keep beside a model.

use crate::import::Container;
use crate::{Error, Result, input};
use serde::de::DeserializeOwned;

/// The longest file of settings that is read.
const MAX_SETTINGS: u64 = 16 << 20;

/// A file of settings beside the model's `config.json`, or in a folder there, if it is there.
pub(super) fn beside<T: DeserializeOwned>(source: &dyn Container, name: &str) -> Result<Option<T>> {
    let path = source.path().with_file_name(name);
    if !source.format().has_config() || !path.exists() {
        return Ok(None);
    }
    let bytes = input::read(&path, MAX_SETTINGS)?;
    let value = serde_json::from_slice(input::without_mark(&bytes)).map_err(|error| {
        let expected = "the JSON that other programs write there";
        let remedy = "correct the file, or get it again";
        Error::malformed(&path, "JSON", error.to_string(), expected, remedy)
    })?;
    Ok(Some(value))
}
