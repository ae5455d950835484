// Goes on behind some tokens: play IMAGE ID...
#include <omex.hpp>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>

int main(int argc, char **argv) try {
    if (argc < 3) {
        std::cerr << "usage: play IMAGE ID...\n";
        return 2;
    }
    std::ifstream file(argv[1], std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    // What is allocated as such is aligned to OMEX_ALIGNMENT.
    struct alignas(OMEX_ALIGNMENT) Block {
        std::uint8_t bytes[OMEX_ALIGNMENT];
    };
    std::vector<Block> image(bytes.size() / sizeof(Block) + 1);
    const auto first = reinterpret_cast<std::uint8_t *>(image.data());
    std::copy(bytes.begin(), bytes.end(), first);
    omex::Engine engine(std::span<const std::uint8_t>(first, bytes.size()));
    std::vector<std::uint32_t> prompt;
    for (int i = 2; i < argc; i++) prompt.push_back(static_cast<std::uint32_t>(std::stoul(argv[i])));
    engine.feed(prompt);
    const auto description = engine.description();
    for (std::uint32_t i = 0; i < description.context; i++) {
        const auto token = engine.next();
        if (!token) break;
        std::cout << *token << ' ' << (description.has_tokenizer ? engine.decode(*token) : "") << '\n';
    }
} catch (const std::exception &error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
}
