// A stub: see README.md.
@file:Suppress("unused", "UNUSED_PARAMETER")

package android.content.res

import android.os.ParcelFileDescriptor
import java.io.Closeable

class Configuration

class AssetManager {
    fun openFd(fileName: String): AssetFileDescriptor = error("a stub")
}

class AssetFileDescriptor : Closeable {
    val parcelFileDescriptor: ParcelFileDescriptor get() = error("a stub")
    val startOffset: Long get() = error("a stub")
    val declaredLength: Long get() = error("a stub")

    override fun close() {}
}
