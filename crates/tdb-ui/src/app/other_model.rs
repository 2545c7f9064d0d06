//! A link that was made for another model than the one served says so before anything is shown.

use leptos::prelude::*;
use tdb_api::page::ModelSlug;

use crate::context::{expect_context, provide_context};
use crate::server::{Facts, Health, Server};
use crate::signals::{Change, Memo, RwSignal, See, Signal};
use crate::ui::{Show, button, dynamic};

/// Addresses' models that the person chose to see with the model served, for the rest of the visit.
#[derive(Clone, Copy)]
pub struct OtherModels(RwSignal<Vec<String>>);

impl OtherModels {
    pub fn provide() {
        provide_context(Self(RwSignal::default()));
    }
}

/// The served model's name, if the address is about another model or other autoencoders; an address that cannot be read
/// is about none.
pub fn served_instead(slug: &str, facts: &Facts) -> Option<String> {
    if slug.is_empty() {
        return None;
    }
    let (asked, served) = (ModelSlug::parse(slug), facts.slug()?);
    let same = asked.model == served.model && asked.autoencoders.iter().all(|a| served.autoencoders.contains(a));
    (!same).then(|| served.to_string())
}

/// The page, or the notice that it is about another model than `slug`.
#[component]
pub fn OnServedModel(#[prop(into)] slug: Signal<String>, children: ChildrenFn) -> impl IntoView {
    let server = Server::get();
    let chosen = expect_context::<OtherModels>().0;
    let other = Memo::new(move |_| server.facts.see(|f| f.as_ref().and_then(|f| served_instead(&slug.get(), f))));
    let is_chosen = move || chosen.see(|all| all.contains(&slug.get()));
    // Before the server has told its model nothing is shown, unless it does not answer.
    let is_open = Memo::new(move |_| {
        let is_known = server.facts.see(Option::is_some) || matches!(server.health.get(), Health::Absent(_));
        is_known && (other.see(Option::is_none) || is_chosen())
    });
    view! {
        {dynamic(move || other.get().map(|served| view! {
            <div class="notice other-model" role="alert" id="other-model">
                <span class="grow">
                    "This link is for "<strong>{slug.get()}</strong>"; this server runs "<strong>{served}</strong>
                    {dynamic(move || if is_chosen() {
                        ". What is computed here is of the latter."
                    } else {
                        ". Layers, heads, neurons and latents of one model mean nothing in another."
                    })}
                </span>
                <Show when=move || !is_chosen()>
                    {button(
                        "button small",
                        "Show anyway",
                        move |_| chosen.change(|all| all.push(slug.get_untracked())),
                    )}
                    <a class="button small primary" href="/">"Start page"</a>
                </Show>
            </div>
        }))}
        <Show when=move || is_open.get()>{children()}</Show>
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdb_api::ModelInfoResponse;

    #[test]
    fn other_models_and_other_autoencoders_are_told() {
        let model = ModelInfoResponse {
            model_name: Some("embedded".into()),
            has_mlp_autoencoder: true,
            mlp_autoencoder_name: Some("sae".into()),
            has_attention_autoencoder: false,
            attention_autoencoder_name: None,
            residual_autoencoder_name: None,
            n_layers: 4,
        };
        let facts = Facts { model, server: None, explains: true, writes_explanations: false, records: None };
        let told = |slug| served_instead(slug, &facts);
        assert_eq!((told(""), told("embedded"), told("embedded_sae")), (None, None, None));
        assert_eq!(told("gpt2-small").as_deref(), Some("embedded_sae"));
        assert_eq!(told("embedded_other").as_deref(), Some("embedded_sae"));
    }
}
