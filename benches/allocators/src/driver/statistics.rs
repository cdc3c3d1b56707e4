//! Medians, and how far a ratio of two medians can be trusted.

use fastrand::Rng;
use serde::Serialize;

/// How often the rounds are drawn anew. The ends of the interval then rest on 50 values each.
const RESAMPLES: usize = 2_000;

/// Rounds that an interval takes. How well it holds with so few, a test below says.
pub(crate) const ENOUGH: usize = 6;

/// A ratio of two medians.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Ratio {
    pub(crate) middle: f64,
    /// None with fewer rounds than [`ENOUGH`].
    pub(crate) interval: Option<Interval>,
}

/// The ends of a 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The middle value, or the mean of the two. There is at least one.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[upper] } else { (sorted[upper - 1] + sorted[upper]) / 2.0 }
}

/// The median of `times` over that of `reference`, by bootstrap: rounds are drawn with replacement, a round always with both of its
/// values, so that what disturbed a whole round disturbs no ratio.
pub(crate) fn ratio(times: &[f64], reference: &[f64], rng: &mut Rng) -> Ratio {
    let middle = median(times.iter().copied()) / median(reference.iter().copied());
    Ratio { middle, interval: (times.len() >= ENOUGH).then(|| interval(times, reference, rng)) }
}

fn interval(times: &[f64], reference: &[f64], rng: &mut Rng) -> Interval {
    let rounds = times.len();
    let mut ratios: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn: Vec<usize> = (0..rounds).map(|_| rng.usize(..rounds)).collect();
            median(drawn.iter().map(|round| times[*round])) / median(drawn.iter().map(|round| reference[*round]))
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    Interval { low: ratios[RESAMPLES * 25 / 1000], high: ratios[RESAMPLES * 975 / 1000] }
}

/// There is at least one value.
pub(crate) fn geometric_mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let logarithms: Vec<f64> = values.into_iter().map(f64::ln).collect();
    (logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median([4.0, 1.0, 3.0]), 3.0);
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), 2.5);
    }

    #[test]
    fn equal_ratios_in_every_round_leave_no_doubt() {
        let ratio = ratio(&[2.0; ENOUGH], &[1.0; ENOUGH], &mut Rng::with_seed(1));
        assert_eq!(ratio, Ratio { middle: 2.0, interval: Some(Interval { low: 2.0, high: 2.0 }) });
    }

    #[test]
    fn too_few_rounds_give_a_ratio_without_an_interval() {
        let ratio = ratio(&[2.0; ENOUGH - 1], &[1.0; ENOUGH - 1], &mut Rng::with_seed(1));
        assert_eq!(ratio, Ratio { middle: 2.0, interval: None });
    }

    /// In how many of 500 campaigns the interval holds the true ratio.
    fn held(rounds: usize) -> usize {
        let mut rng = Rng::with_seed(7);
        let mut noisy = |center: f64| -> Vec<f64> { (0..rounds).map(|_| center * (1.0 + 0.3 * rng.f64())).collect() };
        let campaigns: Vec<(Vec<f64>, Vec<f64>)> = (0..500).map(|_| (noisy(3.0), noisy(2.0))).collect();
        let mut rng = Rng::with_seed(8);
        let holds = |(times, reference): &&(Vec<f64>, Vec<f64>)| {
            let interval = interval(times, reference, &mut rng);
            interval.low <= 1.5 && 1.5 <= interval.high
        };
        campaigns.iter().filter(holds).count()
    }

    #[test]
    fn the_interval_holds_the_true_ratio_in_about_95_of_100_campaigns() {
        let [few, usual] = [ENOUGH, 20].map(held);
        assert!((460..=490).contains(&few) && (460..=490).contains(&usual), "{few}, {usual} of 500");
    }

    #[test]
    fn a_factor_and_its_inverse_cancel_in_the_geometric_mean() {
        assert!((geometric_mean([4.0, 0.25, 1.0]) - 1.0).abs() < 1e-12);
    }
}
