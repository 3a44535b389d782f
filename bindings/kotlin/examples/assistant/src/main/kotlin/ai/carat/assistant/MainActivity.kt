package ai.carat.assistant

import ai.carat.Role
import android.os.Bundle
import androidx.activity.ComponentActivity
import androidx.activity.compose.rememberLauncherForActivityResult
import androidx.activity.compose.setContent
import androidx.activity.result.contract.ActivityResultContracts
import androidx.activity.viewModels
import androidx.compose.foundation.layout.Column
import androidx.compose.foundation.layout.Row
import androidx.compose.foundation.layout.fillMaxSize
import androidx.compose.foundation.layout.fillMaxWidth
import androidx.compose.foundation.layout.padding
import androidx.compose.foundation.layout.safeDrawingPadding
import androidx.compose.foundation.lazy.LazyColumn
import androidx.compose.foundation.lazy.items
import androidx.compose.material3.Button
import androidx.compose.material3.MaterialTheme
import androidx.compose.material3.OutlinedTextField
import androidx.compose.material3.Text
import androidx.compose.runtime.Composable
import androidx.compose.runtime.getValue
import androidx.compose.runtime.mutableStateOf
import androidx.compose.runtime.remember
import androidx.compose.runtime.setValue
import androidx.compose.ui.Modifier
import androidx.compose.ui.unit.dp

class MainActivity : ComponentActivity() {
    private val assistant: Assistant by viewModels()

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContent { MaterialTheme { Screen(assistant) } }
    }
}

@Composable
private fun Screen(assistant: Assistant) {
    var text by remember { mutableStateOf("") }
    val choose = rememberLauncherForActivityResult(ActivityResultContracts.OpenDocument()) { uri ->
        if (uri != null) assistant.openModel(uri)
    }
    Column(Modifier.fillMaxSize().safeDrawingPadding().padding(16.dp)) {
        Button(onClick = { choose.launch(arrayOf("*/*")) }) { Text("Choose a model") }
        LazyColumn(Modifier.weight(1f).fillMaxWidth()) {
            items(assistant.turns) { turn ->
                val who = if (turn.role == Role.USER) "You: " else ""
                Text(who + turn.text, Modifier.padding(vertical = 8.dp))
            }
        }
        if (assistant.notice.isNotEmpty()) Text(assistant.notice)
        Row {
            OutlinedTextField(text, onValueChange = { text = it }, modifier = Modifier.weight(1f), enabled = assistant.ready)
            if (assistant.answering) {
                Button(onClick = assistant::stop) { Text("Stop") }
            } else {
                Button(
                    onClick = {
                        assistant.send(text)
                        text = ""
                    },
                    enabled = assistant.ready,
                ) { Text("Send") }
            }
        }
    }
}
