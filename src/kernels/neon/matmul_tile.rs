//! A panel of weights × rows of activations, by `smmla`.
//!
//! A register has eight values of K of two weight rows, another the same eight of two activation rows; `smmla` adds their
//! four products to the lanes of a third. A tile is eight weight rows × up to three pairs of activation rows: its sums,
//! both the integers of a group and the floats across groups, fill 24 registers, and stay there over a whole slab.
//!
//! See [`super::magic`] for how the integers become floats without an instruction of their own.

use core::arch::aarch64::*;
use core::arch::asm;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::magic::{START, scale_and_start};
use crate::kernels::{Acts, BLOCK, Grouping, PANEL, Panel, SLAB};

/// Activation rows of the largest tile.
const TILE: usize = 6;
/// Weight rows of a tile.
const ROWS: usize = 8;

/// See [`crate::kernels::Kernels::gemm_panel`].
///
/// # Safety
/// The processor has the instructions, and lengths are as `Kernels::gemm_panel` checks them.
pub(super) unsafe fn gemm_panel(panel: &Panel, acts: &Acts<'_>, blocks: Range<usize>, acc: &mut [f32]) {
    for t in (0..acts.rows).step_by(TILE) {
        let n = TILE.min(acts.rows - t);
        let acc = &mut acc[t * PANEL..][..n * PANEL];
        // SAFETY: the caller's promise, and `n` rows from `t` exist.
        unsafe {
            match n.div_ceil(2) {
                1 => tile::<1>(panel, acts, t, blocks.clone(), acc),
                2 => tile::<2>(panel, acts, t, blocks.clone(), acc),
                _ => tile::<3>(panel, acts, t, blocks.clone(), acc),
            }
        }
    }
}

/// `P` pairs of activation rows from `t`, of which the last may have only one.
///
/// # Safety
/// As for [`gemm_panel`]; the rows exist, and `acc` is of them, [rows, PANEL].
#[target_feature(enable = "neon,i8mm")]
unsafe fn tile<const P: usize>(
    panel: &Panel,
    acts: &Acts<'_>,
    t: usize,
    blocks: Range<usize>,
    acc: &mut [f32],
) {
    let n = blocks.len();
    if n == 0 {
        return;
    }
    let g = panel.grouping;
    let mut room = Prepared::<P>::room();
    room.fill(acts, t..t + acc.len() / PANEL, blocks, g);
    for from in (0..PANEL).step_by(ROWS) {
        let at = At {
            q: panel.q[from * 8..].as_ptr(),
            x: room.values.as_ptr().cast(),
            scale: panel.scale[from..].as_ptr(),
            min: panel.min[from..].as_ptr(),
            d: room.scale.as_ptr().cast(),
            start: room.start.as_ptr().cast(),
            sum: room.sum.as_ptr().cast(),
            n,
        };
        let zero = vdupq_n_f32(0.0);
        let mut sums = [[zero; 4]; P];
        for (sums, acc) in sums.iter_mut().zip(acc.chunks(2 * PANEL)) {
            for (r, sums) in sums.iter_mut().enumerate() {
                let at = |i: usize| acc.get(i * PANEL + from + 2 * r..).filter(|acc| acc.len() >= 2);
                // SAFETY: 2 numbers each.
                let [first, second] =
                    [0, 1].map(|i| unsafe { at(i).map_or(vget_low_f32(zero), |a| vld1_f32(a.as_ptr())) });
                *sums = vcombine_f32(first, second);
            }
        }
        // SAFETY: the panel has `n` blocks of 4 times 8 values, and a scale and min for each group, of 32 rows, 8 of which
        // are looked at; `room` was filled with what belongs to `n` blocks of the activations.
        unsafe {
            match (g.per_block(), g.mins) {
                (1, false) => at.blocks::<P, 1, false>(&mut sums),
                (1, true) => at.blocks::<P, 1, true>(&mut sums),
                (_, false) => at.blocks::<P, 2, false>(&mut sums),
                (_, true) => at.blocks::<P, 2, true>(&mut sums),
            }
        }
        for (sums, acc) in sums.iter().zip(acc.chunks_mut(2 * PANEL)) {
            for (i, acc) in acc.chunks_exact_mut(PANEL).enumerate() {
                for (sums, acc) in sums.iter().zip(acc[from..][..ROWS].as_chunks_mut::<2>().0) {
                    let two = if i == 0 { vget_low_f32(*sums) } else { vget_high_f32(*sums) };
                    // SAFETY: 2 numbers.
                    unsafe { vst1_f32(acc.as_mut_ptr(), two) };
                }
            }
        }
    }
}

