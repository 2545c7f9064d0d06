//! The steps taken so far, and which of them is the present one.

use tdb_api::page::PageState;

use crate::view::ViewState;

/// The question, and how its answer is looked at.
pub type State = (PageState, ViewState);

#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// Never empty.
    steps: Vec<State>,
    at: usize,
}

impl History {
    pub fn new(first: State) -> Self {
        Self { steps: vec![first], at: 0 }
    }

    pub fn present(&self) -> &State {
        &self.steps[self.at]
    }

    /// Takes a step: what could be redone is forgotten.
    pub fn push(&mut self, step: State) {
        self.steps.truncate(self.at + 1);
        self.steps.push(step);
        self.at += 1;
    }

    /// Goes to a state that the browser's own history gave back.
    pub fn restore(&mut self, state: State) {
        match self.steps.iter().position(|(page, _)| *page == state.0) {
            Some(found) => self.at = found,
            None => {
                self.steps.push(state);
                self.at = self.steps.len() - 1;
            }
        }
    }

    pub fn can_undo(&self, page: &PageState) -> bool {
        self.at > 0 || *page != self.present().0
    }

    pub fn can_redo(&self) -> bool {
        self.at + 1 < self.steps.len()
    }

    /// Back by one step. Edits since the last step count as one, which can be redone. `None` at the beginning.
    pub fn undo(&mut self, now: State) -> Option<State> {
        if now.0 != self.present().0 {
            self.steps.truncate(self.at + 1);
            self.steps.push(now);
        } else {
            self.at = self.at.checked_sub(1)?;
        }
        Some(self.present().clone())
    }

    /// Forward by one step; `None` at the end.
    pub fn redo(&mut self) -> Option<State> {
        self.at = Some(self.at + 1).filter(|at| *at < self.steps.len())?;
        Some(self.present().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(prompt: &str) -> State {
        let mut page = PageState::default();
        page.left.prompt = prompt.into();
        (page, ViewState::default())
    }

    fn history(prompts: &[&str]) -> History {
        let mut history = History::new(state(prompts[0]));
        prompts[1..].iter().for_each(|prompt| history.push(state(prompt)));
        history
    }

    #[test]
    fn steps_are_undone_and_redone() {
        let mut history = history(&["a", "b", "c"]);
        assert_eq!(history.undo(state("c")), Some(state("b")));
        assert_eq!(history.undo(state("b")), Some(state("a")));
        assert_eq!(history.undo(state("a")), None);
        assert!(!history.can_undo(&state("a").0) && history.can_redo());
        assert_eq!(history.redo(), Some(state("b")));
        assert_eq!(history.redo(), Some(state("c")));
        assert_eq!(history.redo(), None);
        assert_eq!(history.present(), &state("c"));
    }

    #[test]
    fn edits_count_as_a_step() {
        let mut history = history(&["a", "b"]);
        assert!(history.can_undo(&state("edited").0));
        assert_eq!(history.undo(state("edited")), Some(state("b")));
        assert_eq!(history.redo(), Some(state("edited")));
    }

    #[test]
    fn a_step_forgets_what_could_be_redone() {
        let mut history = history(&["a", "b"]);
        history.undo(state("b"));
        history.push(state("c"));
        assert!(!history.can_redo());
        assert_eq!(history.undo(state("c")), Some(state("a")));
    }

    #[test]
    fn the_browsers_own_history_is_followed() {
        let mut history = history(&["a", "b"]);
        history.restore(state("a"));
        assert_eq!((history.present(), history.can_redo()), (&state("a"), true));
        history.restore(state("elsewhere"));
        assert_eq!((history.present(), history.can_redo()), (&state("elsewhere"), false));
    }
}
