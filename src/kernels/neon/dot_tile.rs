//! A panel of weights × rows of activations, by `sdot`.
//!
//! A register has four values of K of four weight rows; `sdot` multiplies them with the same four of an activation row,
//! one lane of a register that holds 16. A tile is eight weight rows × up to [`TILE`] of activations: its sums, both the
//! integers of a group and the floats across groups, fill 24 registers, and stay there over a whole slab.
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
    // As few tiles as possible, as equal as possible.
    let count = acts.rows.div_ceil(TILE);
    let mut t = 0;
    for i in 0..count {
        let end = (i + 1) * acts.rows / count;
        let acc = &mut acc[t * PANEL..end * PANEL];
        // SAFETY: the caller's promise, and rows `t`..`end` exist.
        unsafe {
            match end - t {
                1 => tile::<1>(panel, acts, t, blocks.clone(), acc),
                2 => tile::<2>(panel, acts, t, blocks.clone(), acc),
                3 => tile::<3>(panel, acts, t, blocks.clone(), acc),
                4 => tile::<4>(panel, acts, t, blocks.clone(), acc),
                5 => tile::<5>(panel, acts, t, blocks.clone(), acc),
                _ => tile::<6>(panel, acts, t, blocks.clone(), acc),
            }
        }
        t = end;
    }
}

/// # Safety
/// As for [`gemm_panel`]; rows `t`..`t` + `T` of activations exist, and `acc` is of them, [T, PANEL].
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile<const T: usize>(
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
    let mut room = Prepared::<T>::room();
    room.fill(acts, t, blocks.clone(), g);
    let h = acts.h[t * acts.k + blocks.start * BLOCK..].as_ptr();
    for from in (0..PANEL).step_by(ROWS) {
        let at = At {
            q: panel.q[from * 4..].as_ptr(),
            h,
            k: acts.k,
            scale: panel.scale[from..].as_ptr(),
            min: panel.min[from..].as_ptr(),
            d: room.scale.as_ptr().cast(),
            start: room.start.as_ptr().cast(),
            sum: room.sum.as_ptr().cast(),
            n,
        };
        let mut sums = [[vdupq_n_f32(0.0); 2]; T];
        for (sums, acc) in sums.iter_mut().zip(acc.chunks_exact(PANEL)) {
            let acc = &acc[from..][..ROWS];
            // SAFETY: 8 numbers.
            *sums = unsafe { [vld1q_f32(acc.as_ptr()), vld1q_f32(acc.as_ptr().add(4))] };
        }
        // SAFETY: the panel has `n` blocks of 8 times 4 values, and a scale and min for each group, of 32 rows, 8 of which
        // are looked at; rows of activations have `n` blocks from `h` on; `room` was filled with what belongs to them.
        unsafe {
            match (g.per_block(), g.mins) {
                (1, false) => at.blocks::<T, 1, false>(&mut sums),
                (1, true) => at.blocks::<T, 1, true>(&mut sums),
                (_, false) => at.blocks::<T, 2, false>(&mut sums),
                (_, true) => at.blocks::<T, 2, true>(&mut sums),
            }
        }
        for (sums, acc) in sums.iter().zip(acc.chunks_exact_mut(PANEL)) {
            let acc = &mut acc[from..][..ROWS];
            // SAFETY: 8 numbers.
            unsafe {
                vst1q_f32(acc.as_mut_ptr(), sums[0]);
                vst1q_f32(acc.as_mut_ptr().add(4), sums[1]);
            }
        }
    }
}

/// What belongs to the blocks of a tile's activation rows. Of each eight numbers the first T count.
struct Prepared<const T: usize> {
    /// [block][8]
    scale: [MaybeUninit<[f32; 8]>; SLAB],
    /// [block][T][4], four times the same
    start: [MaybeUninit<[[f32; 4]; T]>; SLAB],
    /// [block][group][8], the sums that mins are multiplied with
    sum: [MaybeUninit<[f32; 8]>; 2 * SLAB],
}

impl<const T: usize> Prepared<T> {
    fn room() -> Prepared<T> {
        Prepared {
            scale: [const { MaybeUninit::uninit() }; SLAB],
            start: [const { MaybeUninit::uninit() }; SLAB],
            sum: [const { MaybeUninit::uninit() }; 2 * SLAB],
        }
    }

