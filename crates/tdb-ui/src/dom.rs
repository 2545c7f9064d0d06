//! The few things asked of the browser itself: storage, clipboard, files, focus, time.

use crate::signals::effect;
use leptos::prelude::*;
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::JsFuture;

pub fn window() -> Option<web_sys::Window> {
    web_sys::window()
}

pub fn document() -> Option<web_sys::Document> {
    window()?.document()
}

/// The browser's title for this page.
pub fn set_title(title: &str) {
    if let Some(document) = document() {
        document.set_title(&format!("{title} · Transformer Debugger"));
    }
}

/// The element that an event happened at, or the nearest around it, that `selector` is about.
pub fn closest(event: &web_sys::Event, selector: &str) -> Option<web_sys::Element> {
    event.target()?.dyn_into::<web_sys::Element>().ok()?.closest(selector).ok()?
}

/// Milliseconds since the page was opened.
pub fn now() -> f64 {
    window().and_then(|w| w.performance()).map_or(0.0, |p| p.now())
}

/// Local time as ISO text, for exports.
pub fn timestamp() -> String {
    String::from(js_sys::Date::new_0().to_iso_string())
}

/// The stored text below `key`; `None` when absent or when storage is forbidden.
pub fn stored(key: &str) -> Option<String> {
    window()?.local_storage().ok()??.get_item(key).ok()?
}

/// Keeps `value` below `key`. False where the browser forbids storage, or has no room.
pub fn store(key: &str, value: Option<&str>) -> bool {
    let Some(storage) = window().and_then(|w| w.local_storage().ok()).flatten() else { return false };
    match value {
        Some(value) => storage.set_item(key, value).is_ok(),
        None => storage.remove_item(key).is_ok(),
    }
}

/// Puts `text` on the clipboard. Plain `http` on another machine has no clipboard interface; a hidden field serves
/// there.
pub async fn copy(text: &str) -> bool {
    let Some(window) = window() else { return false };
    if window.is_secure_context() {
        let done = JsFuture::from(window.navigator().clipboard().write_text(text)).await;
        if done.is_ok() {
            return true;
        }
    }
    copy_by_selection(text).is_some()
}

fn copy_by_selection(text: &str) -> Option<()> {
    let document = document()?;
    let area: web_sys::HtmlTextAreaElement = document.create_element("textarea").ok()?.dyn_into().ok()?;
    area.set_value(text);
    let focused = document.active_element();
    document.body()?.append_child(&area).ok()?;
    area.select();
    let command = js_sys::Reflect::get(&document, &JsValue::from_str("execCommand")).ok()?;
    let done = command.dyn_into::<js_sys::Function>().ok()?.call1(&document, &JsValue::from_str("copy")).ok()?;
    area.remove();
    if let Some(element) = focused.and_then(|e| e.dyn_into::<web_sys::HtmlElement>().ok()) {
        let _ = element.focus();
    }
    done.is_truthy().then_some(())
}

/// Offers `text` as a file to save.
pub fn download(name: &str, mime: &str, text: &str) -> Option<()> {
    let parts = js_sys::Array::of1(&JsValue::from_str(text));
    let options = web_sys::BlobPropertyBag::new();
    options.set_type(mime);
    let blob = web_sys::Blob::new_with_str_sequence_and_options(&parts, &options).ok()?;
    let url = web_sys::Url::create_object_url_with_blob(&blob).ok()?;
    download_url(name, &url)?;
    web_sys::Url::revoke_object_url(&url).ok()
}

/// Offers what an address holds as a file to save.
pub fn download_url(name: &str, url: &str) -> Option<()> {
    let anchor: web_sys::HtmlAnchorElement = document()?.create_element("a").ok()?.dyn_into().ok()?;
    anchor.set_href(url);
    anchor.set_download(name);
    anchor.click();
    Some(())
}

/// The text of the file that a file field holds.
pub async fn chosen_file(input: &web_sys::HtmlInputElement) -> Option<String> {
    let file = input.files()?.get(0)?;
    JsFuture::from(file.text()).await.ok()?.as_string()
}

/// Focuses the element with this id, if it is there.
pub fn focus(id: &str) {
    if let Some(element) =
        document().and_then(|d| d.get_element_by_id(id)).and_then(|e| e.dyn_into::<web_sys::HtmlElement>().ok())
    {
        let _ = element.focus();
    }
}

/// `text` compressed into the letters of an address. `None` where the browser cannot.
pub async fn packed(text: &str) -> Option<String> {
    let bytes = through("CompressionStream", &js_sys::Uint8Array::from(text.as_bytes())).await?;
    let binary: String = bytes.iter().map(|b| char::from(*b)).collect();
    let base64 = window()?.btoa(&binary).ok()?;
    Some(base64.trim_end_matches('=').replace('+', "-").replace('/', "_"))
}

/// What [`packed`] was given.
pub async fn unpacked(text: &str) -> Option<String> {
    let binary = window()?.atob(&text.replace('-', "+").replace('_', "/")).ok()?;
    let bytes: Vec<u8> = binary.chars().filter_map(|c| u8::try_from(u32::from(c)).ok()).collect();
    String::from_utf8(through("DecompressionStream", &js_sys::Uint8Array::from(bytes.as_slice())).await?).ok()
}

