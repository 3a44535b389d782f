// A stub: see README.md.
@file:Suppress("unused", "UNUSED_PARAMETER")

package androidx.activity

import android.content.Context
import android.os.Bundle
import androidx.lifecycle.ViewModel

open class ComponentActivity : Context() {
    protected open fun onCreate(savedInstanceState: Bundle?) {}
}

inline fun <reified VM : ViewModel> ComponentActivity.viewModels(): Lazy<VM> = error("a stub")
