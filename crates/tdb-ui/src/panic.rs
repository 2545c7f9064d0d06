//! A defect of the page's own is said, with a way out, rather than leaving a blank or dead page.

use std::panic::PanicHookInfo;

use wasm_bindgen::{JsCast, JsValue, closure::Closure};

use crate::dom;

/// Shows a message and a reload button when the program panics. Plain DOM: nothing of the page can be relied on by
/// then.
pub fn install() {
    std::panic::set_hook(Box::new(|info| {
        let text = describe(info);
        web_sys::console::error_1(&JsValue::from_str(&text));
        let _ = show(&text);
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let (path, query) = dom::location();
    format!("{info}\nat {path}{query}")
}

fn show(text: &str) -> Option<()> {
    let document = dom::document()?;
    if document.get_element_by_id("crash").is_some() {
        return None;
    }
    let create = |tag: &str, content: &str| {
        let element = document.create_element(tag).ok()?;
        element.set_text_content(Some(content));
        Some(element)
    };
    let overlay = create("div", "")?;
    overlay.set_id("crash");
    overlay.set_class_name("crash");
    let card = create("div", "")?;
    let _ = card.set_attribute("role", "alertdialog");
    let _ = card.set_attribute("aria-label", "The page has failed");
    let reload = create("button", "Reload the page")?;
    reload.set_class_name("button primary");
    let on_click = Closure::<dyn Fn()>::new(|| {
        if let Some(window) = dom::window() {
            let _ = window.location().reload();
        }
    });
    reload.add_event_listener_with_callback("click", on_click.as_ref().unchecked_ref()).ok()?;
    on_click.forget();
    for part in [
        create("h1", "The page has failed")?,
        create(
            "p",
            "This is a defect of the page, not of your question. The address holds the whole question, so a reload \
                brings it back.",
        )?,
        create("pre", text)?,
        reload.clone(),
    ] {
        card.append_child(&part).ok()?;
    }
    overlay.append_child(&card).ok()?;
    document.body()?.append_child(&overlay).ok()?;
    reload.dyn_into::<web_sys::HtmlElement>().ok()?.focus().ok()
}
