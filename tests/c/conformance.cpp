// The suite of tests/conformance over carat.hpp; its README.md says what each kind of case means.
// usage: conformance FOLDER_OF_TESTS/DATA
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <set>

#include <nlohmann/json.hpp>

#include "carat.hpp"

namespace fs = std::filesystem;
using nlohmann::json;
using ids = std::vector<std::uint32_t>;

static fs::path data_dir, scratch;
static std::string real_path;

/// What was expected is not what there is.
struct mismatch : std::runtime_error {
    using std::runtime_error::runtime_error;
};

template <class Found>
static void same(const Found &found, const json &expected, const std::string &what) {
    if (json(found) != expected)
        throw mismatch(what + ": expected " + expected.dump() + ", found " +
                       json(found).dump(-1, ' ', false, json::error_handler_t::replace));
}

static void close_to(double found, const json &expected, double tolerance, const std::string &what) {
    // A NaN is not close to anything.
    if (!(std::fabs(found - expected.get<double>()) <= tolerance))
        throw mismatch(what + ": expected " + expected.dump() + ", found " + std::to_string(found));
}

/// A field or, where it is absent, another value.
template <class T>
static T get(const json &c, const char *key, T otherwise = {}) {
    return c.contains(key) ? c.at(key).get<T>() : otherwise;
}

static std::string text_of(const json &c, const char *key) { return get<std::string>(c, key); }

/// What fields say: each key has a reader, and there is no other.
using readers = std::map<std::string, std::function<void(const json &)>>;
static void read(const json &c, const char *key, const readers &known) {
    if (!c.contains(key)) return;
    for (const auto &[name, value] : c.at(key).items()) {
        auto reader = known.find(name);
        if (reader == known.end()) throw mismatch(std::string(key) + " has " + name);
        reader->second(value);
    }
}

template <class T>
static std::function<void(const json &)> into(T &field) {
    return [&field](const json &value) { value.get_to(field); };
}

static carat::session_options session_options(const json &c) {
    carat::session_options o;
    read(c, "session", {{"context", into(o.context)}, {"batch", into(o.batch)}, {"snapshots", into(o.snapshots)}});
    return o;
}

static carat::generate_options generate_options(const json &c) {
    carat::generate_options o;
    read(c, "options",
         {{"max_tokens", into(o.max_tokens)},
          {"temperature", into(o.temperature)},
          {"top_k", into(o.top_k)},
          {"top_p", into(o.top_p)},
          {"min_p", into(o.min_p)},
          {"repetition_penalty", into(o.repetition_penalty)},
          {"presence_penalty", into(o.presence_penalty)},
          {"frequency_penalty", into(o.frequency_penalty)},
          {"penalty_window", into(o.penalty_window)},
          {"top_log_probs", into(o.top_log_probs)},
          {"ignore_end", into(o.ignore_end)},
          {"stop", into(o.stop)},
          {"seed", [&](const json &seed) { o.seed = seed.get<std::uint64_t>(); }},
          {"logit_bias", [&](const json &list) {
               for (const json &pair : list)
                   o.logit_bias.push_back({pair[0], pair[1].is_null() ? -INFINITY : pair[1].get<float>()});
           }}});
    return o;
}

static const std::vector<std::string> roles = {"system", "user", "model"};

static std::vector<carat::turn> turns_of(const json &list) {
    std::vector<carat::turn> turns;
    for (const json &t : list) {
        auto role = std::find(roles.begin(), roles.end(), t[0].get<std::string>()) - roles.begin();
        turns.push_back({static_cast<carat::role>(role), t[1]});
    }
    return turns;
}

static json to_json(const std::vector<carat::turn> &turns) {
    json list = json::array();
    for (const carat::turn &t : turns) list.push_back({roles.at(static_cast<std::size_t>(t.role)), t.text});
    return list;
}

static std::string reason(const carat_summary &s) {
    static const std::vector<std::string> names = {"end_of_turn", "limit", "stop", "callback", "cancelled", "context_full"};
    return names.at(static_cast<std::size_t>(s.reason));
}

static std::string contents(const fs::path &path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) throw mismatch("no file " + path.string());
    return {std::istreambuf_iterator<char>(in), {}};
}

