//! The K-quants, blocks of 256 values whose sub-blocks of 16 or 32 have scales that are quantized themselves.
//!
//! Below, `s` is a sub-block of 32 values and `l` a value in it.

use super::{Block, F16, SUB, fit};
use crate::DType;
use crate::kernels::Unpacked;

/// `d · sc · q − dmin · m`, q of 2 bits, sc and m of 4 bits for each 16 values.
#[allow(non_camel_case_types)]
#[repr(C)]
pub(super) struct Q2_K {
    /// `sc` low, `m` high.
    scales: [u8; 16],
    /// Bits `2 (s % 4)` and up of byte `32 (s / 4) + l`.
    qs: [[u8; 32]; 2],
    d: F16,
    dmin: F16,
}

/// `d · (sc − 32) · (q − 4)`, q of 3 bits, sc of 6 bits for each 16 values.
#[allow(non_camel_case_types)]
#[repr(C)]
pub(super) struct Q3_K {
    /// The third bit of q: bit `s` of byte `l`.
    hmask: [u8; 32],
    /// The two lower bits, as Q2_K's.
    qs: [[u8; 32]; 2],
    /// See [`Q3_K::scale`].
    scales: [u8; 12],
    d: F16,
}

/// `d · sc · q − dmin · m`, q of 4 bits, sc and m of 6 bits for each 32 values.
#[allow(non_camel_case_types)]
#[repr(C)]
pub(super) struct Q4_K {
    d: F16,
    dmin: F16,
    /// See [`scale_min`].
    scales: [u8; 12],
    /// The low (even s) or high (odd s) half of byte `32 (s / 2) + l`.
    qs: [[u8; 32]; 4],
}

/// `d · sc · q − dmin · m`, q of 5 bits, sc and m of 6 bits for each 32 values.
#[allow(non_camel_case_types)]
#[repr(C)]
pub(super) struct Q5_K {
    d: F16,
    dmin: F16,
    /// See [`scale_min`].
    scales: [u8; 12],
    /// The fifth bit of q: bit `s` of byte `l`.
    qh: [u8; 32],
    /// The four lower bits, as Q4_K's.
    qs: [[u8; 32]; 4],
}

/// `d · sc · (q − 32)`, q of 6 bits, sc a signed byte for each 16 values.
#[allow(non_camel_case_types)]
#[repr(C)]
pub(super) struct Q6_K {
    /// The four lower bits: of each half of the block, 64 bytes whose low halves are values 0..64 and whose high
    /// halves are values 64..128.
    ql: [[u8; 32]; 4],
    /// The two upper bits: bits `2 (s % 4)` and up of byte `32 (s / 4) + l`.
    qh: [[u8; 32]; 2],
    scales: [i8; 16],
    d: F16,
}

const _: () = assert!(size_of::<Q2_K>() == 84 && size_of::<Q3_K>() == 110 && size_of::<Q4_K>() == 144);
const _: () = assert!(size_of::<Q5_K>() == 176 && size_of::<Q6_K>() == 210);

/// The 6-bit scale and min of sub-block `s` of Q4_K and Q5_K. Those of sub-blocks 0..4 are the low bits of bytes
/// `s` and `s + 4`; those of 4..8 have their low four bits in byte `s + 4` and their upper two on top of those.
fn scale_min(scales: &[u8; 12], s: usize) -> (u8, u8) {
    if s < 4 {
        (scales[s] & 63, scales[s + 4] & 63)
    } else {
        let low = scales[s + 4];
        (low & 15 | scales[s - 4] >> 6 << 4, low >> 4 | scales[s] >> 6 << 4)
    }
}

/// The 32 values at `shift` of a plane of bit fields.
fn bits(plane: &[u8; 32], shift: usize, mask: u8) -> [u8; SUB] {
    plane.map(|b| b >> shift & mask)
}

/// Values with upper bits put on top.
fn join(low: [u8; SUB], high: [u8; SUB], shift: usize) -> [u8; SUB] {
    std::array::from_fn(|i| low[i] | high[i] << shift)
}

/// The inverse of [`scale_min`].
fn set_scale_min(scales: &mut [u8; 12], s: usize, sc: u8, m: u8) {
    if s < 4 {
        scales[s] |= sc;
        scales[s + 4] |= m;
    } else {
        scales[s + 4] = sc & 15 | m << 4;
        scales[s - 4] |= sc >> 4 << 6;
        scales[s] |= m >> 4 << 6;
    }
}

/// A block with mins, before it is packed: levels in 0..=max, scales and mins of groups, and what they are
/// multiples of.
struct WithMins<const GROUPS: usize> {
    d: F16,
    dmin: F16,
    scales: [(u8, u8); GROUPS],
    q: [u8; 256],
}

