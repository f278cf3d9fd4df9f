#include "string_table.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "errors.h"
#include "hash.h"

namespace qwick {
namespace {

// Nobody outside knows it: no file or text can be made that crowds a table.
uint64_t random_seed() {
    std::random_device random;
    return uint64_t{random()} << 32 | random();
}

// As wyhash: a multiplication for every 8 bytes.
uint64_t hash_of(std::string_view text, uint64_t seed) {
    uint64_t state = seed ^ text.size();
    size_t at = 0;
    for (; at + 8 <= text.size(); at += 8) {
        uint64_t word;
        std::memcpy(&word, text.data() + at, 8);
        state = mixed(state ^ word, 0xa0761d6478bd642f);
    }
    uint64_t rest = 0;
    if (at < text.size()) std::memcpy(&rest, text.data() + at, text.size() - at);
    return mixed(state ^ rest, 0xe7037ed1a0b428db ^ seed);
}

size_t table_size(size_t most) {
    size_t size = 64;
    while (size < 2 * most) size *= 2;
    return size;
}

bool begins_character(char byte) {
    return (static_cast<uint8_t>(byte) & 0xc0) != 0x80;
}

size_t begin_of(char first, char second) {
    return static_cast<uint8_t>(first) << 8 | static_cast<uint8_t>(second);
}

size_t checked_count(const std::vector<std::string>& words, size_t most) {
    size_t count = 0;
    for (const std::string& word : words) {
        const size_t chars = std::count_if(word.begin(), word.end(), begins_character);
        if (chars > most || (count += chars * (chars + 1) / 2) > most) {
            throw CapacityError("the words have more than " + std::to_string(most) + " substrings");
        }
    }
    return count;
}

// Hashes, each with the lowest bit saying whether its string is of the vocabulary. Memory is what it costs to look one
// up, so whoever has many asks for their places first.
class HashTable {
  public:
    explicit HashTable(size_t most) : slots_(table_size(most), 0) {}

    void fetch(uint64_t hash) const { __builtin_prefetch(&slots_[hash >> 1 & mask()]); }
    // False when it is there already, in or out of the vocabulary.
    bool insert(uint64_t hash) {
        uint64_t& slot = slots_[place(hash)];
        const bool is_new = slot == 0;
        slot = hash;
        return is_new;
    }
    bool contains(uint64_t hash) const { return slots_[place(hash)] == hash; }

  private:
    size_t mask() const { return slots_.size() - 1; }
    size_t place(uint64_t hash) const {
        size_t at = hash >> 1 & mask();
        while (slots_[at] != 0 && slots_[at] >> 1 != hash >> 1) at = (at + 1) & mask();
        return at;
    }

    std::vector<uint64_t> slots_;
};

constexpr size_t kAhead = 16;  // lookups under way

// The hashes of a merge's two parts and of what they make; false when it is not two.
bool hash_merge(std::string_view merge, uint64_t seed, std::string* whole, uint64_t* out) {
    const size_t space = merge.find(' ');
    if (space == merge.npos || merge.find(' ', space + 1) != merge.npos) return false;
    const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
    whole->assign(left).append(right);
    out[0] = hash_of(left, seed) | 1, out[1] = hash_of(right, seed) | 1, out[2] = hash_of(*whole, seed) | 1;
    return true;
}

}  // namespace

Substrings::Substrings(std::vector<std::string> words, size_t most) : words_(std::move(words)), seed_(random_seed()) {
    slots_.resize(table_size(checked_count(words_, most)));
    for (const std::string_view word : words_) {
        longest_ = std::max(longest_, word.size());
        for (size_t begin = 0; begin < word.size(); ++begin) {
            if (!begins_character(word[begin])) continue;
            for (size_t end = begin + 1; end <= word.size(); ++end) {
                if (end == word.size() || begins_character(word[end])) insert(word.substr(begin, end - begin));
            }
        }
    }
}

size_t Substrings::place(std::string_view text) const {
    const size_t mask = slots_.size() - 1;
    size_t at = hash_of(text, seed_) & mask;
    while (!slots_[at].empty() && slots_[at] != text) at = (at + 1) & mask;
    return at;
}

void Substrings::insert(std::string_view text) {
    slots_[place(text)] = text;
    if (text.size() > 1) begins_.set(begin_of(text[0], text[1]));
}

bool Substrings::contains(std::string_view text) const {
    return !text.empty() && !slots_[place(text)].empty();
}

std::vector<uint32_t> Substrings::find(const StringList& strings, bool joined) const {
    std::vector<uint32_t> found;
    std::string whole;
    for (size_t i = 0; i < strings.count; ++i) {
        const std::string_view text = strings[i];
        if (text.size() > longest_ + (joined ? 1 : 0)) continue;
        if (text.size() > 2) {
            const char second = joined && text[1] == ' ' ? text[2] : text[1];
            if (text[0] != ' ' && !begins_.test(begin_of(text[0], second))) continue;
        }
        const size_t space = joined ? text.find(' ') : text.npos;
        if (space == text.npos) {
            if (contains(text)) found.push_back(static_cast<uint32_t>(i));
            continue;
        }
        whole.assign(text.substr(0, space)).append(text.substr(space + 1));
        if (contains(whole)) found.push_back(static_cast<uint32_t>(i));
    }
    return found;
}

VocabularyFault check_vocabulary(const StringList& tokens, const uint8_t* kinds, const StringList& merges) {
    const uint64_t seed = random_seed();
    HashTable table(tokens.count);
    std::vector<uint64_t> hashes(tokens.count);
    for (size_t i = 0; i < tokens.count + kAhead; ++i) {
        if (i < tokens.count) {
            hashes[i] = (hash_of(tokens[i], seed) | 1) ^ (kinds[i] == 1 ? 0 : 1);
            table.fetch(hashes[i]);
        }
        if (i < kAhead || kinds[i - kAhead] == 0) continue;
        if (!table.insert(hashes[i - kAhead])) return {VocabularyFault::token_twice, i - kAhead};
    }
    std::string whole;
    uint64_t ring[kAhead][3];
    for (size_t i = 0; i < merges.count + kAhead; ++i) {
        uint64_t* const three = ring[i % kAhead];
        for (int part = 0; i >= kAhead && part < 3; ++part) {
            if (!table.contains(three[part])) return {VocabularyFault::merge_of_no_token, i - kAhead};
        }
        if (i >= merges.count) continue;
        if (!hash_merge(merges[i], seed, &whole, three)) return {VocabularyFault::merge_of_not_two, i};
        for (int part = 0; part < 3; ++part) table.fetch(three[part]);
    }
    return {};
}

}  // namespace qwick
