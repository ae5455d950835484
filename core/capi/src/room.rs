//! The caller's memory, cut up from the front.

/// What arenas and images that can be addressed are aligned to, in bytes.
pub const OMEX_ALIGNMENT: usize = 16;

/// What is left of an arena, and how much of one was asked for.
pub(crate) struct Room {
    rest: &'static mut [u8],
    needed: u64,
}

impl Room {
    /// An arena whose first byte is aligned.
    pub(crate) fn new(arena: &'static mut [u8]) -> Self {
        Self { rest: arena, needed: 0 }
    }

    /// Bytes that were asked for, whether they were there or not.
    pub(crate) fn needed(&self) -> u64 {
        self.needed
    }

    /// So many bytes, aligned, if they are there.
    pub(crate) fn take(&mut self, bytes: u64) -> Option<&'static mut [u8]> {
        let aligned = bytes.checked_next_multiple_of(OMEX_ALIGNMENT as u64)?;
        self.needed = self.needed.saturating_add(aligned);
        let whole = core::mem::take(&mut self.rest);
        let (part, behind) = whole.split_at_mut_checked(usize::try_from(aligned).ok()?)?;
        self.rest = behind;
        part.get_mut(..usize::try_from(bytes).ok()?)
    }

    /// A place for a value of this type, if there is one.
    pub(crate) fn place<T>(&mut self) -> Option<Place<T>> {
        const { assert!(align_of::<T>() <= OMEX_ALIGNMENT) };
        self.take(size_of::<T>() as u64).map(|bytes| Place(bytes.as_mut_ptr().cast()))
    }

    /// What is left, at least so many bytes, if they are there.
    pub(crate) fn rest(mut self, least: u64) -> Result<&'static mut [u8], u64> {
        self.needed = self.needed.saturating_add(least);
        if (self.rest.len() as u64) < least { Err(self.needed) } else { Ok(self.rest) }
    }

    /// What is left, for a while.
    pub(crate) fn free(&mut self) -> &mut [u8] {
        self.rest
    }
}

/// A place for a value.
pub(crate) struct Place<T>(*mut T);

impl<T> Place<T> {
    /// Puts the value there, where it is not dropped.
    pub(crate) fn put(self, value: T) -> &'static mut T {
        // SAFETY: the place is of the type's size and alignment, lies in memory that the caller gave away for as
        // long as the engine is used, and only this place was made of it.
        unsafe {
            self.0.write(value);
            &mut *self.0
        }
    }
}
