//! Tests of the server and of the commands from outside.

#![allow(clippy::unwrap_used)] // helpers of tests, too

mod connections;
mod damaged_requests;
mod data_commands;
mod dictionaries;
mod embedded_model;
mod family_commands;
mod hub;
mod interface;
mod own_data;
mod support;
