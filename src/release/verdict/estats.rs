//! Evidence that may be looked at after every answer: bets on counts, and the numbers they start from.
//!
//! A bet starts with a capital of 1 and is fair, or worse, as long as the candidate is within its tolerance. So its capital reaches
//! `1/alpha` with a probability of at most `alpha`, however often somebody looks (Ville's inequality). How large to
//! bet depends on a fault that nobody knows; a dozen bets of different sizes run side by side, and the evidence is their mean.
//! A fault may begin at any time; so new bets are started all the time, with a total mass that is limited, and the bound
//! is `alpha` times that mass.

/// So many bets run side by side.
pub(super) const BETS: usize = 12;
/// The mass of the bets that start with a stage.
pub(super) const MASS_START: f64 = 0.5;
/// The mass of the pair's bets that start evenly over each [`HORIZON`].
pub(super) const MASS_RATE: f64 = 0.25;
/// Twice the mass of the bets that start with the first suspicion; each further one starts half of that of the one before.
pub(super) const MASS_SUSPECT: f64 = 0.25;
/// In seconds.
pub(super) const HORIZON: f64 = 3600.0;

/// The sizes of the bets, as fractions of the largest one that cannot lose more than its capital: from 96 % down to 0.35 %.
const GRID: [f64; BETS] = {
    let mut grid = [0.96; BETS];
    let mut next = 1;
    while next < BETS {
        grid[next] = grid[next - 1] * 0.6;
        next += 1;
    }
    grid
};

/// What of the candidate is tolerated: `p_candidate <= rho * p_baseline + delta`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// The factor.
    pub rho: f64,
    /// The share on top.
    pub delta: f64,
}

/// First attempts that were decided, under one weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Of both versions together.
    pub decided: u64,
    /// How many were bad: on the baseline, on the candidate.
    pub bad: [u64; 2],
}

impl Counts {
    /// Counters are read while they are written; so there may seem to be more bad ones than ones.
    fn good(self) -> u64 {
        self.decided.saturating_sub(self.bad[0]).saturating_sub(self.bad[1])
    }
}

/// `ln(e^x + e^y)`; both may be minus infinity.
#[must_use]
pub fn log_add_exp(x: f64, y: f64) -> f64 {
    let (low, high) = if x < y { (x, y) } else { (y, x) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// The logarithm of a sum, of the logarithms of its terms; minus infinity when all are, or there are none.
#[must_use]
pub fn log_sum_exp(terms: &[f64]) -> f64 {
    let most = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        return most;
    }
    most + terms.iter().map(|term| (term - most).exp()).sum::<f64>().ln()
}

/// The evidence of several detectors as one: the logarithm of their weighted mean, and which of them has the largest part in
/// it. The weights sum to 1.
#[must_use]
pub fn combine<const N: usize>(weights: &[f64; N], log_es: &[f64; N]) -> (f64, usize) {
    let terms: [f64; N] = std::array::from_fn(|index| weights[index].ln() + log_es[index]);
    let leading = (1..N).fold(0, |best, index| if terms[index] > terms[best] { index } else { best });
    (log_sum_exp(&terms), leading)
}

/// The capitals of the bets, as logarithms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capital([f64; BETS]);

impl Capital {
    /// Nothing was bet yet.
    const NONE: Self = Self([f64::NEG_INFINITY; BETS]);

    /// All bets start now.
    pub(super) fn whole() -> Self {
        Self([-(BETS as f64).ln(); BETS])
    }

    fn inject(&mut self, mass: f64) {
        if mass > 0.0 {
            let each = (mass / BETS as f64).ln();
            self.0.iter_mut().for_each(|capital| *capital = log_add_exp(*capital, each));
        }
    }

    pub(super) fn with(mut self, stakes: &Stakes, counts: Counts) -> Self {
        let [baseline, candidate] = counts.bad.map(|bad| bad as f64);
        let good = counts.good() as f64;
        for (bet, capital) in self.0.iter_mut().enumerate() {
            *capital +=
                candidate * stakes.bad[1][bet] + baseline * stakes.bad[0][bet] + good * stakes.good[bet];
        }
        self
    }

    pub(super) fn log_e(&self) -> f64 {
        log_sum_exp(&self.0)
    }
}

/// What an answer does to each bet's capital, as logarithms, under one weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stakes {
    weight: f64,
    /// A bad one of the baseline, of the candidate.
    bad: [[f64; BETS]; 2],
    /// A good one of either.
    good: [f64; BETS],
}

