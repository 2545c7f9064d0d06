//! What the tests of the whole product share.

pub mod browser;
pub mod collating;
pub mod fuzz;
pub mod repository;
pub mod serving;
