//! The K-quants, blocks of 256 values whose sub-blocks of 16 or 32 have scales that are quantized themselves.
//!
//! Below, `s` is a sub-block of 32 values and `l` a value in it.

use super::{Block, F16, SUB};
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
}
