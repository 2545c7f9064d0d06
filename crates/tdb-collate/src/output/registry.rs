//! What a collation made, as a registry file beside it: the debugger reads that and knows all of it.

use tdb_data::{ExplanationsEntry, Per, RecordsEntry, RecordsLayout, Registry};

use super::{Layouts, Target};
use crate::summary::Plan;
use crate::{Kind, Result, file};

/// The file's name.
pub const REGISTRY: &str = "registry.toml";

/// The names by which the debugger is asked for the autoencoders.
#[derive(Clone, Debug, Default)]
pub struct Autoencoders {
    pub mlp: Option<String>,
    pub attention: Option<String>,
    pub residual: Option<String>,
}

impl Autoencoders {
    fn of(&self, kind: Kind) -> Option<&str> {
        match kind {
            Kind::Neuron | Kind::Head => None,
            Kind::MlpLatent => self.mlp.as_deref(),
            Kind::AttnLatent | Kind::AttnLatentPairs => self.attention.as_deref(),
            Kind::ResidualLatent => self.residual.as_deref(),
        }
    }
}

/// Writes `registry.toml` for what [`super::write`] wrote below `out`. The sets have the names under which the pages look
/// for records of this model and these autoencoders; paths are relative, so that the folder can be moved.
///
/// # Errors
/// If it cannot be written.
pub fn write_registry(plan: &Plan, autoencoders: &Autoencoders, layouts: &Layouts, out: &Target) -> Result<()> {
    let texts: Vec<&str> = plan.corpus.iter().map(|(name, _)| name.as_str()).collect();
    let (text, model) = (texts.join(", "), &plan.model);
    let mut registry = Registry::default();
    for &kind in &plan.kinds {
        let (scalar, autoencoder) = (kind.scalar(), autoencoders.of(kind));
        let of = match kind {
            Kind::Neuron => "MLP neurons".to_owned(),
            Kind::Head => "attention heads by token pair".to_owned(),
            Kind::MlpLatent | Kind::AttnLatent | Kind::ResidualLatent => {
                format!("latents of {}", autoencoder.unwrap_or_default())
            }
            Kind::AttnLatentPairs => format!("latents of {} by token pair", autoencoder.unwrap_or_default()),
        };
        let title = format!("{model} on {text} - {of}");
        let name = autoencoder.map_or_else(|| model.clone(), |autoencoder| format!("{model}_{autoencoder}"));
        let in_layers = layouts.layer_files.is_some();
        let layout = if in_layers { RecordsLayout::Layers } else { RecordsLayout::Files };
        if in_layers || layouts.single_files {
            registry.records.push(RecordsEntry {
                name: name.clone(),
                scalar: scalar.to_owned(),
                title: title.clone(),
                location: if in_layers { "records".to_owned() } else { format!("files/{scalar}") },
                model: Some(model.clone()),
                autoencoder: autoencoder.map(str::to_owned),
                per: if kind.per_pair() { Per::TokenPair } else { Per::Token },
                layout,
            });
        }
        if layouts.explanations.is_some() {
            registry.explanations.push(ExplanationsEntry {
                name: format!("{name}-{scalar}"),
                title: format!("{title}, offline statistics"),
                location: format!("explanations/{scalar}"),
                records: name,
                scalar: scalar.to_owned(),
                layout: RecordsLayout::Layers,
            });
        }
    }
    let text = registry.to_text()?;
    file::write(&out.folder().join(REGISTRY), |file| file.write_all(text.as_bytes()))?;
    out.send()
}
