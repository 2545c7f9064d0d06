//! The debugger's pages.
