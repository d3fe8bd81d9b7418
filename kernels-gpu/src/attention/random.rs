//! Random numbers by their number: Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

use crate::memory;

/// The multipliers of a round.
const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];

/// What the key grows by after a round.
const STEPS: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// The number of this index of a stream, from 0 to 1 without 1, a multiple of 2⁻²⁴.
#[inline(always)]
pub(crate) fn uniform(seed: u64, stream: u32, index: u64) -> f32 {
    let counter = [index as u32, (index >> 32) as u32, stream, 0];
    // The keys of the rounds are computed anew for every number, which costs less than the twenty registers that keep them.
    let key = [memory::opaque(seed as u32), memory::opaque((seed >> 32) as u32)];
    let [first, ..] = philox(counter, key);
    (first >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Ten rounds.
#[inline(always)]
fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut a, mut b, mut c, mut d], [mut first, mut second]) = (counter, key);
    for _ in 0..10 {
        let low = u64::from(a) * u64::from(MULTIPLIERS[0]);
        let high = u64::from(c) * u64::from(MULTIPLIERS[1]);
        (a, b, c, d) =
            ((high >> 32) as u32 ^ b ^ first, high as u32, (low >> 32) as u32 ^ d ^ second, low as u32);
        first = first.wrapping_add(STEPS[0]);
        second = second.wrapping_add(STEPS[1]);
    }
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first known answers of the authors' library, Random123 (`kat_vectors`).
    #[test]
    fn philox_gives_the_known_answers() {
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }
}
