//! The debugger's server: HTTP interface, queue, streaming, command line.
//!
//! ```text
//! app          the routes and what surrounds them       guard    who may ask: Host, Origin, CORS
//! controllers  one file for each kind of thing asked    body     reading requests, 422
//! question     limits and answer of each question       reply    writing answers
//! model        what is asked                            error    every error as a status and a sentence
//! queue        admission, compute threads, cancelling   ui       the embedded pages
//! openapi      routes with handlers, and the document   cli      the command `tdb`
//! ```

pub mod app;
mod body;
pub mod cli;
pub mod config;
mod controllers;
mod error;
mod guard;
pub mod model;
pub mod openapi;
pub mod question;
pub mod queue;
pub mod records;
pub mod reply;
mod ui;

pub use app::{App, router};
pub use config::{Limits, ServerConfig};
pub use error::ApiError;
pub use model::Ask;
pub use question::Question;
