// carat for C++17 and later: inference for Google's Gemma models on the CPU. Header-only, over carat.h.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Handles are move-only and free themselves, in any order. Every call that can fail is there twice: `x()` throws
// carat::error, `try_x()` returns a carat::result and works with -fno-exceptions too. Callbacks are callables; an
// exception that one throws stops the call and comes out of it. Threads: as in carat.h.
//
//     carat::model model("gemma.gguf");
//     carat::session session(model);  // (the designated initializer below is C++20)
//     session.generate(model.tokenize("The capital of France is", {.bos = true}), {},
//                      [](const carat::piece &p) { std::cout << p.text << std::flush; return true; });
#ifndef CARAT_HPP
#define CARAT_HPP

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#if defined(__cpp_exceptions)
#include <exception>
#include <stdexcept>
#endif
#if defined(__cpp_lib_span) || (__cplusplus >= 202002L && __has_include(<span>))
#include <span>
#define CARAT_HAS_SPAN 1
#endif

#include "carat.h"

namespace carat {

// ---- The library and the machine ------------------------------------------------------------------------------------

/// The version of the library, such as `0.1.0`.
inline const char *version() noexcept { return carat_version(); }
/// Works with any header whose CARAT_ABI_VERSION is not above it.
inline std::uint32_t abi_version() noexcept { return carat_abi_version(); }
/// The name of an instruction set (CARAT_ISA_*).
inline const char *isa_name(std::int32_t isa) noexcept { return carat_isa_name(isa); }
/// Whether this processor has it.
inline bool isa_available(std::int32_t isa) noexcept { return carat_isa_available(isa) != 0; }

// ---- Errors --------------------------------------------------------------------------------------------------------

/// Why a call failed: a status of carat.h, and a message for a person.
class failure {
public:
    failure(carat_status status, carat_error *error) : status_(status) {
        if (error) {
            status_ = carat_error_status(error);
            message_ = carat_error_message(error);
            kind_ = carat_error_kind(error);
            nearest_ = carat_error_nearest(error);
            carat_error_free(error);
        }
    }
    carat_status status() const noexcept { return status_; }
    /// CARAT_KIND_*
    std::int32_t kind() const noexcept { return kind_; }
    /// Of a CARAT_REWIND: the lowest number of tokens above 0 that the session can be cut to.
    std::uint64_t nearest() const noexcept { return nearest_; }
    const std::string &message() const noexcept { return message_; }

private:
    carat_status status_;
    std::int32_t kind_ = CARAT_KIND_USAGE;
    std::uint64_t nearest_ = 0;
    std::string message_;
};

#if defined(__cpp_exceptions)
/// A failure, thrown.
class error : public std::runtime_error {
public:
    explicit error(failure f)
        : std::runtime_error(std::string(carat_status_name(f.status())) + ": " + f.message()), failure_(std::move(f)) {}
    const failure &why() const noexcept { return failure_; }
    carat_status status() const noexcept { return failure_.status(); }

private:
    failure failure_;
};
#endif

/// A value or the failure to have one. `value()` throws the failure (without exceptions: aborts).
template <class T>
class [[nodiscard]] result {
    using stored = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

public:
    result(stored value) : held_(std::in_place_index<0>, std::move(value)) {}
    result(failure f) : held_(std::in_place_index<1>, std::move(f)) {}

    bool has_value() const noexcept { return held_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }
    const failure &error() const { return std::get<1>(held_); }
    stored &operator*() { return std::get<0>(held_); }
    stored *operator->() { return &std::get<0>(held_); }

