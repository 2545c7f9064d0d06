//! The model's part of a path: `gpt2-small` or `gpt2-small_<mlp autoencoder>_<attention autoencoder>`.

use crate::{ModelInfoResponse, NodeType};
use std::fmt;

/// A model and the autoencoders that go with it. No name holds an underscore, which parts them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelSlug {
    /// The model's name.
    pub model: String,
    /// Names of autoencoders.
    pub autoencoders: Vec<String>,
}

impl ModelSlug {
    /// Reads a slug. Every text is one; empty parts are dropped.
    pub fn parse(slug: &str) -> Self {
        let mut parts = slug.split('_').filter(|part| !part.is_empty()).map(str::to_owned);
        Self { model: parts.next().unwrap_or_default(), autoencoders: parts.collect() }
    }

    /// The slug of what a server has, if it has a model.
    pub fn from_info(info: &ModelInfoResponse) -> Option<Self> {
        let model = info.model_name.clone()?;
        let mlp = info.mlp_autoencoder_name.clone().filter(|_| info.has_mlp_autoencoder);
        let attention = info.attention_autoencoder_name.clone().filter(|_| info.has_attention_autoencoder);
        let residual = info.residual_autoencoder_name.clone();
        Some(Self { model, autoencoders: mlp.into_iter().chain(attention).chain(residual).collect() })
    }

    /// The name of the set of records that a node of this type belongs to: the model's, or for latents the model's and
    /// the fitting autoencoder's. `None` if there is no such autoencoder in the slug. Names of published autoencoders
    /// say what they are on; of others the one on the MLP comes first.
    pub fn dataset_name(&self, node_type: NodeType) -> Option<String> {
        let of_mlp = |name: &&String| name.contains("resid-delta-mlp") || name.contains("mlp-post-act");
        let of_attention = |name: &&String| name.contains("resid-delta-attn");
        let of_residual = |name: &&String| ["resid-pre", "resid-mid", "resid-post"].iter().any(|on| name.contains(on));
        let autoencoder = match node_type {
            NodeType::AutoencoderLatent => self.autoencoders.first(),
            NodeType::MlpAutoencoderLatent => {
                let all = || self.autoencoders.iter();
                all().find(of_mlp).or_else(|| all().find(|name| !of_attention(name)))
            }
            NodeType::AttentionAutoencoderLatent | NodeType::AutoencoderLatentByTokenPair => {
                let all = || self.autoencoders.iter();
                all().find(of_attention).or_else(|| all().rfind(|name| !of_mlp(name)))
            }
            NodeType::ResidualAutoencoderLatent => {
                let all = || self.autoencoders.iter();
                all().find(of_residual).or_else(|| all().rfind(|name| !of_mlp(name) && !of_attention(name)))
            }
            _ => return Some(self.model.clone()),
        };
        autoencoder.map(|autoencoder| format!("{}_{autoencoder}", self.model))
    }

    /// The path of the debugger's page.
    pub fn debugger_path(&self) -> String {
        format!("/{}/tdb_alpha", super::node::path_segment(&self.to_string()))
    }
}

impl fmt::Display for ModelSlug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.model)?;
        self.autoencoders.iter().try_for_each(|autoencoder| write!(f, "_{autoencoder}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_kept() {
        let text = "gpt2-small_ae-resid-delta-mlp-v4_ae-resid-delta-attn-v4";
        let slug = ModelSlug::parse(text);
        assert_eq!(slug.model, "gpt2-small");
        assert_eq!(slug.autoencoders, ["ae-resid-delta-mlp-v4", "ae-resid-delta-attn-v4"]);
        assert_eq!(slug.to_string(), text);
        assert_eq!(slug.debugger_path(), format!("/{text}/tdb_alpha"));
    }

    #[test]
    fn latents_have_records_of_their_autoencoder() {
        let slug = ModelSlug::parse("m_ae-resid-delta-attn-v4_ae-mlp-post-act-v1");
        let name = |node_type| slug.dataset_name(node_type);
        assert_eq!(name(NodeType::MlpNeuron).as_deref(), Some("m"));
        assert_eq!(name(NodeType::AttentionHead).as_deref(), Some("m"));
        assert_eq!(name(NodeType::AutoencoderLatent).as_deref(), Some("m_ae-resid-delta-attn-v4"));
        assert_eq!(name(NodeType::MlpAutoencoderLatent).as_deref(), Some("m_ae-mlp-post-act-v1"));
        assert_eq!(name(NodeType::AutoencoderLatentByTokenPair).as_deref(), Some("m_ae-resid-delta-attn-v4"));
        assert_eq!(ModelSlug::parse("m").dataset_name(NodeType::MlpAutoencoderLatent), None);
        // Names that do not say what they are on.
        for (text, mlp, attention) in
            [("m_a_b", "m_a", "m_b"), ("m_a", "m_a", "m_a"), ("m_ae-mlp-post-act-v1_b", "m_ae-mlp-post-act-v1", "m_b")]
        {
            let slug = ModelSlug::parse(text);
            assert_eq!(slug.dataset_name(NodeType::MlpAutoencoderLatent).as_deref(), Some(mlp));
            assert_eq!(slug.dataset_name(NodeType::AttentionAutoencoderLatent).as_deref(), Some(attention));
        }
    }

    #[test]
    fn only_autoencoders_that_the_server_has_are_named() {
        let info = ModelInfoResponse {
            model_name: Some("m".into()),
            has_mlp_autoencoder: false,
            mlp_autoencoder_name: Some("left-over".into()),
            has_attention_autoencoder: true,
            attention_autoencoder_name: Some("a".into()),
            residual_autoencoder_name: Some("r".into()),
            n_layers: 2,
        };
        let slug = ModelSlug::from_info(&info).unwrap();
        assert_eq!(slug.to_string(), "m_a_r");
        assert_eq!(slug.dataset_name(NodeType::ResidualAutoencoderLatent).as_deref(), Some("m_r"));
        assert_eq!(ModelSlug::from_info(&ModelInfoResponse { model_name: None, ..info }), None);
    }
}
