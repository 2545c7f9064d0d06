//! How well predictions agree with what is true.

/// Pearson's correlation, or `None` where either side does not vary (nothing can be said then).
pub fn correlation(truth: &[f32], predicted: &[f32]) -> Option<f64> {
    let n = truth.len().min(predicted.len()) as f64;
    if n < 2.0 {
        return None;
    }
    let mean = |v: &[f32]| v.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let (mt, mp) = (mean(truth), mean(predicted));
    let (mut tt, mut pp, mut tp) = (0.0, 0.0, 0.0);
    for (t, p) in truth.iter().zip(predicted) {
        let (t, p) = (f64::from(*t) - mt, f64::from(*p) - mp);
        (tt, pp, tp) = (tt + t * t, pp + p * p, tp + t * p);
    }
    let product = tt * pp;
    (product > 0.0).then(|| (tp / product.sqrt()).clamp(-1.0, 1.0)).filter(|c| c.is_finite())
}

/// 1 - mean squared error / mean square of the truth; `None` where the truth is all zero.
pub fn r_squared(truth: &[f32], predicted: &[f32]) -> Option<f64> {
    explained(truth, predicted, |x| x * x)
}

/// 1 - mean absolute error / mean absolute truth; `None` where the truth is all zero.
pub fn absolute_deviation_explained(truth: &[f32], predicted: &[f32]) -> Option<f64> {
    explained(truth, predicted, f64::abs)
}

fn explained(truth: &[f32], predicted: &[f32], size: fn(f64) -> f64) -> Option<f64> {
    let all: f64 = truth.iter().map(|t| size(f64::from(*t))).sum();
    let missed: f64 = truth.iter().zip(predicted).map(|(t, p)| size(f64::from(*t) - f64::from(*p))).sum();
    (all > 0.0).then(|| 1.0 - missed / all).filter(|x| x.is_finite())
}

/// Area under the ROC curve: how likely a strong one is predicted higher than a weak one, ties counting half. `None`
/// unless there are both.
pub fn roc_auc(labels: &[bool], predicted: &[f64]) -> Option<f64> {
    let of = |label: bool| labels.iter().zip(predicted).filter(move |(l, _)| **l == label).map(|(_, p)| *p);
    let (mut wins, mut games) = (0.0, 0.0);
    for strong in of(true) {
        for weak in of(false) {
            games += 1.0;
            wins += if strong > weak { 1.0 } else { 0.5 * f64::from(u8::from(strong == weak)) };
        }
    }
    (games > 0.0).then(|| wins / games)
}

/// A line from simulated to true activations that never turns the order around, fitted by least squares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    pub slope: f64,
    pub intercept: f64,
}

impl Calibration {
    /// The best line, or `None` if the simulated values do not vary or no rising line fits better than a level one.
    ///
    /// A falling line would make a prediction that is wrong throughout look right, so it is no calibration.
    pub fn fit(truth: &[f32], simulated: &[f32]) -> Option<Self> {
        let n = truth.len().min(simulated.len()) as f64;
        if n < 2.0 {
            return None;
        }
        let mean = |v: &[f32]| v.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        let (mt, ms) = (mean(truth), mean(simulated));
        let (mut ss, mut st) = (0.0, 0.0);
        for (t, s) in truth.iter().zip(simulated) {
            let (t, s) = (f64::from(*t) - mt, f64::from(*s) - ms);
            (ss, st) = (ss + s * s, st + s * t);
        }
        (ss > 0.0 && st > 0.0).then(|| Self { slope: st / ss, intercept: mt - st / ss * ms })
    }

    /// The calibrated value.
    pub fn apply(&self, simulated: f32) -> f32 {
        (self.slope * f64::from(simulated) + self.intercept) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let truth = [0.0, 1.0, 2.0, 3.0];
        assert!((correlation(&truth, &[1.0, 3.0, 5.0, 7.0]).unwrap() - 1.0).abs() < 1e-12);
        assert!((correlation(&truth, &[0.0, 0.0, 1.0, 1.0]).unwrap() - 0.894_427_19).abs() < 1e-6);
        assert_eq!(correlation(&truth, &[2.0; 4]), None);
        assert!((r_squared(&truth, &[0.0, 1.0, 2.0, 2.0]).unwrap() - (1.0 - 1.0 / 14.0)).abs() < 1e-12);
        assert!((absolute_deviation_explained(&truth, &[0.0, 1.0, 2.0, 2.0]).unwrap() - 5.0 / 6.0).abs() < 1e-12);
        assert_eq!(r_squared(&[0.0, 0.0], &[1.0, 1.0]), None);
    }

    #[test]
    fn area_under_the_curve() {
        assert_eq!(roc_auc(&[true, true, false], &[0.9, 0.2, 0.1]), Some(1.0));
        assert_eq!(roc_auc(&[true, false], &[0.5, 0.5]), Some(0.5));
        assert_eq!(roc_auc(&[true, false, false], &[0.5, 0.9, 0.1]), Some(0.5));
        assert_eq!(roc_auc(&[true, true], &[0.5, 0.5]), None);
    }

    #[test]
    fn calibration_is_a_rising_line_or_nothing() {
        let c = Calibration::fit(&[1.0, 2.0, 3.0], &[0.0, 5.0, 10.0]).unwrap();
        assert!((c.slope - 0.2).abs() < 1e-9 && (c.intercept - 1.0).abs() < 1e-9);
        assert!((c.apply(10.0) - 3.0).abs() < 1e-6);
        assert_eq!(Calibration::fit(&[3.0, 2.0, 1.0], &[0.0, 5.0, 10.0]), None);
        assert_eq!(Calibration::fit(&[3.0, 2.0], &[5.0, 5.0]), None);
    }
}
