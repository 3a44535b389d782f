//! The shared library in the Python package: the C ABI of the crate `carat`, and nothing of its own.

// Without a name for it the linker would have no reason to take the crate in.
extern crate carat as _;
