// A stub: see README.md.
@file:Suppress("unused", "UNUSED_PARAMETER")

package android.os

import java.io.Closeable

class Bundle

class ParcelFileDescriptor : Closeable {
    val fd: Int get() = error("a stub")

    override fun close() {}
}
