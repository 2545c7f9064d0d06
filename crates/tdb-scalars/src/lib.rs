//! Derived scalars: what a node did in a run, and what it did to the question.
