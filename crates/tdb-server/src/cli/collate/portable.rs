//! What was asked for, as another process understands it.

use std::path::PathBuf;

use tdb_data::Location;

use super::Args;
use crate::cli::dictionary;

impl Args {
    /// The same with paths from the root and one date for all, to be sent to a process that runs in another folder.
    /// What concerns this machine alone (threads, where data is found) is not sent.
    ///
    /// # Errors
    /// If a path cannot be resolved, or a dictionary is not described as it must be.
    pub fn portable(&self) -> anyhow::Result<Self> {
        let mut asked = self.clone();
        let places = asked.text.iter_mut().chain([&mut asked.out]).chain(&mut asked.summaries);
        places.into_iter().try_for_each(absolute)?;
        let names = [&mut asked.model, &mut asked.mlp_autoencoder, &mut asked.attn_autoencoder];
        for name in names.into_iter().flatten() {
            absolute_folder(name, name.len())?;
        }
        if let Some(models) = &mut asked.models {
            *models = std::path::absolute(&models)?;
        }
        for text in &mut asked.dictionary {
            let name = dictionary::Wanted::parse(text)?.name.len();
            absolute_folder(text, name)?;
        }
        asked.date.get_or_insert_with(tdb_explain::date::now);
        Ok(asked)
    }
}

fn absolute(place: &mut String) -> anyhow::Result<()> {
    if let Some(path) = Location::parse(place)?.local() {
        *place = std::path::absolute(path)?.display().to_string();
    }
    Ok(())
}

/// Of what begins with a name of `len` bytes. One that is no folder here is registered, and stays.
fn absolute_folder(text: &mut String, len: usize) -> anyhow::Result<()> {
    let folder = PathBuf::from(&text[..len]);
    if folder.is_dir() {
        text.replace_range(..len, &std::path::absolute(folder)?.display().to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn paths_begin_at_the_root_and_names_and_addresses_stay() {
        // Tests run in the crate's folder.
        let line = "tdb my.txt s3://bucket/more.jsonl --out out --model gpt2-small --mlp-autoencoder src --threads 3 \
                    --dictionary src,layer=1 --tokens 24";
        let asked = Line::parse_from(line.split_whitespace()).args.portable().unwrap();
        let here = std::env::current_dir().unwrap();
        let path = |name: &str| here.join(name).display().to_string();
        assert_eq!(asked.text, [path("my.txt"), "s3://bucket/more.jsonl".to_owned()]);
        assert_eq!((asked.out.clone(), asked.model.as_deref()), (path("out"), Some("gpt2-small")));
        assert_eq!(asked.mlp_autoencoder, Some(path("src")));
        assert_eq!(asked.dictionary, [path("src,layer=1")]);
        assert!(asked.date.is_some());

        let sent = serde_json::to_string(&asked).unwrap();
        let read: Args = serde_json::from_str(&sent).unwrap();
        assert_eq!((read.threads, read.tokens), (None, Some(24)));
        assert_eq!((read.text, read.date), (asked.text, asked.date));
    }
}