/// The file that a recipe describes.
static std::string cook(const json &recipe) {
    fs::path path = scratch / get<std::string>(recipe, "name", "case.gguf");
    std::string bytes;
    if (recipe.contains("of")) bytes = contents(data_dir / text_of(recipe, "of"));
    else if (recipe.contains("bytes")) {
        for (int b : recipe["bytes"]) bytes.push_back(static_cast<char>(b));
    } else return path.string();
    bytes.resize(get<std::size_t>(recipe, "keep", bytes.size()));
    for (const json &pair : get<json>(recipe, "set", json::array()))
        bytes.at(pair[0]) = static_cast<char>(pair[1].get<int>());
    if (recipe.contains("replace")) {
        std::string from = recipe["replace"][0], to = recipe["replace"][1];
        bytes.replace(bytes.find(from), from.size(), to);
    }
    fs::remove(path);
    std::ofstream(path, std::ios::binary) << bytes;
    return path.string();
}

static carat::model open_bytes(const fs::path &path) {
    auto bytes = std::make_shared<std::string>(contents(path));
    return carat::model::open_bytes(reinterpret_cast<const std::uint8_t *>(bytes->data()), bytes->size(), [bytes] {});
}

static const carat::model &model_of(const std::string &name) {
    static std::map<std::string, carat::model> opened;
    auto found = opened.find(name);
    if (found == opened.end()) {
        carat::model_options o;
        o.threads = 2;
        std::string path = name == "real" ? real_path : (data_dir / name).string();
        found = opened.emplace(name, carat::model(path, o)).first;
    }
    return found->second;
}

static carat::session session_of(const carat::model &m) {
    carat::session_options o;
    o.context = 256;
    o.batch = 64;
    return carat::session(m, o);
}

// ---- The kinds ----

static void tokenize(const carat::model &m, const json &c) {
    carat::tokenize_options o;
    o.special = get<bool>(c, "special");
    o.bos = get<bool>(c, "bos");
    ids found = m.tokenize(text_of(c, "text"), o);
    same(found, c["ids"], "ids");
    same(m.detokenize(found), c["decoded"], "decoded");
    carat::decoder decoder(m);
    std::string streamed;
    for (std::uint32_t id : found) streamed += decoder.push(id);
    same(streamed + decoder.flush(), c["decoded"], "decoded one by one");
}

static void vocabulary(const carat::model &m, const json &c) {
    carat_special_tokens t = m.special_tokens();
    same(json{{"vocab_size", t.vocab_size}, {"bos", t.bos}, {"eos", t.eos}, {"unk", t.unk}, {"pad", t.pad},
              {"start_of_turn", t.start_of_turn}, {"end_of_turn", t.end_of_turn}},
         c["special"], "special tokens");
    static const std::vector<std::string> kinds = {"", "normal", "unknown", "control", "user_defined", "unused", "byte"};
    for (const json &token : c["tokens"]) {
        std::string bytes = m.token_bytes(token["id"]);
        same(std::vector<std::uint8_t>(bytes.begin(), bytes.end()), token["bytes"], "bytes");
        same(kinds.at(static_cast<std::size_t>(m.token_kind(token["id"]))), token["kind"], "kind");
    }
    for (const json &pair : c["ids"]) {
        auto id = m.token_id(pair[0].get<std::string>());
        same(id ? json(*id) : json(nullptr), pair[1], "id of " + pair[0].dump());
    }
}

static void model_info(const json &c) {
    fs::path path = data_dir / text_of(c, "model");
    carat::model m = c["by"] == "bytes" ? open_bytes(path) : carat::model(path.string());
    carat_model_info i = m.info();
    static const std::vector<std::string> archs = {"", "gemma", "gemma2", "gemma3"};
    json found = {{"arch", archs.at(static_cast<std::size_t>(i.arch))}, {"n_layers", i.n_layers},
                  {"d_model", i.d_model}, {"d_ff", i.d_ff}, {"n_heads", i.n_heads}, {"n_kv_heads", i.n_kv_heads},
                  {"head_dim", i.head_dim}, {"vocab", i.vocab}, {"sliding_window", i.sliding_window},
                  {"context_length", i.context_length}, {"n_tensors", i.n_tensors}, {"file_bytes", i.file_bytes}};
    for (const auto &[key, value] : c["info"].items()) same(found.at(key), value, key);
    for (const json &pair : c["metadata"]) same(m.metadata(pair[0].get<std::string>()), pair[1], pair[0]);
    for (const json &row : c["tensors"]) {
        carat::tensor_info t = m.tensor(row[0]);
        same(json{row[0], t.name, t.type, t.dims, t.offset, t.size}, row, "tensor");
    }
}

