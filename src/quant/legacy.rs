//! The plain formats, blocks of 32 values: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0.
//!
//! In the 4- and 5-bit ones byte `j` holds value `j` in its low half and value `j + 16` in its high half; a fifth
//! bit is bit `j` of `qh`.

use super::{Block, F16, SUB, fit, sub};
use crate::DType;
use crate::kernels::Unpacked;

/// `d · (q − 8)`, q of 4 bits.
#[allow(non_camel_case_types)]
#[repr(C)]
pub(super) struct Q4_0 {
    d: F16,
    qs: [u8; 16],
}

/// `d · q + m`, q of 4 bits.
#[allow(non_camel_case_types)]
#[repr(C)]
pub(super) struct Q4_1 {
    d: F16,
    m: F16,
    qs: [u8; 16],
}

/// `d · (q − 16)`, q of 5 bits.
#[allow(non_camel_case_types)]
#[repr(C)]
pub(super) struct Q5_0 {
    d: F16,
    qh: [u8; 4],
    qs: [u8; 16],
}

/// `d · q + m`, q of 5 bits.
#[allow(non_camel_case_types)]
#[repr(C)]
pub(super) struct Q5_1 {
    d: F16,
    m: F16,
    qh: [u8; 4],
    qs: [u8; 16],
}

/// `d · q`, q a signed byte.
#[allow(non_camel_case_types)]
#[repr(C)]
pub(super) struct Q8_0 {
    d: F16,
    qs: [i8; 32],
}

const _: () = assert!(size_of::<Q4_0>() == 18 && size_of::<Q4_1>() == 20);
const _: () = assert!(size_of::<Q5_0>() == 22 && size_of::<Q5_1>() == 24 && size_of::<Q8_0>() == 34);

/// Low halves, then high halves.
pub(super) fn nibbles(qs: &[u8; 16]) -> [u8; SUB] {
    std::array::from_fn(|i| if i < 16 { qs[i] & 15 } else { qs[i - 16] >> 4 })
}

fn with_fifth_bits(qs: &[u8; 16], qh: [u8; 4]) -> [u8; SUB] {
    let (q, qh) = (nibbles(qs), u32::from_le_bytes(qh));
    std::array::from_fn(|i| q[i] | (((qh >> i) & 1) << 4) as u8)
}

/// The inverse of [`nibbles`].
pub(super) fn pack_nibbles(q: &[u8; SUB]) -> [u8; 16] {
    std::array::from_fn(|i| q[i] & 15 | q[i + 16] << 4)
}

/// The fifth bits.
fn pack_fifth_bits(q: &[u8; SUB]) -> [u8; 4] {
    q.iter().enumerate().fold(0u32, |qh, (i, &q)| qh | ((q >> 4 & 1) as u32) << i).to_le_bytes()
}

/// The scale that puts the extreme value on the lowest of `2 · half` levels, and the levels, with offset `half`.
fn symmetric(x: &[f32; SUB], half: f32) -> (f32, [u8; SUB]) {
    let d = fit::extreme(x) / -half;
    let inv = fit::inverse(d);
    (d, x.map(|x| ((x * inv + (half + 0.5)) as u8).min(2 * half as u8 - 1)))
}

/// The scale and lowest value that stretch `0..=max` over all values, and the levels.
fn asymmetric(x: &[f32; SUB], max: f32) -> (f32, f32, [u8; SUB]) {
    let low = x.iter().fold(f32::INFINITY, |a, &b| a.min(b));
    let high = x.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let d = (high - low) / max;
    let inv = fit::inverse(d);
    (d, low, x.map(|x| (((x - low) * inv + 0.5) as u8).min(max as u8)))
}

// SAFETY: repr(C) of byte arrays: alignment 1, no padding, any bits valid; the size is asserted above.
unsafe impl Block for Q4_0 {
    const TYPE: DType = DType::Q4_0;

    fn unpack(&self, _: usize) -> Unpacked {
        Unpacked { q: nibbles(&self.qs), scale: [self.d.get(); 2], min: [0.0; 2] }
    }

    fn quantize(x: &[f32]) -> Self {
        let (d, q) = symmetric(sub(x), 8.0);
        Q4_0 { d: F16::new(d), qs: pack_nibbles(&q) }
    }
}

// SAFETY: as above.
unsafe impl Block for Q4_1 {
    const TYPE: DType = DType::Q4_1;

    fn unpack(&self, _: usize) -> Unpacked {
        Unpacked { q: nibbles(&self.qs), scale: [self.d.get(); 2], min: [-self.m.get(); 2] }
    }

    fn quantize(x: &[f32]) -> Self {
        let (d, m, q) = asymmetric(sub(x), 15.0);
        Q4_1 { d: F16::new(d), m: F16::new(m), qs: pack_nibbles(&q) }
    }
}

// SAFETY: as above.
unsafe impl Block for Q5_0 {
    const TYPE: DType = DType::Q5_0;

    fn unpack(&self, _: usize) -> Unpacked {
        Unpacked { q: with_fifth_bits(&self.qs, self.qh), scale: [self.d.get(); 2], min: [0.0; 2] }
    }

    fn quantize(x: &[f32]) -> Self {
        let (d, q) = symmetric(sub(x), 16.0);
        Q5_0 { d: F16::new(d), qh: pack_fifth_bits(&q), qs: pack_nibbles(&q) }
    }
}

// SAFETY: as above.
unsafe impl Block for Q5_1 {
    const TYPE: DType = DType::Q5_1;

    fn unpack(&self, _: usize) -> Unpacked {
        let q = with_fifth_bits(&self.qs, self.qh);
        Unpacked { q, scale: [self.d.get(); 2], min: [-self.m.get(); 2] }
    }

    fn quantize(x: &[f32]) -> Self {
        let (d, m, q) = asymmetric(sub(x), 31.0);
        Q5_1 { d: F16::new(d), m: F16::new(m), qh: pack_fifth_bits(&q), qs: pack_nibbles(&q) }
    }
}

// SAFETY: as above.
unsafe impl Block for Q8_0 {
    const TYPE: DType = DType::Q8_0;

    fn unpack(&self, _: usize) -> Unpacked {
        Unpacked { q: self.qs.map(|q| q as u8 ^ 0x80), scale: [self.d.get(); 2], min: [0.0; 2] }
    }

    fn quantize(x: &[f32]) -> Self {
        let d = fit::extreme(x).abs() / 127.0;
        let inv = fit::inverse(d);
        Q8_0 { d: F16::new(d), qs: sub(x).map(|x| (x * inv).round() as i8) }
    }
}
