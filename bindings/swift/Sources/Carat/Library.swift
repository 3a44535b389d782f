import CCarat

/// The id of a token: an index into the vocabulary.
public typealias Token = UInt32

/// What a closure answers: to go on or not.
public enum Flow: Sendable {
    case proceed, stop
}

/// The library itself.
public enum Library {
    /// Its version, such as `0.1.0`.
    public static var version: String { String(cString: carat_version()) }

    /// The number of its C interface; ``Model`` refuses a library that is older than this package.
    public static var abiVersion: Int { Int(carat_abi_version()) }

    /// Measures what the machine can do at most, in about a second and 256 MiB of memory.
    ///
    /// - Throws: ``CaratError`` with `invalidOption` for an instruction set that the processor lacks or a number of
    ///   threads that cannot be; `outOfMemory`.
    public static func measureLimits(threads: Int, isa: ISA = .auto) throws(CaratError) -> Limits {
        var c = carat_limits()
        carat_limits_init(&c, MemoryLayout<carat_limits>.size)
        let n = try threadCount(threads)
        try check { carat_limits_measure(n, isa.rawValue, &c, $0) }
        return Limits(
            readBytesPerSecond: c.read_bytes_per_s, dotMACsPerSecond: c.dot_macs_per_s,
            fmaMACsPerSecond: c.fma_macs_per_s)
    }

    static func checkVersion() throws(CaratError) {
        guard abiVersion >= Int(CARAT_ABI_VERSION) else {
            throw .usage(
                .unsupported, "carat \(version) has C interface \(abiVersion), this package needs \(CARAT_ABI_VERSION)")
        }
    }
}

/// A number of threads as carat.h has it, which says whether there can be so many.
func threadCount(_ threads: Int) throws(CaratError) -> Int32 {
    guard let n = Int32(exactly: threads) else { throw .usage(.invalidOption, "threads: \(threads) is not to 256") }
    return n
}

/// The machine's limits, measured: the yardstick for figures of speed.
public struct Limits: Sendable, Hashable {
    /// Bytes a second that can be read from memory in order: the limit of generating.
    public let readBytesPerSecond: Double
    /// Multiply-adds of bytes a second: the limit of reading a prompt with quantized weights.
    public let dotMACsPerSecond: Double
    /// Multiply-adds of `Float` a second: the limit of attention.
    public let fmaMACsPerSecond: Double
}

/// An instruction set that the library has code for.
public struct ISA: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }
    /// Its name, such as `avx2`.
    public var description: String { String(cString: carat_isa_name(rawValue)) }
    /// Whether this processor has it.
    public var isAvailable: Bool { carat_isa_available(rawValue) != 0 }

    /// The best that the processor has.
    public static let auto = ISA(rawValue: CARAT_ISA_AUTO)
    /// Plain code, on every processor.
    public static let scalar = ISA(rawValue: CARAT_ISA_SCALAR)
    /// x86-64 with AVX2, FMA and F16C.
    public static let avx2 = ISA(rawValue: CARAT_ISA_AVX2)
    /// x86-64 with AVX-512 F, BW, VL, DQ, VBMI and VNNI.
    public static let avx512VNNI = ISA(rawValue: CARAT_ISA_AVX512_VNNI)
    /// 64-bit ARM.
    public static let neon = ISA(rawValue: CARAT_ISA_NEON)
    /// 64-bit ARM with the dot product of bytes.
    public static let neonDotprod = ISA(rawValue: CARAT_ISA_NEON_DOTPROD)
    /// 64-bit ARM with the matrix product of bytes too.
    public static let neonI8MM = ISA(rawValue: CARAT_ISA_NEON_I8MM)
}
