//! What dictionaries of one site read and make, from forward passes that keep nothing else for longer than a sequence.

use tdb_model::parallel;
use tdb_model::{AutoencoderSite, ForwardOptions, Point, Run, Site, Transformer};

use super::examples::Rows;
use super::source::TokenSource;
use crate::error::{Error, Result};

/// What dictionaries at a site learn from in every layer of a sequence, a row a token.
pub fn activations(model: &Transformer, site: AutoencoderSite, tokens: &[u32]) -> Result<Vec<Rows>> {
    let run = model.forward(tokens, ForwardOptions::default())?;
    let rows = |layer| {
        let inputs = numbers(&run, activation(site, layer))?;
        let targets = site.is_transcoder().then(|| numbers(&run, target(site, layer))).transpose()?;
        Ok(Rows::new(inputs, targets))
    };
    (0..run.n_layers()).map(rows).collect()
}

fn numbers(run: &Run, point: Point) -> Result<Vec<f32>> {
    Ok(run.get(point.site, point.layer)?.flatten_all()?.to_vec1()?)
}

/// Where in a pass what a layer's dictionary makes stands, of a model without dictionaries.
pub(super) fn target(site: AutoencoderSite, layer: usize) -> Point {
    match site.is_transcoder() {
        true => Point { site: Site::ResidDeltaMlp, layer: Some(layer) },
        false => activation(site, layer),
    }
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

/// What dictionaries learn from at `size` tokens, in every layer: all that is ever held of them.
pub(super) fn fill(
    model: &Transformer,
    site: AutoencoderSite,
    text: &mut Endless<'_>,
    size: usize,
) -> Result<Vec<Rows>> {
    const TOGETHER: usize = 32;
    let config = model.config();
    let widths = [site.width(config), site.output_width(config)];
    let mut buffers: Vec<Rows> = vec![Rows::default(); config.n_layers];
    let mut held = 0;
    while held < size {
        let sequences = (0..TOGETHER).map(|_| text.next()).collect::<Result<Vec<_>>>()?;
        let parts = parallel::try_map(sequences.len(), |i| activations(model, site, &sequences[i]))?;
        for (part, tokens) in parts.into_iter().zip(&sequences) {
            for (buffer, rows) in buffers.iter_mut().zip(part) {
                buffer.extend(&rows, size - held, widths);
            }
            held = size.min(held + tokens.len());
        }
    }
    Ok(buffers)
}
