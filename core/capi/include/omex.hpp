// omex.h for C++20: what is open owns its arena, what fails throws, arrays are spans.
#ifndef OMEX_HPP
#define OMEX_HPP

#include "omex.h"
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace omex {

/// What a call came to, where that is an error.
class Error : public std::runtime_error {
public:
    explicit Error(omex_status status) : std::runtime_error(omex_status_text(status)), status(status) {}
    omex_status status;
};

inline void check(omex_status status) {
    if (status != OMEX_STATUS_OK) throw Error(status);
}

/// A model that is open. What the source lies in must outlive it.
class Engine {
public:
    /// Opens an image in as much memory as it needs.
    explicit Engine(const omex_source &source, const omex_cores *cores = nullptr) {
        std::size_t needed = 0, given = 0;
        do {
            given = needed;
            arena_.reset(given ? ::operator new(given, std::align_val_t{OMEX_ALIGNMENT}) : nullptr);
            const auto status = omex_open(&source, arena_.get(), given, cores, &engine_, &needed);
            if (status == OMEX_STATUS_OK) return;
            if (status != OMEX_STATUS_MEMORY || needed <= given) throw Error(status);
        } while (true);
    }

    /// Opens an image that lies in memory, on a multiple of OMEX_ALIGNMENT.
    explicit Engine(std::span<const std::uint8_t> image) : Engine(omex_source{image.data(), image.size(), {}, {}}) {}

    omex_description description() const {
        omex_description description;
        check(omex_describe(engine_, &description));
        return description;
    }

    /// An input's elements, to be written before each infer(). T is float or std::int8_t.
    template <class T> std::span<T> input(std::uint32_t number = 0) {
        omex_tensor tensor;
        check(omex_input(engine_, number, &tensor));
        return elements<T>(tensor);
    }

    void infer() { check(omex_infer(engine_)); }

    /// An output's elements, valid until the next infer().
    template <class T> std::span<const T> output(std::uint32_t number = 0) const {
        omex_tensor tensor;
        check(omex_output(engine_, number, &tensor));
        return elements<T>(tensor);
    }

    void reset() { check(omex_reset(engine_)); }
    void sampling(const omex_sampling &options) { check(omex_set_sampling(engine_, &options)); }
    void feed(std::span<const std::uint32_t> tokens) { check(omex_feed(engine_, tokens.data(), tokens.size())); }

    /// The next token; nothing once the model has ended the text.
    std::optional<std::uint32_t> next() {
        std::uint32_t token = 0;
        const auto status = omex_next(engine_, &token);
        if (status == OMEX_STATUS_END) return std::nullopt;
        check(status);
        return token;
    }

    std::span<float> logits() {
        float *logits = nullptr;
        check(omex_logits(engine_, &logits));
        return {logits, description().vocabulary};
    }

    std::vector<std::uint32_t> encode(std::string_view text) {
        std::vector<std::uint32_t> tokens(text.size() + 8);
        while (true) {
            std::size_t count = 0;
            const auto status =
                omex_encode(engine_, text.data(), text.size(), tokens.data(), tokens.size(), &count);
            if (status != OMEX_STATUS_LENGTH || count <= tokens.size()) check(status);
            const bool whole = count <= tokens.size();
            tokens.resize(count);
            if (whole) return tokens;
        }
    }

    /// The characters that a token completes.
    std::string decode(std::uint32_t token) {
        std::string text;
        const auto append = [](void *text, const char *piece, std::size_t bytes) {
            static_cast<std::string *>(text)->append(piece, bytes);
        };
        check(omex_decode(engine_, token, append, &text));
        return text;
    }

private:
    struct Free {
        void operator()(void *arena) const { ::operator delete(arena, std::align_val_t{OMEX_ALIGNMENT}); }
    };

    template <class T> static std::span<T> elements(const omex_tensor &tensor) {
        static_assert(std::is_same_v<T, float> || std::is_same_v<T, std::int8_t>);
        constexpr auto element = std::is_same_v<T, float> ? OMEX_ELEMENT_F32 : OMEX_ELEMENT_I8;
        if (tensor.element != element) throw Error(OMEX_STATUS_KIND);
        return {static_cast<T *>(tensor.data), tensor.bytes / sizeof(T)};
    }

    std::unique_ptr<void, Free> arena_;
    omex_engine *engine_ = nullptr;
};

} // namespace omex

#endif