    /// Rows `t`..`t` + T.
    #[inline(always)]
    fn fill(&mut self, acts: &Acts<'_>, t: usize, blocks: Range<usize>, g: Grouping) {
        let per_row = acts.k / BLOCK;
        for (b, block) in blocks.enumerate() {
            let (mut scale, mut start) = ([0.0; 8], [[0.0; 4]; T]);
            for i in 0..T {
                let (d, from) = scale_and_start(acts.scale[(t + i) * per_row + block]);
                (scale[i], start[i]) = (d, [from; 4]);
            }
            self.scale[b].write(scale);
            self.start[b].write(start);
            if g.mins {
                for group in 0..g.per_block() {
                    let mut sum = [0.0; 8];
                    for (i, sum) in sum.iter_mut().enumerate().take(T) {
                        let at = (t + i) * per_row + block;
                        *sum = if g.group == BLOCK { acts.sum32[at] } else { acts.sum16[2 * at + group] };
                    }
                    self.sum[b * g.per_block() + group].write(sum);
                }
            }
        }
    }
}

/// Where the loop reads. All of it is read front to back.
struct At {
    /// [block][k / 4: 8][row: 32][k % 4: 4] signed bytes.
    q: *const u8,
    /// The first activation row.
    h: *const i8,
    /// Bytes from one activation row to the next.
    k: usize,
    /// [block][group][row: 32]
    scale: *const f32,
    /// As `scale`.
    min: *const f32,
    /// [block][8], see [`Prepared`]; as the others.
    d: *const f32,
    /// [block][T][4]
    start: *const f32,
    /// [block][group][8]
    sum: *const f32,
    /// Blocks.
    n: usize,
}

// In what follows, the first argument is what is done in a block: its number of groups, and whether there are mins. Then
// there is for each activation row its pointer, its register, those of its integers, those of its floats, the element that
// is its scale or sum, and where its start is.

/// Products of four values: weights in registers 0 and 1, those of each activation row in lane `$lane` of its register.
macro_rules! four {
    ($at:literal $lane:literal $(($h:tt $x:tt $a:tt $b:tt $f:tt $g:tt $e:tt $c:tt))*) => {
        concat!(
            "ldp q0, q1, [{q}, #", $at, "]\n",
            $(
                "sdot v", $a, ".4s, v0.16b, v", $x, ".4b[", $lane, "]\n",
                "sdot v", $b, ".4s, v1.16b, v", $x, ".4b[", $lane, "]\n",
            )*
        )
    };
}

/// Products of 16 values.
macro_rules! sixteen {
    ($at0:literal $at1:literal $at2:literal $at3:literal
     $(($h:tt $x:tt $a:tt $b:tt $f:tt $g:tt $e:tt $c:tt))*) => {
        concat!(
            $("ldr q", $x, ", [{", stringify!($h), "}, {o}]\n",)*
            "add {o}, {o}, #16\n",
            four!($at0 "0" $(($h $x $a $b $f $g $e $c))*),
            four!($at1 "1" $(($h $x $a $b $f $g $e $c))*),
            four!($at2 "2" $(($h $x $a $b $f $g $e $c))*),
            four!($at3 "3" $(($h $x $a $b $f $g $e $c))*),
        )
    };
}

/// The end of a group: integers to floats, and integers to the start again.
macro_rules! finish {
    ($(($h:tt $x:tt $a:tt $b:tt $f:tt $g:tt $e:tt $c:tt))*) => {
        concat!(
            "ldp q0, q1, [{d}]\n",
            "ldp q2, q3, [{scale}], #128\n",
            $(
                "ldr q4, [{start}, #", $c, "]\n",
                "ldr q5, [{start}, #", $c, "]\n",
                "fmla v4.4s, v", $a, ".4s, ", $e, "\n",
                "fmla v5.4s, v", $b, ".4s, ", $e, "\n",
                "ldr q", $a, ", [{magic}]\n",
                "ldr q", $b, ", [{magic}]\n",
                "fmla ", $f, ".4s, v4.4s, v2.4s\n",
                "fmla ", $g, ".4s, v5.4s, v3.4s\n",
            )*
        )
    };
}

/// What the mins of a group take away.
macro_rules! minus {
    ($(($h:tt $x:tt $a:tt $b:tt $f:tt $g:tt $e:tt $c:tt))*) => {
        concat!(
            "ldp q0, q1, [{sum}], #32\n",
            "ldp q2, q3, [{min}], #128\n",
            $(
                "fmls ", $f, ".4s, v2.4s, ", $e, "\n",
                "fmls ", $g, ".4s, v3.4s, ", $e, "\n",
            )*
        )
    };
}

/// A block.
macro_rules! block {
    (1 false $($row:tt)*) => {
        concat!(
            sixteen!("0" "128" "256" "384" $($row)*), sixteen!("512" "640" "768" "896" $($row)*), finish!($($row)*),
        )
    };
    (1 true $($row:tt)*) => { concat!(block!(1 false $($row)*), minus!($($row)*)) };
    (2 false $($row:tt)*) => {
        concat!(
            sixteen!("0" "128" "256" "384" $($row)*), finish!($($row)*),
            sixteen!("512" "640" "768" "896" $($row)*), finish!($($row)*),
        )
    };
    (2 true $($row:tt)*) => {
        concat!(
            sixteen!("0" "128" "256" "384" $($row)*), finish!($($row)*), minus!($($row)*),
            sixteen!("512" "640" "768" "896" $($row)*), finish!($($row)*), minus!($($row)*),
        )
    };
}

