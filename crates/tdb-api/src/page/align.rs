//! How the tokens of two prompts are put beside each other, as it stands in a URL.

use super::PageState;
use crate::{AlignedTokens, BatchedTdbRequest, MirroredNodeIndex};

/// Pairs as a person writes them: `0:0 3:4`, separated by spaces or commas; a number alone stands for itself. What is
/// no number becomes −1, which is no token.
pub fn token_pairs(text: &str) -> Vec<(i64, i64)> {
    let number = |text: &str| text.trim().parse().unwrap_or(-1);
    let pair = |word: &str| match word.split_once(':') {
        Some((left, right)) => (number(left), number(right)),
        None => (number(word), number(word)),
    };
    text.split([' ', ',']).filter(|word| !word.is_empty()).map(pair).collect()
}

/// As a person writes them.
pub fn pairs_as_text(pairs: &[AlignedTokens]) -> String {
    let words: Vec<String> = pairs.iter().map(|pair| format!("{}:{}", pair.left, pair.right)).collect();
    words.join(" ")
}

impl PageState {
    /// [`PageState::alignment`] for pairs from the first token on.
    pub const FROM_START: &'static str = "start";

    /// The request for prompts with so many tokens: two of unequal length are compared by pairs of tokens, from the end
    /// if nothing else is said.
    ///
    /// # Errors
    /// With the traced node, if it has no partner in the second prompt.
    pub fn to_request_for(&self, lens: [usize; 2]) -> Result<BatchedTdbRequest, MirroredNodeIndex> {
        let request = self.to_request();
        match self.pairs(lens) {
            Some(pairs) => request.align(pairs),
            None => Ok(request),
        }
    }

    /// The pairs that a comparison needs; `None` where every token stands for the one at its own position.
    pub fn pairs(&self, lens: [usize; 2]) -> Option<Vec<AlignedTokens>> {
        let [left, right] = lens.map(|len| len as i64);
        let shared = left.min(right);
        let by_hand = !self.alignment.is_empty() && self.alignment != Self::FROM_START;
        if !self.compares_prompts() || (left == right && !by_hand) {
            return None;
        }
        let pairs = if by_hand {
            token_pairs(&self.alignment)
        } else if self.alignment == Self::FROM_START {
            (0..shared).map(|at| (at, at)).collect()
        } else {
            (0..shared).map(|at| (left - shared + at, right - shared + at)).collect()
        };
        Some(pairs.into_iter().map(|(left, right)| AlignedTokens { left, right }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::SideState;

    #[test]
    fn tokens_are_paired_from_the_end_from_the_start_or_by_hand() {
        let mut page = PageState::default();
        let pairs = |page: &PageState, lens| {
            page.pairs(lens).map(|pairs| pairs.iter().map(|pair| (pair.left, pair.right)).collect::<Vec<_>>())
        };
        assert_eq!(pairs(&page, [2, 3]), None, "one prompt");
        page.right = Some(SideState::default());
        assert_eq!(pairs(&page, [3, 3]), None);
        assert_eq!(pairs(&page, [2, 3]), Some(vec![(0, 1), (1, 2)]));
        page.alignment = "start".into();
        assert_eq!(pairs(&page, [3, 2]), Some(vec![(0, 0), (1, 1)]));
        page.alignment = "0:2, 1 x".into();
        assert_eq!(pairs(&page, [3, 3]), Some(vec![(0, 2), (1, 1), (-1, -1)]));
        assert_eq!(pairs_as_text(&page.pairs([3, 3]).unwrap()), "0:2 1:1 -1:-1");
    }
}
