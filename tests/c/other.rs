//! Another Rust library, for a program that links two.

/// How long the numbers below `n` are when written with commas between; of more than five it panics, and catches that.
#[unsafe(no_mangle)]
pub extern "C" fn other_length(n: u32) -> usize {
    let numbers: Vec<String> = (0..n).map(|i| i.to_string()).collect();
    let caught = std::panic::catch_unwind(|| assert!(n <= 5, "caught by the caller"));
    numbers.join(",").len() + usize::from(caught.is_err())
}
