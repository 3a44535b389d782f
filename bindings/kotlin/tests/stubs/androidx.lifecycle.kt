// A stub: see README.md.
@file:Suppress("unused", "UNUSED_PARAMETER")

package androidx.lifecycle

import android.app.Application
import kotlinx.coroutines.CoroutineScope

abstract class ViewModel {
    protected open fun onCleared() {}
}

open class AndroidViewModel(application: Application) : ViewModel() {
    fun <T : Application> getApplication(): T = error("a stub")
}

val ViewModel.viewModelScope: CoroutineScope get() = error("a stub")