/// What belongs to the blocks of a tile's activation rows.
struct Prepared<const P: usize> {
    /// [block][k / 8: 4][pair][row: 2][k % 8: 8]
    values: [MaybeUninit<[[[[i8; 8]; 2]; P]; 4]>; SLAB],
    /// [block][pair][row: 2][2], twice the same
    scale: [MaybeUninit<[[f32; 4]; P]>; SLAB],
    /// As `scale`.
    start: [MaybeUninit<[[f32; 4]; P]>; SLAB],
    /// [block][group][pair][row: 2][2], the sums that mins are multiplied with
    sum: [MaybeUninit<[[f32; 4]; P]>; 2 * SLAB],
}

impl<const P: usize> Prepared<P> {
    fn room() -> Prepared<P> {
        Prepared {
            values: [const { MaybeUninit::uninit() }; SLAB],
            scale: [const { MaybeUninit::uninit() }; SLAB],
            start: [const { MaybeUninit::uninit() }; SLAB],
            sum: [const { MaybeUninit::uninit() }; 2 * SLAB],
        }
    }

    /// A row that a pair lacks is that of the other.
    #[inline(always)]
    fn fill(&mut self, acts: &Acts<'_>, rows: Range<usize>, blocks: Range<usize>, g: Grouping) {
        let per_row = acts.k / BLOCK;
        for (b, block) in blocks.enumerate() {
            let at = |pair: usize, i: usize| (rows.start + 2 * pair + i).min(rows.end - 1) * per_row + block;
            let (mut values, mut scale, mut start) = ([[[[0; 8]; 2]; P]; 4], [[0.0; 4]; P], [[0.0; 4]; P]);
            for pair in 0..P {
                for i in 0..2 {
                    let h = &acts.h[at(pair, i) * BLOCK..][..BLOCK];
                    for (values, h) in values.iter_mut().zip(h.as_chunks::<8>().0) {
                        values[pair][i] = *h;
                    }
                    let (d, from) = scale_and_start(acts.scale[at(pair, i)]);
                    scale[pair][2 * i..2 * i + 2].fill(d);
                    start[pair][2 * i..2 * i + 2].fill(from);
                }
            }
            self.values[b].write(values);
            self.scale[b].write(scale);
            self.start[b].write(start);
            if g.mins {
                for group in 0..g.per_block() {
                    let mut sum = [[0.0; 4]; P];
                    for pair in 0..P {
                        for i in 0..2 {
                            let at = at(pair, i);
                            let v =
                                if g.group == BLOCK { acts.sum32[at] } else { acts.sum16[2 * at + group] };
                            sum[pair][2 * i..2 * i + 2].fill(v);
                        }
                    }
                    self.sum[b * g.per_block() + group].write(sum);
                }
            }
        }
    }
}

/// Where the loop reads. All of it is read front to back.
struct At {
    /// [block][k / 8: 4][row: 32][k % 8: 8] signed bytes.
    q: *const u8,
    /// See [`Prepared::values`]; what follows `min` likewise.
    x: *const i8,
    /// [block][group][row: 32]
    scale: *const f32,
    /// As `scale`.
    min: *const f32,
    d: *const f32,
    start: *const f32,
    sum: *const f32,
    /// Blocks.
    n: usize,
}

// In what follows there is for each pair of activation rows its index, its register, those of its integers, and those of its
// floats, for four pairs of weight rows.

