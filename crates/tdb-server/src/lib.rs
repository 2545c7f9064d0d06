//! The debugger's server: HTTP interface, queue, streaming, command line.
//!
//! ```text
//! app          the routes and what surrounds them       guard    who may ask: Host, Origin, CORS
//! controllers  one file for each kind of thing asked    body     request bodies and query parameters, 422
//! queue        admission, compute threads, cancelling   error    every error as a status and a sentence
//! openapi      the document, made with the routes       ui       the embedded pages
//! cli          the command `tdb`
//! ```

pub mod app;
mod body;
pub mod cli;
pub mod config;
mod controllers;
mod error;
mod guard;
pub mod model;
mod openapi;
pub mod queue;
pub mod records;
mod ui;

pub use app::{App, router};
pub use config::{Limits, ServerConfig};
pub use error::ApiError;
pub use model::{Ask, Question};