/// Sends bytes through one of the browser's own compressors.
async fn through(stream: &str, bytes: &js_sys::Uint8Array) -> Option<Vec<u8>> {
    let class = js_sys::Reflect::get(&js_sys::global(), &JsValue::from_str(stream)).ok()?;
    let class: js_sys::Function = class.dyn_into().ok()?;
    let format = js_sys::Array::of1(&JsValue::from_str("deflate-raw"));
    let compressor = js_sys::Reflect::construct(&class, &format).ok()?;
    let blob = web_sys::Blob::new_with_u8_array_sequence(&js_sys::Array::of1(bytes)).ok()?;
    let source = blob.stream();
    let pipe = js_sys::Reflect::get(&source, &JsValue::from_str("pipeThrough")).ok()?;
    let piped = pipe.dyn_into::<js_sys::Function>().ok()?.call1(&source, &compressor).ok()?;
    let response = web_sys::Response::new_with_opt_readable_stream(Some(&piped.dyn_into().ok()?)).ok()?;
    let buffer = JsFuture::from(response.array_buffer().ok()?).await.ok()?;
    Some(js_sys::Uint8Array::new(&buffer).to_vec())
}

/// A text in small letters. The browser has the tables of all alphabets; the pages need not bring their own.
pub fn lowercase(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    #[cfg(target_arch = "wasm32")]
    return js_sys::JsString::from(text).to_lower_case().into();
    #[cfg(not(target_arch = "wasm32"))]
    text.to_lowercase()
}

/// The number that a text is. The browser has the tables for it, as it has those of alphabets.
pub fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let is_part = |b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    if text.is_empty() || !text.bytes().all(is_part) {
        return None;
    }
    #[cfg(target_arch = "wasm32")]
    return Some(JsValue::from_str(text).unchecked_into_f64()).filter(|number| !number.is_nan());
    #[cfg(not(target_arch = "wasm32"))]
    text.parse().ok()
}

/// True when the keyboard belongs to a field where letters are typed.
pub fn is_typing() -> bool {
    let Some(element) = document().and_then(|d| d.active_element()) else { return false };
    matches!(element.tag_name().as_str(), "INPUT" | "TEXTAREA" | "SELECT") || element.has_attribute("contenteditable")
}

/// Scrolls a box to its right end once it is drawn.
pub fn scroll_to_end(element: Option<web_sys::HtmlDivElement>) {
    let Some(element) = element else { return };
    leptos::prelude::request_animation_frame(move || element.set_scroll_left(element.scroll_width()));
}

/// Scrolls a box once it is drawn so that this column of its table is in sight, or to its right end.
pub fn scroll_to_column(element: Option<web_sys::HtmlDivElement>, column: Option<usize>) {
    let Some(element) = element else { return };
    leptos::prelude::request_animation_frame(move || {
        let columns = element.query_selector_all("thead th").ok();
        let head = columns.zip(column).and_then(|(columns, at)| columns.item(at as u32));
        let head = head.and_then(|head| head.dyn_into::<web_sys::HtmlElement>().ok());
        // The column after it stays in sight, too.
        let end = head.map_or(element.scroll_width(), |head| head.offset_left() + 2 * head.offset_width());
        element.set_scroll_left(end - element.client_width());
    });
}

/// Tells an element's height as it is drawn and whenever it changes, until the component goes away.
pub fn follow_height(node: NodeRef<leptos::html::Div>, tell: impl Fn(f64) + 'static) {
    let changed = Closure::<dyn Fn()>::new(move || {
        if let Some(element) = node.get_untracked().filter(|e| e.offset_height() > 0) {
            tell(f64::from(element.offset_height()));
        }
    });
    let Ok(observer) = web_sys::ResizeObserver::new(changed.as_ref().unchecked_ref()) else { return };
    let observer = StoredValue::new_local((observer, changed));
    effect(move || {
        if let Some(element) = node.get() {
            observer.with_value(|(observer, _)| observer.observe(&element));
        }
    });
    on_cleanup(move || {
        observer.try_with_value(|(observer, _)| observer.disconnect());
    });
}

/// A window as narrow as a phone's; the style sheet's bound is the same.
pub fn is_narrow() -> bool {
    window().and_then(|w| w.inner_width().ok()?.as_f64()).is_some_and(|width| width <= 760.0)
}

/// Path and query of the address bar.
pub fn location() -> (String, String) {
    let Some(location) = window().map(|w| w.location()) else { return Default::default() };
    (location.pathname().unwrap_or_default(), location.search().unwrap_or_default())
}

/// The origin of the page, for links and commands to copy.
pub fn origin() -> String {
    window().and_then(|w| w.location().origin().ok()).unwrap_or_default()
}

/// Writes `url` into the address bar: a new history entry if `push`, else in place of the present one.
pub fn set_url(url: &str, push: bool) {
    let Some(history) = window().and_then(|w| w.history().ok()) else { return };
    let _ = match push {
        true => history.push_state_with_url(&JsValue::NULL, "", Some(url)),
        false => history.replace_state_with_url(&JsValue::NULL, "", Some(url)),
    };
}