/// Products of eight values, of weights at `$at` and 32 bytes behind it.
macro_rules! eight {
    ($at:literal $at2:literal
     $(($x:tt ($a0:tt $a1:tt $a2:tt $a3:tt) ($f0:tt $f1:tt $f2:tt $f3:tt)))*) => {
        concat!(
            "ldp q0, q1, [{q}, #", $at, "]\n",
            "ldp q2, q3, [{q}, #", $at2, "]\n",
            $("ldr q", $x, ", [{x}], #16\n",)*
            $(
                "smmla v", $a0, ".4s, v", $x, ".16b, v0.16b\n",
                "smmla v", $a1, ".4s, v", $x, ".16b, v1.16b\n",
                "smmla v", $a2, ".4s, v", $x, ".16b, v2.16b\n",
                "smmla v", $a3, ".4s, v", $x, ".16b, v3.16b\n",
            )*
        )
    };
}

/// Two numbers for each pair of weight rows, twice in a register.
macro_rules! pairs {
    ($p:literal) => {
        concat!(
            "ld1r {{v0.2d}}, [{",
            $p,
            "}], #8\n",
            "ld1r {{v1.2d}}, [{",
            $p,
            "}], #8\n",
            "ld1r {{v2.2d}}, [{",
            $p,
            "}], #8\n",
            "ld1r {{v3.2d}}, [{",
            $p,
            "}], #8\n",
            "add {",
            $p,
            "}, {",
            $p,
            "}, #96\n",
        )
    };
}

/// Of one register, the end of a group.
macro_rules! float {
    ($w:literal $t:literal $a:tt $f:tt) => {
        concat!(
            "ldr q",
            $t,
            ", [{start}]\n",
            "fmla v",
            $t,
            ".4s, v",
            $a,
            ".4s, v7.4s\n",
            "ldr q",
            $a,
            ", [{magic}]\n",
            "fmla ",
            $f,
            ".4s, v",
            $t,
            ".4s, v",
            $w,
            ".4s\n",
        )
    };
}

/// The end of a group: integers to floats, and integers to the start again.
macro_rules! finish {
    ($(($x:tt ($a0:tt $a1:tt $a2:tt $a3:tt) ($f0:tt $f1:tt $f2:tt $f3:tt)))*) => {
        concat!(
            pairs!("scale"),
            $(
                "ldr q7, [{d}], #16\n",
                float!("0" "4" $a0 $f0),
                float!("1" "5" $a1 $f1),
                float!("2" "6" $a2 $f2),
                float!("3" "4" $a3 $f3),
                "add {start}, {start}, #16\n",
            )*
        )
    };
}

/// What the mins of a group take away.
macro_rules! minus {
    ($(($x:tt ($a0:tt $a1:tt $a2:tt $a3:tt) ($f0:tt $f1:tt $f2:tt $f3:tt)))*) => {
        concat!(
            pairs!("min"),
            $(
                "ldr q7, [{sum}], #16\n",
                "fmls ", $f0, ".4s, v0.4s, v7.4s\n",
                "fmls ", $f1, ".4s, v1.4s, v7.4s\n",
                "fmls ", $f2, ".4s, v2.4s, v7.4s\n",
                "fmls ", $f3, ".4s, v3.4s, v7.4s\n",
            )*
        )
    };
}

/// Back to the first pair, whose second group has the same scales.
macro_rules! again {
    () => {
        "sub {d}, {d}, #{step}\nsub {start}, {start}, #{step}\n"
    };
}

