//! Files that are written beside others and then take their place.

use crate::{Error, Result};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::NamedTempFile;

/// A new file in the folder of `path`, which is removed unless it is persisted. It may be read by
/// whom the umask allows, where temporary files are their owner's alone.
///
/// # Errors
/// A folder that can't be written to.
pub(crate) fn create_beside(path: &Path) -> Result<NamedTempFile> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new();
    file.permissions(Permissions::from_mode(0o666));
    file.tempfile_in(folder).map_err(|e| Error::io(folder, "write into", e))
}
