//! The question's two sides, and the inputs that the server can complain about.

use tdb_api::TokenRef;
use tdb_api::page::{PageState, SideState};
use tdb_api::wire::Step;

use crate::client::Problem;

/// An input of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Prompt { right: bool },
    Target { right: bool, at: usize },
    Distractor { right: bool, at: usize },
    TopK,
    Alignment,
}

/// The input that a problem is about, if the page has it.
pub fn field_of(problem: &Problem) -> Option<Field> {
    if problem.field == Some("alignment".into()) {
        return Some(Field::Alignment);
    }
    let [Step::Key(list), Step::Index(side), Step::Key(name), rest @ ..] = problem.field.as_ref()?.0.as_slice() else {
        return None;
    };
    if list != "subRequests" {
        return None;
    }
    let right = *side == 1;
    // Of a list as a whole the first input says it.
    let at = match rest.first() {
        Some(Step::Index(at)) => *at,
        _ => 0,
    };
    match name.as_str() {
        "prompt" => Some(Field::Prompt { right }),
        "targetTokens" => Some(Field::Target { right, at }),
        "distractorTokens" => Some(Field::Distractor { right, at }),
        "topAndBottomKForNodeTable" => Some(Field::TopK),
        _ => None,
    }
}

/// One side of the question.
pub fn side(page: &PageState, right: bool) -> Option<&SideState> {
    if right { page.right.as_ref() } else { Some(&page.left) }
}

/// One side of the question, to be changed.
pub fn side_mut(page: &mut PageState, right: bool) -> Option<&mut SideState> {
    if right { page.right.as_mut() } else { Some(&mut page.left) }
}

/// The targets or the distractors of a side.
pub fn tokens(side: &SideState, distractor: bool) -> &[TokenRef] {
    if distractor { &side.distractor_tokens } else { &side.target_tokens }
}

/// The targets or the distractors of a side, to be changed.
pub fn tokens_mut(side: &mut SideState, distractor: bool) -> &mut Vec<TokenRef> {
    if distractor { &mut side.distractor_tokens } else { &mut side.target_tokens }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Kind;

    #[test]
    fn problems_find_their_field() {
        let at = |field: &str| {
            field_of(&Problem { kind: Kind::Refused(400), message: String::new(), field: field.parse().ok() })
        };
        assert_eq!(at("subRequests[1].targetTokens[2]"), Some(Field::Target { right: true, at: 2 }));
        assert_eq!(at("subRequests[0].distractorTokens[0]"), Some(Field::Distractor { right: false, at: 0 }));
        assert_eq!(at("subRequests[0].prompt"), Some(Field::Prompt { right: false }));
        assert_eq!(at("subRequests[0].targetTokens"), Some(Field::Target { right: false, at: 0 }));
        assert_eq!(at("subRequests[0].topAndBottomKForNodeTable"), Some(Field::TopK));
        assert_eq!(at("subRequests[0].nodeAblations"), None);
        assert_eq!(at("subRequests"), None);
        assert_eq!(at("alignment"), Some(Field::Alignment));
    }
}
