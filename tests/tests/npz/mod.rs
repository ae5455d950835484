//! Arrays in NumPy's `.npz` files.

use omex::npy::Array;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// The arrays of an `.npz` file by their names; other elements than floats and signed bytes are left out.
pub(crate) fn arrays(npz: &Path) -> BTreeMap<String, Array> {
    let mut archive = zip::ZipArchive::new(File::open(npz).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("array.npy");
    let names: Vec<String> = archive.file_names().map(str::to_owned).collect();
    let mut arrays = BTreeMap::new();
    for name in names {
        let mut file = File::create(&path).unwrap();
        std::io::copy(&mut archive.by_name(&name).unwrap(), &mut file).unwrap();
        if let Ok(array) = Array::read(&path) {
            arrays.insert(name.trim_end_matches(".npy").to_owned(), array);
        }
    }
    arrays
}
