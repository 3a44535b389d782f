// The C++ wrapper: values that free themselves, both ways to fail, exceptions through callbacks.
#include <stdexcept>

#include "carat.hpp"
#include "check.h"

static std::string path(const char *name) { return std::string(data_dir) + "/" + name + ".gguf"; }

static std::vector<std::uint32_t> first_ids(std::size_t n) {
    std::vector<std::uint32_t> ids(n);
    some_ids(ids.data(), n);
    return ids;
}

static carat::generate_options greedy(std::uint64_t n) {
    carat::generate_options o;
    o.temperature = 0;
    o.max_tokens = n;
    o.ignore_end = true;
    return o;
}

static void handles_move_and_free_themselves() {
    carat::session kept = [] {
        carat::model model(path("tiny-gemma3"));
        carat::session one(model, {64, 16}), two(std::move(one));
        two.prefill(first_ids(8));
        return two;
    }();
    CHECK(kept.size() == 8);
    carat::session fork = kept.fork();
    kept.step(301);
    fork.step(301);
    carat::logits a = kept.logits(), b = fork.logits();
    CHECK(a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin()));
    kept = std::move(fork);
    CHECK(kept.tokens().size() == 9);
    static_assert(!std::is_copy_constructible_v<carat::model> && !std::is_copy_constructible_v<carat::session>);
    static_assert(std::is_nothrow_move_constructible_v<carat::session>);
}

static void failures_are_thrown_or_returned() {
    try {
        carat::model model("no/such");
        CHECK(!"opened");
    } catch (const carat::error &e) {
        CHECK(e.status() == CARAT_IO && std::string(e.what()).find("no/such") != std::string::npos);
    }
    auto result = carat::model::try_open("no/such");
    CHECK(!result && result.error().status() == CARAT_IO && result.error().kind() == CARAT_KIND_FILE);
    auto opened = carat::model::try_open(path("tiny-gemma3"));
    CHECK(opened.has_value());
    carat::session session(*opened, {256, 16});
    CHECK(session.try_step(1000000).error().status() == CARAT_TOKEN_OUT_OF_RANGE);
    session.prefill(first_ids(200));
    auto cut = session.try_truncate(3);
    CHECK(!cut && cut.error().status() == CARAT_REWIND && cut.error().nearest() > 3);
}

static void text_and_pieces() {
    carat::model model(path("tiny-gemma3"));
    const std::string text = "Hello, wörld 🙂";
    std::vector<std::uint32_t> ids = model.tokenize(text);
    CHECK(model.detokenize(ids) == text);
    carat::tokenize_options with_bos;
    with_bos.bos = true;
    CHECK(model.tokenize(text, with_bos).front() == model.special_tokens().bos);
    CHECK(model.metadata("general.architecture") == "gemma3");
    CHECK(model.plan().total > model.plan().file && model.info().n_layers > 0);

    carat::session session(model, {64, 16});
    std::string out;
    std::size_t tokens = 0;
    carat::generate_options options = greedy(6);
    options.top_log_probs = 2;
    carat_summary summary = session.generate(first_ids(8), options, [&](const carat::piece &p) {
        out += p.text;
        tokens += p.token.has_value();
        CHECK(!p.token || (p.n_top == 2 && p.log_prob <= 0));
        return true;
    });
    CHECK(summary.generated_tokens == 6 && tokens == 6);
    carat::session again(model, {64, 16});
    auto scores = again.score(session.tokens(), 1);
    CHECK(scores.size() == 13);
}

static void exceptions_come_out_of_the_call() {
    carat::model model(path("tiny-gemma3"));
    carat::session session(model, {64, 16});
    int calls = 0;
    try {
        session.generate(first_ids(8), greedy(6), [&](const carat::piece &) -> bool {
            if (++calls == 3) throw std::range_error("enough");
            return true;
        });
        CHECK(!"returned");
    } catch (const std::range_error &e) {
        CHECK(std::string(e.what()) == "enough" && calls == 3);
    }
    CHECK(session.size() == 11);
    carat::generate_options options = greedy(6);
    options.hook = [](const std::uint32_t *, std::size_t, float *, std::size_t) -> bool {
        throw std::logic_error("hook");
    };
    try {
        session.generate({}, options, {});
        CHECK(!"returned");
    } catch (const std::logic_error &e) {
        CHECK(std::string(e.what()) == "hook");
    }
    carat::model_options opening;
    opening.progress = [](std::uint64_t, std::uint64_t) -> bool { throw std::logic_error("progress"); };
    try {
        carat::model other(path("tiny-gemma3"), opening);
        CHECK(!"opened");
    } catch (const std::logic_error &) {
    }
    session.step(301);
}

