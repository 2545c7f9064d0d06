//! What requests cost in arithmetic and bytes, and what the machine at hand could do at best.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::commands::{cargo, root};

/// Weights that every pass over a prompt multiplies by: the blocks of GPT-2 small.
const BLOCK_WEIGHTS: f64 = 85e6;

/// Entries of the vocabulary times width.
const VOCABULARY_WEIGHTS: f64 = 50_257.0 * 768.0;

/// Rates of the machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Rows of a product and its GFLOP/s, by ascending rows.
    products: Vec<(f64, f64)>,
    /// GB/s.
    reads: f64,
}

/// What a request has to compute.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    pub tokens: usize,
    /// Passes over the prompt, in either direction.
    pub passes: usize,
    /// Products of one direction with the whole vocabulary.
    pub readings: usize,
    /// Weights of encoders that every token is multiplied by.
    pub encoder_weights: f64,
}

impl Machine {
    /// Measures it, for some seconds.
    pub fn measure() -> Result<Self> {
        let mut command = cargo();
        command.args(["run", "--release", "--quiet", "--package", "tdb-model", "--example", "floor"]);
        let output = command.current_dir(root()).output().context("cannot run cargo")?;
        ensure!(output.status.success(), "the example floor ended with {}", output.status);
        Self::parse(&String::from_utf8_lossy(&output.stdout))
    }

    fn parse(text: &str) -> Result<Self> {
        let (mut products, mut reads) = (Vec::new(), None);
        for line in text.lines() {
            match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["rows", rows, "gflops", rate] => products.push((rows.parse()?, rate.parse()?)),
                ["read", "gbs", rate] => reads = Some(rate.parse()?),
                _ => {}
            }
        }
        ensure!(!products.is_empty(), "the example floor measured no products:\n{text}");
        Ok(Machine { products, reads: reads.context("the example floor measured no reads")? })
    }

    /// The better of two measurements: what disturbed one did not disturb the other.
    pub fn best(self, other: Machine) -> Machine {
        let products = self.products.iter().zip(&other.products).map(|(a, b)| (a.0, a.1.max(b.1))).collect();
        Machine { products, reads: self.reads.max(other.reads) }
    }

    /// GFLOP/s of products of so many rows: those of the nearest number of rows that was measured and is not smaller.
    fn rate(&self, rows: usize) -> f64 {
        let found = self.products.iter().find(|(measured, _)| *measured >= rows as f64).or(self.products.last());
        found.map_or(f64::NAN, |(_, rate)| *rate)
    }

    /// Seconds that the products of `work` take at best; at least those of reading the weights once a pass.
    pub fn floor(&self, work: Work) -> f64 {
        let seconds = |weights: f64, rows: usize| {
            let arithmetic = 2.0 * weights * rows as f64 / (self.rate(rows) * 1e9);
            arithmetic.max(4.0 * weights / (self.reads * 1e9))
        };
        let passes = work.passes as f64 * seconds(BLOCK_WEIGHTS, work.tokens);
        let encoders = seconds(work.encoder_weights, work.tokens);
        let readings = if work.readings == 0 { 0.0 } else { seconds(VOCABULARY_WEIGHTS, work.readings) };
        passes + encoders + readings
    }

    /// One sentence: processor, rates.
    pub fn describe(&self) -> String {
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let name = name.map_or("a processor that does not tell its name", |(_, name)| name);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let rates: Vec<String> =
            self.products.iter().map(|(rows, rate)| format!("{rate:.0} GFLOP/s at {rows} rows")).collect();
        format!("{name}, {threads} threads: products {}, reads {:.1} GB/s", rates.join(", "), self.reads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_is_bound_by_arithmetic_or_by_memory() {
        let machine = Machine::parse("rows 1 gflops 10\nrows 64 gflops 100\nread gbs 20\n").unwrap();
        let short = machine.floor(Work { tokens: 1, passes: 1, ..Work::default() });
        assert!((short - 4.0 * BLOCK_WEIGHTS / 20e9).abs() < 1e-9, "{short}");
        let long = machine.floor(Work { tokens: 64, passes: 2, ..Work::default() });
        assert!((long - 4.0 * 64.0 * BLOCK_WEIGHTS / 100e9).abs() < 1e-9, "{long}");
    }
}
