// Which instruction sets this machine can run.
#pragma once

#include <string>
#include <vector>

namespace qwick {

// In order of preference: dispatch lays the tables over one another from the first to the last.
enum class Isa { scalar, avx2, avx_vnni, avx512, avx512_vnni, avx512_bf16, amx };
constexpr Isa kAllIsas[] = {Isa::scalar,      Isa::avx2,        Isa::avx_vnni, Isa::avx512,
                            Isa::avx512_vnni, Isa::avx512_bf16, Isa::amx};

const char* isa_name(Isa isa);

// CPUID says that the CPU has the instructions, XCR0 that the OS saves their registers; AMX also asks the OS for
// permission (once, for the process), and counts only if a trial product comes out right (tile_trial.h). Built with
// QWICK_EMULATE, all are possible wherever avx2 is.
const std::vector<Isa>& possible_isas();

// The ISAs that `isa` stands on, itself included: forcing avx512 must not pull avx_vnni in, although it comes before
// it.
bool stands_on(Isa isa, Isa below);

// The ISA called `name`, or the best one for "". Throws KernelError naming the possible ones.
Isa choose_isa(const std::string& name);

}  // namespace qwick