static void conversations() {
    carat::model model(path("tiny-gemma3"));
    carat::conversation talk(carat::session(model, {256, 64}), "Be brief.");
    std::string first, second;
    talk.send("Hello", greedy(8), [&](const carat::piece &p) { first += p.text; return true; });
    talk.regenerate(greedy(8), [&](const carat::piece &p) { second += p.text; return true; });
    CHECK(first == second);
    auto turns = talk.turns();
    CHECK(turns.size() == 2 && turns[0].text == "Hello" && turns[1].role == carat::role::model && turns[1].text == first);
    second.clear();
    talk.respond({{carat::role::system, "Be brief."}, {carat::role::user, "Hello"}}, greedy(8),
                 [&](const carat::piece &p) { second += p.text; return true; });
    CHECK(first == second && talk.dropped().empty());
    carat::cancel_token cancel, same = cancel;
    same.cancel();
    carat::generate_options options = greedy(8);
    options.cancel = &cancel;
    CHECK(talk.try_send("More", options, {}).error().status() == CARAT_CANCELLED);
    talk.save("carat-cpp.state");
    carat::conversation again = carat::conversation::load(model, "carat-cpp.state", {256, 64});
    CHECK(again.turns().size() == 2 && again.turns()[0].text == "Hello");
    std::remove("carat-cpp.state");
    talk.reset();
    CHECK(talk.turns().empty());
}

static void bytes_are_given_back_once() {
    FILE *f = fopen(path("tiny-gemma3").c_str(), "rb");
    std::vector<std::uint8_t> bytes(4 << 20);
    bytes.resize(std::fread(bytes.data(), 1, bytes.size(), f));
    std::fclose(f);
    int released = 0;
    {
        carat::model model = carat::model::open_bytes(bytes.data(), bytes.size(), [&] { released++; });
        carat::session session(model, {64, 16});
        model = carat::model::open_bytes(bytes.data(), bytes.size());
        session.prefill(first_ids(5));
        CHECK(released == 0 && session.context() == 64);
    }
    CHECK(released == 1);
    CHECK(!carat::model::try_open_bytes(bytes.data(), 100, [&] { released++; }) && released == 2);
}

static void what_a_conversation_holds() {
    carat::model_options options;
    int messages = 0;
    options.log = [](void *n, std::int32_t, const char *, std::size_t) { ++*static_cast<int *>(n); };
    options.log_data = &messages;
    carat::model model(path("tiny-gemma3"), options);
    CHECK(messages > 0);
    carat::conversation talk(carat::session(model, {256, 64}), "Be brief.");
    CHECK(talk.system() == "Be brief.");
    talk.set_system({});
    CHECK(talk.system().empty());
    talk.send("Hello", greedy(8), {});
    auto tokens = talk.tokens();
    carat::session session = talk.into_session();
    CHECK(session.tokens() == tokens && talk.try_size().error().status() == CARAT_INVALID_ARGUMENT);
    CHECK(session.try_prefill_each({tokens.data(), 3}, [](std::size_t i, const float *, std::size_t) { return i < 1; })
              .error().status() == CARAT_CANCELLED);
}

static void the_library_and_the_machine() {
    CHECK(carat::abi_version() >= CARAT_ABI_VERSION && std::string(carat::version()).find('.') != std::string::npos);
    CHECK(carat::isa_available(CARAT_ISA_SCALAR) && std::string(carat::isa_name(CARAT_ISA_AVX2)) == "avx2");
    CHECK(carat::measure_limits(1).read_bytes_per_s > 0);
    carat_plan plan = carat::model::plan_file(path("tiny-gemma3"), 1);
    CHECK(plan.total > plan.file && plan.file > 0);
}

int main(int argc, char **argv) {
    static const test tests[] = {
        {"handles_move_and_free_themselves", handles_move_and_free_themselves},
        {"failures_are_thrown_or_returned", failures_are_thrown_or_returned},
        {"text_and_pieces", text_and_pieces},
        {"exceptions_come_out_of_the_call", exceptions_come_out_of_the_call},
        {"conversations", conversations},
        {"bytes_are_given_back_once", bytes_are_given_back_once},
        {"what_a_conversation_holds", what_a_conversation_holds},
        {"the_library_and_the_machine", the_library_and_the_machine},
    };
    if (argc > 1) data_dir = argv[1];
    return RUN(tests);
}
