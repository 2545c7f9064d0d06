//! Who wants to know how a fetch is going.

/// Called while files are fetched, from any thread. `()` does not care.
pub trait Progress: Send + Sync {
    /// This many files will be fetched or found in the cache.
    fn expect(&self, _files: usize) {}
    /// Bytes of `name` begin to arrive; `done` of `total` are there from an earlier try.
    fn started(&self, _name: &str, _done: u64, _total: u64) {}
    /// `bytes` more of `name` have arrived.
    fn advanced(&self, _name: &str, _bytes: u64) {}
    /// `name` is whole; `cached` if nothing had to be fetched.
    fn finished(&self, _name: &str, _cached: bool) {}
    /// Something that a person may want to read, such as why a try failed and that another follows.
    fn note(&self, _name: &str, _text: &str) {}
}

impl Progress for () {}
