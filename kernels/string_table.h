// Strings of a GGUF vocabulary as a file holds them, each after its length; which of them a short text can use, and
// whether they make sense together. Half a million strings are too many for Python's loops at the start of a model.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qwick {

// `ends`: where each string ends; each begins 8 bytes, its length, after the end before. All lie in `data`.
struct StringList {
    const uint8_t* data;
    const uint64_t* ends;
    size_t count;

    std::string_view operator[](size_t i) const {
        const uint64_t begin = (i > 0 ? ends[i - 1] : 0) + 8;
        return {reinterpret_cast<const char*>(data) + begin, static_cast<size_t>(ends[i] - begin)};
    }
};

// All substrings of some words of UTF-8, cut between characters.
class Substrings {
  public:
    // Throws CapacityError when there are more than `most`, equal ones counted again.
    Substrings(std::vector<std::string> words, size_t most);

    // The indices of the strings that are among them; `joined`: that are without their first space.
    std::vector<uint32_t> find(const StringList& strings, bool joined) const;

  private:
    void insert(std::string_view text);
    bool contains(std::string_view text) const;
    size_t place(std::string_view text) const;  // of an equal one, or the free one where it would go

    std::vector<std::string> words_;  // what `slots_` point into
    std::vector<std::string_view> slots_;
    std::bitset<1 << 16> begins_;  // the first two bytes of any: spares most strings the hash
    uint64_t seed_;
    size_t longest_ = 0;
};

// What is wrong with a byte-level BPE vocabulary and its merges ("left right", which make a third token). Kinds of
// tokens: 0 not in use, 1 of the vocabulary, 2 outside of it. Strings count as equal when 63 bits of their hashes do.
struct VocabularyFault {
    enum Kind { none, token_twice, merge_of_not_two, merge_of_no_token } kind = none;
    size_t index = 0;
};
VocabularyFault check_vocabulary(const StringList& tokens, const uint8_t* kinds, const StringList& merges);

}  // namespace qwick
