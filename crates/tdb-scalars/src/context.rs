//! What a request needs from outside: somebody who watches, and the maxima of stored records.

use tdb_api::stream::TdbEvent;
use tdb_api::{NodeIdAndDatasets, ProcessingResponseData};

use crate::error::Error;
use crate::size::Bounds;

/// Where the engine sends an answer, and who may end the work. `()` keeps nothing.
pub trait Observer: Sync {
    /// Asked after every layer; `true` ends the work with [`Error::Cancelled`].
    fn is_cancelled(&self) -> bool {
        false
    }

    /// A piece of the answer, as soon as it is ready, or progress.
    fn event(&self, _event: TdbEvent) {}

    /// A part of one side's answer: what was asked under this name. A stream tells it as an event.
    fn part(&self, side: usize, name: &str, part: ProcessingResponseData) {
        if let Some(event) = TdbEvent::of_part(side, name, part) {
            self.event(event);
        }
    }

    /// Whether progress, and what stands beside the answer, are wanted, too. They are not computed for one who does not
    /// listen.
    fn listens(&self) -> bool {
        false
    }
}

impl Observer for () {}

/// The largest values in the stored record of a node, to which activations are normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordMaximum {
    /// Largest activation in the record's top examples.
    pub activation: f64,
    /// Mean activation over the whole text, if it was collected.
    pub mean: Option<f64>,
    /// For nodes with one value per pair of tokens: the sequences of the top examples, as lists of the
    /// values written into each token from it and the ones before.
    pub attention_sequences: Vec<Vec<Vec<f64>>>,
}

/// Looks up stored records.
pub trait Records: Sync {
    /// Looks for as long as `observer` waits: a store may take any time.
    ///
    /// # Errors
    /// [`Error::NotFound`] if none of the datasets has the node, [`Error::Elsewhere`] if a store fails,
    /// [`Error::Cancelled`] if the observer waits no more.
    fn maximum(&self, node: &NodeIdAndDatasets, observer: &dyn Observer) -> Result<RecordMaximum, Error>;
}

/// No records: every look-up says so.
impl Records for () {
    fn maximum(&self, node: &NodeIdAndDatasets, _: &dyn Observer) -> Result<RecordMaximum, Error> {
        let (dst, layer, index) = (node.dst, node.layer_index, node.activation_index);
        Err(Error::NotFound(format!("no stored records are at hand for {dst} {layer}:{index}")))
    }
}

/// Everything that surrounds one request.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub observer: &'a dyn Observer,
    pub records: &'a dyn Records,
    /// What the request may take at most.
    pub bounds: Bounds,
}

impl Default for Context<'_> {
    fn default() -> Self {
        Context { observer: &(), records: &(), bounds: Bounds::default() }
    }
}
