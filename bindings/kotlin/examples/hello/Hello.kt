import ai.carat.Model
import kotlinx.coroutines.runBlocking

fun main(args: Array<String>) = runBlocking {
    Model.open(args[0]).use { model ->
        model.newSession().use { session ->
            session.generate(model.tokenizer.encode(args[1], bos = true)).collect { print(it) }
        }
    }
}
