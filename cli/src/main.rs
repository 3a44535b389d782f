//! The command line of carat.

fn main() {}
