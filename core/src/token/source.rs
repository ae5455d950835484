//! Where a tokenizer's tables are read from.

/// The tables could not be read: the storage failed, or they end before the place that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceError;

impl core::fmt::Display for SourceError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the tokenizer's tables cannot be read")
    }
}

impl core::error::Error for SourceError {}

/// Storage that holds a tokenizer section.
///
/// A slice is one, at the cost of a bounds check. A board that keeps the section on a card implements `read` over
/// one or a few cached sectors: reads are of 64 bytes or fewer and never cross a 64-byte boundary in the merge table,
/// which is where most of them go.
pub trait TableSource {
    /// Fills `out`, of 64 bytes or fewer, with the bytes at `offset` of the section.
    ///
    /// # Errors
    /// [`SourceError`] where the storage fails or ends first.
    fn read(&mut self, offset: u32, out: &mut [u8]) -> Result<(), SourceError>;

    /// The `N` bytes at `offset`.
    ///
    /// # Errors
    /// As [`TableSource::read`].
    #[inline(always)]
    fn array<const N: usize>(&mut self, offset: u32) -> Result<[u8; N], SourceError> {
        let mut out = [0; N];
        self.read(offset, &mut out)?;
        Ok(out)
    }
}

impl TableSource for &[u8] {
    #[inline(always)]
    fn read(&mut self, offset: u32, out: &mut [u8]) -> Result<(), SourceError> {
        let rest = self.get(offset as usize..).ok_or(SourceError)?;
        out.copy_from_slice(rest.get(..out.len()).ok_or(SourceError)?);
        Ok(())
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self, offset: u32) -> Result<[u8; N], SourceError> {
        let rest = self.get(offset as usize..).ok_or(SourceError)?;
        rest.first_chunk().copied().ok_or(SourceError)
    }
}

impl<S: TableSource> TableSource for &mut S {
    #[inline(always)]
    fn read(&mut self, offset: u32, out: &mut [u8]) -> Result<(), SourceError> {
        (**self).read(offset, out)
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self, offset: u32) -> Result<[u8; N], SourceError> {
        (**self).array(offset)
    }
}
