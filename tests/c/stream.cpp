// As benches/stream.rs, over carat.hpp. usage: stream MODEL
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "carat.hpp"

int main(int argc, char **argv) {
    constexpr std::size_t tokens = 200, rounds = 25;
    if (argc != 2) return 2;
    carat::model_options model_options;
    model_options.threads = 1;
    carat::model model(argv[1], model_options);
    carat::generate_options options;
    options.temperature = 0;
    options.max_tokens = tokens;
    options.ignore_end = true;
    carat::session_options session_options;
    session_options.context = 256;
    std::vector<double> took;
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < rounds; i++) {
        carat::session session(model, session_options);
        session.prefill(std::vector<std::uint32_t>{2, 300, 301});
        auto began = std::chrono::steady_clock::now();
        carat_summary summary = session.generate({}, options, [&](const carat::piece &p) {
            bytes += p.text.size();
            return true;
        });
        std::chrono::duration<double, std::micro> all = std::chrono::steady_clock::now() - began;
        if (summary.generated_tokens != tokens) return 1;
        took.push_back(all.count() / tokens);
    }
    std::sort(took.begin(), took.end());
    std::printf("C++: callback: %.2f\n", took[rounds / 2]);
    return bytes == 0;
}
