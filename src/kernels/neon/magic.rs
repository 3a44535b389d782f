//! Integers to floats, on the way of a multiplication.
//!
//! A tile's integer sums n do not begin at 0 but at the bits of M = 1.5 · 2²³. As |n| < 2²², at the end of the group they
//! are the bits of the float M + n, without any conversion; and `fma(M + n, d, −M · d)` is n · d, rounded once, where −M · d
//! is a constant of the activation row's block that only has to be loaded. It must be exact for that, so d loses its
//! lowest two bits (2⁻²² of it at most). Loads are free where the vector units are the limit: each output of a group takes
//! two instructions of theirs, this one and the one that multiplies by the weights' scale, and no third that converts.
//!
//! The largest |n| is 32 · 128 · 127, of 8-bit weights. Where |d| is above 2.7e31 (activations of 3e33), M · d is infinite
//! and the output not finite.

/// M, in each lane.
pub(super) const MAGIC: f32 = 12_582_912.0;

/// The lanes that sums begin with.
#[repr(C, align(16))]
pub(super) struct Start(pub [f32; 4]);

pub(super) static START: Start = Start([MAGIC; 4]);

/// d of 22 bits, and −M · d.
#[inline(always)]
pub(super) fn scale_and_start(d: f32) -> (f32, f32) {
    // To the nearest; what is no number stays none.
    let bits = d.to_bits();
    let rounded = f32::from_bits(bits.wrapping_add(2) & !3);
    let d = if d.is_finite() { rounded } else { d };
    (d, -MAGIC * d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_rounded_once() {
        let mut bits = 1u32;
        for _ in 0..10_000 {
            bits = bits.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
            let d = f32::from_bits(bits >> 2 | 1) * 1e-6;
            let n = (bits >> 7) as i32 % (1 << 22);
            let (rounded, start) = scale_and_start(d);
            assert!((rounded - d).abs() <= d * 2f32.powi(-22) || d < f32::MIN_POSITIVE, "{d:e}");
            let sum = f32::from_bits(MAGIC.to_bits().wrapping_add_signed(n));
            assert_eq!(sum.mul_add(rounded, start), n as f32 * rounded, "{n} · {d:e}");
        }
        for d in [f32::NAN, f32::from_bits(0x7fff_ffff), f32::INFINITY] {
            let (d, start) = scale_and_start(d);
            assert!(MAGIC.mul_add(d, start).is_nan());
        }
    }
}
