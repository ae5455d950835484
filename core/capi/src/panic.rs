//! What happens on a panic where nobody else says so: the core has none that can be reached.

use core::panic::PanicInfo;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    #[cfg(feature = "assert-no-panic")]
    {
        unsafe extern "C" {
            /// Does not exist: if the linker asks for it, some code can panic.
            fn omex_panic_is_reachable() -> !;
        }
        // SAFETY: never called, since it never links.
        unsafe { omex_panic_is_reachable() }
    }
    #[cfg(not(feature = "assert-no-panic"))]
    loop {
        core::hint::spin_loop();
    }
}
