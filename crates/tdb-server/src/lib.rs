//! The debugger's server: HTTP interface, queue, streaming, command line.
//!
//! ```text
//! app          the routes and what surrounds them       server      connections, from the socket to the routes
//! controllers  one file for each kind of thing asked    connection  one of them, all of them, and who asks
//! question     limits and answer of each question       unsent      answers that clients have not taken yet
//! model        what is asked                            guard       who may ask: Host, Origin, CORS
//! queue        admission, compute threads, fairness     token       who may ask: the token
//! body         reading requests, 422                    pages       what browsers may do with the pages
//! reply        writing answers                          observe     ids, access log; metrics: counts and times
//! error        every error as a status and a sentence   stop        how the server ends
//! openapi      routes with handlers, and the document   ui          the embedded pages
//! cli          the command `tdb`
//! ```

pub mod app;
mod body;
pub mod cli;
pub mod config;
mod connection;
mod controllers;
mod error;
mod guard;
mod metrics;
pub mod model;
mod observe;
pub mod openapi;
mod pages;
pub mod question;
pub mod queue;
pub mod records;
pub mod reply;
mod server;
mod socket;
mod stop;
mod suggestion;
mod token;
mod ui;
mod unsent;

pub use app::{App, router};
pub use config::{Limits, ServerConfig};
pub use error::ApiError;
pub use model::Ask;
pub use question::Question;
pub use server::serve;
pub use ui::Pages;
