//! What the kernels of both x86 folders share.

use core::arch::x86_64::*;

/// 16 bytes.
///
/// # Safety
/// They lie at `p`.
#[inline(always)]
pub(super) unsafe fn load16(p: *const u8) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe { _mm_loadu_si128(p.cast()) }
}

/// # Safety
/// Two bytes lie at `p`.
#[inline(always)]
pub(super) unsafe fn load_u16(p: *const u8) -> u16 {
    // SAFETY: the caller's promise.
    unsafe { p.cast::<u16>().read_unaligned() }
}

/// # Safety
/// Four bytes lie at `p`.
#[inline(always)]
pub(super) unsafe fn load_u32(p: *const u8) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { p.cast::<u32>().read_unaligned() }
}

/// Calls `$f::<F, ..>($args)` with the format `F` of the quantized type `$ty`.
macro_rules! with_format {
    ($ty:expr, $f:ident ( $($arg:expr),* )) => {{
        // Those of the instruction set whose file this stands in.
        use super::formats as f;
        match $ty {
            $crate::DType::Q4_0 => $f::<f::Q4_0>($($arg),*),
            $crate::DType::Q4_1 => $f::<f::Q4_1>($($arg),*),
            $crate::DType::Q5_0 => $f::<f::Q5_0>($($arg),*),
            $crate::DType::Q5_1 => $f::<f::Q5_1>($($arg),*),
            $crate::DType::Q8_0 => $f::<f::Q8_0>($($arg),*),
            $crate::DType::Q2_K => $f::<f::Q2_K>($($arg),*),
            $crate::DType::Q3_K => $f::<f::Q3_K>($($arg),*),
            $crate::DType::Q4_K => $f::<f::Q4_K>($($arg),*),
            $crate::DType::Q5_K => $f::<f::Q5_K>($($arg),*),
            $crate::DType::Q6_K => $f::<f::Q6_K>($($arg),*),
            $crate::DType::IQ4_NL => $f::<f::IQ4_NL>($($arg),*),
            $crate::DType::IQ4_XS => $f::<f::IQ4_XS>($($arg),*),
            ty => unreachable!("{ty} has no blocks"),
        }
    }};
}
pub(super) use with_format;
