//! Sums and products of the board's own software floats against the compiler's.

unsafe extern "C" {
    fn __aeabi_fadd(a: u32, b: u32) -> u32;
    fn __aeabi_fsub(a: u32, b: u32) -> u32;
    fn __aeabi_fmul(a: u32, b: u32) -> u32;
    fn __addsf3(a: u32, b: u32) -> u32;
    fn __subsf3(a: u32, b: u32) -> u32;
    fn __mulsf3(a: u32, b: u32) -> u32;
}

type Operation = unsafe extern "C" fn(u32, u32) -> u32;

/// What is on record of each operation: its name, ours, and the compiler's.
const OPERATIONS: [(&str, Operation, Operation); 3] = [
    ("sum", __aeabi_fadd, __addsf3),
    ("difference", __aeabi_fsub, __subsf3),
    ("product", __aeabi_fmul, __mulsf3),
];

/// Ends of ranges, and numbers beside them, of both signs.
const EDGES: [u32; 14] = [
    0x0000_0000,
    0x0000_0001,
    0x007f_ffff,
    0x0080_0000,
    0x0080_0001,
    0x3f7f_ffff,
    0x3f80_0000,
    0x3f80_0001,
    0x3fff_ffff,
    0x4b80_0001,
    0x7f7f_ffff,
    0x7f80_0000,
    0x7fc0_0000,
    0x7f80_0001,
];

/// Pairs of random numbers.
const PAIRS: u32 = 300_000;

/// An operation and what it was given, where the two differ.
#[derive(Debug)]
#[allow(dead_code, reason = "shown if it is there")]
pub struct Difference(&'static str, [u32; 2]);

/// Compares on edges, on any numbers, and on numbers of like exponents, whose sums cancel and whose halves tie.
pub fn compare() -> Result<(), Difference> {
    for (a, b) in EDGES.iter().flat_map(|a| EDGES.map(|b| (*a, b))) {
        for signs in 0..4 {
            check(a | signs << 31, b | signs >> 1 << 31)?;
        }
    }
    let mut state = 0x1234_5678u32;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    for _ in 0..PAIRS {
        let (a, b, c) = (random(), random(), random());
        check(a, b)?;
        let like = (a & 0xff80_0000).wrapping_add((c & 31) << 23).wrapping_sub(15 << 23);
        check(a, like ^ b & 0x807f_ffff)?;
        // Short mantissas, of which many tie.
        check(a & 0xffff_f000, like ^ b & 0x807f_f000)?;
    }
    Ok(())
}

fn check(a: u32, b: u32) -> Result<(), Difference> {
    for (name, ours, theirs) in OPERATIONS {
        // SAFETY: these are functions of numbers.
        let [found, expected] = unsafe { [ours(a, b), theirs(a, b)] };
        let nan = |bits: u32| f32::from_bits(bits).is_nan();
        if found != expected && !(nan(found) && nan(expected)) {
            return Err(Difference(name, [a, b]));
        }
    }
    Ok(())
}
