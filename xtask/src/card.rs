//! An SD card for QEMU: a flash image in a file of a card's size, for as long as it is wanted.

use crate::Result;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// QEMU makes a card up to 2 GiB one of standard capacity, which is addressed by bytes; a larger
/// one is addressed by blocks. The size is a power of two.
const STANDARD_BYTES: u64 = 64 << 20;
const HIGH_CAPACITY_BYTES: u64 = 4 << 30;

/// A temporary file, removed when dropped.
pub(crate) struct Card(PathBuf);

impl Card {
    /// A card that begins with `image`. What lies behind it takes no space on the disk.
    ///
    /// # Errors
    /// Files that can't be read or written.
    pub(crate) fn new(image: &Path, high_capacity: bool) -> Result<Self> {
        let mut source = File::open(image).map_err(|e| format!("{}: {e}", image.display()))?;
        let name = format!("omex-card-{}.img", std::process::id());
        let card = Self(std::env::temp_dir().join(name));
        let least = if high_capacity { HIGH_CAPACITY_BYTES } else { STANDARD_BYTES };
        File::create(&card.0)
            .and_then(|mut file| {
                let bytes = std::io::copy(&mut source, &mut file)?;
                file.set_len(bytes.next_power_of_two().max(least))
            })
            .map_err(|e| format!("{}: {e}", card.0.display()))?;
        Ok(card)
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // Nothing is lost if it stays: it lies in the folder for temporary files.
        let _ = fs::remove_file(&self.0);
    }
}
