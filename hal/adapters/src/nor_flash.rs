//! NOR flash through `embedded-storage`.

use crate::buffered::{Storage, StorageError};
use embedded_storage::nor_flash::{NorFlashError, NorFlashErrorKind, ReadNorFlash};

/// A `ReadNorFlash` as [`Storage`], from byte `start` of the flash on.
#[derive(Clone, Copy, Debug)]
pub struct NorFlash<F> {
    /// The flash.
    pub flash: F,
    /// Where the pages begin; a multiple of what the flash reads at once.
    pub start: u32,
}

impl<F: ReadNorFlash> Storage for NorFlash<F> {
    const READ_BYTES: u32 = F::READ_SIZE as u32;

    fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), StorageError> {
        let address = u32::try_from(offset).ok().and_then(|offset| offset.checked_add(self.start));
        self.flash.read(address.ok_or(StorageError::End)?, out).map_err(|e| match e.kind() {
            NorFlashErrorKind::OutOfBounds => StorageError::End,
            _ => StorageError::Device,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::weights;
    use crate::{BufferedPager, conformance};
    use embedded_storage::nor_flash::ErrorType;

    struct Flash<'a>(&'a [u8]);

    impl ErrorType for Flash<'_> {
        type Error = NorFlashErrorKind;
    }

    impl ReadNorFlash for Flash<'_> {
        const READ_SIZE: usize = 4;

        fn read(&mut self, offset: u32, out: &mut [u8]) -> Result<(), NorFlashErrorKind> {
            if !offset.is_multiple_of(4) || !out.len().is_multiple_of(4) {
                return Err(NorFlashErrorKind::NotAligned);
            }
            let bytes = self.0.get(offset as usize..offset as usize + out.len());
            out.copy_from_slice(bytes.ok_or(NorFlashErrorKind::OutOfBounds)?);
            Ok(())
        }

        fn capacity(&self) -> usize {
            self.0.len()
        }
    }

    #[test]
    fn conforms_behind_other_data() {
        let weights = weights::<5000>();
        let mut memory = [0; 2048];
        let flash = NorFlash { flash: Flash(&weights), start: 1000 };
        let mut pager = BufferedPager::new(flash, &mut memory, 1024, 3998).unwrap();
        assert_eq!(conformance::check(&mut pager, &weights[1000..4998]), Ok(()));
    }

    #[test]
    fn the_end_of_the_flash_is_told_from_a_failure() {
        let mut flash = NorFlash { flash: Flash(&[0; 16]), start: 8 };
        assert_eq!(flash.read(8, &mut [0; 4]), Err(StorageError::End));
        assert_eq!(flash.read(1, &mut [0; 4]), Err(StorageError::Device));
        assert_eq!(flash.read(1 << 32, &mut [0; 4]), Err(StorageError::End));
    }
}