static void logits(const carat::model &m, const json &c) {
    const ids given = c["ids"];
    const std::size_t last = given.size() - 1;
    std::size_t seen = 0;
    auto check = [&](std::size_t position, const float *logits, std::size_t n) {
        for (const json &row : c["at"]) {
            if (row["position"] != position) continue;
            seen++;
            same(std::max_element(logits, logits + n) - logits, row["argmax"], "the likeliest");
            for (const json &v : row["values"]) close_to(logits[v[0].get<std::size_t>()], v[1], 2e-3, "logit of " + v[0].dump());
        }
        return true;
    };
    carat::session s = session_of(m);
    auto now = [&](std::size_t position) {
        carat::logits l = s.logits();
        check(position, l.data(), l.size());
    };
    const std::string via = c["via"];
    if (via == "prefill") {
        s.prefill(given);
        now(last);
    } else if (via == "prefill_each") {
        s.prefill_each(given, check);
    } else if (via == "step") {
        for (std::size_t i = 0; i <= last; i++) {
            s.step(given[i]);
            now(i);
        }
    } else {
        s.prefill({given.data(), last});
        if (via == "fork") s = s.fork();
        else if (via == "trim") s.trim();
        else if (via == "save_and_load") {
            std::string path = (scratch / "session").string();
            carat::session_options o;
            o.context = 256;
            o.batch = 64;
            s.save(path);
            s = carat::session::load(m, path, o);
        } else if (via == "truncate") {
            s.prefill({given.data(), 2});
            s.truncate(last);
        } else throw mismatch("via " + via);
        s.step(given[last]);
        now(last);
    }
    same(seen, c["at"].size(), "positions seen");
    same(s.tokens(), c["ids"], "tokens");
}

static void score(const carat::model &m, const json &c) {
    carat::session s = session_of(m);
    const ids before = c["before"], given = c["ids"];
    if (!before.empty()) s.prefill(before);
    std::vector<carat_token_score> found = s.score(given, c["from"]);
    same(found.size(), c["scores"].size(), "number of scores");
    for (std::size_t i = 0; i < found.size(); i++) {
        const json &row = c["scores"][i];
        same(found[i].token, row[0], "token");
        close_to(found[i].log_prob, row[1], 4e-3, "score " + std::to_string(i));
        if (found[i].rank < row[2] || found[i].rank > row[3])
            throw mismatch("rank " + std::to_string(i) + ": found " + std::to_string(found[i].rank));
    }
}

static void generate(const carat::model &m, const json &c) {
    carat::session s(m, session_options(c));
    if (c.contains("before")) s.prefill(c["before"].get<ids>());
    carat::cancel_token cancel;
    if (get<bool>(c, "cancelled")) cancel.cancel();
    carat::generate_options o = generate_options(c);
    o.cancel = &cancel;
    const ids force = get<ids>(c, "force");
    std::size_t hooked = 0;
    if (!force.empty())
        o.hook = [&](const std::uint32_t *, std::size_t, float *logits, std::size_t n) {
            std::fill(logits, logits + n, -INFINITY);
            logits[force.at(hooked++)] = 0;
            return true;
        };
    ids tokens;
    std::vector<std::string> pieces;
    std::string text;
    float log_prob = NAN;
    std::vector<carat_token_log_prob> top;
    carat_summary summary = s.generate(c["prompt"].get<ids>(), o, [&](const carat::piece &p) {
        pieces.emplace_back(p.text);
        text += p.text;
        if (!p.token) return true;
        if (tokens.empty()) {
            log_prob = p.log_prob;
            top.assign(p.top, p.top + p.n_top);
        }
        tokens.push_back(*p.token);
        if (tokens.size() == get<std::size_t>(c, "cancel_after")) cancel.cancel();
        return tokens.size() != get<std::size_t>(c, "stop_after");
    });
    const json &expect = c["expect"];
    same(tokens, expect["tokens"], "tokens");
    if (expect.contains("text")) same(text, expect["text"], "text");
    if (expect.contains("pieces")) same(pieces, expect["pieces"], "pieces");
    same(reason(summary), expect["reason"], "reason");
    same(summary.stop_index, get<std::uint64_t>(expect, "stop_index"), "stop index");
    const json counts = {{"prompt_tokens", summary.prompt_tokens}, {"generated_tokens", summary.generated_tokens}, {"len", s.size()}};
    for (const auto &[key, found] : counts.items())
        if (expect.contains(key)) same(found, expect[key], key);
    if (expect.contains("top")) {
        close_to(log_prob, expect["log_prob"], 4e-3, "log_prob");
        same(top.size(), expect["top"].size(), "number of the likeliest");
        for (std::size_t i = 0; i < top.size(); i++) {
            same(top[i].token, expect["top"][i][0], "one of the likeliest");
            close_to(top[i].log_prob, expect["top"][i][1], 4e-3, "one of the likeliest");
        }
    }
}

