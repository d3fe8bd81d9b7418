//! Orders that depend on a seed alone.

/// A small generator of well-mixed numbers (SplitMix64).
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// A permutation of 0 to `count - 1` that takes no memory, for grids of any size: a walk with a
/// stride that has no divisor in common with the count.
#[derive(Debug, Clone)]
pub(super) struct Permutation {
    count: u64,
    start: u64,
    stride: u64,
}

impl Permutation {
    /// `count` is not 0.
    pub(super) fn new(count: u64, random: &mut Random) -> Self {
        let start = random.below(count);
        let mut stride = random.below(count);
        while gcd(stride, count) != 1 {
            stride += 1;
        }
        Self { count, start, stride }
    }

    pub(super) fn at(&self, index: u64) -> u64 {
        let product = u128::from(index) * u128::from(self.stride) + u128::from(self.start);
        (product % u128::from(self.count)) as u64
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_visits_everything_once() {
        for count in [1, 2, 3, 12, 97, 1000] {
            for seed in 0..5 {
                let order = Permutation::new(count, &mut Random::new(seed, 0));
                let mut seen: Vec<_> = (0..count).map(|i| order.at(i)).collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..count).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn seeds_give_different_orders() {
        let order = |seed| {
            let order = Permutation::new(1000, &mut Random::new(seed, 0));
            (0..1000).map(|i| order.at(i)).collect::<Vec<_>>()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
