//! The pages are embedded from the folder that the build of `tdb-ui` writes. Without them the server still builds, and
//! says so: building them takes another target and minutes, which nobody expects of a build script.

use std::path::Path;

fn main() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tdb-ui/dist");
    if let Err(error) = std::fs::create_dir_all(&dist) {
        // The embedding then fails with its own message; this says why.
        println!("cargo::warning={} could not be made: {error}", dist.display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    // Whoever says so builds the library while the pages are made, and the program, which embeds them, afterwards.
    if std::env::var_os("TDB_PAGES_LATER").is_some() {
        return;
    }
    // A debug build reads them from the folder when it runs.
    let released = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if released && !dist.join("index.html").exists() {
        println!("cargo::warning=tdb is built without its pages: run `cargo xtask ui` first, and build again");
    }
    println!("cargo::rerun-if-changed={}", dist.display());
}
