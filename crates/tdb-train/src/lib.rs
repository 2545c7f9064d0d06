//! Trains the small model that comes with the debugger, and sparse autoencoders.
