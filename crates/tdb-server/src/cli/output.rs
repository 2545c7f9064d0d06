//! What commands print.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

/// As `println!`. Where nobody reads on, as behind `| head`, the command ends as others do.
macro_rules! say {
    ($($line:tt)*) => {
        $crate::cli::output::line(format_args!($($line)*))
    };
}
pub(super) use say;

/// The status of a program that a closed pipe ended, as shells tell it: 128 and the number of SIGPIPE.
const CLOSED_PIPE: i32 = 141;

pub fn line(line: Arguments<'_>) {
    printed(writeln!(io::stdout().lock(), "{line}"));
}

/// Ends the program if what was printed did not arrive.
pub fn printed(result: io::Result<()>) {
    match result {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(CLOSED_PIPE),
        Err(error) => {
            eprintln!("tdb: the output cannot be written: {error}");
            std::process::exit(1)
        }
    }
}

/// For a server, which goes on also when nobody reads what it prints.
pub fn line_if_read(line: Arguments<'_>) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}
