//! Whether a row is reached: as fast as every peer, as far as the rounds can tell.

use crate::statistics::Ratio;

/// A row is reached where no peer's interval begins below this. The peer of the lowest median alone would not do: one that is a little
/// slower, but scatters more, may be the faster one.
pub(crate) const REACHED: f64 = 0.97;
/// Where a peer's interval begins below this, the row is far from it.
pub(crate) const FAR: f64 = 0.9;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict<'a> {
    Reached,
    /// The peer whose interval begins lowest, and where.
    Missed(&'a str, f64),
    /// There are no peers, or too few rounds for intervals.
    None,
}

/// From the peers' names and their times over the reference's.
pub(crate) fn verdict<'a>(peers: impl IntoIterator<Item = (&'a str, Ratio)>) -> Verdict<'a> {
    let lows = peers.into_iter().map(|(name, ratio)| ratio.interval.map(|interval| (name, interval.low)));
    match lows.collect::<Option<Vec<_>>>().and_then(|lows| lows.into_iter().min_by(|(_, one), (_, other)| one.total_cmp(other))) {
        None => Verdict::None,
        Some((_, low)) if low >= REACHED => Verdict::Reached,
        Some((name, low)) => Verdict::Missed(name, low),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Interval;

    fn ratio(low: f64, middle: f64) -> Ratio {
        Ratio { middle, interval: Some(Interval { low, high: 2.0 }) }
    }

    #[test]
    fn a_row_is_reached_where_every_interval_begins_at_the_bound_or_above() {
        assert_eq!(verdict([("a", ratio(0.97, 1.0)), ("b", ratio(1.2, 1.3))]), Verdict::Reached);
        assert_eq!(verdict([("a", ratio(0.969, 1.0)), ("b", ratio(1.2, 1.3))]), Verdict::Missed("a", 0.969));
    }

    #[test]
    fn a_peer_that_is_not_the_fastest_is_looked_at_too() {
        assert_eq!(verdict([("fastest", ratio(0.98, 0.99)), ("scattered", ratio(0.8, 1.01))]), Verdict::Missed("scattered", 0.8));
    }

    #[test]
    fn there_is_no_verdict_without_peers_or_without_intervals() {
        assert_eq!(verdict([]), Verdict::None);
        assert_eq!(verdict([("a", Ratio { middle: 1.5, interval: None })]), Verdict::None);
    }
}