/// All blocks.
macro_rules! blocks {
    ($self:ident $sums:ident $groups:tt $mins:tt
     $($i:literal: ($h:tt $x:tt $a:tt $b:tt $f:tt $g:tt $e:tt $c:tt))*) => {
        asm!(
            $(concat!("ldr q", $a, ", [{magic}]\nldr q", $b, ", [{magic}]"),)*
            "2:",
            block!($groups $mins $(($h $x $a $b $f $g $e $c))*),
            "add {q}, {q}, #1024",
            "add {d}, {d}, #32",
            "add {start}, {start}, #{step}",
            "subs {n}, {n}, #1",
            "b.ne 2b",
            "/* {min} {sum} */",
            q = inout(reg) $self.q => _,
            $($h = in(reg) $self.h.wrapping_add($i * $self.k),)*
            o = inout(reg) 0usize => _,
            scale = inout(reg) $self.scale => _,
            min = inout(reg) $self.min => _,
            sum = inout(reg) $self.sum => _,
            d = inout(reg) $self.d => _,
            start = inout(reg) $self.start => _,
            step = const T * 16,
            n = inout(reg) $self.n => _,
            magic = in(reg) &raw const START,
            $(inout($f) $sums[$i][0], inout($g) $sums[$i][1],)*
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _,
            out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            options(readonly, nostack),
        )
    };
}

/// The loop for the activation rows given.
macro_rules! by_grouping {
    ($self:ident $sums:ident $($row:tt)*) => {
        match (G, MINS) {
            (1, false) => blocks!($self $sums 1 false $($row)*),
            (1, true) => blocks!($self $sums 1 true $($row)*),
            (_, false) => blocks!($self $sums 2 false $($row)*),
            (_, true) => blocks!($self $sums 2 true $($row)*),
        }
    };
}

impl At {
    /// Adds all blocks to the tile's sums, [T, 8].
    ///
    /// # Safety
    /// There is at least one, where the fields say; the processor has the instructions.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    #[rustfmt::skip]
    unsafe fn blocks<const T: usize, const G: usize, const MINS: bool>(&self, sums: &mut [[float32x4_t; 2]; T]) {
        // SAFETY: the caller's promise; nothing but registers is written.
        unsafe {
            match T {
                1 => by_grouping!(self sums 0: (h0 "2" "8" "9" "v20" "v21" "v0.s[0]" "0")),
                2 => by_grouping!(self sums
                    0: (h0 "2" "8" "9" "v20" "v21" "v0.s[0]" "0")
                    1: (h1 "3" "10" "11" "v22" "v23" "v0.s[1]" "16")),
                3 => by_grouping!(self sums
                    0: (h0 "2" "8" "9" "v20" "v21" "v0.s[0]" "0")
                    1: (h1 "3" "10" "11" "v22" "v23" "v0.s[1]" "16")
                    2: (h2 "4" "12" "13" "v24" "v25" "v0.s[2]" "32")),
                4 => by_grouping!(self sums
                    0: (h0 "2" "8" "9" "v20" "v21" "v0.s[0]" "0")
                    1: (h1 "3" "10" "11" "v22" "v23" "v0.s[1]" "16")
                    2: (h2 "4" "12" "13" "v24" "v25" "v0.s[2]" "32")
                    3: (h3 "5" "14" "15" "v26" "v27" "v0.s[3]" "48")),
                5 => by_grouping!(self sums
                    0: (h0 "2" "8" "9" "v20" "v21" "v0.s[0]" "0")
                    1: (h1 "3" "10" "11" "v22" "v23" "v0.s[1]" "16")
                    2: (h2 "4" "12" "13" "v24" "v25" "v0.s[2]" "32")
                    3: (h3 "5" "14" "15" "v26" "v27" "v0.s[3]" "48")
                    4: (h4 "6" "16" "17" "v28" "v29" "v1.s[0]" "64")),
                _ => by_grouping!(self sums
                    0: (h0 "2" "8" "9" "v20" "v21" "v0.s[0]" "0")
                    1: (h1 "3" "10" "11" "v22" "v23" "v0.s[1]" "16")
                    2: (h2 "4" "12" "13" "v24" "v25" "v0.s[2]" "32")
                    3: (h3 "5" "14" "15" "v26" "v27" "v0.s[3]" "48")
                    4: (h4 "6" "16" "17" "v28" "v29" "v1.s[0]" "64")
                    5: (h5 "7" "18" "19" "v30" "v31" "v1.s[1]" "80")),
            }
        }
    }
}
