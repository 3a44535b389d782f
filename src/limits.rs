//! The machine's limits, measured: the yardstick for every figure of speed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::kernels::{Aligned, probe};
use crate::parallel::{Team, check_threads};
use crate::{Error, Isa, Result};

/// What a number of cores can do at most, all together.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes a second that can be read from memory in order: the limit of decoding.
    pub read_bytes_per_s: f64,
    /// Multiply-adds of bytes a second: the limit of prefill over quantized weights.
    pub dot_macs_per_s: f64,
    /// Multiply-adds of f32 a second: the limit of attention, and of float weights.
    pub fma_macs_per_s: f64,
}

/// Larger than any cache that two cores share.
const READ_BYTES: usize = 256 << 20;
/// Each figure is the best of the rounds that fit into this.
const BUDGET: Duration = Duration::from_millis(250);

impl Limits {
    /// Measures with `threads` threads and the instruction set of `isa`, in about a second and 256 MiB of memory.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for an instruction set that the processor lacks or a number of threads that cannot be,
    /// [`Error::OutOfMemory`].
    pub fn measure(threads: usize, isa: Isa) -> Result<Limits> {
        if !isa.is_available() {
            return Err(Error::InvalidOption {
                option: "isa",
                expected: "an instruction set that this processor has".into(),
                found: isa.to_string(),
            });
        }
        check_threads(threads)?;
        let team = Team::new(threads);
        let n = team.threads();
        let mut memory = Aligned::<u8>::zeroed(READ_BYTES, "measuring reads")?;
        // Untouched pages are all the same one.
        memory.fill(1);
        let part = READ_BYTES / n;
        let sink = AtomicU64::new(0);
        let read = best(&team, |index| {
            let sum = probe::read(isa, &memory[index * part..(index + 1) * part]);
            sink.fetch_xor(sum, Ordering::Relaxed);
            part as u64
        })?;
        Ok(Limits {
            read_bytes_per_s: read,
            dot_macs_per_s: best(&team, |_| probe::dot(isa))?,
            fma_macs_per_s: best(&team, |_| probe::fma(isa))?,
        })
    }
}

/// The best rate, in units a second, of a probe that all workers run at once and that returns its units.
fn best(team: &Team, probe: impl Fn(usize) -> u64 + Sync) -> Result<f64> {
    let began = Instant::now();
    let mut best = 0f64;
    while began.elapsed() < BUDGET {
        let units = AtomicU64::new(0);
        let round = Instant::now();
        team.run(None, &|w| {
            let mut done = 0;
            // Long enough that dispatching the round does not count.
            while done == 0 || round.elapsed() < Duration::from_millis(2) {
                done += probe(w.index);
            }
            units.fetch_add(done, Ordering::Relaxed);
            Ok(())
        })?;
        best = best.max(units.load(Ordering::Relaxed) as f64 / round.elapsed().as_secs_f64());
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_not_made_without_end() {
        for threads in [0, 257, usize::MAX] {
            let e = Limits::measure(threads, Isa::Scalar).unwrap_err();
            assert!(matches!(e, Error::InvalidOption { option: "threads", .. }), "{e}");
        }
    }

    #[test]
    fn every_instruction_set_has_limits() {
        for isa in Isa::ALL.into_iter().filter(|i| i.is_available()) {
            let l = Limits::measure(2, isa).unwrap();
            println!("{isa}: {l:?}");
            assert!(l.read_bytes_per_s > 1e6 && l.dot_macs_per_s > 1e6 && l.fma_macs_per_s > 1e6);
        }
    }
}
