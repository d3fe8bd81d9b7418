//! Random numbers that are a function of their place: every backend draws the same ones, in any order.
//!
//! Philox-4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011): ten rounds of
//! multiplications mix a counter (which number) with a key (the seed).

/// What a number is drawn for. Numbers of different streams have nothing to do with each other.
pub(crate) mod stream {
    /// Attention dropout.
    pub(crate) const ATTENTION: u32 = 0;
    /// Projection dropout.
    pub(crate) const PROJECTION: u32 = 1;
    /// Initial values of the first parameter tensor; the others have the streams after it.
    pub(crate) const PARAMETERS: u32 = 16;
}

const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
const KEY_STEPS: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
const ROUNDS: usize = 10;

/// The four random words of a counter under a key.
const fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let mut round = 0;
    while round < ROUNDS {
        let first = MULTIPLIERS[0] as u64 * counter[0] as u64;
        let second = MULTIPLIERS[1] as u64 * counter[2] as u64;
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(KEY_STEPS[0]), key[1].wrapping_add(KEY_STEPS[1])];
        round += 1;
    }
    counter
}

/// Number `index` of a stream, uniform on 0 ≤ u < 1 in steps of 2⁻²⁴.
///
/// The Philox counter is (low and high half of `index`, `stream`, 0), the key is (low and high half of `seed`), and the number is
/// made of the upper 24 bits of the first word.
#[must_use]
pub(crate) const fn uniform(seed: u64, stream: u32, index: u64) -> f32 {
    let words =
        philox([index as u32, (index >> 32) as u32, stream, 0], [seed as u32, (seed >> 32) as u32]);
    (words[0] >> 8) as f32 * (1.0 / 16_777_216.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that come with the authors' implementation, Random123.
    #[test]
    fn words_are_those_of_the_published_generator() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn numbers_are_spread_evenly_and_below_one() {
        let numbers: Vec<f32> = (0..10_000).map(|index| uniform(7, 1, index)).collect();
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
        for tenth in 0..10 {
            let low = tenth as f32 / 10.0;
            let count = numbers.iter().filter(|&&u| low <= u && u < low + 0.1).count();
            // Six standard deviations of 30.
            assert!((820..1180).contains(&count), "{tenth}: {count}");
        }
    }

    #[test]
    fn every_part_of_the_place_matters() {
        let there = uniform(1, 2, 3);
        for elsewhere in [
            uniform(1 << 32 | 1, 2, 3),
            uniform(2, 2, 3),
            uniform(1, 3, 3),
            uniform(1, 2, 1 << 32 | 3),
        ] {
            assert!((there - elsewhere).abs() > 1e-6);
        }
    }
}
