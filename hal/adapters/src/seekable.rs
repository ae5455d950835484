//! Anything that `embedded-io` can read and seek in, such as a file of a file system.

use crate::buffered::{Storage, StorageError};
use embedded_io::{Read, ReadExactError, Seek, SeekFrom};

/// A `Read + Seek` as [`Storage`].
#[derive(Clone, Copy, Debug)]
pub struct Seekable<F>(pub F);

impl<F: Read + Seek> Storage for Seekable<F> {
    const READ_BYTES: u32 = 1;

    fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), StorageError> {
        self.0.seek(SeekFrom::Start(offset)).map_err(|_| StorageError::Device)?;
        self.0.read_exact(out).map_err(|e| match e {
            ReadExactError::UnexpectedEof => StorageError::End,
            ReadExactError::Other(_) => StorageError::Device,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::weights;
    use crate::{BufferedPager, conformance};
    use core::convert::Infallible;

    /// A file that gives at most 100 bytes at once, as pipes and file systems may.
    struct File<'a> {
        bytes: &'a [u8],
        at: usize,
    }

    impl embedded_io::ErrorType for File<'_> {
        type Error = Infallible;
    }

    impl Read for File<'_> {
        fn read(&mut self, out: &mut [u8]) -> Result<usize, Infallible> {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let length = rest.len().min(out.len()).min(100);
            out[..length].copy_from_slice(&rest[..length]);
            self.at += length;
            Ok(length)
        }
    }

    impl Seek for File<'_> {
        fn seek(&mut self, to: SeekFrom) -> Result<u64, Infallible> {
            let SeekFrom::Start(to) = to else { panic!("only absolute seeks are needed") };
            self.at = to as usize;
            Ok(to)
        }
    }

    #[test]
    fn conforms() {
        let weights = weights::<5000>();
        let mut memory = [0; 2048];
        let file = File { bytes: &weights, at: 0 };
        let mut pager = BufferedPager::new(Seekable(file), &mut memory, 512, 5000).unwrap();
        assert_eq!(conformance::check(&mut pager, &weights), Ok(()));
    }

    #[test]
    fn the_end_of_the_file_is_told_from_a_failure() {
        let mut file = Seekable(File { bytes: &[1, 2, 3], at: 0 });
        assert_eq!(file.read(1, &mut [0; 3]), Err(StorageError::End));
        assert_eq!(file.read(1, &mut [0; 2]), Ok(()));
    }
}
