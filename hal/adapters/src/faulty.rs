//! A device that fails as devices do, to see how a program takes it.

use crate::buffered::SetupError;
use core::ops::Range;
use omex_hal::{PageError, PageErrorKind, PageGeometry, Pager};

/// How often a page that is read fails, in parts per million; the same seed gives the same faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Where the random numbers begin.
    pub seed: u64,
    /// The device reports a failure.
    pub device_errors: u32,
    /// One bit is the other way round, and nothing says so.
    pub flipped_bits: u32,
    /// The page is too short, and nothing says so.
    pub truncations: u32,
}

impl Faults {
    /// Everything works.
    pub const NONE: Self = Self { seed: 0, device_errors: 0, flipped_bits: 0, truncations: 0 };
}

/// A pager that spoils some of another one's pages.
///
/// A page keeps its fault until another page is asked for, or until it is discarded.
#[derive(Debug)]
pub struct FaultyPager<'m, P> {
    inner: P,
    faults: Faults,
    random: u64,
    buffer: &'m mut [u8],
    /// The page in the buffer, and how long it is.
    resident: Option<(u32, usize)>,
}

impl<'m, P: Pager> FaultyPager<'m, P> {
    /// Spoils pages of `inner` in `buffer`, which holds one page.
    ///
    /// # Errors
    /// [`SetupError::Memory`] if `buffer` is shorter than a page.
    pub fn new(inner: P, faults: Faults, buffer: &'m mut [u8]) -> Result<Self, SetupError> {
        if buffer.len() < inner.geometry().page_size as usize {
            return Err(SetupError::Memory);
        }
        Ok(Self { inner, faults, random: faults.seed, buffer, resident: None })
    }

    /// The pager inside.
    pub fn into_inner(self) -> P {
        self.inner
    }

    /// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        (self.draw() % (limit.max(1) as u64)) as usize
    }

    fn happens(&mut self, per_million: u32) -> bool {
        self.below(1_000_000) < per_million as usize
    }

    /// Reads a page into the buffer, with whatever fault its turn brings.
    fn read(&mut self, page: u32) -> Result<usize, PageError> {
        self.resident = None;
        let page_size = self.inner.geometry().page_size as usize;
        let bytes = self.inner.page(page)?;
        let bytes = bytes.get(..page_size).unwrap_or(bytes);
        let mut length = bytes.len();
        if let Some(copy) = self.buffer.get_mut(..length) {
            copy.copy_from_slice(bytes);
        }
        if self.happens(self.faults.device_errors) {
            return Err(PageError { page, kind: PageErrorKind::Device });
        }
        if self.happens(self.faults.flipped_bits) {
            let bit = self.below(8 * length);
            if let Some(byte) = self.buffer.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
        if self.happens(self.faults.truncations) {
            length = self.below(length);
        }
        self.resident = Some((page, length));
        Ok(length)
    }
}

impl<P: Pager> Pager for FaultyPager<'_, P> {
    fn geometry(&self) -> PageGeometry {
        self.inner.geometry()
    }

    /// Never: a page may have another fault when it is read again.
    fn is_stable(&self, _page: u32) -> bool {
        false
    }

    fn want(&mut self, pages: Range<u32>) {
        self.inner.want(pages);
    }

    fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
        let length = match self.resident {
            Some((resident, length)) if resident == page => length,
            _ => self.read(page)?,
        };
        self.buffer.get(..length).ok_or(PageError { page, kind: PageErrorKind::Truncated })
    }

    fn discard(&mut self, page: u32) {
        self.resident = self.resident.filter(|(resident, _)| *resident != page);
        self.inner.discard(page);
    }

    fn intact(&self) -> Result<(), PageError> {
        self.inner.intact()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::weights;
    use crate::{SlicePager, conformance};

    const READS: u32 = 10_000;

    /// How often page after page comes with an error, other bytes, and too few bytes.
    fn count(faults: Faults) -> (u32, u32, u32) {
        let weights = weights::<1024>();
        let mut buffer = [0; 512];
        let inner = SlicePager::new(&weights, 512).unwrap();
        let mut pager = FaultyPager::new(inner, faults, &mut buffer).unwrap();
        let (mut errors, mut flips, mut cuts) = (0, 0, 0);
        for i in 0..READS {
            let page = i % 2;
            let expected = &weights[page as usize * 512..][..512];
            match pager.page(page) {
                Err(e) => {
                    assert_eq!(e, PageError { page, kind: PageErrorKind::Device });
                    errors += 1;
                }
                Ok(bytes) if bytes.len() < 512 => cuts += 1,
                Ok(bytes) => {
                    let differing = bytes.iter().zip(expected).map(|(a, b)| (a ^ b).count_ones());
                    let wrong: u32 = differing.sum();
                    assert!(wrong <= 1);
                    flips += wrong;
                }
            }
        }
        (errors, flips, cuts)
    }

    #[test]
    fn faults_come_at_the_stated_rates() {
        let tenth = 100_000;
        let near = |count: u32| (900..1100).contains(&count);
        let (errors, ..) = count(Faults { seed: 1, device_errors: tenth, ..Faults::NONE });
        let (_, flips, _) = count(Faults { seed: 2, flipped_bits: tenth, ..Faults::NONE });
        let (.., cuts) = count(Faults { seed: 3, truncations: tenth, ..Faults::NONE });
        assert!(near(errors) && near(flips) && near(cuts), "{errors} {flips} {cuts}");
        let all = Faults { seed: 4, device_errors: tenth, flipped_bits: tenth, truncations: tenth };
        assert_eq!(count(all), count(all));
        assert_ne!(count(all), count(Faults { seed: 5, ..all }));
    }

    #[test]
    fn without_faults_it_conforms() {
        let weights = weights::<3000>();
        let mut buffer = [0; 512];
        let inner = SlicePager::new(&weights, 512).unwrap();
        let mut pager = FaultyPager::new(inner, Faults::NONE, &mut buffer).unwrap();
        assert_eq!(conformance::check(&mut pager, &weights), Ok(()));
    }

    #[test]
    fn a_fault_stays_until_the_page_is_discarded() {
        let weights = weights::<512>();
        let mut buffer = [0; 512];
        let inner = SlicePager::new(&weights, 512).unwrap();
        let faults = Faults { flipped_bits: 500_000, ..Faults::NONE };
        let mut pager = FaultyPager::new(inner, faults, &mut buffer).unwrap();
        let mut seen = [0; 2];
        for _ in 0..100 {
            let is_whole = pager.page(0).unwrap() == weights;
            assert_eq!(pager.page(0).unwrap() == weights, is_whole);
            seen[usize::from(is_whole)] += 1;
            pager.discard(0);
        }
        assert!(seen.iter().all(|times| *times > 20), "{seen:?}");
    }
}
