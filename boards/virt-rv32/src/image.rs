//! Where the image lies.

use omex_board::Flash;

unsafe extern "C" {
    static _image_start: u8;
    static _image_end: u8;
}

/// The memory behind the firmware.
pub fn image() -> Flash {
    let (start, end) = (&raw const _image_start, &raw const _image_end);
    // SAFETY: these addresses are memory, which is always readable, and which nothing writes to.
    Flash(unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) })
}