impl Stakes {
    /// Nothing is bet.
    const NONE: Self = Self { weight: 0.0, bad: [[0.0; BETS]; 2], good: [0.0; BETS] };

    /// With the coin's `weight`, `x = bad * (1{candidate}/weight - rho * 1{baseline}/(1-weight)) - delta` has a mean of at most 0
    /// for a candidate within tolerance, whatever the rates do over time. Each bet grows by `1 + size * x`.
    pub(super) fn that_it_is_worse(weight: f64, Tolerance { rho, delta }: Tolerance) -> Self {
        let largest = 1.0 / (rho / (1.0 - weight) + delta);
        Self::of(weight, largest, [-(rho / (1.0 - weight) + delta), 1.0 / weight - delta], -delta)
    }

    /// The same the other way round.
    pub(super) fn that_it_is_no_worse(weight: f64, Tolerance { rho, delta }: Tolerance) -> Self {
        let largest = 1.0 / (1.0 / weight - delta);
        Self::of(weight, largest, [rho / (1.0 - weight) + delta, -(1.0 / weight - delta)], delta)
    }

    fn of(weight: f64, largest: f64, bad: [f64; 2], good: f64) -> Self {
        let growth = |x: f64| GRID.map(|size| (size * largest * x).ln_1p());
        Self { weight, bad: bad.map(growth), good: growth(good) }
    }
}

/// With a coin of this weight there is something to compare.
pub(super) fn is_coin(weight: f64) -> bool {
    0.0 < weight && weight < 1.0
}

/// Evidence that the candidate is worse than tolerated, from requests whose version a coin chose.
///
/// What hits both versions alike is no evidence, whatever it does over time. A tick costs some dozens of multiplications and logarithms.
#[derive(Debug, Clone)]
pub struct PairDetector {
    tolerance: Tolerance,
    capital: Capital,
    stakes: Stakes,
}

impl PairDetector {
    /// Without any bets yet.
    #[must_use]
    pub fn new(tolerance: Tolerance) -> Self {
        Self { tolerance, capital: Capital::NONE, stakes: Stakes::NONE }
    }

    /// Starts new bets, of this mass together.
    pub fn inject(&mut self, mass: f64) {
        self.capital.inject(mass);
    }

    /// What was decided in the last `dt` seconds among requests that the coin gave to the candidate with probability
    /// `weight`. Says nothing for a weight of 0 or 1.
    pub fn update(&mut self, dt: f64, weight: f64, counts: Counts) -> f64 {
        if is_coin(weight) {
            if self.stakes.weight != weight {
                self.stakes = Stakes::that_it_is_worse(weight, self.tolerance);
            }
            self.inject(MASS_RATE * dt / HORIZON);
            self.capital = self.capital.with(&self.stakes, counts);
        }
        self.log_e()
    }

    /// The evidence, as a logarithm.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        self.capital.log_e()
    }

    #[cfg(test)]
    pub(super) fn capitals(&self) -> &[f64; BETS] {
        &self.capital.0
    }

    /// The evidence if these were bad too: answers that are still out and are known, or presumed, to be bad.
    #[must_use]
    pub fn log_e_with(&self, weight: f64, bad: [u64; 2]) -> f64 {
        if bad == [0, 0] || !is_coin(weight) {
            return self.log_e();
        }
        let counts = Counts { decided: bad[0] + bad[1], bad };
        if self.stakes.weight == weight {
            return self.capital.with(&self.stakes, counts).log_e();
        }
        self.capital.with(&Stakes::that_it_is_worse(weight, self.tolerance), counts).log_e()
    }
}