    T value() && {
        if (!has_value()) {
#if defined(__cpp_exceptions)
            throw carat::error(std::get<1>(std::move(held_)));
#else
            std::abort();
#endif
        }
        if constexpr (!std::is_void_v<T>) return std::get<0>(std::move(held_));
    }

private:
    std::variant<stored, failure> held_;
};

// ---- Plain values --------------------------------------------------------------------------------------------------

/// Some ids, borrowed: a vector, an array, a span.
class ids_view {
public:
    constexpr ids_view() noexcept = default;
    constexpr ids_view(const std::uint32_t *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <class C, class = std::enable_if_t<std::is_convertible_v<decltype(std::declval<const C &>().data()),
                                                                     const std::uint32_t *>>>
    constexpr ids_view(const C &c) noexcept : data_(c.data()), size_(c.size()) {}
    constexpr const std::uint32_t *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }

private:
    const std::uint32_t *data_ = nullptr;
    std::size_t size_ = 0;
};

/// Stops the calls it was given to, from any thread; sticky. Copies share the switch.
class cancel_token {
public:
    cancel_token() : handle_(carat_cancel_new()) {}
    cancel_token(const cancel_token &other) : handle_(carat_cancel_clone(other.handle_)) {}
    cancel_token(cancel_token &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    cancel_token &operator=(cancel_token other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    ~cancel_token() { carat_cancel_free(handle_); }
    void cancel() const noexcept { carat_cancel_set(handle_); }
    bool is_cancelled() const noexcept { return carat_cancel_is_set(handle_) != 0; }
    const carat_cancel *get() const noexcept { return handle_; }

private:
    carat_cancel *handle_;
};

struct model_options {
    int threads = 0;                 ///< 0: one for each core that the process may use
    std::int32_t isa = CARAT_ISA_AUTO;
    bool private_copy = false;
    bool preload = false;
    bool lock = false;               ///< in memory; see memory_lock of info()
    std::int32_t tokenizer_engine = CARAT_ENGINE_BUILTIN;
    const cancel_token *cancel = nullptr;
    /// Told the bytes done and in all; returns whether to go on.
    std::function<bool(std::uint64_t done, std::uint64_t total)> progress = {};
    /// Takes log messages from any thread, as long as the model or a session of it lives: a plain function, since
    /// nobody could tell when to free another.
    carat_log_fn log = nullptr;
    void *log_data = nullptr;
};

struct session_options {
    std::uint64_t context = 0;       ///< 0: the model's own, but at most 4096
    std::uint32_t batch = 256;
    std::int32_t kv = CARAT_KV_AUTO;
    std::uint32_t snapshots = 1;
    bool exact = false;
    bool full_history = false;
    std::uint32_t draft = 0;         ///< tokens to guess ahead at most, up to 15
};

struct tokenize_options {
    bool special = false;
    bool bos = false;
    const cancel_token *cancel = nullptr;
};

/// A piece of a text that is generated; valid during the callback.
struct piece {
    std::string_view text;
    std::optional<std::uint32_t> token;
    /// NaN unless asked for.
    float log_prob;
    const carat_token_log_prob *top;
    std::size_t n_top;
};

/// Takes the logits `[n_logits]` after the token of an index; returns whether to go on.
using logits_function = std::function<bool(std::size_t index, const float *logits, std::size_t n_logits)>;
/// Takes a piece; returns whether to go on.
using piece_function = std::function<bool(const piece &)>;
/// Changes the logits `[n_logits]` of the next token, given those so far; returns whether to go on.
using hook_function =
    std::function<bool(const std::uint32_t *tokens, std::size_t n_tokens, float *logits, std::size_t n_logits)>;

struct generate_options {
    std::uint64_t max_tokens = UINT64_MAX;
    float temperature = 1.0f;
    std::uint32_t top_k = 64;
    float top_p = 0.95f;
    float min_p = 0.0f;
    float repetition_penalty = 1.0f;
    float presence_penalty = 0.0f;
    float frequency_penalty = 0.0f;
    std::uint32_t penalty_window = 64;
    std::vector<carat_logit_bias> logit_bias = {};
    std::optional<std::uint64_t> seed = {};
    std::vector<std::string> stop = {};
    std::uint32_t top_log_probs = 0;
    bool ignore_end = false;
    const cancel_token *cancel = nullptr;
    hook_function hook = {};
};

enum class role : std::int32_t { system = CARAT_ROLE_SYSTEM, user = CARAT_ROLE_USER, model = CARAT_ROLE_MODEL };

/// What one of the speakers says.
struct turn {
    carat::role role;
    std::string text;
};

/// A tensor of a model's file; its texts are the model's.
struct tensor_info {
    std::string_view name;
    std::string_view type;
    /// Sizes, the innermost first.
    std::vector<std::uint64_t> dims;
    /// Its first byte, from the start of the file (of its part, where the model is split).
    std::uint64_t offset;
    std::uint64_t size;
};

namespace detail {

inline failure fail(carat_status status, carat_error *error) { return failure(status, error); }

template <class T, void (*Free)(T *)>
class handle {
public:
    handle() noexcept = default;
    explicit handle(T *h) noexcept : h_(h) {}
    handle(handle &&other) noexcept : h_(std::exchange(other.h_, nullptr)) {}
    handle &operator=(handle &&other) noexcept {
        std::swap(h_, other.h_);
        return *this;
    }
    ~handle() { Free(h_); }
    T *get() const noexcept { return h_; }

private:
    T *h_ = nullptr;
};

/// Keeps what a callback threw until the call has returned: no exception may pass through the library.
class thrown {
public:
    template <class F>
    std::int32_t run(F &&f) noexcept {
#if defined(__cpp_exceptions)
        try {
            return f() ? 1 : 0;
        } catch (...) {
            exception_ = std::current_exception();
            return 0;
        }
#else
        return f() ? 1 : 0;
#endif
    }
    void rethrow() const {
#if defined(__cpp_exceptions)
        if (exception_) std::rethrow_exception(exception_);
#endif
    }

private:
#if defined(__cpp_exceptions)
    std::exception_ptr exception_;
#endif
};

inline const carat_cancel *raw(const cancel_token *c) noexcept { return c ? c->get() : nullptr; }

inline carat_session_options c_options(const session_options &o) {
    carat_session_options c;
    carat_session_options_init(&c, sizeof c);
    c.kv = o.kv;
    c.context = o.context;
    c.batch = o.batch;
    c.snapshots = o.snapshots;
    c.exact = o.exact;
    c.full_history = o.full_history;
    c.draft = o.draft;
    return c;
}

/// Calls `fill(buffer, capacity, &n)` again with room enough where there was not.
template <class Buffer, class Fill>
result<Buffer> filled(std::size_t guess, Fill &&fill) {
    Buffer buffer(guess, {});
    for (;;) {
        std::size_t n = 0;
        carat_error *error = nullptr;
        carat_status status = fill(buffer.data(), buffer.size(), &n, &error);
        if (status == CARAT_BUFFER_TOO_SMALL && n > buffer.size()) {
            carat_error_free(error);
            buffer.resize(n);
        } else if (status != CARAT_OK) {
            return fail(status, error);
        } else {
            buffer.resize(n);
            return buffer;
        }
    }
}

/// The options of carat.h and the memory they point to.
struct generating {
    carat_generate_options c;
    std::vector<carat_text> stop;
    thrown caught;
    const piece_function *on_piece;
    const hook_function *hook;

    generating(const generate_options &o, const piece_function &f) : on_piece(&f), hook(&o.hook) {
        carat_generate_options_init(&c, sizeof c);
        c.ignore_end = o.ignore_end;
        c.max_tokens = o.max_tokens;
        c.temperature = o.temperature;
        c.top_k = o.top_k;
        c.top_p = o.top_p;
        c.min_p = o.min_p;
        c.repetition_penalty = o.repetition_penalty;
        c.presence_penalty = o.presence_penalty;
        c.frequency_penalty = o.frequency_penalty;
        c.penalty_window = o.penalty_window;
        c.top_log_probs = o.top_log_probs;
        c.has_seed = o.seed.has_value();
        c.seed = o.seed.value_or(0);
        c.logit_bias = o.logit_bias.data();
        c.n_logit_bias = o.logit_bias.size();
        for (const std::string &s : o.stop) stop.push_back({s.data(), s.size()});
        c.stop = stop.data();
        c.n_stop = stop.size();
        c.cancel = raw(o.cancel);
        if (o.hook) {
            c.hook = call_hook;
            c.hook_data = this;
        }
    }
    generating(const generating &) = delete;

    static std::int32_t call_piece(void *data, const carat_piece *p) {
        auto *self = static_cast<generating *>(data);
        return self->caught.run([&] {
            if (!*self->on_piece) return true;
            piece value{{p->text, p->text_len}, {}, p->log_prob, p->top, p->n_top};
            if (p->has_token) value.token = p->token;
            return (*self->on_piece)(value);
        });
    }
    static std::int32_t call_hook(void *data, const std::uint32_t *tokens, std::size_t n_tokens, float *logits,
                                  std::size_t n_logits) {
        auto *self = static_cast<generating *>(data);
        return self->caught.run([&] { return (*self->hook)(tokens, n_tokens, logits, n_logits); });
    }
};

/// Nothing at all and an empty text are not the same; the pointer tells.
inline const char *pointer(const std::optional<std::string_view> &text) noexcept {
    return text ? (text->data() ? text->data() : "") : nullptr;
}

inline std::vector<carat_turn> c_turns(const std::vector<turn> &turns) {
    std::vector<carat_turn> c;
    for (const turn &t : turns) c.push_back({static_cast<std::int32_t>(t.role), 0, {t.text.data(), t.text.size()}});
    return c;
}

/// A call that fills a struct that `init` has made.
template <class T, class Call>
result<T> put(void (*init)(T *, std::size_t), Call &&f) {
    T value;
    init(&value, sizeof value);
    carat_error *error = nullptr;
    carat_status status = f(&value, &error);
    if (status != CARAT_OK) return fail(status, error);
    return value;
}

/// A call that gives nothing but success.
template <class Call>
result<void> done(Call &&f) {
    carat_error *error = nullptr;
    carat_status status = f(&error);
    if (status != CARAT_OK) return fail(status, error);
    return std::monostate{};
}

/// A call that hands out a handle.
template <class T, class Handle, class Call>
result<T> make(Call &&f) {
    Handle *out = nullptr;
    carat_error *error = nullptr;
    carat_status status = f(&out, &error);
    if (status != CARAT_OK) return fail(status, error);
    return T(out);
}

/// A call that generates: what a callback threw comes out of it.
template <class Ask>
result<carat_summary> reply(const generate_options &options, const piece_function &on_piece, Ask &&ask) {
    generating g(options, on_piece);
    carat_summary summary;
    carat_summary_init(&summary, sizeof summary);
    carat_error *error = nullptr;
    carat_status status = ask(g, &summary, &error);
    result<carat_summary> r =
        status == CARAT_OK ? result<carat_summary>(summary) : result<carat_summary>(fail(status, error));
    g.caught.rethrow();
    return r;
}

}  // namespace detail

/// Measures the machine's limits, in about a second: the yardstick for figures of speed.
inline result<carat_limits> try_measure_limits(int threads, std::int32_t isa = CARAT_ISA_AUTO) {
    return detail::put<carat_limits>(carat_limits_init, [&](carat_limits *limits, carat_error **error) {
        return carat_limits_measure(threads, isa, limits, error);
    });
}
inline carat_limits measure_limits(int threads, std::int32_t isa = CARAT_ISA_AUTO) {
    return try_measure_limits(threads, isa).value();
}

// ---- Models --------------------------------------------------------------------------------------------------------

/// An opened model: immutable, usable from many threads.
class model {
public:
    static result<model> try_open(std::string_view path, const model_options &options = {}) {
        return open_by(options, [&](const carat_model_options *o, carat_model **out, carat_error **error) {
            return carat_model_open(path.data(), path.size(), o, out, error);
        });
    }
    /// The `len` bytes from byte `offset` of a descriptor, which stays the caller's.
    static result<model> try_open_fd(int fd, std::uint64_t offset = 0, std::uint64_t len = UINT64_MAX,
                                     const model_options &options = {}) {
        return open_by(options, [&](const carat_model_options *o, carat_model **out, carat_error **error) {
            return carat_model_open_fd(fd, offset, len, o, out, error);
        });
    }
    /// Bytes in memory, without a copy: they must stay until `release` is called, once, by whatever thread gives up
    /// the model last (or here, where opening fails). Without a `release` they must outlive the model and its sessions.
    static result<model> try_open_bytes(const std::uint8_t *bytes, std::size_t len, std::function<void()> release = {},
                                        const model_options &options = {}) {
        using function = std::function<void()>;
        function *kept = release ? new function(std::move(release)) : nullptr;
        carat_release_fn call = [](void *data) {
            function *f = static_cast<function *>(data);
            (*f)();
            delete f;
        };
        return open_by(options, [&](const carat_model_options *o, carat_model **out, carat_error **error) {
            return carat_model_open_bytes(bytes, len, kept ? call : nullptr, kept, o, out, error);
        });
    }
    static model open_bytes(const std::uint8_t *bytes, std::size_t len, std::function<void()> release = {},
                            const model_options &options = {}) {
        return try_open_bytes(bytes, len, std::move(release), options).value();
    }
    /// The memory that a file and one session on it will take, without loading anything.
    static result<carat_plan> try_plan_file(std::string_view path, int threads, const session_options &options = {}) {
        carat_session_options o = detail::c_options(options);
        return detail::put<carat_plan>(carat_plan_init, [&](carat_plan *plan, carat_error **error) {
            return carat_model_plan(path.data(), path.size(), threads, &o, plan, error);
        });
    }
    static carat_plan plan_file(std::string_view path, int threads, const session_options &options = {}) {
        return try_plan_file(path, threads, options).value();
    }
    explicit model(std::string_view path, const model_options &options = {})
        : model(try_open(path, options).value()) {}
    static model open_fd(int fd, std::uint64_t offset = 0, std::uint64_t len = UINT64_MAX,
                         const model_options &options = {}) {
        return try_open_fd(fd, offset, len, options).value();
    }

    carat_model_info info() const {
        carat_model_info info;
        carat_model_info_init(&info, sizeof info);
        carat_model_get_info(get(), &info, nullptr);
        return info;
    }
    result<carat_plan> try_plan(const session_options &options = {}) const {
        carat_session_options o = detail::c_options(options);
        return detail::put<carat_plan>(carat_plan_init, [&](carat_plan *plan, carat_error **error) {
            return carat_model_plan_session(get(), &o, plan, error);
        });
    }
    carat_plan plan(const session_options &options = {}) const { return try_plan(options).value(); }

    /// A metadata value of the file as text.
    result<std::string> try_metadata(std::string_view key) const {
        return detail::filled<std::string>(256, [&](char *to, std::size_t room, std::size_t *n, carat_error **error) {
            return carat_model_metadata(get(), key.data(), key.size(), to, room, n, error);
        });
    }
    std::string metadata(std::string_view key) const { return try_metadata(key).value(); }

    /// The tensor of an index below info().n_tensors.
    result<tensor_info> try_tensor(std::uint64_t index) const {
        result<carat_tensor_info> t = detail::put<carat_tensor_info>(
            carat_tensor_info_init,
            [&](carat_tensor_info *info, carat_error **error) { return carat_model_tensor(get(), index, info, error); });
        if (!t) return t.error();
        return tensor_info{{t->name, t->name_len},
                           {t->type_name, t->type_name_len},
                           {t->dims, t->dims + t->n_dims},
                           t->offset,
                           t->size};
    }
    tensor_info tensor(std::uint64_t index) const { return try_tensor(index).value(); }

    result<std::vector<std::uint32_t>> try_tokenize(std::string_view text, const tokenize_options &options = {}) const {
        carat_tokenize_options o;
        carat_tokenize_options_init(&o, sizeof o);
        o.special = options.special;
        o.bos = options.bos;
        o.cancel = detail::raw(options.cancel);
        return detail::filled<std::vector<std::uint32_t>>(
            text.size() + 1, [&](std::uint32_t *to, std::size_t room, std::size_t *n, carat_error **error) {
                return carat_tokenize(get(), text.data(), text.size(), &o, to, room, n, error);
            });
    }
    std::vector<std::uint32_t> tokenize(std::string_view text, const tokenize_options &options = {}) const {
        return try_tokenize(text, options).value();
    }
    result<std::string> try_detokenize(ids_view ids) const {
        return detail::filled<std::string>(
            16 + 8 * ids.size(), [&](char *to, std::size_t room, std::size_t *n, carat_error **error) {
                return carat_detokenize(get(), ids.data(), ids.size(), to, room, n, error);
            });
    }
    std::string detokenize(ids_view ids) const { return try_detokenize(ids).value(); }

    result<carat_special_tokens> try_special_tokens() const {
        return detail::put<carat_special_tokens>(
            carat_special_tokens_init, [&](carat_special_tokens *tokens, carat_error **error) {
                return carat_model_special_tokens(get(), tokens, error);
            });
    }
    carat_special_tokens special_tokens() const { return try_special_tokens().value(); }

    /// The bytes that a piece stands for; of a control token, its name.
    result<std::string> try_token_bytes(std::uint32_t id) const {
        return detail::filled<std::string>(64, [&](char *to, std::size_t room, std::size_t *n, carat_error **error) {
            return carat_token_bytes(get(), id, reinterpret_cast<std::uint8_t *>(to), room, n, error);
        });
    }
    std::string token_bytes(std::uint32_t id) const { return try_token_bytes(id).value(); }
    /// CARAT_PIECE_*
    result<std::int32_t> try_token_kind(std::uint32_t id) const {
        std::int32_t kind = 0;
        carat_error *error = nullptr;
        carat_status status = carat_token_kind(get(), id, &kind, &error);
        if (status != CARAT_OK) return detail::fail(status, error);
        return kind;
    }
    std::int32_t token_kind(std::uint32_t id) const { return try_token_kind(id).value(); }
    /// The piece that reads exactly so, where there is one.
    result<std::optional<std::uint32_t>> try_token_id(std::string_view text) const {
        std::uint32_t id = 0;
        carat_error *error = nullptr;
        carat_status status = carat_token_id(get(), text.data(), text.size(), &id, &error);
        if (status != CARAT_OK) return detail::fail(status, error);
        return id == UINT32_MAX ? std::nullopt : std::optional<std::uint32_t>(id);
    }
    std::optional<std::uint32_t> token_id(std::string_view text) const { return try_token_id(text).value(); }

    /// The ids of a whole conversation in Gemma's turns, up to the open turn of the model that is to answer.
    result<std::vector<std::uint32_t>> try_render(const std::vector<turn> &turns,
                                                  const cancel_token *cancel = nullptr) const {
        std::vector<carat_turn> c = detail::c_turns(turns);
        return detail::filled<std::vector<std::uint32_t>>(
            256, [&](std::uint32_t *to, std::size_t room, std::size_t *n, carat_error **error) {
                return carat_chat_render(get(), c.data(), c.size(), detail::raw(cancel), to, room, n, error);
            });
    }
    std::vector<std::uint32_t> render(const std::vector<turn> &turns, const cancel_token *cancel = nullptr) const {
        return try_render(turns, cancel).value();
    }

    const carat_model *get() const noexcept { return handle_.get(); }

private:
    explicit model(carat_model *h) noexcept : handle_(h) {}

    template <class Open>
    static result<model> open_by(const model_options &options, Open &&open) {
        carat_model_options o;
        carat_model_options_init(&o, sizeof o);
        o.threads = options.threads;
        o.isa = options.isa;
        o.private_copy = options.private_copy;
        o.preload = options.preload;
        o.lock = options.lock;
        o.tokenizer_engine = options.tokenizer_engine;
        o.cancel = detail::raw(options.cancel);
        o.log = options.log;
        o.log_data = options.log_data;
        struct progress_call {
            const std::function<bool(std::uint64_t, std::uint64_t)> *f;
            detail::thrown caught;
        } call{&options.progress, {}};
        if (options.progress) {
            o.progress_data = &call;
            o.progress = [](void *data, std::uint64_t done, std::uint64_t total) -> std::int32_t {
                auto *self = static_cast<progress_call *>(data);
                return self->caught.run([&] { return (*self->f)(done, total); });
            };
        }
        carat_model *out = nullptr;
        carat_error *error = nullptr;
        carat_status status = open(&o, &out, &error);
        result<model> done = status == CARAT_OK ? result<model>(model(out)) : result<model>(detail::fail(status, error));
        call.caught.rethrow();
        return done;
    }

    detail::handle<carat_model, carat_model_free> handle_;
};

/// Turns ids into text as they come, whole characters at a time.
class decoder {
public:
    static result<decoder> try_new(const model &m) {
        return detail::make<decoder, carat_decoder>(
            [&](carat_decoder **out, carat_error **error) { return carat_decoder_new(m.get(), out, error); });
    }
    explicit decoder(const model &m) : decoder(try_new(m).value()) {}
    explicit decoder(carat_decoder *h) noexcept : handle_(h) {}

    /// Takes the next id and gives the text that is now certain, which may be empty.
    result<std::string> try_push(std::uint32_t id) {
        return detail::filled<std::string>(room, [&](char *to, std::size_t n, std::size_t *len, carat_error **error) {
            return carat_decoder_push(get(), id, to, n, len, error);
        });
    }
    std::string push(std::uint32_t id) { return try_push(id).value(); }
    /// The end of the text: gives what was held back.
    result<std::string> try_flush() {
        return detail::filled<std::string>(room, [&](char *to, std::size_t n, std::size_t *len, carat_error **error) {
            return carat_decoder_flush(get(), to, n, len, error);
        });
    }
    std::string flush() { return try_flush().value(); }

    carat_decoder *get() const noexcept { return handle_.get(); }

private:
    /// What one call gives at most.
    static constexpr std::size_t room = 2048;
    detail::handle<carat_decoder, carat_decoder_free> handle_;
};

// ---- Sessions ------------------------------------------------------------------------------------------------------

/// The logits `[vocab]` that a session had at one moment: they never change, whatever becomes of the session.
class logits {
public:
    explicit logits(carat_logits *h) noexcept : handle_(h) { data_ = carat_logits_data(h, &size_); }
    const float *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    const float *begin() const noexcept { return data_; }
    const float *end() const noexcept { return data_ + size_; }
    float operator[](std::size_t i) const noexcept { return data_[i]; }
#if defined(CARAT_HAS_SPAN)
    operator std::span<const float>() const noexcept { return {data_, size_}; }
#endif

private:
    detail::handle<carat_logits, carat_logits_free> handle_;
    const float *data_ = nullptr;
    std::size_t size_ = 0;
};

/// One text being read and written by a model. One call at a time.
class session {
public:
    static result<session> try_new(const model &m, const session_options &options = {}) {
        carat_session_options o = detail::c_options(options);
        return detail::make<session, carat_session>([&](carat_session **out, carat_error **error) {
            return carat_session_new(m.get(), &o, out, error);
        });
    }
    static result<session> try_load(const model &m, std::string_view path, const session_options &options = {},
                                    const cancel_token *cancel = nullptr) {
        carat_session_options o = detail::c_options(options);
        return detail::make<session, carat_session>([&](carat_session **out, carat_error **error) {
            return carat_session_load(m.get(), path.data(), path.size(), &o, detail::raw(cancel), out, error);
        });
    }
    explicit session(const model &m, const session_options &options = {}) : session(try_new(m, options).value()) {}
    explicit session(carat_session *h) noexcept : handle_(h) {}
    static session load(const model &m, std::string_view path, const session_options &options = {},
                        const cancel_token *cancel = nullptr) {
        return try_load(m, path, options, cancel).value();
    }
    result<session> try_fork() const {
        return detail::make<session, carat_session>([&](carat_session **out, carat_error **error) { return carat_session_fork(get(), out, error); });
    }
    session fork() const { return try_fork().value(); }

    result<void> try_prefill(ids_view ids, const cancel_token *cancel = nullptr) {
        return detail::done([&](carat_error **error) {
            return carat_session_prefill(get(), ids.data(), ids.size(), detail::raw(cancel), error);
        });
    }
    void prefill(ids_view ids, const cancel_token *cancel = nullptr) { try_prefill(ids, cancel).value(); }

    /// As prefill(), and hands the logits after each token to `each`; where that returns false it is cancelled.
    result<void> try_prefill_each(ids_view ids, const logits_function &each, const cancel_token *cancel = nullptr) {
        struct each_call {
            const logits_function *f;
            detail::thrown caught;
        } call{&each, {}};
        carat_logits_fn f = [](void *data, std::size_t index, const float *logits, std::size_t n) -> std::int32_t {
            auto *self = static_cast<each_call *>(data);
            return self->caught.run([&] { return (*self->f)(index, logits, n); });
        };
        result<void> r = detail::done([&](carat_error **error) {
            return carat_session_prefill_each(get(), ids.data(), ids.size(), detail::raw(cancel), f, &call, error);
        });
        call.caught.rethrow();
        return r;
    }
    void prefill_each(ids_view ids, const logits_function &each, const cancel_token *cancel = nullptr) {
        try_prefill_each(ids, each, cancel).value();
    }

    result<void> try_step(std::uint32_t token, const cancel_token *cancel = nullptr) {
        return detail::done([&](carat_error **error) {
            return carat_session_step(get(), token, detail::raw(cancel), error);
        });
    }
    void step(std::uint32_t token, const cancel_token *cancel = nullptr) { try_step(token, cancel).value(); }

    result<carat::logits> try_logits() const {
        return detail::make<carat::logits, carat_logits>(
            [&](carat_logits **out, carat_error **error) { return carat_session_logits(get(), out, error); });
    }
    carat::logits logits() const { return try_logits().value(); }

    result<std::vector<carat_token_score>> try_score(ids_view ids, std::size_t from = 0,
                                                     const cancel_token *cancel = nullptr) {
        std::vector<carat_token_score> scores(ids.size() > from ? ids.size() - from : 0);
        std::size_t n = 0;
        carat_error *error = nullptr;
        carat_status status = carat_session_score(get(), ids.data(), ids.size(), from, detail::raw(cancel),
                                                  scores.data(), scores.size(), &n, &error);
        if (status != CARAT_OK) return detail::fail(status, error);
        scores.resize(n);
        return scores;
    }
    std::vector<carat_token_score> score(ids_view ids, std::size_t from = 0, const cancel_token *cancel = nullptr) {
        return try_score(ids, from, cancel).value();
    }

    result<carat_summary> try_generate(ids_view prompt, const generate_options &options,
                                       const piece_function &on_piece) {
        return detail::reply(options, on_piece, [&](detail::generating &g, carat_summary *summary, carat_error **error) {
            return carat_session_generate(get(), prompt.data(), prompt.size(), &g.c, g.call_piece, &g, summary, error);
        });
    }
    carat_summary generate(ids_view prompt, const generate_options &options, const piece_function &on_piece) {
        return try_generate(prompt, options, on_piece).value();
    }

    result<void> try_truncate(std::size_t len) {
        return detail::done([&](carat_error **error) { return carat_session_truncate(get(), len, error); });
    }
    void truncate(std::size_t len) { try_truncate(len).value(); }

    result<void> try_save(std::string_view path, const cancel_token *cancel = nullptr) const {
        return detail::done([&](carat_error **error) {
            return carat_session_save(get(), path.data(), path.size(), detail::raw(cancel), error);
        });
    }
    void save(std::string_view path, const cancel_token *cancel = nullptr) const { try_save(path, cancel).value(); }

    result<std::vector<std::uint32_t>> try_tokens() const {
        return detail::filled<std::vector<std::uint32_t>>(
            64, [&](std::uint32_t *to, std::size_t room, std::size_t *n, carat_error **error) {
                return carat_session_tokens(get(), to, room, n, error);
            });
    }
    std::vector<std::uint32_t> tokens() const { return try_tokens().value(); }

    result<std::size_t> try_size() const {
        std::size_t len = 0;
        carat_error *error = nullptr;
        carat_status status = carat_session_len(get(), &len, nullptr, &error);
        if (status != CARAT_OK) return detail::fail(status, error);
        return len;
    }
    std::size_t size() const { return try_size().value(); }
    /// The tokens that it can hold.
    result<std::size_t> try_context() const {
        std::size_t context = 0;
        carat_error *error = nullptr;
        carat_status status = carat_session_len(get(), nullptr, &context, &error);
        if (status != CARAT_OK) return detail::fail(status, error);
        return context;
    }
    std::size_t context() const { return try_context().value(); }

    result<void> try_trim() {
        return detail::done([&](carat_error **error) { return carat_session_trim(get(), error); });
    }
    void trim() { try_trim().value(); }

    carat_session *get() const noexcept { return handle_.get(); }

private:

    detail::handle<carat_session, carat_session_free> handle_;
};

// ---- Conversations -------------------------------------------------------------------------------------------------

/// A user and a model in turn, over one session. One call at a time.
class conversation {
public:
    explicit conversation(carat_conversation *h) noexcept : handle_(h) {}
    /// Over a session, whose contents become the conversation's.
    static result<conversation> try_new(session s, std::optional<std::string_view> system = {}) {
        const char *text = detail::pointer(system);
        return detail::make<conversation, carat_conversation>([&](carat_conversation **out, carat_error **error) {
            return carat_conversation_new(s.get(), text, system ? system->size() : 0, out, error);
        });
    }
    /// Goes on with the conversation whose tokens a session holds.
    static result<conversation> try_resume(session s) {
        return detail::make<conversation, carat_conversation>([&](carat_conversation **out, carat_error **error) {
            return carat_conversation_resume(s.get(), out, error);
        });
    }
    /// One that save() wrote: turns and system text are the same.
    static result<conversation> try_load(const model &m, std::string_view path, const session_options &options = {},
                                         const cancel_token *cancel = nullptr) {
        carat_session_options o = detail::c_options(options);
        return detail::make<conversation, carat_conversation>([&](carat_conversation **out, carat_error **error) {
            return carat_conversation_load(m.get(), path.data(), path.size(), &o, detail::raw(cancel), out, error);
        });
    }
    static conversation load(const model &m, std::string_view path, const session_options &options = {},
                             const cancel_token *cancel = nullptr) {
        return try_load(m, path, options, cancel).value();
    }
    explicit conversation(session s, std::optional<std::string_view> system = {})
        : conversation(try_new(std::move(s), system).value()) {}
    static conversation resume(session s) { return try_resume(std::move(s)).value(); }

    result<carat_summary> try_send(std::string_view text, const generate_options &options,
                                   const piece_function &on_piece) {
        return detail::reply(options, on_piece, [&](detail::generating &g, carat_summary *summary, carat_error **error) {
            return carat_conversation_send(get(), text.data(), text.size(), &g.c, g.call_piece, &g, summary, error);
        });
    }
    carat_summary send(std::string_view text, const generate_options &options, const piece_function &on_piece) {
        return try_send(text, options, on_piece).value();
    }
    result<carat_summary> try_regenerate(const generate_options &options, const piece_function &on_piece) {
        return detail::reply(options, on_piece, [&](detail::generating &g, carat_summary *summary, carat_error **error) {
            return carat_conversation_regenerate(get(), &g.c, g.call_piece, &g, summary, error);
        });
    }
    carat_summary regenerate(const generate_options &options, const piece_function &on_piece) {
        return try_regenerate(options, on_piece).value();
    }
    result<carat_summary> try_edit_last(std::string_view text, const generate_options &options,
                                        const piece_function &on_piece) {
        return detail::reply(options, on_piece, [&](detail::generating &g, carat_summary *summary, carat_error **error) {
            return carat_conversation_edit_last(get(), text.data(), text.size(), &g.c, g.call_piece, &g, summary, error);
        });
    }
    carat_summary edit_last(std::string_view text, const generate_options &options, const piece_function &on_piece) {
        return try_edit_last(text, options, on_piece).value();
    }
    result<carat_summary> try_respond(const std::vector<turn> &turns, const generate_options &options,
                                      const piece_function &on_piece) {
        std::vector<carat_turn> c = detail::c_turns(turns);
        return detail::reply(options, on_piece, [&](detail::generating &g, carat_summary *summary, carat_error **error) {
            return carat_conversation_respond(get(), c.data(), c.size(), &g.c, g.call_piece, &g, summary, error);
        });
    }
    carat_summary respond(const std::vector<turn> &turns, const generate_options &options,
                          const piece_function &on_piece) {
        return try_respond(turns, options, on_piece).value();
    }

    /// The number of turns so far, without the system's.
    result<std::size_t> try_size() const {
        std::size_t n = 0;
        carat_error *error = nullptr;
        carat_status status = carat_conversation_n_turns(get(), &n, &error);
        if (status != CARAT_OK) return detail::fail(status, error);
        return n;
    }
    std::size_t size() const { return try_size().value(); }
    result<std::vector<std::uint32_t>> try_tokens() const {
        return detail::filled<std::vector<std::uint32_t>>(
            64, [&](std::uint32_t *to, std::size_t room, std::size_t *n, carat_error **error) {
                return carat_conversation_tokens(get(), to, room, n, error);
            });
    }
    std::vector<std::uint32_t> tokens() const { return try_tokens().value(); }
    /// The system's text; an empty one where there is none.
    result<std::string> try_system() const {
        return detail::filled<std::string>(256, [&](char *to, std::size_t room, std::size_t *n, carat_error **error) {
            return carat_conversation_system(get(), to, room, n, error);
        });
    }
    std::string system() const { return try_system().value(); }
    /// Changes it; everything is processed again when the conversation goes on.
    result<void> try_set_system(std::optional<std::string_view> system) {
        const char *text = detail::pointer(system);
        return detail::done([&](carat_error **error) {
            return carat_conversation_set_system(get(), text, system ? system->size() : 0, error);
        });
    }
    void set_system(std::optional<std::string_view> system) { try_set_system(system).value(); }
    /// Takes the session out; the conversation can only be destroyed then.
    result<session> try_into_session() {
        return detail::make<session, carat_session>([&](carat_session **out, carat_error **error) {
            return carat_conversation_into_session(get(), out, error);
        });
    }
    session into_session() { return try_into_session().value(); }

    /// The turns so far, without the system's.
    result<std::vector<turn>> try_turns() const { return list(carat_conversation_turn); }
    std::vector<turn> turns() const { return try_turns().value(); }
    /// The turns that the last reply dropped to make room.
    result<std::vector<turn>> try_dropped() const { return list(carat_conversation_dropped); }
    std::vector<turn> dropped() const { return try_dropped().value(); }

    result<void> try_set_policy(std::int32_t policy) {
        return detail::done([&](carat_error **error) { return carat_conversation_set_policy(get(), policy, error); });
    }
    void set_policy(std::int32_t policy) { try_set_policy(policy).value(); }
    result<void> try_reset() {
        return detail::done([&](carat_error **error) { return carat_conversation_reset(get(), error); });
    }
    void reset() { try_reset().value(); }
    result<void> try_save(std::string_view path, const cancel_token *cancel = nullptr) const {
        return detail::done([&](carat_error **error) {
            return carat_conversation_save(get(), path.data(), path.size(), detail::raw(cancel), error);
        });
    }
    void save(std::string_view path, const cancel_token *cancel = nullptr) const { try_save(path, cancel).value(); }
    result<void> try_trim() {
        return detail::done([&](carat_error **error) { return carat_conversation_trim(get(), error); });
    }
    void trim() { try_trim().value(); }

    carat_conversation *get() const noexcept { return handle_.get(); }

private:
    template <class One>
    result<std::vector<turn>> list(One one) const {
        std::vector<turn> turns;
        for (;;) {
            std::int32_t role = 0;
            result<std::string> text = detail::filled<std::string>(
                1024, [&](char *to, std::size_t room, std::size_t *n, carat_error **error) {
                    return one(get(), turns.size(), &role, to, room, n, error);
                });
            if (text) turns.push_back({static_cast<carat::role>(role), std::move(*text)});
            else if (text.error().status() == CARAT_INVALID_ARGUMENT) return turns;
            else return text.error();
        }
    }

    detail::handle<carat_conversation, carat_conversation_free> handle_;
};

}  // namespace carat

#endif
