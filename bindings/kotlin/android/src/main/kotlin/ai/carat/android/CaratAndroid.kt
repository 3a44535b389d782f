package ai.carat.android

import ai.carat.CaratException
import ai.carat.Conversation
import ai.carat.Model
import ai.carat.ModelOptions
import ai.carat.Session
import ai.carat.Status
import android.content.ComponentCallbacks2
import android.content.ContentResolver
import android.content.Context
import android.content.res.AssetFileDescriptor
import android.content.res.Configuration
import android.net.Uri
import android.os.ParcelFileDescriptor
import java.io.FileNotFoundException
import java.util.Collections
import java.util.WeakHashMap

/**
 * Opens a model that is an asset of the app, where it lies in the package: mapped, not copied. It must be stored
 * uncompressed (`androidResources { noCompress += "gguf" }`), else Android throws a [FileNotFoundException].
 */
public fun Model.Companion.openAsset(
    context: Context,
    name: String,
    options: ModelOptions = ModelOptions(),
): Model = context.assets.openFd(name).use { open(it, options) }

/** Opens the part of a file that an asset's descriptor names. The descriptor stays the caller's, who may close it. */
public fun Model.Companion.open(asset: AssetFileDescriptor, options: ModelOptions = ModelOptions()): Model =
    open(asset.parcelFileDescriptor.fd, asset.startOffset, asset.declaredLength, options)

/** Opens a file by its descriptor, which stays the caller's. */
public fun Model.Companion.open(file: ParcelFileDescriptor, options: ModelOptions = ModelOptions()): Model =
    open(file.fd, options = options)

/**
 * Opens a model behind a content URI, such as one that the user chose. Its provider must have a file behind it: what comes
 * through a pipe cannot be mapped, and fails with [Status.IO]. A document of which the app keeps the permission
 * ([ContentResolver.takePersistableUriPermission]) can be opened again when the app is started the next time.
 */
public fun Model.Companion.open(
    resolver: ContentResolver,
    uri: Uri,
    options: ModelOptions = ModelOptions(),
): Model {
    val asset = resolver.openAssetFileDescriptor(uri, "r") ?: throw FileNotFoundException("$uri: its provider has crashed")
    return asset.use { open(it, options) }
}

/**
 * Gives back memory when Android says that it is short: register it with [Context.registerComponentCallbacks], and add the
 * sessions and conversations that last. It holds them weakly. One that is at work is left alone; it is busy with what the
 * memory is for.
 */
public class TrimMemory : ComponentCallbacks2 {
    private val targets: MutableSet<AutoCloseable> = Collections.synchronizedSet(Collections.newSetFromMap(WeakHashMap()))

    public fun add(session: Session) {
        targets.add(session)
    }

    public fun add(conversation: Conversation) {
        targets.add(conversation)
    }

    override fun onTrimMemory(level: Int) {
        // The app is no longer seen, or memory is short while it is: in either case what can be had again is given back.
        val all = synchronized(targets) { targets.toList() }
        for (target in all) {
            try {
                when (target) {
                    is Session -> target.trim()
                    is Conversation -> target.trim()
                }
            } catch (e: CaratException) {
                if (e.status != Status.BUSY) throw e
            } catch (_: IllegalStateException) {
                targets.remove(target) // closed meanwhile
            }
        }
    }

    override fun onConfigurationChanged(newConfig: Configuration) {}

    @Deprecated("Android calls onTrimMemory() too", ReplaceWith("onTrimMemory(level)"))
    override fun onLowMemory() {
        onTrimMemory(ComponentCallbacks2.TRIM_MEMORY_BACKGROUND)
    }
}
