//! Lays out the program's code by `src/layout.ld`, where the linker reads such files.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=src/layout.ld");
    let of_linux = var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    // mold has no linker scripts.
    let by_mold = var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("mold"));
    if let (true, false, Ok(here)) = (of_linux, by_mold, var("CARGO_MANIFEST_DIR")) {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{here}/src/layout.ld");
    }
}
