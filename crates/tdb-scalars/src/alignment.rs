//! Which tokens of two prompts stand for each other.

use std::collections::HashSet;

use tdb_api::{AlignedTokens, PatchRequest, TokenPair};

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
        check_pairs(pairs.iter().map(|pair| [pair.clean, pair.corrupted]), lens, ["clean", "corrupted"])?;
        let is_identity =
            lens[0] == lens[1] && pairs.len() == lens[0] && pairs.iter().all(|pair| pair.clean == pair.corrupted);
        Ok(Alignment { pairs: pairs.clone(), is_identity })
    }
}

/// Which nodes of two prompts that are compared stand for each other; without pairs of tokens, each for itself.
///
/// # Errors
/// If there are other than two prompts, or the pairs do not fit them.
pub(crate) fn of_nodes(pairs: Option<&[AlignedTokens]>, lens: &[usize]) -> Result<Option<tdb_api::Alignment>> {
    let Some(pairs) = pairs else { return Ok(None) };
    let &[left, right] = lens else {
        return bad!(at "alignment", "says which tokens of two prompts stand for each other, but there are {}", lens.len());
    };
    check_pairs(pairs.iter().map(|pair| [pair.left, pair.right]), [left, right], ["first", "second"])?;
    Ok(Some(tdb_api::Alignment::new(pairs)))
}

/// Refuses tokens that a prompt does not have, and those that stand for two others.
fn check_pairs(pairs: impl ExactSizeIterator<Item = [i64; 2]>, lens: [usize; 2], prompts: [&str; 2]) -> Result<()> {
    if pairs.len() == 0 {
        return bad!(at "alignment", "is empty; name at least one pair of tokens, or leave it out");
    }
    let mut seen = [HashSet::new(), HashSet::new()];
    for pair in pairs {
        for (side, token) in pair.into_iter().enumerate() {
            let (prompt, len) = (prompts[side], lens[side]);
            if usize::try_from(token).ok().is_none_or(|token| token >= len) {
                return bad!(at "alignment", "the {prompt} prompt has no token {token}; it has tokens 0..{len}");
            }
            if !seen[side].insert(token) {
                return bad!(at "alignment", "a token stands for two others; name each at most once");
            }
        }
    }
    Ok(())
}
