//! What the linker is told, where it is one that knows such words.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=src/layout.ld");
    let target = |what: &str| var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    // mold and gold take no such file, and link as well without it.
    let linker =
        ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_LINKER"].map(|name| var(name).unwrap_or_default()).concat();
    let takes_none = ["mold", "gold"].iter().any(|name| linker.contains(name));
    if target("OS") != "linux" || takes_none {
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
