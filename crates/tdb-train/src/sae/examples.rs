//! What dictionaries learn from.

/// Inputs of some tokens and what a dictionary should make of them, one row a token.
#[derive(Clone, Copy, Debug)]
pub struct Examples<'a> {
    /// `[n, inputs]`
    pub inputs: &'a [f32],
    /// `[n, outputs]`; an autoencoder's inputs themselves.
    pub targets: &'a [f32],
}

impl<'a> Examples<'a> {
    /// Of an autoencoder.
    pub fn of_itself(inputs: &'a [f32]) -> Self {
        Self { inputs, targets: inputs }
    }
}

/// Examples that are held; targets only where they are not the inputs.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    inputs: Vec<f32>,
    targets: Option<Vec<f32>>,
}

impl Rows {
    pub(super) fn new(inputs: Vec<f32>, targets: Option<Vec<f32>>) -> Self {
        Self { inputs, targets }
    }

    pub fn examples(&self) -> Examples<'_> {
        Examples { inputs: &self.inputs, targets: self.targets.as_deref().unwrap_or(&self.inputs) }
    }

    /// Adds rows of `other`, up to `room` tokens; inputs are `width` wide, targets `target_width`.
    pub(super) fn extend(&mut self, other: &Self, room: usize, [width, target_width]: [usize; 2]) {
        let first = |numbers: &Vec<f32>, width: usize| numbers.len().min(room * width);
        self.inputs.extend_from_slice(&other.inputs[..first(&other.inputs, width)]);
        if let Some(targets) = &other.targets {
            self.targets.get_or_insert_default().extend_from_slice(&targets[..first(targets, target_width)]);
        }
    }

    /// The examples of these rows, into `self`, whose own are forgotten.
    pub(super) fn copy_rows(&mut self, of: &Self, rows: &[usize], [width, target_width]: [usize; 2]) {
        let copy = |into: &mut Vec<f32>, from: &[f32], width: usize| {
            into.clear();
            rows.iter().for_each(|&row| into.extend_from_slice(&from[row * width..][..width]));
        };
        copy(&mut self.inputs, &of.inputs, width);
        match &of.targets {
            Some(targets) => copy(self.targets.get_or_insert_default(), targets, target_width),
            None => self.targets = None,
        }
    }
}
