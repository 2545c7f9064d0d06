//! Token-pair activations: a flat list of one value per (token, attended-to token), as the collated files store them.
//!
//! Row `i` belongs to token `i` and holds the values for attended-to tokens `0 .. min(i + 1, window)`; the window is
//! the whole sequence in most files and shorter in some. It is not stored and follows from the two lengths.

/// Longest attended-to row of a sequence of `tokens` tokens with `values` flat values, or `None` if no window fits.
pub fn window(tokens: usize, values: usize) -> Option<usize> {
    let square = tokens.checked_mul(tokens + 1)? / 2;
    let missing = square.checked_sub(values)?;
    // missing = k(k+1)/2 for the k tokens that have no column of their own
    let k = (((1.0 + 8.0 * missing as f64).sqrt() - 1.0) / 2.0).round() as usize;
    (k * (k + 1) / 2 == missing && (k < tokens || tokens == 0)).then(|| tokens - k)
}

/// Splits flat values into a row per token. `None` if the lengths fit no window.
pub fn rows(tokens: usize, values: &[f32]) -> Option<Vec<&[f32]>> {
    let window = window(tokens, values.len())?;
    let mut rest = values;
    let mut rows = Vec::with_capacity(tokens);
    for i in 0..tokens {
        let (row, tail) = rest.split_at((i + 1).min(window));
        rows.push(row);
        rest = tail;
    }
    Some(rows)
}

/// (token, attended-to token) of the flat index `flat`, given the window.
pub fn pair(flat: usize, window: usize) -> (usize, usize) {
    let triangle = window * (window + 1) / 2;
    if flat >= triangle {
        let beyond = flat - triangle;
        return (window + beyond / window.max(1), beyond % window.max(1));
    }
    let mut row = (((1.0 + 8.0 * flat as f64).sqrt() - 1.0) / 2.0) as usize;
    while row * (row + 1) / 2 > flat {
        row -= 1;
    }
    while (row + 1) * (row + 2) / 2 <= flat {
        row += 1;
    }
    (row, flat - row * (row + 1) / 2)
}

/// What goes into and out of each token: the sum and the largest value over its row, and over its column.
///
/// A token behind the window has no column; nothing of it is read later, and both its outgoing figures are 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub total_in: Vec<f32>,
    pub max_in: Vec<f32>,
    pub total_out: Vec<f32>,
    pub max_out: Vec<f32>,
}

/// Sums and maxima of the rows and columns of `rows` (one row per token, see [`rows`]).
pub fn summary(rows: &[&[f32]]) -> Summary {
    let n = rows.len();
    let mut out = vec![(0f64, f32::NEG_INFINITY); n];
    let (mut total_in, mut max_in) = (Vec::with_capacity(n), Vec::with_capacity(n));
    for row in rows {
        let (mut sum, mut max) = (0f64, f32::NEG_INFINITY);
        for (column, &v) in out.iter_mut().zip(*row) {
            sum += f64::from(v);
            max = max.max(v);
            column.0 += f64::from(v);
            column.1 = column.1.max(v);
        }
        total_in.push(sum as f32);
        max_in.push(if max.is_finite() { max } else { 0.0 });
    }
    Summary {
        total_in,
        max_in,
        total_out: out.iter().map(|c| c.0 as f32).collect(),
        max_out: out.iter().map(|c| if c.1.is_finite() { c.1 } else { 0.0 }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_found_for_every_length_and_nothing_else_fits() {
        for tokens in 1..40usize {
            let lengths: Vec<usize> = (1..=tokens).map(|w| (0..tokens).map(|i| (i + 1).min(w)).sum()).collect();
            for values in 0..=tokens * (tokens + 1) / 2 + 3 {
                let expected = lengths.iter().position(|&n| n == values).map(|i| i + 1);
                assert_eq!(window(tokens, values), expected, "{tokens} tokens, {values} values");
            }
        }
    }

    #[test]
    fn flat_indices_and_rows_agree() {
        for tokens in 1..12usize {
            for w in 1..=tokens {
                let n: usize = (0..tokens).map(|i| (i + 1).min(w)).sum();
                let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
                let rows = rows(tokens, &values).unwrap();
                for flat in 0..n {
                    let (i, j) = pair(flat, w);
                    assert_eq!(rows[i][j], flat as f32);
                }
            }
        }
    }

    #[test]
    fn columns_behind_the_window_are_zero() {
        let values = [1.0, 2.0, -3.0, 4.0, 5.0];
        let s = summary(&rows(3, &values).unwrap());
        assert_eq!(s.total_in, [1.0, -1.0, 9.0]);
        assert_eq!(s.max_in, [1.0, 2.0, 5.0]);
        assert_eq!(s.total_out, [7.0, 2.0, 0.0]);
        assert_eq!(s.max_out, [4.0, 5.0, 0.0]);
    }
}
