//! How often, and after which pauses, a bridge that fails is started again.

use std::time::Duration;

use crate::manager::pidfile::order::Settings;

/// A bridge that has served this long, or twice the longest pause, does not fail in a row.
const STABLE: Duration = Duration::from_secs(30);

/// The failures in a row.
#[derive(Debug, Default)]
pub(super) struct Budget {
    failures: u32,
}

impl Budget {
    /// Takes note of a failure after the bridge has served for `served`; the pause before it is started again, or `None`
    /// when that was once too often. `random` is any number, so that not all bridges come back at once.
    pub(super) fn spend(&mut self, settings: &Settings, served: Duration, random: u32) -> Option<Duration> {
        if served >= STABLE.max(settings.max_delay.saturating_mul(2)) {
            self.failures = 0;
        }
        if settings.attempts.is_some_and(|attempts| self.failures >= attempts) {
            return None;
        }
        let grown = settings.delay.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures += 1;
        let pause = grown.min(settings.max_delay.max(settings.delay));
        // Up to a quarter more.
        Some(pause + pause.mul_f64(f64::from(random) / f64::from(u32::MAX) / 4.0))
    }

    /// How many failures in a row there are.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(attempts: Option<u32>, delay: u64, max_delay: u64) -> Settings {
        let seconds = Duration::from_secs;
        Settings { attempts, delay: seconds(delay), max_delay: seconds(max_delay), ..Settings::example() }
    }

    fn seconds(budget: &mut Budget, settings: &Settings, served: u64, random: u32) -> Option<f64> {
        budget.spend(settings, Duration::from_secs(served), random).map(|pause| pause.as_secs_f64())
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_then_it_is_given_up() {
        let (mut budget, settings) = (Budget::default(), settings(Some(5), 2, 15));
        let pauses: Vec<_> = (0..7).map(|_| seconds(&mut budget, &settings, 0, 0)).collect();
        assert_eq!(pauses, [Some(2.0), Some(4.0), Some(8.0), Some(15.0), Some(15.0), None, None]);
    }

    #[test]
    fn a_stable_time_makes_up_for_all_failures() {
        let (mut budget, settings) = (Budget::default(), settings(Some(1), 2, 20));
        assert_eq!(seconds(&mut budget, &settings, 0, 0), Some(2.0));
        assert_eq!(seconds(&mut budget, &settings, 39, 0), None);
        assert_eq!(seconds(&mut budget, &settings, 40, 0), Some(2.0));
    }

    #[test]
    fn chance_adds_up_to_a_quarter() {
        let settings = settings(None, 4, 4);
        let spend = |random| seconds(&mut Budget::default(), &settings, 0, random);
        assert_eq!((spend(0), spend(u32::MAX)), (Some(4.0), Some(5.0)));
    }

    #[test]
    fn none_at_all_and_any_number() {
        assert_eq!(seconds(&mut Budget::default(), &settings(Some(0), 2, 15), 1000, 0), None);
        let (mut budget, settings) = (Budget::default(), settings(None, 1, 15));
        assert!((0..1000).all(|_| seconds(&mut budget, &settings, 0, 0).is_some()));
    }
}
