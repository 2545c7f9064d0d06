//! GPT-2 and sparse autoencoders with hooks on activations and gradients.
