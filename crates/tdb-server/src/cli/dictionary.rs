//! `--dictionary`: where a dictionary is, and what its files do not say about it.

use anyhow::{Context, bail, ensure};
use tdb_data::hub_dictionary;
use tdb_model::checkpoint::DictionaryOptions;
use tdb_model::{AutoencoderSite, Normalization};

/// How it is written, for messages and `--help`.
pub const SYNTAX: &str = "NAME|FOLDER|hf:OWNER/NAME[@REVISION][/PATH][,site=SITE][,layer=LAYER]\
                          [,normalization=NORMALIZATION][,factor=NUMBER]";

/// A name or path with what was said after it.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// A registered name, a folder below the model's autoencoders/, a path, or a folder of Hugging Face's hub.
    pub name: String,
    pub options: DictionaryOptions,
}

impl Wanted {
    /// Settings stand at the end; a comma before anything else belongs to the path.
    ///
    /// # Errors
    /// A setting with a value that it cannot have.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut name = text;
        let mut options = DictionaryOptions::default();
        while let Some((rest, setting)) = name.rsplit_once(',') {
            let Some((key, value)) = setting.split_once('=') else { break };
            let within = || format!("{text:?}: {setting:?}");
            match key.trim() {
                "site" => options.site = Some(site(value).with_context(within)?),
                "layer" => options.layer = Some(value.parse().with_context(within)?),
                "normalization" | "normalisation" => {
                    options.normalization = Some(normalization(value).with_context(within)?);
                }
                "factor" => options.factor = Some(factor(value).with_context(within)?),
                other => bail!("{text:?}: {other:?} is no setting of a dictionary; write {SYNTAX}"),
            }
            name = rest;
        }
        super::serve::check_name(name)?;
        if name.starts_with("hf:") {
            hub_dictionary(name)?;
        }
        Ok(Self { name: name.to_owned(), options })
    }
}

fn site(name: &str) -> anyhow::Result<AutoencoderSite> {
    AutoencoderSite::named(name)
        .with_context(|| format!("{name:?} is no site of a dictionary; there are {}", AutoencoderSite::names()))
}

fn normalization(name: &str) -> anyhow::Result<Normalization> {
    Normalization::named(name).with_context(|| {
        format!("{name:?} is no normalization; there are none, centered, layer-norm and constant-norm")
    })
}

fn factor(text: &str) -> anyhow::Result<f32> {
    let factor: f32 = text.parse()?;
    ensure!(factor.is_normal() && factor > 0.0, "a factor is a positive number");
    Ok(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_stand_after_the_path() {
        let plain = Wanted::parse("a,b/resid_post_mlp_v5").unwrap();
        assert_eq!((plain.name.as_str(), plain.options), ("a,b/resid_post_mlp_v5", DictionaryOptions::default()));
        let all = Wanted::parse("a,b,site=resid_pre,layer=3,normalisation=layer-norm,factor=0.5").unwrap();
        let expected = DictionaryOptions {
            site: Some(AutoencoderSite::ResidPre),
            layer: Some(3),
            normalization: Some(Normalization::LAYER_NORM),
            factor: Some(0.5),
        };
        assert_eq!((all.name.as_str(), all.options), ("a,b", expected));
    }

    #[test]
    fn a_wrong_setting_is_named() {
        for (text, what) in [
            ("a,sit=resid_pre", "sit"),
            ("a,site=resid", "resid_pre"),
            ("a,layer=x", "layer=x"),
            ("a,normalization=batch", "constant-norm"),
            ("a,factor=0", "positive"),
            ("a,factor=nan", "positive"),
            (",site=resid_pre", "empty"),
            ("hf:org", "expected hf:owner/name"),
        ] {
            let error = format!("{:#}", Wanted::parse(text).unwrap_err());
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
