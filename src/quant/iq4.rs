//! The formats whose 4 bits choose from a table of 16 uneven steps: IQ4_NL and IQ4_XS.

use super::{Block, F16, SUB, fit, legacy, sub};
use crate::DType;
use crate::kernels::Unpacked;

/// The steps, close together around zero.
pub(super) const TABLE: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// 32 values `d · TABLE[q]`.
#[allow(non_camel_case_types)]
#[repr(C)]
pub(super) struct IQ4_NL {
    d: F16,
    /// As Q4_0's.
    qs: [u8; 16],
}

/// 256 values `d · (ls − 32) · TABLE[q]`, with a 6-bit `ls` for each 32.
#[allow(non_camel_case_types)]
#[repr(C)]
pub(super) struct IQ4_XS {
    d: F16,
    /// Bits 4 and 5 of `ls`: bits `2 s` and `2 s + 1` for sub-block `s`.
    scales_h: [u8; 2],
    /// Bits 0 to 3 of `ls`, two in a byte, the even sub-block low.
    scales_l: [u8; 4],
    /// Each 32 values as Q4_0's.
    qs: [[u8; 16]; 8],
}

const _: () = assert!(size_of::<IQ4_NL>() == 18 && size_of::<IQ4_XS>() == 136);

/// The table's values with the top bit flipped, so that they are unsigned with offset 128.
fn steps(qs: &[u8; 16]) -> [u8; SUB] {
    legacy::nibbles(qs).map(|q| TABLE[q as usize] as u8 ^ 0x80)
}

/// Index of the step nearest to `v`.
fn nearest(v: f32) -> u8 {
    // Steps rise: count the midpoints below.
    TABLE.windows(2).filter(|w| v > (w[0] as f32 + w[1] as f32) / 2.0).count() as u8
}

fn fitted_scale(x: &[f32]) -> f32 {
    fit::scale(x, TABLE[0] as f32, |v| TABLE[nearest(v) as usize] as f32)
}

// SAFETY: repr(C) of byte arrays: alignment 1, no padding, any bits valid; the size is asserted above.
unsafe impl Block for IQ4_NL {
    const TYPE: DType = DType::IQ4_NL;

    fn unpack(&self, _: usize) -> Unpacked {
        Unpacked { q: steps(&self.qs), scale: [self.d.get(); 2], min: [0.0; 2] }
    }

    fn quantize(x: &[f32]) -> Self {
        let d = F16::new(fitted_scale(x));
        let inv = fit::inverse(d.get());
        IQ4_NL { d, qs: legacy::pack_nibbles(&sub(x).map(|x| nearest(x * inv))) }
    }
}

// SAFETY: as above.
unsafe impl Block for IQ4_XS {
    const TYPE: DType = DType::IQ4_XS;

    fn unpack(&self, sub: usize) -> Unpacked {
        let low = self.scales_l[sub / 2] >> (4 * (sub % 2)) & 15;
        let high = (u16::from_le_bytes(self.scales_h) >> (2 * sub) & 3) as u8;
        let scale = self.d.get() * ((high << 4 | low) as i32 - 32) as f32;
        Unpacked { q: steps(&self.qs[sub]), scale: [scale; 2], min: [0.0; 2] }
    }

    fn quantize(x: &[f32]) -> Self {
        let scales: [f32; 8] = std::array::from_fn(|s| fitted_scale(&x[s * SUB..][..SUB]));
        let d = F16::new(fit::extreme(&scales) / -32.0);
        let inv = fit::inverse(d.get());
        let mut block = IQ4_XS { d, scales_h: [0; 2], scales_l: [0; 4], qs: [[0; 16]; 8] };
        let mut high = 0u16;
        for (s, x) in x.as_chunks::<SUB>().0.iter().enumerate() {
            let ls = (scales[s] * inv).round_ties_even().clamp(-32.0, 31.0);
            let inv = fit::inverse(d.get() * ls);
            block.qs[s] = legacy::pack_nibbles(&x.map(|x| nearest(x * inv)));
            let ls = (ls as i32 + 32) as u8;
            block.scales_l[s / 2] |= (ls & 15) << (4 * (s % 2));
            high |= ((ls >> 4) as u16) << (2 * s);
        }
        block.scales_h = high.to_le_bytes();
        block
    }
}
