//! How well predictions fit.

/// Pearson's correlation; `None` where either does not vary.
pub fn correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    let n = pairs.len() as f64;
    let mean = |get: fn(&(f64, f64)) -> f64| pairs.iter().map(get).sum::<f64>() / n;
    let (a, b) = (mean(|p| p.0), mean(|p| p.1));
    let sum = |f: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(f).sum::<f64>();
    let (va, vb) = (sum(&|p| (p.0 - a).powi(2)), sum(&|p| (p.1 - b).powi(2)));
    let both = sum(&|p| (p.0 - a) * (p.1 - b));
    // What is left of a variance of equal numbers is rounding.
    let varies = |v: f64, mean: f64| v > 1e-18 * n * mean * mean;
    let r = both / (va * vb).sqrt();
    (r.is_finite() && varies(va, a) && varies(vb, b)).then_some(r)
}

/// Area under the ROC curve of predictions for places that are strong (`true`) or weak: how often a strong one is predicted
/// higher than a weak one, ties counting half. `None` without both.
pub fn roc_auc(mut predictions: Vec<(f64, bool)>) -> Option<f64> {
    let strong = predictions.iter().filter(|p| p.1).count() as f64;
    let weak = predictions.len() as f64 - strong;
    predictions.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut wins, mut below) = (0.0, 0.0);
    for group in predictions.chunk_by(|a, b| a.0 == b.0) {
        let ups = group.iter().filter(|p| p.1).count() as f64;
        let downs = group.len() as f64 - ups;
        wins += ups * (below + downs / 2.0);
        below += downs;
    }
    let area = wins / (strong * weak);
    area.is_finite().then_some(area)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_known_lists() {
        let line = [(1.0, 3.0), (2.0, 5.0), (3.0, 7.0)];
        assert_eq!(correlation(&line), Some(1.0));
        assert_eq!(correlation(&line.map(|(a, b)| (-a, b))), Some(-1.0));
        assert_eq!(correlation(&[(1.0, 2.0), (1.0, 3.0)]), None);
        let list = vec![(0.9, true), (0.8, false), (0.7, true), (0.1, false), (0.1, true)];
        // Of the six pairs of a strong and a weak one: 2 + 1 right, and one tie.
        assert_eq!(roc_auc(list), Some(3.5 / 6.0));
        assert_eq!(roc_auc(vec![(1.0, true)]), None);
    }
}
