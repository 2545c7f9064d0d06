//! Shared components. None of them fetches anything.

mod card;
mod combobox;
mod controls;
mod dialog;
mod dynamic;
mod events;
mod figure;
mod heat;
mod json;
mod ledger;
mod matrix;
mod menu;
mod notices;
mod number_field;
mod problem;
mod tip;
mod token;
mod virtual_list;

pub use card::CardHead;
pub use combobox::Combobox;
pub use controls::{button, checkbox, choice, icon_button, menu_item};
pub use dialog::Dialog;
pub use dynamic::{CollectView, Show, dynamic, follows};
pub use events::{dragged, entered, keyed, press, sent};
pub use figure::{KeepFigure, SaveFigure};
pub use heat::{DivergingLegend, SequentialLegend, fill_style, sign_class};
pub use json::JsonButton;
pub use ledger::{Ledger, verdict};
pub use matrix::Triangle;
pub use menu::Menu;
pub use notices::{Notices, NoticesView};
pub use number_field::number_field;
pub use problem::ProblemCard;
pub use tip::Tip;
pub use token::{token_chip, token_html, token_text};
pub use virtual_list::{Placed, Viewport, VirtualList};
