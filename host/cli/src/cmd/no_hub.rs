//! Built without the feature `hub`: names of models on a hub are refused.

use super::Need;
use omex::{Error, Result};
use std::path::Path;

pub(crate) fn make_local(model: &mut Path, _need: Need, _offline: bool) -> Result<()> {
    if model.to_str().is_some_and(|text| text.starts_with("hf:")) {
        let message =
            "this omex was built without the feature hub: build it with it, or name a package";
        return Err(Error::Usage(format!("{}: {message}", model.display())));
    }
    Ok(())
}
