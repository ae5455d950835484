//! Says which kernels a target has that the compiler doesn't tell of: `dsp`, those of ARMv7E-M.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(dsp)");
    if std::env::var("TARGET").is_ok_and(|target| target.starts_with("thumbv7em")) {
        println!("cargo:rustc-cfg=dsp");
    }
}
