//! What the linker is told, where it is one that knows such words.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=src/layout.ld");
    let target = |what: &str| var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    // mold has no linker scripts.
    let by_mold = var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("mold"));
    if target("OS") != "linux" || by_mold {
        return;
    }
    if let Ok(here) = var("CARGO_MANIFEST_DIR") {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{here}/src/layout.ld");
    }
    // Relocations are packed: 150 KB less. A glibc before 2.36 would refuse the program, so where it is static only.
    if target("ENV") == "musl" {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
