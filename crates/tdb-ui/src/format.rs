//! Numbers as a person reads them. What is shown is rounded; the full value stands beside it as a title and in copies.

use tdb_api::ScoreKind;

/// True minus, so that signs line up with `+` in tables.
const MINUS: char = '\u{2212}';

/// About three significant digits, never `-0.00`: `12,345`, `123.4`, `1.23`, `0.0123`, `1.2e-5`.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "not a number".into()
        } else if value > 0.0 {
            "∞".into()
        } else {
            format!("{MINUS}∞")
        };
    }
    let size = value.abs();
    let text = if size == 0.0 {
        return "0".into();
    } else if size >= 1e7 {
        format!("{size:.2e}")
    } else if size >= 999.95 {
        thousands(size)
    } else if size >= 99.995 {
        format!("{size:.1}")
    } else if size >= 0.995 {
        format!("{size:.2}")
    } else if size >= 0.0995 {
        format!("{size:.3}")
    } else if size >= 0.000_995 {
        format!("{size:.4}")
    } else {
        format!("{size:.1e}")
    };
    if value < 0.0 { format!("{MINUS}{text}") } else { text }
}

/// As [`number`], with an explicit `+`: for quantities whose sign is the message.
pub fn signed(value: f64) -> String {
    if value > 0.0 { format!("+{}", number(value)) } else { number(value) }
}

/// As [`signed`], with two digits after the point where more would stand: for a row of terms that add up.
pub fn short(value: f64) -> String {
    match format!("{:.2}", value.abs()) {
        _ if value.abs() >= 0.995 => signed(value),
        none if none == "0.00" => "0".into(),
        size => format!("{}{size}", if value < 0.0 { MINUS } else { '+' }),
    }
}

/// A probability as a percentage.
pub fn percent(p: f64) -> String {
    let hundred = p * 100.0;
    if p <= 0.0 {
        "0 %".into()
    } else if hundred < 0.01 {
        "< 0.01 %".into()
    } else if hundred < 10.0 {
        format!("{hundred:.2} %")
    } else {
        format!("{hundred:.1} %")
    }
}

/// A score of an explanation with what it measures and its chance level.
pub fn score(score: f64, kind: Option<ScoreKind>) -> String {
    match kind {
        None | Some(ScoreKind::Correlation) => format!("r {score:.2} (chance 0)"),
        Some(ScoreKind::RocAuc) => format!("AUC {score:.2} (chance 0.5)"),
        Some(ScoreKind::BalancedAccuracy) => format!("balanced accuracy {score:.2} (chance 0.5)"),
    }
}

/// Text as it stands in HTML.
pub fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Every digit that the answer carries.
pub fn full(value: f64) -> String {
    format!("{value}")
}

/// A count with thousands separated.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Milliseconds as `340 ms` or `2.4 s`.
pub fn duration(ms: f64) -> String {
    if ms < 1000.0 { format!("{ms:.0} ms") } else { format!("{:.1} s", ms / 1000.0) }
}

fn thousands(size: f64) -> String {
    count(size.round() as u64)
}

/// What stands for bytes that are no whole character.
pub const NO_CHARACTER: char = '\u{FFFD}';

/// What is written for a character that has no shape of its own: controls, and what only steers the text around it.
pub fn escape(c: char) -> Option<String> {
    match c {
        '\n' => Some("↵".into()),
        '\t' => Some("⇥".into()),
        '\r' => Some("\\r".into()),
        '\0' => Some("\\0".into()),
        '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' => {
            Some(format!("\\u{{{:x}}}", u32::from(c)))
        }
        _ if c.is_control() => Some(format!("\\x{:02x}", u32::from(c))),
        _ => None,
    }
}

/// A token on one line for titles and sentences: quoted, line breaks and other controls spelt out.
pub fn quoted(token: &str) -> String {
    let mut out = String::from("“");
    for c in token.chars() {
        match escape(c) {
            Some(mark) => out.push_str(&mark),
            None => out.push(c),
        }
    }
    out.push('”');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_and_their_sign() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1.00"),
            (-0.004, "−0.0040"),
            (0.9999, "1.00"),
            (99.999, "100.0"),
            (999.99, "1,000"),
            (-1234567.0, "−1,234,567"),
            (0.00001234, "1.2e-5"),
            (12.345, "12.35"),
        ];
        for (value, want) in cases {
            assert_eq!(number(value), want, "{value}");
        }
        assert_eq!(signed(2.0), "+2.00");
        assert_eq!(signed(-0.0), "0");
    }

    #[test]
    fn percentages_never_round_a_possibility_to_nothing() {
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(1e-9), "< 0.01 %");
        assert_eq!(percent(0.01234), "1.23 %");
        assert_eq!(percent(0.5), "50.0 %");
    }

    #[test]
    fn what_has_no_shape_is_spelt_out() {
        assert_eq!(quoted(" Mary\n"), "“ Mary↵”");
        assert_eq!(quoted("\u{0}\u{1b}\r\u{85}"), "“\\0\\x1b\\r\\x85”");
        assert_eq!(quoted("\u{200b}é"), "“\\u{200b}é”");
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(50257), "50,257");
    }
}
