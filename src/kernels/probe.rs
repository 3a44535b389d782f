//! What a core can do at most: loops that do nothing but read, multiply and add.

use super::Isa;

/// Runs of the multiply-add loops between looks at the clock.
const ROUNDS: usize = 4096;

/// Reads all of `bytes`; the result only keeps the reads from being left out.
pub fn read(isa: Isa, bytes: &[u8]) -> u64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the instruction set: isa was checked where the probe was set up.
        Isa::Avx512Vnni => unsafe { x86::read512(bytes) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { x86::read256(bytes) },
        _ => {
            let (_, words, _) = {
                // SAFETY: any bytes are a u64.
                unsafe { bytes.align_to::<u64>() }
            };
            let mut sums = [0u64; 8];
            for w in words.chunks_exact(8) {
                for (s, w) in sums.iter_mut().zip(w) {
                    *s ^= w;
                }
            }
            sums.iter().fold(0, |a, b| a ^ b)
        }
    }
}

/// Multiplies and adds bytes in registers; returns the number of multiply-adds done.
pub fn dot(isa: Isa) -> u64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in read().
        Isa::Avx512Vnni => unsafe { x86::dot512() },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in read().
        Isa::Avx2 => unsafe { x86::dot256() },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as in read().
        Isa::NeonI8mm => unsafe { arm::smmla() },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as in read().
        Isa::NeonDotprod => unsafe { arm::sdot() },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as in read().
        Isa::Neon => unsafe { arm::smlal() },
        _ => {
            let mut acc = [1i16; 64];
            let by: [i16; 64] = std::hint::black_box([3; 64]);
            for _ in 0..ROUNDS {
                for (a, b) in acc.iter_mut().zip(by) {
                    *a = a.wrapping_mul(b).wrapping_add(b);
                }
            }
            std::hint::black_box(acc);
            (ROUNDS * 64) as u64
        }
    }
}

