//! The engine computes what a naive player computes, on programs that nobody thought of; and the same
//! bits in passes of any length, over texts that go back, branch and are forked, with any kernels,
//! threads and pages. `OMEX_PROGRAMS` says how many.

use omex::pool::Pool;
use omex_tests::check_program;

#[test]
fn random_programs_give_what_the_naive_player_gives() {
    let count = std::env::var("OMEX_PROGRAMS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let pool = Pool::new(2);
    (0..count).for_each(|seed: u64| check_program(&seed.to_le_bytes(), &pool));
}
