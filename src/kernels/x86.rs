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
