package ai.carat

/** An instruction set that kernels are written for. */
public enum class Isa(internal val number: Int) {
    /** The best that the processor has. */
    AUTO(0),
    /** Plain code, on every processor. */
    SCALAR(1),
    /** x86-64 with AVX2, FMA and F16C. */
    AVX2(2),
    /** x86-64 with AVX-512 F, BW, VL, DQ, VBMI and VNNI. */
    AVX512_VNNI(3),
    /** 64-bit ARM. */
    NEON(4),
    /** 64-bit ARM with the dot product of bytes. */
    NEON_DOTPROD(5),
    /** 64-bit ARM with the matrix product of bytes too. */
    NEON_I8MM(6),
    /** One that a newer library has. */
    UNKNOWN(-1),
    ;

    /** The library's name of it, such as `avx2`. */
    public val cName: String get() = Native.isaName(number)

    /** Whether this processor has it. */
    public val isAvailable: Boolean get() = Native.isaAvailable(number)

    internal companion object {
        fun of(number: Int): Isa = entries.firstOrNull { it.number == number } ?: UNKNOWN
    }
}

/** The machine's limits, measured: the yardstick for figures of speed. */
public data class Limits(
    /** Bytes a second that can be read from memory in order: the limit of decoding. */
    val readBytesPerSecond: Double,
    /** Multiply-adds of bytes a second: the limit of prefill over quantized weights. */
    val dotMacsPerSecond: Double,
    /** Multiply-adds of f32 a second: the limit of attention. */
    val fmaMacsPerSecond: Double,
)

/** The native library. */
public object Carat {
    /** Its version, such as `0.1.0`. */
    public val version: String get() = Native.version()

    /** The version of its C interface: raised when something is added, and nothing is ever changed. */
    public val abiVersion: Int get() = Native.abiVersion()

    /** Measures the machine's limits, in about a second and 256 MiB of memory. Blocks. */
    public fun measureLimits(threads: Int, isa: Isa = Isa.AUTO): Limits {
        val (read, dot, fma) = Native.limits(threads, isa.number)
        return Limits(read, dot, fma)
    }
}
