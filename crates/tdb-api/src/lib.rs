//! Wire types, node names and URL state of the transformer debugger.