/// A block of so many groups, with mins or without.
macro_rules! block {
    (1 false $($pair:tt)*) => {
        concat!(
            eight!("0" "32" $($pair)*), eight!("256" "288" $($pair)*),
            eight!("512" "544" $($pair)*), eight!("768" "800" $($pair)*), finish!($($pair)*),
        )
    };
    (1 true $($pair:tt)*) => { concat!(block!(1 false $($pair)*), minus!($($pair)*)) };
    (2 false $($pair:tt)*) => {
        concat!(
            eight!("0" "32" $($pair)*), eight!("256" "288" $($pair)*), finish!($($pair)*), again!(),
            eight!("512" "544" $($pair)*), eight!("768" "800" $($pair)*), finish!($($pair)*),
        )
    };
    (2 true $($pair:tt)*) => {
        concat!(
            eight!("0" "32" $($pair)*), eight!("256" "288" $($pair)*), finish!($($pair)*), again!(),
            minus!($($pair)*),
            eight!("512" "544" $($pair)*), eight!("768" "800" $($pair)*), finish!($($pair)*), minus!($($pair)*),
        )
    };
}

/// All blocks.
macro_rules! blocks {
    ($self:ident $sums:ident $groups:tt $mins:tt
     $($i:literal: ($x:tt ($a0:tt $a1:tt $a2:tt $a3:tt) ($f0:tt $f1:tt $f2:tt $f3:tt)))*) => {
        asm!(
            $(concat!(
                "ldr q", $a0, ", [{magic}]\nldr q", $a1, ", [{magic}]\n",
                "ldr q", $a2, ", [{magic}]\nldr q", $a3, ", [{magic}]",
            ),)*
            "2:",
            block!($groups $mins $(($x ($a0 $a1 $a2 $a3) ($f0 $f1 $f2 $f3)))*),
            "add {q}, {q}, #1024",
            "subs {n}, {n}, #1",
            "b.ne 2b",
            "/* {min} {sum} {step} */",
            q = inout(reg) $self.q => _,
            x = inout(reg) $self.x => _,
            scale = inout(reg) $self.scale => _,
            min = inout(reg) $self.min => _,
            d = inout(reg) $self.d => _,
            start = inout(reg) $self.start => _,
            sum = inout(reg) $self.sum => _,
            step = const P * 16,
            n = inout(reg) $self.n => _,
            magic = in(reg) &raw const START,
            $(
                inout($f0) $sums[$i][0], inout($f1) $sums[$i][1],
                inout($f2) $sums[$i][2], inout($f3) $sums[$i][3],
            )*
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _,
            out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            options(readonly, nostack),
        )
    };
}

/// The loop for the pairs of activation rows given.
macro_rules! by_grouping {
    ($self:ident $sums:ident $($pair:tt)*) => {
        match (G, MINS) {
            (1, false) => blocks!($self $sums 1 false $($pair)*),
            (1, true) => blocks!($self $sums 1 true $($pair)*),
            (_, false) => blocks!($self $sums 2 false $($pair)*),
            (_, true) => blocks!($self $sums 2 true $($pair)*),
        }
    };
}

impl At {
    /// Adds all blocks to the tile's sums: for each pair of activation rows and of weight rows, both products of the first
    /// activation row and then both of the second.
    ///
    /// # Safety
    /// There is at least one, where the fields say; the processor has the instructions.
    #[inline]
    #[target_feature(enable = "neon,i8mm")]
    #[rustfmt::skip]
    unsafe fn blocks<const P: usize, const G: usize, const MINS: bool>(&self, sums: &mut [[float32x4_t; 4]; P]) {
        // SAFETY: the caller's promise; nothing but registers is written.
        unsafe {
            match P {
                1 => by_grouping!(self sums
                    0: ("4" ("8" "9" "10" "11") ("v20" "v21" "v22" "v23"))),
                2 => by_grouping!(self sums
                    0: ("4" ("8" "9" "10" "11") ("v20" "v21" "v22" "v23"))
                    1: ("5" ("12" "13" "14" "15") ("v24" "v25" "v26" "v27"))),
                _ => by_grouping!(self sums
                    0: ("4" ("8" "9" "10" "11") ("v20" "v21" "v22" "v23"))
                    1: ("5" ("12" "13" "14" "15") ("v24" "v25" "v26" "v27"))
                    2: ("6" ("16" "17" "18" "19") ("v28" "v29" "v30" "v31"))),
            }
        }
    }
}
