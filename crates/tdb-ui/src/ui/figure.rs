//! A figure of the page as a file: what is drawn, as plain shapes and text, so that any drawing program can read it.

use std::fmt::Write as _;

use leptos::prelude::*;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::{CanvasRenderingContext2d, CssStyleDeclaration, Element, HtmlCanvasElement, HtmlImageElement, Node};

use super::menu_item;
use super::{Menu, Notices};
use crate::context::use_context;
use crate::dom;
use crate::format;
use crate::tasks::spawn;

/// Picture elements for each pixel of the page.
const SCALE: f64 = 2.0;
const MARGIN: f64 = 8.0;

/// What a figure is kept with, where a page keeps figures: its name and its drawing.
#[derive(Clone, Copy)]
pub struct KeepFigure(pub Callback<(&'static str, String)>);

/// Saves the element that matches `of`.
#[component]
pub fn SaveFigure(
    /// What is saved, for the button's name.
    what: &'static str,
    #[prop(into)] of: String,
    /// The file's name without its ending.
    file: &'static str,
) -> impl IntoView {
    let notices = Notices::get();
    let keep = use_context::<KeepFigure>();
    let of = StoredValue::new(of);
    let draw = move || {
        let element = dom::document()?.query_selector(&of.get_value()).ok()??;
        Figure::of(&element)
    };
    let svg = move |_| {
        let done = draw().and_then(|f| dom::download(&format!("{file}.svg"), "image/svg+xml", &f.svg));
        if done.is_none() {
            notices.say("There is no figure to save.");
        }
    };
    let png = move |_| {
        spawn(async move {
            let done = match draw() {
                Some(figure) => figure.png().await.and_then(|url| dom::download_url(&format!("{file}.png"), &url)),
                None => None,
            };
            if done.is_none() {
                notices.say("The browser did not make a picture of it.");
            }
        });
    };
    view! {
        <Menu label="Save" name=format!("Save {what} as a figure") class="button small plain">
            {menu_item("Save as SVG", svg)}
            {menu_item("Save as PNG", png)}
            {keep.map(|keep| menu_item("Add to the log", move |_| match draw() {
                    Some(figure) => {
                        keep.0.run((what, figure.svg));
                        notices.say("The figure is in the log.");
                    }
                    None => notices.say("There is no figure to keep."),
                }))}
        </Menu>
    }
}

struct Figure {
    svg: String,
    width: f64,
    height: f64,
}

impl Figure {
    fn of(element: &Element) -> Option<Self> {
        let mut pen = Pen::new(element)?;
        pen.element(element);
        let (width, height) = (pen.right + 2.0 * MARGIN, pen.bottom + 2.0 * MARGIN);
        let ground = pen.ground(element);
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"{:.0} \
                {:.0} {width:.0} {height:.0}\"><rect x=\"{0:.0}\" y=\"{1:.0}\" width=\"100%\" height=\"100%\" \
                fill=\"{ground}\"/>{}</svg>",
            -MARGIN, -MARGIN, pen.out
        );
        (pen.right > 0.0).then_some(Self { svg, width, height })
    }

    /// The picture as the address of its data.
    async fn png(&self) -> Option<String> {
        let image = HtmlImageElement::new().ok()?;
        let text = js_sys::encode_uri_component(&self.svg);
        image.set_src(&format!("data:image/svg+xml;charset=utf-8,{}", String::from(text)));
        JsFuture::from(image.decode()).await.ok()?;
        let (canvas, context) = canvas((self.width * SCALE) as u32, (self.height * SCALE) as u32)?;
        context
            .draw_image_with_html_image_element_and_dw_and_dh(&image, 0.0, 0.0, self.width * SCALE, self.height * SCALE)
            .ok()?;
        canvas.to_data_url_with_type("image/png").ok()
    }
}

fn canvas(width: u32, height: u32) -> Option<(HtmlCanvasElement, CanvasRenderingContext2d)> {
    let canvas: HtmlCanvasElement = dom::document()?.create_element("canvas").ok()?.dyn_into().ok()?;
    canvas.set_width(width);
    canvas.set_height(height);
    let context = canvas.get_context("2d").ok()??.dyn_into().ok()?;
    Some((canvas, context))
}

/// Goes through the elements and writes down what each shows.
struct Pen {
    out: String,
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
    probe: CanvasRenderingContext2d,
    colours: Vec<(String, Option<String>)>,
}

impl Pen {
    fn new(element: &Element) -> Option<Self> {
        let rect = element.get_bounding_client_rect();
        let (_, probe) = canvas(1, 1)?;
        Some(Self {
            out: String::new(),
            left: rect.left(),
            top: rect.top(),
            right: 0.0,
            bottom: 0.0,
            probe,
            colours: Vec::new(),
        })
    }

    /// A style's colour as every program reads it; `None` if nothing is seen of it.
    fn colour(&mut self, text: &str) -> Option<String> {
        if let Some((_, known)) = self.colours.iter().find(|(known, _)| known == text) {
            return known.clone();
        }
        self.probe.clear_rect(0.0, 0.0, 1.0, 1.0);
        self.probe.set_fill_style_str(text);
        self.probe.fill_rect(0.0, 0.0, 1.0, 1.0);
        let data = self.probe.get_image_data(0.0, 0.0, 1.0, 1.0).ok()?.data();
        let found = match data.as_slice() {
            [_, _, _, 0] => None,
            [r, g, b, 255] => Some(format!("rgb({r},{g},{b})")),
            [r, g, b, a] => Some(format!("rgba({r},{g},{b},{:.3})", f64::from(*a) / 255.0)),
            _ => None,
        };
        self.colours.push((text.to_owned(), found.clone()));
        found
    }

    /// What the figure stands on.
    fn ground(&mut self, element: &Element) -> String {
        let mut at = Some(element.clone());
        while let Some(here) = at {
            if let Some(colour) = style(&here, None).and_then(|s| self.colour(&property(&s, "background-color"))) {
                return colour;
            }
            at = here.parent_element();
        }
        "white".into()
    }

    fn reach(&mut self, right: f64, bottom: f64) {
        self.right = self.right.max(right);
        self.bottom = self.bottom.max(bottom);
    }

    fn element(&mut self, element: &Element) {
        let Some(style) = style(element, None) else { return };
        if property(&style, "display") == "none" || element.class_list().contains("visually-hidden") {
            return;
        }
        if element.tag_name().eq_ignore_ascii_case("svg") {
            return self.drawing(element);
        }
        let rect = element.get_bounding_client_rect();
        let (x, y, w, h) = (rect.left() - self.left, rect.top() - self.top, rect.width(), rect.height());
        if let Some(fill) = self.colour(&property(&style, "background-color"))
            && w > 0.0
            && h > 0.0
        {
            let _ = write!(
                self.out,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" rx=\"2\" fill=\"{fill}\"/>"
            );
            self.reach(x + w, y + h);
        }
        if let Some((mark, style)) = mark(element) {
            // The element's own text has no height; its line has.
            let line = element.parent_element().map_or(rect, |p| p.get_bounding_client_rect());
            self.text(&mark, x, line.top() - self.top + line.height() / 2.0, w, &style);
        }
        let children = element.child_nodes();
        for child in (0..children.length()).filter_map(|i| children.get(i)) {
            match child.dyn_ref::<Element>() {
                Some(child) => self.element(child),
                None if child.node_type() == Node::TEXT_NODE => self.words(&child, &style),
                None => {}
            }
        }
    }

    /// A text node, word by word, so that it stays where the page broke it.
    fn words(&mut self, node: &Node, style: &CssStyleDeclaration) {
        let text = node.node_value().unwrap_or_default();
        if text.trim().is_empty() || property(style, "font-size") == "0px" {
            return;
        }
        let Some(range) = dom::document().and_then(|d| d.create_range().ok()) else { return };
        let units: Vec<u16> = text.encode_utf16().collect();
        let mut start = 0;
        while start < units.len() {
            let space = |u: &u16| *u == 32;
            let word = units[start..].iter().position(space).map_or(units.len(), |i| start + i.max(1));
            let (from, to) = (start as u32, word as u32);
            start = word;
            if range.set_start(node, from).is_err() || range.set_end(node, to).is_err() {
                return;
            }
            let rect = range.get_bounding_client_rect();
            let part = String::from_utf16_lossy(&units[from as usize..to as usize]);
            let (x, y) = (rect.left() - self.left, rect.top() - self.top + rect.height() / 2.0);
            self.text(&part, x, y, rect.width(), style);
        }
    }

    /// A piece of text whose middle is at `y`.
    fn text(&mut self, text: &str, x: f64, y: f64, width: f64, style: &CssStyleDeclaration) {
        if text.trim().is_empty() || width <= 0.0 {
            return;
        }
        let Some(colour) = self.colour(&property(style, "color")) else { return };
        let size = dom::number(property(style, "font-size").trim_end_matches("px")).unwrap_or(12.0);
        let family = property(style, "font-family").replace('"', "'");
        let weight = property(style, "font-weight");
        let _ = write!(
            self.out,
            "<text x=\"{x:.1}\" y=\"{:.1}\" font-size=\"{size}\" font-family=\"{family}\" font-weight=\"{weight}\" \
                fill=\"{colour}\" xml:space=\"preserve\">{}</text>",
            y + size * 0.35,
            escape(text)
        );
        self.reach(x + width, y + size);
    }

    /// A drawing inside the figure: its own shapes with the style sheet's colours written into them.
    fn drawing(&mut self, svg: &Element) {
        let rect = svg.get_bounding_client_rect();
        let (x, y) = (rect.left() - self.left, rect.top() - self.top);
        let _ = write!(self.out, "<g transform=\"translate({x:.1} {y:.1})\">");
        let children = svg.children();
        for child in (0..children.length()).filter_map(|i| children.item(i)) {
            let Some(style) = style(&child, None) else { continue };
            let name = child.tag_name();
            let _ = write!(self.out, "<{name}");
            for attribute in child.get_attribute_names().iter().filter_map(|n| n.as_string()) {
                if attribute == "class" {
                    continue;
                }
                let value = child.get_attribute(&attribute).unwrap_or_default();
                let value = if value == "currentColor" {
                    self.colour(&property(&style, "color")).unwrap_or_default()
                } else {
                    escape(&value)
                };
                let _ = write!(self.out, " {attribute}=\"{value}\"");
            }
            let _ = write!(
                self.out,
                " stroke-width=\"{}\" opacity=\"{}\" font-family=\"sans-serif\">{}</{name}>",
                property(&style, "stroke-width"),
                property(&style, "opacity"),
                escape(&child.text_content().unwrap_or_default())
            );
        }
        self.out.push_str("</g>");
        self.reach(x + rect.width(), y + rect.height());
    }
}

fn style(element: &Element, pseudo: Option<&str>) -> Option<CssStyleDeclaration> {
    let window = dom::window()?;
    match pseudo {
        Some(pseudo) => window.get_computed_style_with_pseudo_elt(element, pseudo).ok()?,
        None => window.get_computed_style(element).ok()?,
    }
}

fn property(style: &CssStyleDeclaration, name: &str) -> String {
    style.get_property_value(name).unwrap_or_default()
}

/// The text that the style sheet puts before an element, for instance the mark of a space.
fn mark(element: &Element) -> Option<(String, CssStyleDeclaration)> {
    let style = style(element, Some("::before"))?;
    let content = property(&style, "content");
    let text = content.strip_prefix('"')?.split('"').next()?.replace("\\\\", "\\");
    (!text.is_empty()).then_some((text, style))
}

fn escape(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    format::html(&clean)
}
