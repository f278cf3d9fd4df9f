#include "cpu_features.h"

#include <algorithm>
#include <cstdint>

#include "errors.h"
#include "tile_trial.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace qwick {
namespace {

constexpr const char* kNames[] = {"scalar", "avx2", "avx_vnni", "avx512", "avx512_vnni", "avx512_bf16", "amx"};

#if defined(__x86_64__)
#if defined(QWICK_EMULATE)
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

struct Cpuid {
    uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
    Cpuid() = default;
    Cpuid(uint32_t leaf, uint32_t subleaf) { __get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx); }
};

bool bit(uint32_t word, int index) {
    return (word >> index) & 1;
}

uint64_t saved_registers() {  // XCR0
    if (!bit(Cpuid(1, 0).ecx, 27)) return 0;
    uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return static_cast<uint64_t>(high) << 32 | low;
}

bool amx_permitted() {
    constexpr long kArchReqXcompPerm = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kArchReqXcompPerm, kTileData) == 0;
}

std::vector<Isa> detect() {
    std::vector<Isa> found = {Isa::scalar};
    const uint64_t saved = saved_registers();
    const Cpuid base(1, 0), extended(7, 0);
    const Cpuid more = extended.eax >= 1 ? Cpuid(7, 1) : Cpuid();
    const auto saves = [&](uint64_t mask) { return (saved & mask) == mask; };
    const bool avx2 = saves(0x6) && bit(base.ecx, 28) && bit(base.ecx, 12) && bit(base.ecx, 29) &&
                      bit(extended.ebx, 5) && bit(extended.ebx, 8);
    if (!avx2) return found;
    found.push_back(Isa::avx2);
    if (kEmulated || bit(more.eax, 4)) found.push_back(Isa::avx_vnni);
    const bool avx512 =
        saves(0xe6) && bit(extended.ebx, 16) && bit(extended.ebx, 17) && bit(extended.ebx, 30) && bit(extended.ebx, 31);
    if (!kEmulated && !avx512) return found;
    found.push_back(Isa::avx512);
    if (!kEmulated && !bit(extended.ecx, 11)) return found;
    found.push_back(Isa::avx512_vnni);
    if (!kEmulated && !bit(more.eax, 5)) return found;
    found.push_back(Isa::avx512_bf16);
    const bool amx = saves(0x60000) && bit(extended.edx, 22) && bit(extended.edx, 24) && bit(extended.edx, 25);
    if ((kEmulated || (amx && amx_permitted())) && tiles_work()) found.push_back(Isa::amx);
    return found;
}
#else
std::vector<Isa> detect() {
    return {Isa::scalar};
}
#endif

}  // namespace

const char* isa_name(Isa isa) {
    return kNames[static_cast<int>(isa)];
}

const std::vector<Isa>& possible_isas() {
    static const std::vector<Isa> found = detect();
    return found;
}

bool stands_on(Isa isa, Isa below) {
    if (below == Isa::avx_vnni) return isa == Isa::avx_vnni;  // the only one beside the line
    return below <= isa;
}

Isa choose_isa(const std::string& name) {
    const auto& possible = possible_isas();
    if (name.empty()) return possible.back();
    std::string names;
    for (Isa isa : possible) {
        if (name == isa_name(isa)) return isa;
        names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
    }
    const bool known = std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
    throw KernelError((known ? "this machine cannot run the instruction set '" : "unknown instruction set '") + name +
                      "'; it can run: " + names);
}

}  // namespace qwick
