//! Programs made of any bytes, played by the engine and naively.

use omex::pool::Pool;
use std::sync::OnceLock;

/// Has the program that these bytes choose played, which must give what is right.
pub fn program(data: &[u8]) {
    static POOL: OnceLock<Pool> = OnceLock::new();
    omex_tests::check_program(data, POOL.get_or_init(|| Pool::new(2)));
}
