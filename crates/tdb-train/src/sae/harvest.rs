//! Activations of one site, from forward passes that keep nothing else for longer than a sequence.

use rayon::prelude::*;
use tdb_model::{AutoencoderSite, ForwardOptions, Point, Site, Transformer};

use super::source::TokenSource;
use crate::error::{Error, Result};

/// What a site holds in every layer of a sequence, `[T, width]` each.
pub fn activations(model: &Transformer, site: AutoencoderSite, tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
    let run = model.forward(tokens, ForwardOptions::default())?;
    let rows = |layer| {
        let point = activation(site, layer);
        Ok(run.get(point.site, point.layer)?.flatten_all()?.to_vec1()?)
    };
    (0..run.n_layers()).map(rows).collect()
}

/// Where in a pass the input of a layer's dictionary stands, of a model without dictionaries.
pub(super) fn activation(site: AutoencoderSite, layer: usize) -> Point {
    match (site, layer) {
        (AutoencoderSite::ResidPre, 0) => Point { site: Site::ResidPostEmb, layer: None },
        (AutoencoderSite::ResidPre, layer) => Point { site: Site::ResidPostMlp, layer: Some(layer - 1) },
        (AutoencoderSite::ResidPostAttn, layer) => Point { site: Site::ResidPostAttn, layer: Some(layer) },
        (AutoencoderSite::ResidPostMlp, layer) => Point { site: Site::ResidPostMlp, layer: Some(layer) },
        (site, layer) => Point { site: site.reads(), layer: Some(layer) },
    }
}

/// Sequences of a text that starts anew at its end.
pub(super) struct Endless<'a> {
    source: &'a mut dyn TokenSource,
    /// Sequences taken so far, those of earlier rounds through the text included.
    pub taken: u64,
    /// Whether any sequence came since the beginning: a text without any would turn for ever.
    any: bool,
}

impl<'a> Endless<'a> {
    /// Goes on after `taken` sequences.
    pub fn new(source: &'a mut dyn TokenSource, taken: u64) -> Result<Self> {
        source.rewind()?;
        let mut endless = Self { source, taken: 0, any: false };
        while endless.taken < taken {
            endless.next()?;
        }
        Ok(endless)
    }

    pub fn next(&mut self) -> Result<Vec<u32>> {
        loop {
            match self.source.next()? {
                Some(tokens) if !tokens.is_empty() => {
                    self.any = true;
                    self.taken += 1;
                    return Ok(tokens);
                }
                Some(_) => {}
                None if self.any => {
                    self.any = false;
                    self.source.rewind()?;
                }
                None => return Err(Error::setting("text", "it holds no tokens")),
            }
        }
    }
}

/// The activations of `size` tokens in every layer, `[size, width]` each: all that is ever held of them.
pub(super) fn fill(
    model: &Transformer,
    site: AutoencoderSite,
    text: &mut Endless<'_>,
    size: usize,
) -> Result<Vec<Vec<f32>>> {
    const TOGETHER: usize = 32;
    let config = model.config();
    let width = site.width(config);
    let mut buffers: Vec<Vec<f32>> = vec![Vec::with_capacity(size * width); config.n_layers];
    while buffers[0].len() < size * width {
        let sequences = (0..TOGETHER).map(|_| text.next()).collect::<Result<Vec<_>>>()?;
        let parts: Vec<Result<Vec<Vec<f32>>>> =
            sequences.par_iter().map(|tokens| activations(model, site, tokens)).collect();
        for part in parts {
            for (buffer, rows) in buffers.iter_mut().zip(part?) {
                let room = size * width - buffer.len();
                buffer.extend_from_slice(&rows[..rows.len().min(room)]);
            }
        }
    }
    Ok(buffers)
}
