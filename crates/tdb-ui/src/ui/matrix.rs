//! Attention as a figure: one matrix with labels and values, or many small ones.

use std::fmt::Write as _;

use crate::format;

/// Values of the pairs of tokens, row by row of a lower triangle.
#[derive(Clone, Copy)]
pub struct Triangle<'a> {
    pub tokens: &'a [String],
    pub values: &'a [f64],
}

impl Triangle<'_> {
    /// Whether there is a value for each pair.
    pub fn is_whole(&self) -> bool {
        let n = self.tokens.len();
        n > 0 && self.values.len() == n * (n + 1) / 2
    }

    fn at(&self, query: usize, key: usize) -> f64 {
        self.values[query * (query + 1) / 2 + key]
    }

    fn most(&self) -> f64 {
        self.values.iter().copied().fold(0.0, f64::max).max(f64::MIN_POSITIVE)
    }

    /// A table with a row for each query and a column for each key; `here` is marked. With `numbers` values are written
    /// out.
    pub fn table(&self, here: Option<(usize, usize)>, numbers: bool) -> String {
        let n = self.tokens.len();
        let mut out = format!("<table class=\"matrix{}\"><thead><tr><td></td>", if numbers { " large" } else { "" });
        for (i, token) in self.tokens.iter().enumerate() {
            let _ = write!(out, "<th scope=\"col\" title=\"{i}\"><span>{}</span></th>", format::html(token));
        }
        out.push_str("</tr></thead><tbody>");
        for query in 0..n {
            let _ = write!(out, "<tr><th scope=\"row\" title=\"{query}\">{}</th>", format::html(&self.tokens[query]));
            for key in 0..=query {
                let value = self.at(query, key);
                let name = |i: usize| format!("{} ({i})", format::html(&format::quoted(&self.tokens[i])));
                let _ = write!(
                    out,
                    "<td class=\"fill seq{}\" style=\"--v:{:.3}\" data-value=\"{}\" title=\"{} reads {}: {}\">",
                    if here == Some((query, key)) { " here" } else { "" },
                    (value / self.most()).clamp(0.0, 1.0),
                    format::full(value),
                    name(query),
                    name(key),
                    format::full(value),
                );
                if numbers && value.abs() >= 0.005 {
                    let _ = write!(out, "{value:.2}");
                }
                out.push_str("</td>");
            }
            out.push_str("</tr>");
        }
        out.push_str("</tbody></table>");
        out
    }

    /// The matrix as a mask for a small picture: the address of a bitmap, one dot for each pair.
    pub fn mask(&self) -> String {
        let n = self.tokens.len();
        let width = (3 * n).next_multiple_of(4);
        let size = 54 + width * n;
        let mut bytes = b"BM".to_vec();
        let mut put = |number: usize, length: usize| bytes.extend(&number.to_le_bytes()[..length.min(8)]);
        // Sizes and places of the header, then width, height, one plane, 24 bits a dot, nothing packed.
        [(size, 4), (0, 4), (54, 4), (40, 4), (n, 4), (n, 4), (1, 2), (24, 2), (0, 4), (width * n, 4)]
            .into_iter()
            .chain([(2835, 4), (2835, 4), (0, 4), (0, 4)])
            .for_each(|(number, length)| put(number, length));
        // Rows stand from the bottom up.
        for query in (0..n).rev() {
            let mut row = vec![0u8; width];
            for key in 0..=query {
                let light = ((self.at(query, key) / self.most()).clamp(0.0, 1.0) * 255.0) as u8;
                row[3 * key..3 * key + 3].fill(light);
            }
            bytes.extend(row);
        }
        format!("data:image/bmp;base64,{}", base64(&bytes))
    }
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len() * 4 / 3 + 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0u32, |bits, (i, b)| bits | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_letters() {
        assert_eq!(base64(b"Man"), "TWFu");
        assert_eq!((base64(b"Ma").as_str(), base64(b"M").as_str()), ("TWE=", "TQ=="));
    }

    #[test]
    fn a_matrix_has_its_values_where_they_belong() {
        let tokens = ["a".to_owned(), "<b>".to_owned()];
        let triangle = Triangle { tokens: &tokens, values: &[1.0, 0.25, 0.75] };
        assert!(triangle.is_whole() && !Triangle { values: &[1.0], ..triangle }.is_whole());
        let table = triangle.table(Some((1, 0)), true);
        assert!(table.contains("here\" style=\"--v:0.250\" data-value=\"0.25\""), "{table}");
        assert!(table.contains("&lt;b&gt;") && table.contains(">0.75</td>"), "{table}");
        assert!(triangle.mask().starts_with("data:image/bmp;base64,Qk1"));
    }
}
