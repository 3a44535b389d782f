//! XXH64 by Yann Collet, with seed 0 (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>): a checksum
//! that keeps up with a fast disk.

const P1: u64 = 0x9e37_79b1_85eb_ca87;
const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const P3: u64 = 0x1656_67b1_9e37_79f9;
const P4: u64 = 0x85eb_ca77_c2b2_ae63;
const P5: u64 = 0x27d4_eb2f_1656_67c5;

/// A hash of bytes that come in pieces.
#[derive(Clone)]
pub(crate) struct Xxh64 {
    lanes: [u64; 4],
    /// Bytes that do not fill a stripe yet.
    rest: [u8; 32],
    total: u64,
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |w, &b| w << 8 | b as u64)
}

fn round(lane: u64, input: u64) -> u64 {
    lane.wrapping_add(input.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

fn stripe(lanes: &mut [u64; 4], bytes: &[u8]) {
    for (lane, word) in lanes.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *lane = round(*lane, u64::from_le_bytes(*word));
    }
}

impl Xxh64 {
    /// Of nothing yet.
    pub(crate) fn new() -> Xxh64 {
        Xxh64 { lanes: [P1.wrapping_add(P2), P2, 0, 0u64.wrapping_sub(P1)], rest: [0; 32], total: 0 }
    }

    /// Of all of them.
    pub(crate) fn of(bytes: &[u8]) -> u64 {
        let mut h = Xxh64::new();
        h.update(bytes);
        h.finish()
    }

    /// Takes the next bytes.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        let held = (self.total % 32) as usize;
        self.total += bytes.len() as u64;
        if held > 0 {
            let n = bytes.len().min(32 - held);
            self.rest[held..held + n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if held + n < 32 {
                return;
            }
            stripe(&mut self.lanes, &self.rest);
        }
        let (stripes, rest) = bytes.as_chunks::<32>();
        for s in stripes {
            stripe(&mut self.lanes, s);
        }
        self.rest[..rest.len()].copy_from_slice(rest);
    }

    /// The hash of what it was given.
    pub(crate) fn finish(&self) -> u64 {
        let mut h = if self.total < 32 {
            P5
        } else {
            let [a, b, c, d] = self.lanes;
            let sum = a.rotate_left(1).wrapping_add(b.rotate_left(7));
            let sum = sum.wrapping_add(c.rotate_left(12)).wrapping_add(d.rotate_left(18));
            self.lanes.iter().fold(sum, |h, &lane| (h ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4))
        };
        h = h.wrapping_add(self.total);
        let (words, rest) = self.rest[..(self.total % 32) as usize].as_chunks::<8>();
        for w in words {
            h = (h ^ round(0, u64::from_le_bytes(*w))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        }
        let (half, rest) = rest.split_at(rest.len() / 4 * 4);
        if !half.is_empty() {
            h = (h ^ word(half).wrapping_mul(P1)).rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        }
        for &b in rest {
            h = (h ^ (b as u64).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
        }
        h = (h ^ (h >> 33)).wrapping_mul(P2);
        h = (h ^ (h >> 29)).wrapping_mul(P3);
        h ^ (h >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_values() {
        for (text, hash) in [
            ("", 0xef46_db37_51d8_e999),
            ("a", 0xd24e_c4f1_a98c_6e5b),
            ("abc", 0x44bc_2cf5_ad77_0999),
            ("Nobody inspects the spammish repetition", 0xfbce_a83c_8a37_8bf1),
        ] {
            assert_eq!(Xxh64::of(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn pieces_do_not_matter() {
        let bytes: Vec<u8> = (0..200u32).map(|i| (i * 37) as u8).collect();
        for len in 0..bytes.len() {
            let whole = Xxh64::of(&bytes[..len]);
            for cut in [1, 3, 8, 31, 32, 33] {
                let mut h = Xxh64::new();
                bytes[..len].chunks(cut).for_each(|piece| h.update(piece));
                assert_eq!(h.finish(), whole, "{len} bytes by {cut}");
            }
        }
    }
}
