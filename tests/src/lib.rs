//! What the tests of the whole house share.

pub mod browser;
pub mod house;
pub mod repository;
