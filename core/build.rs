//! Says which kernels a target has that the compiler doesn't tell of: `dsp`, those of ARMv7E-M, and of ARMv8-M cores that
//! the feature `dsp` says have the same instructions; and `armv8m`, that it is one of these.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(dsp, armv8m)");
    let target = std::env::var("TARGET").unwrap_or_default();
    let armv8m = target.starts_with("thumbv8m.main");
    if armv8m {
        println!("cargo:rustc-cfg=armv8m");
    }
    let has = std::env::var_os("CARGO_FEATURE_DSP").is_some();
    if target.starts_with("thumbv7em") || armv8m && has {
        println!("cargo:rustc-cfg=dsp");
    }
}
