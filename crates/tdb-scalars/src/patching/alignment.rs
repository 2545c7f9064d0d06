//! Which tokens of two prompts stand for each other.

use std::collections::HashSet;

use tdb_api::{PatchRequest, TokenPair};

use crate::error::{Result, bad};

/// Pairs of tokens; each token is in one of them at most.
pub(crate) struct Alignment {
    pub pairs: Vec<TokenPair>,
    /// Whether every token stands for the one at its own position.
    pub is_identity: bool,
}

impl Alignment {
    /// `lens`: tokens of the clean and of the corrupted prompt.
    ///
    /// # Errors
    /// If the prompts have different lengths and no alignment is given, or one that does not fit.
    pub fn new(request: &PatchRequest, lens: [usize; 2]) -> Result<Self> {
        let Some(pairs) = &request.alignment else {
            if lens[0] != lens[1] {
                return bad!(
                    at "alignment",
                    "cleanPrompt has {} tokens and corruptedPrompt {}; make them equally long, or say in alignment \
                     which tokens stand for each other",
                    lens[0],
                    lens[1]
                );
            }
            let pair = |t: usize| TokenPair { clean: t as i64, corrupted: t as i64 };
            return Ok(Alignment { pairs: (0..lens[0]).map(pair).collect(), is_identity: true });
        };
        let (mut clean, mut corrupted) = (HashSet::new(), HashSet::new());
        for pair in pairs {
            for (side, token, len) in [("clean", pair.clean, lens[0]), ("corrupted", pair.corrupted, lens[1])] {
                if usize::try_from(token).ok().is_none_or(|token| token >= len) {
                    return bad!(at "alignment", "the {side} prompt has no token {token}; it has tokens 0..{len}");
                }
            }
            if !clean.insert(pair.clean) || !corrupted.insert(pair.corrupted) {
                return bad!(at "alignment", "a token stands for two others; name each at most once");
            }
        }
        if pairs.is_empty() {
            return bad!(at "alignment", "is empty; name at least one pair of tokens, or leave it out");
        }
        let is_identity =
            lens[0] == lens[1] && pairs.len() == lens[0] && pairs.iter().all(|pair| pair.clean == pair.corrupted);
        Ok(Alignment { pairs: pairs.clone(), is_identity })
    }
}
