//! Tests of the server and of the commands from outside.

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
