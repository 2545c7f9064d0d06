//! The command `tdb`.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use rust_embed::RustEmbed;
use tdb_server::Pages;

/// Keeps the pages of tensors that are no longer needed for the next ones, and gives them back after a peak: with the
/// system's allocator a pass over 256 tokens of GPT-2 small's shape takes a fifth longer.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[derive(RustEmbed)]
#[folder = "../tdb-ui/dist"]
struct Dist;

fn main() -> ExitCode {
    tdb_server::cli::runtime::one_candle_thread();
    match tdb_server::cli::run(Pages::new(Dist::get)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tdb: {}", tdb_server::cli::sentence(&error));
            ExitCode::FAILURE
        }
    }
}
