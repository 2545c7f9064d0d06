//! Writes and scores explanations of nodes.