/// What a conversation is told, and streams as its answer.
static carat_summary reply(carat::conversation &talk, const std::string &what, const json &c, const carat::cancel_token *cancel,
                           std::string &answer) {
    carat::generate_options o = generate_options(c);
    o.cancel = cancel;
    auto on_piece = [&](const carat::piece &p) {
        answer += p.text;
        return true;
    };
    if (what == "send") return talk.send(text_of(c, "text"), o, on_piece);
    if (what == "edit_last") return talk.edit_last(text_of(c, "text"), o, on_piece);
    if (what == "regenerate") return talk.regenerate(o, on_piece);
    if (what == "respond") return talk.respond(turns_of(c["turns"]), o, on_piece);
    throw mismatch("action " + what);
}

static void chat(const carat::model &m, const json &c) {
    const std::string system = text_of(c, "system");
    carat::conversation talk(carat::session(m, session_options(c)),
                             c.contains("system") ? std::optional<std::string_view>(system) : std::nullopt);
    if (c.contains("policy")) {
        same(c["policy"], "drop_oldest", "policy");
        talk.set_policy(CARAT_POLICY_DROP_OLDEST);
    }
    for (const json &action : c["actions"]) {
        const std::string what = action["do"];
        if (what == "reset") talk.reset();
        else if (what == "trim") talk.trim();
        else if (what == "set_system") talk.set_system(text_of(action, "text"));
        else if (what == "save_and_load") {
            std::string path = (scratch / "conversation").string();
            talk.save(path);
            talk = carat::conversation::load(m, path, session_options(c));
        } else {
            std::string answer;
            carat_summary s = reply(talk, what, action, nullptr, answer);
            json found = {{"answer", answer}, {"reason", reason(s)}, {"prompt_tokens", s.prompt_tokens},
                          {"reused_tokens", s.reused_tokens}, {"generated_tokens", s.generated_tokens},
                          {"dropped", to_json(talk.dropped())}};
            json expect = action["expect"];
            if (!expect.contains("dropped")) expect["dropped"] = json::array();
            same(found, expect, "reply");
        }
    }
    same(to_json(talk.turns()), c["turns"], "turns");
    same(talk.size(), c["turns"].size(), "number of turns");
    same(talk.tokens(), c["tokens"], "tokens");
}

// ---- Errors ----

/// Makes the call, which throws. `after` looks at the session then.
static void provoke(const json &c, const std::string &path, const carat::cancel_token *cancel, std::function<void(std::size_t nearest)> &after) {
    const std::string call = c["call"];
    const carat::session_options so = session_options(c);
    carat::model_options mo;
    mo.threads = c.contains("open") ? get<int>(c["open"], "threads") : 1;
    mo.cancel = call == "open" ? cancel : nullptr;
    if (call == "plan") return void(carat::model::plan_file(path, 1, so));
    carat::model m = get<std::string>(c, "by") == "bytes" ? open_bytes(path) : carat::model(path, mo);
    if (call == "open") return;
    const std::uint32_t id = get<std::uint32_t>(c, "id");
    if (call == "tokenize") {
        carat::tokenize_options o;
        o.cancel = cancel;
        return void(m.tokenize(text_of(c, "text"), o));
    }
    if (call == "detokenize") return void(m.detokenize(c["ids"].get<ids>()));
    if (call == "decoder") return void(carat::decoder(m).push(id));
    if (call == "token_bytes") return void(m.token_bytes(id));
    if (call == "token_kind") return void(m.token_kind(id));
    if (call == "metadata") return void(m.metadata(text_of(c, "key")));
    if (call == "render") return void(m.render(turns_of(c["turns"]), cancel));
    if (call == "load") return void(carat::session::load(m, cook(c["file_to_load"]), so, cancel));
    if (call == "load_conversation") return void(carat::conversation::load(m, cook(c["file_to_load"]), so, cancel));

    auto s = std::make_shared<carat::session>(m, so);
    if (call == "session") return;
    if (c.contains("before")) s->prefill(c["before"].get<ids>());
    if (c.contains("cut")) s->truncate(c["cut"]);
    if (c.contains("shrink_to")) fs::resize_file(path, c["shrink_to"].get<std::size_t>());
    after = [s, &c](std::size_t nearest) {
        if (c.contains("len_after")) same(s->size(), c["len_after"], "length after");
        if (nearest != 0) s->truncate(nearest);
    };
    const ids given = get<ids>(c, "ids"), prompt = get<ids>(c, "prompt");
    carat::generate_options o = generate_options(c);
    o.cancel = cancel;
    if (call == "prefill") return s->prefill(given, cancel);
    if (call == "prefill_each")
        return s->prefill_each(
            given, [&](std::size_t i, const float *, std::size_t) { return i + 1 != get<std::size_t>(c, "stop_after"); }, cancel);
    if (call == "step") return s->step(c["token"], cancel);
    if (call == "score") return void(s->score(given, c["from"], cancel));
    if (call == "logits") return void(s->logits());
    if (call == "truncate") return s->truncate(c["to"]);
    if (call == "save") return s->save((scratch / get<std::string>(c, "to_file", "session")).string(), cancel);
    if (call == "generate") return void(s->generate(prompt, o, {}));
    if (call == "busy")
        // What the callback throws comes out of the call.
        return void(s->generate(prompt, o, [&](const carat::piece &) {
            s->prefill(ids{2});
            return true;
        }));
    after = {};
    if (call == "resume") return void(carat::conversation::resume(std::move(*s)));
    carat::conversation talk(std::move(*s));
    std::string answer;
    reply(talk, call, c, cancel, answer);
}

