//! Random numbers.

/// xoshiro256++ by Blackman and Vigna, seeded through SplitMix64 (<https://prng.di.unimi.it>).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rng(pub(crate) [u64; 4]);

impl Rng {
    pub(crate) fn new(mut seed: u64) -> Rng {
        Rng(std::array::from_fn(|_| {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    /// One that begins somewhere else each time.
    pub(crate) fn unpredictable() -> Rng {
        use std::hash::{BuildHasher, Hasher};
        Rng::new(std::hash::RandomState::new().build_hasher().finish())
    }

    pub(super) fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// In [0, 1), in steps of 2⁻⁵³.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xoshiro_matches_its_published_sequence() {
        // The first outputs for the state 1, 2, 3, 4, as the authors' C code gives them.
        let mut rng = Rng([1, 2, 3, 4]);
        assert_eq!([rng.next(), rng.next(), rng.next()], [41943041, 58720359, 3588806011781223]);
        // SplitMix64 from 0, its published first output.
        assert_eq!(Rng::new(0).0[0], 0xe220_a839_7b1d_cdaf);
    }
}
