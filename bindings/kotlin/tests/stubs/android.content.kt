// A stub: see README.md.
@file:Suppress("unused", "UNUSED_PARAMETER")

package android.content

import android.content.res.AssetFileDescriptor
import android.content.res.AssetManager
import android.content.res.Configuration
import android.net.Uri

open class Context {
    val assets: AssetManager get() = error("a stub")
    val contentResolver: ContentResolver get() = error("a stub")
    fun registerComponentCallbacks(callback: ComponentCallbacks) {}
    fun unregisterComponentCallbacks(callback: ComponentCallbacks) {}
}

abstract class ContentResolver {
    fun openAssetFileDescriptor(uri: Uri, mode: String): AssetFileDescriptor? = error("a stub")
    fun takePersistableUriPermission(uri: Uri, modeFlags: Int) {}
}

interface ComponentCallbacks {
    fun onConfigurationChanged(newConfig: Configuration)

    @Deprecated("as in Android")
    fun onLowMemory()
}

interface ComponentCallbacks2 : ComponentCallbacks {
    fun onTrimMemory(level: Int)

    companion object {
        const val TRIM_MEMORY_BACKGROUND = 40
    }
}