/// Multiplies and adds f32 in registers; returns the number of multiply-adds done.
pub fn fma(isa: Isa) -> u64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in read().
        Isa::Avx512Vnni => unsafe { x86::fma512() },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in read().
        Isa::Avx2 => unsafe { x86::fma256() },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as in read().
        Isa::Neon | Isa::NeonDotprod | Isa::NeonI8mm => unsafe { arm::fmla() },
        _ => {
            let mut acc = [1f32; 32];
            let by: [f32; 32] = std::hint::black_box([0.5; 32]);
            for _ in 0..ROUNDS {
                for (a, b) in acc.iter_mut().zip(by) {
                    *a = *a * b + b;
                }
            }
            std::hint::black_box(acc);
            (ROUNDS * 32) as u64
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::ROUNDS;
    use core::arch::asm;
    use core::arch::x86_64::*;

    /// # Safety
    /// AVX-512 F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn read512(bytes: &[u8]) -> u64 {
        let mut acc = [_mm512_setzero_si512(); 4];
        for chunk in bytes.chunks_exact(512) {
            for i in 0..8 {
                // SAFETY: 64 bytes at 64 · i lie within the 512 of the chunk.
                let v = unsafe { _mm512_loadu_si512(chunk.as_ptr().add(64 * i).cast()) };
                acc[i % 4] = _mm512_xor_si512(acc[i % 4], v);
            }
        }
        let all = _mm512_xor_si512(_mm512_xor_si512(acc[0], acc[1]), _mm512_xor_si512(acc[2], acc[3]));
        _mm512_reduce_or_epi64(all) as u64
    }

    /// # Safety
    /// AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn read256(bytes: &[u8]) -> u64 {
        let mut acc = [_mm256_setzero_si256(); 4];
        for chunk in bytes.chunks_exact(256) {
            for i in 0..8 {
                // SAFETY: 32 bytes at 32 · i lie within the 256 of the chunk.
                let v = unsafe { _mm256_loadu_si256(chunk.as_ptr().add(32 * i).cast()) };
                acc[i % 4] = _mm256_xor_si256(acc[i % 4], v);
            }
        }
        let all = _mm256_xor_si256(_mm256_xor_si256(acc[0], acc[1]), _mm256_xor_si256(acc[2], acc[3]));
        _mm256_extract_epi64::<0>(all) as u64
    }

    /// `$n` independent chains of one instruction, which hide its latency. `$class` is the register class.
    macro_rules! chains {
        ($n:literal, $class:ident, $v:ident, $zero:expr, $op:expr) => {{
            let mut acc = [$zero; $n];
            for _ in 0..ROUNDS {
                for a in acc.iter_mut() {
                    $op(a);
                }
            }
            // Keeps every chain.
            for a in acc {
                // SAFETY: an empty instruction that reads a register.
                unsafe { asm!("/* {0} */", in($class) a, options(nomem, nostack, preserves_flags)) };
            }
        }};
    }

    /// # Safety
    /// AVX-512 F and VNNI.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) unsafe fn dot512() -> u64 {
        let (x, y) = (_mm512_set1_epi8(3), _mm512_set1_epi8(5));
        chains!(16, zmm_reg, a, _mm512_setzero_si512(), |a: &mut __m512i| {
            // SAFETY: register arithmetic of an instruction set that the caller has.
            unsafe {
                asm!("vpdpbusd {0}, {1}, {2}", inout(zmm_reg) *a, in(zmm_reg) x, in(zmm_reg) y,
                    options(pure, nomem, nostack, preserves_flags))
            }
        });
        (ROUNDS * 16 * 64) as u64
    }

    /// AVX2's pair for bytes: multiply neighbours and add them to 16 bits, then accumulate those.
    ///
    /// # Safety
    /// AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn dot256() -> u64 {
        let (x, y) = (_mm256_set1_epi8(3), _mm256_set1_epi8(5));
        chains!(12, ymm_reg, a, _mm256_setzero_si256(), |a: &mut __m256i| {
            // SAFETY: register arithmetic of an instruction set that the caller has.
            unsafe {
                asm!("vpmaddubsw {t}, {1}, {2}", "vpaddw {0}, {0}, {t}", inout(ymm_reg) *a, in(ymm_reg) x,
                    in(ymm_reg) y, t = out(ymm_reg) _, options(pure, nomem, nostack, preserves_flags))
            }
        });
        (ROUNDS * 12 * 32) as u64
    }

    /// # Safety
    /// AVX-512 F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn fma512() -> u64 {
        let (x, y) = (_mm512_set1_ps(0.5), _mm512_set1_ps(0.25));
        chains!(16, zmm_reg, a, _mm512_setzero_ps(), |a: &mut __m512| {
            // SAFETY: register arithmetic of an instruction set that the caller has.
            unsafe {
                asm!("vfmadd231ps {0}, {1}, {2}", inout(zmm_reg) *a, in(zmm_reg) x, in(zmm_reg) y,
                    options(pure, nomem, nostack, preserves_flags))
            }
        });
        (ROUNDS * 16 * 16) as u64
    }

    /// # Safety
    /// AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn fma256() -> u64 {
        let (x, y) = (_mm256_set1_ps(0.5), _mm256_set1_ps(0.25));
        chains!(12, ymm_reg, a, _mm256_setzero_ps(), |a: &mut __m256| {
            // SAFETY: register arithmetic of an instruction set that the caller has.
            unsafe {
                asm!("vfmadd231ps {0}, {1}, {2}", inout(ymm_reg) *a, in(ymm_reg) x, in(ymm_reg) y,
                    options(pure, nomem, nostack, preserves_flags))
            }
        });
        (ROUNDS * 12 * 8) as u64
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::ROUNDS;
    use core::arch::aarch64::*;
    use core::arch::asm;

    /// A function that runs one instruction in 24 independent chains, which hide its latency: `$macs` multiply-adds each.
    macro_rules! chains {
        ($name:ident, $feature:literal, $op:literal, $macs:literal) => {
            /// # Safety
            /// The processor has the instruction.
            #[target_feature(enable = $feature)]
            pub(super) unsafe fn $name() -> u64 {
                let (x, y) = (vdupq_n_u8(3), vdupq_n_u8(5));
                let mut acc = [vdupq_n_s32(0); 24];
                for _ in 0..ROUNDS {
                    for a in acc.iter_mut() {
                        // SAFETY: register arithmetic of an instruction set that the caller has.
                        unsafe {
                            asm!($op, inout(vreg) *a, in(vreg) x, in(vreg) y,
                                options(pure, nomem, nostack, preserves_flags))
                        }
                    }
                }
                // Keeps every chain.
                for a in acc {
                    // SAFETY: an empty instruction that reads a register.
                    unsafe { asm!("/* {0:v} */", in(vreg) a, options(nomem, nostack, preserves_flags)) };
                }
                (ROUNDS * 24 * $macs) as u64
            }
        };
    }

    chains!(smmla, "neon,i8mm", "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", 32);
    chains!(sdot, "neon,dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", 16);
    chains!(smlal, "neon", "smlal {0:v}.8h, {1:v}.8b, {2:v}.8b", 8);
    chains!(fmla, "neon", "fmla {0:v}.4s, {1:v}.4s, {2:v}.4s", 4);
}
