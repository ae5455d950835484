//! The command says what it is.

use std::process::Command;

#[test]
fn the_version_is_that_of_the_package() {
    let omex = Command::new(env!("CARGO_BIN_EXE_omex")).arg("--version").output().unwrap();
    let expected = concat!("omex ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(String::from_utf8_lossy(&omex.stdout), expected);
}
