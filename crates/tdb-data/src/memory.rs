//! What was read before, kept in memory by its address.
//!
//! Values are kept without their type: the cache behind is compiled anew for each type, which was a fifth of this crate's
//! machine code.

use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use moka::future::Cache;

use crate::error::{Error, Result};

type Value = Arc<dyn Any + Send + Sync>;

/// Values of one type by their addresses. Cheap to clone; the least used go first.
#[derive(Debug)]
pub(crate) struct Memory<T> {
    cache: Cache<String, Value>,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Memory<T> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), of: PhantomData }
    }
}

impl<T: Send + Sync + 'static> Memory<T> {
    /// Keeps so many values.
    pub fn of_values(count: u64) -> Self {
        Self { cache: Cache::new(count), of: PhantomData }
    }

    /// Keeps values of so many bytes together, by what `weigh` says of each.
    pub fn of_bytes(bytes: u64, weigh: fn(&T) -> usize) -> Self {
        let weight = move |_: &String, value: &Value| {
            let bytes = value.downcast_ref().map_or(0, weigh);
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self { cache: Cache::builder().max_capacity(bytes).weigher(weight).build(), of: PhantomData }
    }

    /// Keeps so many values, each for so long.
    pub fn of_values_for(count: u64, time: Duration) -> Self {
        Self { cache: Cache::builder().max_capacity(count).time_to_live(time).build(), of: PhantomData }
    }

    pub fn holds(&self, key: &str) -> bool {
        self.cache.contains_key(key)
    }

    pub async fn put(&self, key: String, value: T) {
        self.cache.insert(key, Arc::new(value)).await;
    }

    pub async fn forget(&self, key: &str) {
        self.cache.invalidate(key).await;
    }

    /// The value that is kept, else what `load` gives, which is kept then. Whoever asks meanwhile waits for the same load.
    ///
    /// # Errors
    /// Those of `load`; they are not kept.
    pub async fn get_or(&self, key: String, load: impl Future<Output = Result<T>> + Send) -> Result<Arc<T>> {
        let load: BoxFuture<'_, Result<Value>> = Box::pin(async { Ok(Arc::new(load.await?) as Value) });
        let found = self.cache.try_get_with::<_, Error>(key, load).await.map_err(|error| Error::clone(&error))?;
        match found.downcast() {
            Ok(found) => Ok(found),
            Err(_) => unreachable!("only values of this type are put in"),
        }
    }
}
