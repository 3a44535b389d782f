//! Names for ggml's tensor types, so that the refusal of one can say which it is.

use crate::DType;

/// ggml's name for the tensor type with number `n`, for those not supported too.
///
/// `None` for numbers that ggml never gave out or has withdrawn.
pub fn ggml_type_name(n: u32) -> Option<&'static str> {
    if let Some(dtype) = DType::from_ggml(n) {
        return Some(dtype.name());
    }
    Some(match n {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return None,
    })
}
