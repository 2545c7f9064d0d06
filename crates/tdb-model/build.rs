//! Tells the crate whether it is built for development and tests: only then can mistakes be planted (`src/fault.rs`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(planted_faults)");
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        println!("cargo::rustc-cfg=planted_faults");
    }
}
