//! Flags for the one binary only: plain RUSTFLAGS would hit build scripts too, which then crash.

fn main() {
    let target = std::env::var("CARGO_CFG_TARGET_OS").unwrap();
    let flags: &[&str] = if target == "none" {
        println!("cargo:rustc-link-search={}", std::env::var("CARGO_MANIFEST_DIR").unwrap());
        &["-Tcortex_m.ld"]
    } else {
        // Position and relocations would need start-up code; `norelro` leaves out a page that is padding only.
        &["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,-z,norelro"]
    };
    for flag in flags {
        println!("cargo:rustc-link-arg-bins={flag}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cortex_m.ld");
}
