//! What the tests of the whole house share.

pub mod browser;
pub mod fuzz;
pub mod house;
pub mod repository;
