//! Programs at work with files and object stores.

mod collation_kills;
mod collation_store;
mod object_stores;
mod own_text;
