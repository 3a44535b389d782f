package ai.carat.assistant

import ai.carat.CaratException
import ai.carat.Conversation
import ai.carat.Model
import ai.carat.ModelOptions
import ai.carat.Policy
import ai.carat.Role
import ai.carat.SessionOptions
import ai.carat.Turn
import ai.carat.android.TrimMemory
import ai.carat.android.open
import ai.carat.cancellable
import android.app.Application
import android.net.Uri
import androidx.compose.runtime.getValue
import androidx.compose.runtime.mutableStateListOf
import androidx.compose.runtime.mutableStateOf
import androidx.compose.runtime.setValue
import androidx.lifecycle.AndroidViewModel
import androidx.lifecycle.viewModelScope
import java.io.IOException
import kotlinx.coroutines.Job
import kotlinx.coroutines.launch

/** The conversation on the screen. What it does ends with the scope of the view model: the engine is stopped then. */
class Assistant(application: Application) : AndroidViewModel(application) {
    val turns = mutableStateListOf<Turn>()

    /** What to tell the user instead of, or beside, the conversation. */
    var notice by mutableStateOf("Choose a GGUF file of an instruction-tuned Gemma.")
        private set
    var ready by mutableStateOf(false)
        private set
    var answering by mutableStateOf(false)
        private set

    private var conversation: Conversation? = null
    private var work: Job? = null
    private val trim = TrimMemory().also(application::registerComponentCallbacks)

    fun openModel(uri: Uri) {
        if (work?.isActive == true) return
        work = viewModelScope.launch {
            ready = false
            notice = "Opening…"
            conversation?.close()
            conversation = null
            turns.clear()
            try {
                conversation = cancellable { token ->
                    val resolver = getApplication<Application>().contentResolver
                    // The conversation keeps what it needs of the model.
                    Model.open(resolver, uri, ModelOptions(cancel = token)).use { model ->
                        model.newConversation("Answer briefly.", SessionOptions(context = 4096))
                    }
                }.also {
                    it.setPolicy(Policy.DROP_OLDEST)
                    trim.add(it)
                }
                ready = true
                notice = ""
            } catch (e: CaratException) {
                notice = e.message.orEmpty()
            } catch (e: IOException) {
                notice = e.message.orEmpty()
            }
        }
    }

    fun send(text: String) {
        val talk = conversation ?: return
        if (work?.isActive == true || text.isBlank()) return
        turns += Turn(Role.USER, text)
        turns += Turn(Role.MODEL, "")
        work = viewModelScope.launch {
            answering = true
            notice = ""
            try {
                talk.send(text) { summary ->
                    val seconds = summary.generateNanos / 1e9
                    notice = "%.1f tokens a second".format(summary.generatedTokens / seconds)
                }.collect { part ->
                    val last = turns.lastIndex
                    turns[last] = Turn(Role.MODEL, turns[last].text + part)
                }
            } catch (e: CaratException) {
                notice = e.message.orEmpty()
            } finally {
                answering = false
            }
        }
    }

    /** Stops the answer; what there is of it stays. */
    fun stop() {
        if (answering) work?.cancel()
    }

    override fun onCleared() {
        getApplication<Application>().unregisterComponentCallbacks(trim)
        // Deferred to the end of the call, where one runs.
        conversation?.close()
    }
}
