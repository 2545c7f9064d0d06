//! Records and explanations of nodes, wherever they live.
