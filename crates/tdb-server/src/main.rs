//! The command `tdb`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match tdb_server::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tdb: {}", tdb_server::cli::sentence(&error));
            ExitCode::FAILURE
        }
    }
}
