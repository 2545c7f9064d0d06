//! Mistakes that can be planted in the engine, to see that a check finds them.
//!
//! They exist only in programs that are built for development and tests, not in a release (`build.rs`).

use std::sync::atomic::{AtomicU8, Ordering};

static PLANTED: AtomicU8 = AtomicU8::new(0);

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal,)*) => {
        /// A mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Fault {
            #[doc = "None."]
            None = 0,
            $($(#[doc = $doc])+ $name,)*
        }

        impl Fault {
            /// Every mistake.
            pub const ALL: &[Fault] = &[$(Fault::$name,)*];

            /// The name by which a program is told to make it.
            pub fn word(self) -> &'static str {
                match self {
                    Fault::None => "none",
                    $(Fault::$name => $word,)*
                }
            }
        }
    };
}

faults! {
    /// The bias of attention's output is left out.
    DroppedBias = "dropped-bias",
    /// The MLP's output is added twice.
    DoubledWrite = "doubled-write",
    /// Another epsilon under the root of a norm.
    OtherEpsilon = "other-epsilon",
    /// A head writes with the weights of another head.
    PermutedHeads = "permuted-heads",
    /// The gradient of the activation function is left out.
    LinearActivation = "linear-activation",
    /// The gradient of the softmax lacks its mean.
    SoftmaxWithoutMean = "softmax-without-mean",
    /// Keys and values of earlier tokens are those of the first layer.
    StaleCache = "stale-cache",
    /// Runs that are computed together begin a token late.
    LateStart = "late-start",
    /// Of runs that are computed together, each is given the logits of its neighbour.
    MixedRuns = "mixed-runs",
    /// Patches change nothing.
    IgnoredPatch = "ignored-patch",
    /// A patch stands at the next token.
    ShiftedPatch = "shifted-patch",
    /// Autoencoders reconstruct twice what they should.
    DoubledDictionary = "doubled-dictionary",
}

/// Makes a mistake from now on, in every run of this process; [`Fault::None`] makes none.
///
/// Does nothing in a release.
pub fn plant(fault: Fault) {
    PLANTED.store(fault as u8, Ordering::SeqCst);
}

/// Whether a mistake is to be made.
#[inline(always)]
pub(crate) fn is(fault: Fault) -> bool {
    cfg!(planted_faults) && PLANTED.load(Ordering::Relaxed) == fault as u8
}
