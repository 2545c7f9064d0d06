//! What keys do in the node table.

/// What a line is, as far as keys are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    Group,
    /// `can_pin`: whether it is the left prompt's.
    Node {
        can_ablate: bool,
        can_trace: bool,
        can_pin: bool,
    },
}

/// Where the keyboard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// How many lines there are; at least one.
    pub lines: usize,
    /// The line that is selected, and what it is.
    pub at: Option<(usize, LineKind)>,
    /// How many lines are in sight.
    pub page: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Select(usize),
    /// Opens or closes the selected line.
    Toggle,
    Ablate,
    Trace,
    /// Puts it into the circuit, or takes it out.
    Pin,
    OpenPage,
}

/// What `key` does, if it does anything.
pub fn action(key: &str, context: Context) -> Option<Action> {
    select(key, context).map(Action::Select).or_else(|| on_line(key, context.at?.1))
}

fn select(key: &str, Context { lines, at, page }: Context) -> Option<usize> {
    let at = at.map(|(at, _)| at);
    let last = lines.saturating_sub(1);
    match key {
        "ArrowDown" | "j" => Some(at.map_or(0, |i| (i + 1).min(last))),
        "ArrowUp" | "k" => Some(at.map_or(0, |i| i.saturating_sub(1))),
        "PageDown" => Some(at.map_or(page, |i| i + page).min(last)),
        "PageUp" => Some(at.map_or(0, |i| i.saturating_sub(page))),
        "Home" => Some(0),
        "End" => Some(last),
        _ => None,
    }
}

fn on_line(key: &str, line: LineKind) -> Option<Action> {
    match (key, line) {
        ("Enter" | " ", _) => Some(Action::Toggle),
        ("a", LineKind::Node { can_ablate: true, .. }) => Some(Action::Ablate),
        ("t", LineKind::Node { can_trace: true, .. }) => Some(Action::Trace),
        ("p", LineKind::Node { can_pin: true, .. }) => Some(Action::Pin),
        ("o", LineKind::Node { .. }) => Some(Action::OpenPage),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: LineKind = LineKind::Node { can_ablate: true, can_trace: true, can_pin: true };
    const EMBEDDING: LineKind = LineKind::Node { can_ablate: false, can_trace: false, can_pin: false };

    fn at(at: Option<(usize, LineKind)>, key: &str) -> Option<Action> {
        action(key, Context { lines: 10, at, page: 4 })
    }

    #[test]
    fn arrows_stop_at_the_ends() {
        assert_eq!(at(None, "ArrowDown"), Some(Action::Select(0)));
        assert_eq!(at(None, "k"), Some(Action::Select(0)));
        assert_eq!(at(Some((3, NODE)), "j"), Some(Action::Select(4)));
        assert_eq!(at(Some((9, NODE)), "ArrowDown"), Some(Action::Select(9)));
        assert_eq!(at(Some((0, NODE)), "ArrowUp"), Some(Action::Select(0)));
    }

    #[test]
    fn pages_and_ends_are_reached() {
        assert_eq!(at(None, "PageDown"), Some(Action::Select(4)));
        assert_eq!(at(Some((8, NODE)), "PageDown"), Some(Action::Select(9)));
        assert_eq!(at(Some((8, NODE)), "PageUp"), Some(Action::Select(4)));
        assert_eq!(at(Some((8, NODE)), "Home"), Some(Action::Select(0)));
        assert_eq!(at(None, "End"), Some(Action::Select(9)));
    }

    #[test]
    fn letters_act_on_the_selected_node_alone() {
        assert_eq!(at(Some((1, NODE)), "a"), Some(Action::Ablate));
        assert_eq!(at(Some((1, NODE)), "t"), Some(Action::Trace));
        assert_eq!(at(Some((1, NODE)), "o"), Some(Action::OpenPage));
        assert_eq!(at(Some((1, NODE)), " "), Some(Action::Toggle));
        assert_eq!((at(Some((1, NODE)), "p"), at(Some((1, EMBEDDING)), "p")), (Some(Action::Pin), None));
        for key in ["a", "t", "o", "p", "Enter"] {
            assert_eq!(at(None, key), None, "{key}");
        }
        assert_eq!((at(Some((1, EMBEDDING)), "a"), at(Some((1, EMBEDDING)), "t")), (None, None));
        assert_eq!(at(Some((1, LineKind::Group)), "Enter"), Some(Action::Toggle));
        assert_eq!(at(Some((1, LineKind::Group)), "o"), None);
        assert_eq!(at(Some((1, NODE)), "x"), None);
    }
}