static void error(const json &c) {
    std::string path = c.contains("model") ? (data_dir / text_of(c, "model")).string() : cook(c["file"]);
    carat::cancel_token cancel;
    if (get<bool>(c, "cancelled")) cancel.cancel();
    std::function<void(std::size_t nearest)> after;
    try {
        provoke(c, path, &cancel, after);
    } catch (const carat::error &e) {
        static const std::vector<std::string> kinds = {"usage", "file", "cancelled", "runtime"};
        same(carat_status_name(e.status()), c["status"], "status (" + e.why().message() + ")");
        same(kinds.at(static_cast<std::size_t>(e.why().kind())), c["error_kind"], "kind");
        if (e.why().message().find(text_of(c, "message")) == std::string::npos)
            throw mismatch("message: found " + e.why().message());
        same(e.why().nearest() != 0, get<bool>(c, "nearest"), "whether there is a nearest length");
        if (after) after(e.why().nearest());
        return;
    }
    throw mismatch("no error");
}

// ---- The run ----

static void run(const json &c) {
    const std::string kind = c["kind"];
    if (kind == "error") return error(c);
    if (kind == "model") return model_info(c);
    const carat::model &m = model_of(c["model"]);
    if (kind == "tokenize") tokenize(m, c);
    else if (kind == "vocabulary") vocabulary(m, c);
    else if (kind == "logits") logits(m, c);
    else if (kind == "score") score(m, c);
    else if (kind == "generate") generate(m, c);
    else if (kind == "render") same(m.render(turns_of(c["turns"])), c["ids"], "ids");
    else if (kind == "chat") chat(m, c);
    else throw mismatch("kind " + kind);
}

int main(int argc, char **argv) {
    data_dir = argc > 1 ? argv[1] : "tests/data";
    if (const char *path = std::getenv("CARAT_TEST_MODEL")) real_path = path;
    else std::cout << "CARAT_TEST_MODEL is not set: cases of the real model are left out\n";
    std::string made = (fs::temp_directory_path() / "carat-conformance-XXXXXX").string();
    scratch = mkdtemp(made.data());
    std::ofstream report;
    if (const char *path = std::getenv("CARAT_CONFORMANCE_REPORT")) report.open(path);
    std::set<fs::path> files;
    for (const auto &entry : fs::directory_iterator(data_dir / "../conformance"))
        if (entry.path().extension() == ".json") files.insert(entry.path());
    int passed = 0, failed = 0;
    for (const fs::path &file : files) {
        const json cases = json::parse(contents(file));
        for (const json &c : cases) {
            const std::string name = c["name"];
            if (get<std::string>(c, "model") == "real" && real_path.empty()) continue;
            if (c.contains("not_in") && c["not_in"].contains("cpp")) {
                report << "n/a " << name << ": " << text_of(c["not_in"], "cpp") << "\n";
                continue;
            }
            try {
                run(c);
                passed++;
                report << "pass " << name << "\n";
            } catch (const std::exception &e) {
                failed++;
                std::cout << "FAILED " << name << ": " << e.what() << "\n";
                report << "FAIL " << name << ": " << e.what() << "\n";
            }
        }
    }
    fs::remove_all(scratch);
    std::cout << passed << " passed, " << failed << " failed\n";
    return failed != 0 || passed < 150;
}