/// Evidence that the candidate fails more often than a fixed bound. It has nothing to compare with: it may raise suspicion.
#[derive(Debug, Clone)]
pub struct GuardDetector {
    capital: Capital,
    bad: [f64; BETS],
    good: [f64; BETS],
}

impl GuardDetector {
    /// Against the bound `p0`, between 0 and 1, without any bets yet.
    #[must_use]
    pub fn new(p0: f64) -> Self {
        Self {
            capital: Capital::NONE,
            bad: GRID.map(|size| (size / p0 * (1.0 - p0)).ln_1p()),
            good: GRID.map(|size| (-size).ln_1p()),
        }
    }

    /// Starts new bets, of this mass together.
    pub fn inject(&mut self, mass: f64) {
        self.capital.inject(mass);
    }

    /// What the candidate did in the last `dt` seconds.
    pub fn update(&mut self, dt: f64, decided: u64, bad: u64) -> f64 {
        self.update_in_part(dt, 1.0, decided, bad)
    }

    /// The same, where each counts as this part of one: less evidence, and still evidence.
    pub(super) fn update_in_part(&mut self, dt: f64, part: f64, decided: u64, bad: u64) -> f64 {
        self.inject((1.0 - MASS_START) * dt / HORIZON);
        let [good, bad] = [decided.saturating_sub(bad), bad].map(|count| part * count as f64);
        for (bet, capital) in self.capital.0.iter_mut().enumerate() {
            *capital += bad * self.bad[bet] + good * self.good[bet];
        }
        self.log_e()
    }

    /// The evidence, as a logarithm.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        self.capital.log_e()
    }

    /// The evidence if so many were bad too: answers that are still out and are known to be bad.
    #[must_use]
    pub fn log_e_with(&self, bad: f64) -> f64 {
        let mut capital = self.capital;
        capital.0.iter_mut().zip(self.bad).for_each(|(capital, size)| *capital += bad * size);
        capital.log_e()
    }
}

/// Evidence that the candidate is within tolerance: the pair's bet the other way round.
#[derive(Debug, Clone)]
pub struct CleanTest {
    tolerance: Tolerance,
    capital: Capital,
    stakes: Stakes,
}

impl CleanTest {
    /// With all its bets.
    #[must_use]
    pub fn new(tolerance: Tolerance) -> Self {
        Self { tolerance, capital: Capital::whole(), stakes: Stakes::NONE }
    }

    /// What was decided among requests that the coin gave to the candidate with probability `weight`.
    pub fn update(&mut self, weight: f64, counts: Counts) -> f64 {
        if is_coin(weight) {
            if self.stakes.weight != weight {
                self.stakes = Stakes::that_it_is_no_worse(weight, self.tolerance);
            }
            self.capital = self.capital.with(&self.stakes, counts);
        }
        self.log_e()
    }

    /// The evidence, as a logarithm.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        self.capital.log_e()
    }
}

/// The guard's bound from the baseline's last minutes: what is tolerated beside the upper end of its share of bad answers (Wilson,
/// z = 3). Never below 0.2 % and `delta`, never above 50 %; 1 % without history.
#[must_use]
pub fn guard_rate(decided: u64, bad: u64, Tolerance { rho, delta }: Tolerance) -> f64 {
    const FLOOR: f64 = 0.002;
    const CAP: f64 = 0.5;
    const Z2: f64 = 9.0;
    if decided == 0 {
        return (FLOOR + delta).clamp(0.01, CAP);
    }
    let n = decided as f64;
    let share = bad as f64 / n;
    let spread = (Z2 * (share * (1.0 - share) / n + Z2 / (4.0 * n * n))).sqrt();
    let upper = (share + Z2 / (2.0 * n) + spread) / (1.0 + Z2 / n);
    ((rho * upper).max(FLOOR) + delta).min(CAP)
}

/// So many bad answers of the candidate in a row blow the fuse: by chance they come less often than once in 10^10 answers at the guard's
/// bound. 3 to 64.
#[must_use]
pub fn fuse_len(p0: f64) -> u32 {
    let is_enough = |len: &u32| f64::from(*len) * p0.ln() <= 1e-10_f64.ln();
    (3..64).find(is_enough).unwrap_or(64)
}