/// Quantizes `x` in groups of `N` values, with levels in 0..=`max` and scales and mins in 0..=`top`.
fn quantize_with_mins<const N: usize, const GROUPS: usize>(
    x: &[f32],
    max: f32,
    top: f32,
) -> WithMins<GROUPS> {
    let (groups, _) = x.as_chunks::<N>();
    let fits: [(f32, f32); GROUPS] = std::array::from_fn(|g| fit::scale_min(&groups[g], max));
    let d = F16::new(fits.iter().fold(0f32, |a, f| a.max(f.0)) / top);
    let dmin = F16::new(fits.iter().fold(0f32, |a, f| a.max(f.1)) / top);
    let level = |x: f32, s: f32, m: f32| fit::round(((x + m) * fit::inverse(s)).clamp(0.0, max));

    // A min that is rounded up takes a larger scale to reach the highest value: the two are chosen together.
    let scales = std::array::from_fn(|g| {
        let nearby = |v: f32| [-1.0, 0.0, 1.0, 2.0].map(|step| (v.floor() + step).clamp(0.0, top));
        let mut best = (f32::INFINITY, 0.0, 0.0);
        for m in nearby(fits[g].1 * fit::inverse(dmin.get())) {
            for sc in nearby(fits[g].0 * fit::inverse(d.get())) {
                let (scale, min) = (d.get() * sc, dmin.get() * m);
                let errors = groups[g].iter().map(|&x| scale * level(x, scale, min) - min - x);
                let error: f32 = errors.map(|e| e * e).sum();
                if error < best.0 {
                    best = (error, sc, m);
                }
            }
        }
        (best.1 as u8, best.2 as u8)
    });
    let mut q = [0; 256];
    for (i, (q, x)) in q.iter_mut().zip(x).enumerate() {
        let (sc, m) = scales[i / N];
        *q = level(*x, d.get() * sc as f32, dmin.get() * m as f32) as u8;
    }
    WithMins { d, dmin, scales, q }
}

/// Scales of the groups of 16 values of `x`, quantized to −`top`..`top`, with the factor they are multiples of; and
/// levels in 0..2 · `half` with offset `half`.
fn quantize_symmetric(x: &[f32], half: f32, top: f32) -> (F16, [i8; 16], [u8; 256]) {
    let (groups, _) = x.as_chunks::<16>();
    let level = |v: f32| fit::round(v.clamp(-half, half - 1.0));
    let fits: [f32; 16] = std::array::from_fn(|g| fit::scale(&groups[g], -half, level));
    let d = F16::new(fit::extreme(&fits) / -top);
    let inv = fit::inverse(d.get());
    let scales = fits.map(|s| (s * inv).round_ties_even().clamp(-top, top - 1.0) as i8);
    let mut q = [0; 256];
    for (i, (q, x)) in q.iter_mut().zip(x).enumerate() {
        *q = (level(x * fit::inverse(d.get() * scales[i / 16] as f32)) + half) as u8;
    }
    (d, scales, q)
}

/// Puts the values of sub-block `s` at `shift` of a plane of bit fields.
fn put(plane: &mut [u8; 32], q: &[u8; 256], s: usize, shift: usize, field: impl Fn(u8) -> u8) {
    for (plane, q) in plane.iter_mut().zip(&q[s * SUB..]) {
        *plane |= field(*q) << shift;
    }
}

// SAFETY: repr(C) of byte arrays: alignment 1, no padding, any bits valid; the size is asserted above.
unsafe impl Block for Q2_K {
    const TYPE: DType = DType::Q2_K;

    fn unpack(&self, s: usize) -> Unpacked {
        let (d, dmin) = (self.d.get(), self.dmin.get());
        let sc = [self.scales[2 * s], self.scales[2 * s + 1]];
        Unpacked {
            q: bits(&self.qs[s / 4], 2 * (s % 4), 3),
            scale: sc.map(|sc| d * (sc & 15) as f32),
            min: sc.map(|sc| dmin * (sc >> 4) as f32),
        }
    }

    fn quantize(x: &[f32]) -> Self {
        let WithMins { d, dmin, scales, q } = quantize_with_mins::<16, 16>(x, 3.0, 15.0);
        let mut block = Q2_K { scales: scales.map(|(sc, m)| sc | m << 4), qs: [[0; 32]; 2], d, dmin };
        for s in 0..8 {
            put(&mut block.qs[s / 4], &q, s, 2 * (s % 4), |q| q);
        }
        block
    }
}

impl Q3_K {
    /// The scale of group `g` of 16 values: its low four bits are in bytes 0..8 (the low halves, then the high
    /// ones), its upper two in bytes 8..12.
    fn scale(&self, g: usize) -> i32 {
        let low = self.scales[g % 8] >> (4 * (g / 8)) & 15;
        let high = self.scales[8 + g % 4] >> (2 * (g / 4)) & 3;
        (high << 4 | low) as i32 - 32
    }
}

