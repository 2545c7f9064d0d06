//! Latents of a few thousand of which some dozen are active.

/// One list of `(index, value)` per token, by ascending index; what is absent is zero.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseRows {
    width: usize,
    rows: Vec<Vec<(u32, f32)>>,
}

impl SparseRows {
    /// Rows over `width` latents.
    ///
    /// # Panics
    /// If a row is not ascending or reaches beyond `width`.
    pub fn new(width: usize, rows: Vec<Vec<(u32, f32)>>) -> Self {
        for row in &rows {
            assert!(row.windows(2).all(|w| w[0].0 < w[1].0) && row.last().is_none_or(|e| (e.0 as usize) < width));
        }
        SparseRows { width, rows }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Number of latents, active or not.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The active latents of a token.
    pub fn row(&self, token: usize) -> &[(u32, f32)] {
        &self.rows[token]
    }

    /// The active latents of every token.
    pub fn rows(&self) -> &[Vec<(u32, f32)>] {
        &self.rows
    }

    /// The value of a latent at a token.
    pub fn get(&self, token: usize, index: usize) -> f32 {
        let row = &self.rows[token];
        row.binary_search_by_key(&(index as u32), |e| e.0).map_or(0.0, |at| row[at].1)
    }

    /// Sets the value of a latent at a token.
    pub fn set(&mut self, token: usize, index: usize, value: f32) {
        let row = &mut self.rows[token];
        match row.binary_search_by_key(&(index as u32), |e| e.0) {
            Ok(at) => row[at].1 = value,
            Err(at) => row.insert(at, (index as u32, value)),
        }
    }

    /// The same pattern with other values.
    pub fn map(&self, f: impl Fn(usize, usize, f32) -> f32) -> Self {
        let rows = self.rows.iter().enumerate();
        let rows = rows.map(|(t, row)| row.iter().map(|&(i, x)| (i, f(t, i as usize, x))).collect()).collect();
        SparseRows { width: self.width, rows }
    }

    /// `[tokens, width]`, row-major.
    pub fn to_dense(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows.len() * self.width];
        for (row, out) in self.rows.iter().zip(out.chunks_exact_mut(self.width.max(1))) {
            for &(index, value) in row {
                out[index as usize] = value;
            }
        }
        out
    }
}
