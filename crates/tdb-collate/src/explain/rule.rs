//! A rule that predicts a unit's values from the text, simple enough to be said in a sentence.

use std::collections::BTreeMap;

use super::features::{Family, Place};

/// Most items that a rule names, ...
const MOST_ITEMS: usize = 5;

/// ... and its condition.
const MOST_CONDITIONS: usize = 3;

/// A rule of fewer items is preferred to one of more unless it explains so much more for each.
const PRICE_OF_AN_ITEM: f64 = 0.015;

/// A place and the unit's value there.
#[derive(Clone, Copy)]
pub struct Observation<'a> {
    /// Which text the place is in.
    pub text: usize,
    pub place: &'a Place,
    pub value: f64,
}

/// The values where an item stands: for each text their number, sum and sum of squares.
type Group = BTreeMap<usize, (f64, f64, f64)>;

/// Items of one family, each with the mean value where it stands, largest share first; elsewhere the mean is `rest`.
#[derive(Clone, Debug)]
pub struct Rule {
    pub family: Family,
    column: usize,
    pub items: Vec<(u32, f64)>,
    rest: f64,
    /// Among places where an item stands: what the value depends on besides.
    pub condition: Option<Box<Rule>>,
    /// Share of the variance that the rule explains.
    pub explained: f64,
}

impl Rule {
    /// The best rule for `observations` in these families, with a condition where that says much more.
    pub fn fit(observations: &[Observation<'_>], families: &[Family]) -> Option<Self> {
        let mut best = Self::fit_one(observations, families, None, MOST_ITEMS)?;
        let inside: Vec<_> = observations.iter().copied().filter(|o| best.matches(o.place)).collect();
        let weight = spread(&inside) / spread(observations).max(f64::MIN_POSITIVE);
        if let Some(condition) = Self::fit_one(&inside, families, Some(best.family), MOST_CONDITIONS)
            && condition.explained > 0.2
            && condition.explained * weight > 0.05
        {
            best.explained += condition.explained * weight;
            best.condition = Some(Box::new(condition));
        }
        Some(best)
    }

    fn fit_one(
        observations: &[Observation<'_>],
        families: &[Family],
        but: Option<Family>,
        most: usize,
    ) -> Option<Self> {
        let total = spread(observations);
        if observations.len() < 2 || total <= 0.0 {
            return None;
        }
        let mean = observations.iter().map(|o| o.value).sum::<f64>() / observations.len() as f64;
        let rules = families.iter().enumerate().filter(|(_, f)| Some(**f) != but);
        let rules =
            rules.filter_map(|(column, family)| Self::of_family(observations, (*family, column), mean, total, most));
        rules.reduce(|best, next| if next.worth() > best.worth() { next } else { best })
    }

    fn worth(&self) -> f64 {
        self.explained - PRICE_OF_AN_ITEM * self.items.len() as f64
    }

    /// The best rule of one family. What an item explains is what its mean over the other texts explains of each text: an
    /// item of a single text explains nothing.
    fn of_family(
        observations: &[Observation<'_>],
        (family, column): (Family, usize),
        mean: f64,
        total: f64,
        most: usize,
    ) -> Option<Self> {
        let mut groups: BTreeMap<u32, Group> = BTreeMap::new();
        for o in observations {
            let part = groups.entry(o.place[column]).or_default().entry(o.text).or_default();
            *part = (part.0 + 1.0, part.1 + o.value, part.2 + o.value * o.value);
        }
        let sums = |g: &Group| g.values().fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
        // One observation more of the overall mean: a single place does not make a rule.
        let shrunk = |n: f64, sum: f64| (sum + mean) / (n + 1.0);
        let gain = |g: &Group| -> f64 {
            let (n, sum) = sums(g);
            let left = |&(k, part, squares): &(f64, f64, f64)| {
                let predicted = shrunk(n - k, sum - part);
                let error = |p: f64| squares - 2.0 * p * part + k * p * p;
                error(mean) - error(predicted)
            };
            g.values().map(left).sum()
        };
        let gains = groups.into_iter().map(|(item, group)| (item, sums(&group), gain(&group)));
        let mut above: Vec<_> = gains.filter(|(_, (n, sum), gain)| *gain > 0.0 && *sum > mean * n).collect();
        above.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)));
        above.truncate(most);
        let mut best: Option<Self> = None;
        for count in 1..=above.len() {
            let items = &above[..count];
            let (mut left_n, mut left_sum) = (observations.len() as f64, mean * observations.len() as f64);
            for (_, (n, sum), _) in items {
                left_n -= n;
                left_sum -= sum;
            }
            let rest = if left_n > 0.0 { left_sum / left_n } else { mean };
            let inside: f64 = items.iter().map(|i| i.2).sum();
            let explained = ((inside + left_n * (rest - mean).powi(2)) / total).min(1.0);
            let items = items.iter().map(|(item, (n, sum), _)| (*item, shrunk(*n, *sum))).collect();
            let next = Self { family, column, items, rest, condition: None, explained };
            if best.as_ref().is_none_or(|b| next.worth() > b.worth()) {
                best = Some(next);
            }
        }
        best
    }

    fn matches(&self, place: &Place) -> bool {
        self.items.iter().any(|i| i.0 == place[self.column])
    }

    /// The value that the rule expects at a place.
    pub fn predict(&self, place: &Place) -> f64 {
        let Some((_, mean)) = self.items.iter().find(|i| i.0 == place[self.column]) else { return self.rest };
        match &self.condition {
            Some(condition) => condition.predict(place),
            None => *mean,
        }
    }
}

fn spread(observations: &[Observation<'_>]) -> f64 {
    let n = observations.len().max(1) as f64;
    let mean = observations.iter().map(|o| o.value).sum::<f64>() / n;
    observations.iter().map(|o| (o.value - mean).powi(2)).sum()
}
