import Carat

let model = try Model(path: CommandLine.arguments[1])
let session = try Session(model)
let prompt = try model.tokenizer.encode("The capital of France is", bos: true)
for try await piece in session.generate(prompt, options: GenerateOptions(maxTokens: 64)) {
    print(piece.text, terminator: "")
}
print()