// SAFETY: as above.
unsafe impl Block for Q3_K {
    const TYPE: DType = DType::Q3_K;

    fn unpack(&self, s: usize) -> Unpacked {
        let d = self.d.get();
        Unpacked {
            q: join(bits(&self.qs[s / 4], 2 * (s % 4), 3), bits(&self.hmask, s, 1), 2),
            scale: [d * self.scale(2 * s) as f32, d * self.scale(2 * s + 1) as f32],
            min: [0.0; 2],
        }
    }

    fn quantize(x: &[f32]) -> Self {
        let (d, scales, q) = quantize_symmetric(x, 4.0, 32.0);
        let mut block = Q3_K { hmask: [0; 32], qs: [[0; 32]; 2], scales: [0; 12], d };
        for s in 0..8 {
            put(&mut block.qs[s / 4], &q, s, 2 * (s % 4), |q| q & 3);
            put(&mut block.hmask, &q, s, s, |q| q >> 2);
        }
        for (g, sc) in scales.into_iter().enumerate() {
            let sc = (sc + 32) as u8;
            block.scales[g % 8] |= (sc & 15) << (4 * (g / 8));
            block.scales[8 + g % 4] |= (sc >> 4) << (2 * (g / 4));
        }
        block
    }
}

// SAFETY: as above.
unsafe impl Block for Q4_K {
    const TYPE: DType = DType::Q4_K;

    fn unpack(&self, s: usize) -> Unpacked {
        let (sc, m) = scale_min(&self.scales, s);
        Unpacked {
            q: bits(&self.qs[s / 2], 4 * (s % 2), 15),
            scale: [self.d.get() * sc as f32; 2],
            min: [self.dmin.get() * m as f32; 2],
        }
    }

    fn quantize(x: &[f32]) -> Self {
        let WithMins { d, dmin, scales, q } = quantize_with_mins::<32, 8>(x, 15.0, 63.0);
        let mut block = Q4_K { d, dmin, scales: [0; 12], qs: [[0; 32]; 4] };
        for (s, (sc, m)) in scales.into_iter().enumerate() {
            set_scale_min(&mut block.scales, s, sc, m);
            put(&mut block.qs[s / 2], &q, s, 4 * (s % 2), |q| q);
        }
        block
    }
}

// SAFETY: as above.
unsafe impl Block for Q5_K {
    const TYPE: DType = DType::Q5_K;

    fn unpack(&self, s: usize) -> Unpacked {
        let (sc, m) = scale_min(&self.scales, s);
        Unpacked {
            q: join(bits(&self.qs[s / 2], 4 * (s % 2), 15), bits(&self.qh, s, 1), 4),
            scale: [self.d.get() * sc as f32; 2],
            min: [self.dmin.get() * m as f32; 2],
        }
    }

    fn quantize(x: &[f32]) -> Self {
        let WithMins { d, dmin, scales, q } = quantize_with_mins::<32, 8>(x, 31.0, 63.0);
        let mut block = Q5_K { d, dmin, scales: [0; 12], qh: [0; 32], qs: [[0; 32]; 4] };
        for (s, (sc, m)) in scales.into_iter().enumerate() {
            set_scale_min(&mut block.scales, s, sc, m);
            put(&mut block.qs[s / 2], &q, s, 4 * (s % 2), |q| q & 15);
            put(&mut block.qh, &q, s, s, |q| q >> 4);
        }
        block
    }
}

// SAFETY: as above.
unsafe impl Block for Q6_K {
    const TYPE: DType = DType::Q6_K;

    fn unpack(&self, s: usize) -> Unpacked {
        let (half, part) = (s / 4, s % 4);
        let low = bits(&self.ql[2 * half + part % 2], 4 * (part / 2), 15);
        let d = self.d.get();
        Unpacked {
            q: join(low, bits(&self.qh[half], 2 * part, 3), 4),
            scale: [d * self.scales[2 * s] as f32, d * self.scales[2 * s + 1] as f32],
            min: [0.0; 2],
        }
    }

    fn quantize(x: &[f32]) -> Self {
        let (d, scales, q) = quantize_symmetric(x, 32.0, 128.0);
        let mut block = Q6_K { ql: [[0; 32]; 4], qh: [[0; 32]; 2], scales, d };
        for s in 0..8 {
            let (half, part) = (s / 4, s % 4);
            put(&mut block.ql[2 * half + part % 2], &q, s, 4 * (part / 2), |q| q & 15);
            put(&mut block.qh[half], &q, s, 2 * part, |q| q >> 4);
        }
        block
    }
}
