//! Ctrl-C, SIGTERM and SIGHUP: the first asks the work to stop and clean up, the second ends the
//! process at once.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;

/// From now on signals are noted instead of ending the process at once.
pub(crate) fn install() {
    let asked = omex::interrupt::flag();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the first signal finds the flag unset. Where a handler can't be installed,
        // the signal ends the process as it does by default.
        let _ = flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked));
        let _ = flag::register(signal, Arc::clone(&asked));
    }
}
