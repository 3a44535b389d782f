//! Least squares: the scale (and min) whose rounded levels come closest to given values.
//!
//! Rounding makes the error a saw-tooth in the scale, so a few starting scales around the obvious one are tried; for
//! the levels that each gives, the best scale (and min) has a closed form.

/// The value of largest magnitude.
pub(super) fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0f32, |e, &v| if v.abs() > e.abs() { v } else { e })
}

/// 1 / x, or 0 where that is not a number.
pub(super) fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// The integer nearest to `v`, which is within ±2²² (rounding by function would cost a call on x86 without SSE 4.1).
pub(super) fn round(v: f32) -> f32 {
    const SHIFT: f32 = (3 << 22) as f32;
    (v + SHIFT) - SHIFT
}

/// The scale `s` for which `s · level` is closest to `x`, where `level(v)` is the level nearest to `v`.
/// Starts from the scales that put the extreme value near the level `lowest`, and near `−lowest`.
pub(super) fn scale(x: &[f32], lowest: f32, level: impl Fn(f32) -> f32) -> f32 {
    let extreme = extreme(x);
    if extreme == 0.0 || !extreme.is_finite() {
        return 0.0;
    }
    // The error is Σx² − gain.
    let (mut best, mut best_gain) = (extreme / lowest, 0f32);
    for target in [lowest, -lowest] {
        for step in -9..=9 {
            let inv = (target + target.signum() * 0.1 * step as f32) / extreme;
            let (mut xl, mut ll) = (0f32, 0f32);
            for &x in x {
                let l = level(x * inv);
                xl += x * l;
                ll += l * l;
            }
            if ll > 0.0 && xl * xl > best_gain * ll {
                (best, best_gain) = (xl / ll, xl * xl / ll);
            }
        }
    }
    best
}

/// The scale `s ≥ 0` and min `m ≥ 0` for which `s · q − m`, with integers `q` in 0..=`max`, is closest to `x`.
pub(super) fn scale_min(x: &[f32], max: f32) -> (f32, f32) {
    let low = x.iter().fold(0f32, |a, &b| a.min(b));
    let high = x.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let range = high - low;
    if !range.is_finite() {
        return (0.0, 0.0);
    }
    if range == 0.0 {
        return (0.0, -low);
    }
    let n = x.len() as f32;
    let sum_x: f32 = x.iter().sum();
    let mut best = (range / max, -low);
    let mut best_error = f32::INFINITY;
    for step in -5..=9 {
        let mut fit = (range / (max + 0.1 * step as f32), -low);
        for _ in 0..2 {
            let inv = inverse(fit.0);
            let (mut q1, mut q2, mut xq) = (0f32, 0f32, 0f32);
            for &x in x {
                let q = round(((x + fit.1) * inv).clamp(0.0, max));
                q1 += q;
                q2 += q * q;
                xq += x * q;
            }
            let det = n * q2 - q1 * q1;
            if det <= 0.0 {
                break;
            }
            fit = ((n * xq - sum_x * q1) / det, (q1 * xq - q2 * sum_x) / det);
            if fit.1 < 0.0 {
                fit = (xq / q2, 0.0);
            }
            let inv = inverse(fit.0);
            let error: f32 = x
                .iter()
                .map(|&x| {
                    let q = round(((x + fit.1) * inv).clamp(0.0, max));
                    (fit.0 * q - fit.1 - x).powi(2)
                })
                .sum();
            if fit.0 > 0.0 && error < best_error {
                (best, best_error) = (fit, error);
            }
        }
    }
    best
}
