//! A rule that predicts a unit's values from the text, simple enough to be said in a sentence.

use std::collections::BTreeMap;

use super::features::{Family, Place};

/// Most items that a rule names.
const MOST_ITEMS: usize = 5;

/// A rule of fewer items is preferred to one of more unless it explains so much more for each.
const PRICE_OF_AN_ITEM: f64 = 0.015;

/// A place and the unit's value there.
pub struct Observation<'a> {
    pub place: &'a Place,
    pub value: f64,
}

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
        let mut best = Self::fit_one(observations, families, None)?;
        let (inside, _): (Vec<_>, Vec<_>) = observations
            .iter()
            .map(|o| Observation { place: o.place, value: o.value })
            .partition(|o| best.matches(o.place));
        let weight = spread(&inside) / spread(observations).max(f64::MIN_POSITIVE);
        if let Some(condition) = Self::fit_one(&inside, families, Some(best.family))
            && condition.explained > 0.2
            && condition.explained * weight > 0.05
        {
            best.explained += condition.explained * weight;
            best.condition = Some(Box::new(condition));
        }
        Some(best)
    }

    fn fit_one(observations: &[Observation<'_>], families: &[Family], but: Option<Family>) -> Option<Self> {
        let total = spread(observations);
        if observations.len() < 2 || total <= 0.0 {
            return None;
        }
        let mean = observations.iter().map(|o| o.value).sum::<f64>() / observations.len() as f64;
        let rules = families.iter().enumerate().filter(|(_, f)| Some(**f) != but);
        let rules = rules.filter_map(|(column, family)| Self::of_family(observations, *family, column, mean, total));
        rules.reduce(|best, next| if next.worth() > best.worth() { next } else { best })
    }

    fn worth(&self) -> f64 {
        self.explained - PRICE_OF_AN_ITEM * self.items.len() as f64
    }

    fn of_family(
        observations: &[Observation<'_>],
        family: Family,
        column: usize,
        mean: f64,
        total: f64,
    ) -> Option<Self> {
        let mut groups: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
        for o in observations {
            let group = groups.entry(o.place[column]).or_default();
            group.0 += 1.0;
            group.1 += o.value;
        }
        // One observation more of the overall mean in each group: a single place does not make a rule.
        let shrunk = |(n, sum): (f64, f64)| (sum + mean) / (n + 1.0);
        let share = |(n, sum): (f64, f64)| n * (shrunk((n, sum)) - mean).powi(2);
        let mut above: Vec<(u32, (f64, f64))> = groups.into_iter().filter(|(_, g)| g.1 > mean * g.0).collect();
        above.sort_by(|a, b| share(b.1).total_cmp(&share(a.1)).then(a.0.cmp(&b.0)));
        above.truncate(MOST_ITEMS);
        let mut best: Option<Self> = None;
        for n in 1..=above.len() {
            let items = &above[..n];
            let (mut left_n, mut left_sum) = (observations.len() as f64, mean * observations.len() as f64);
            for (_, group) in items {
                left_n -= group.0;
                left_sum -= group.1;
            }
            let rest = if left_n > 0.0 { left_sum / left_n } else { mean };
            let inside: f64 = items.iter().map(|(_, g)| share(*g)).sum();
            let explained = ((inside + left_n * (rest - mean).powi(2)) / total).min(1.0);
            let items = items.iter().map(|(item, g)| (*item, shrunk(*g))).collect();
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
