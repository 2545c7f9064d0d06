//! The pages are embedded from the folder that the build of `tdb-ui` writes. Without them the server still builds.

use std::path::Path;

fn main() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tdb-ui/dist");
    if let Err(error) = std::fs::create_dir_all(&dist) {
        // The embedding then fails with its own message; this says why.
        println!("cargo::warning={} could not be made: {error}", dist.display());
    }
    println!("cargo::rerun-if-changed={}", dist.display());
    println!("cargo::rerun-if-changed=build.rs");
}
