// Whether AMX works here, found out by using it: some hosts announce it, grant it, and then kill the first product.
#pragma once

#include <cstdint>

namespace qwick {

// Runs attempt(data); false if it ended in SIGILL, SIGSEGV or SIGBUS. Handlers are replaced for that long (other
// threads' faults go where they went before), so: once, early, and one attempt at a time.
bool survives(void (*attempt)(void* data), void* data);

// A product of small tiles gives the right numbers. To be called only if CPUID and the OS allow AMX.
bool tiles_work();

namespace amx {
// c[16][16] += a[16][32] b[16][16][2], of bf16; all contiguous.
void multiply_tiles(const uint16_t* a, const uint16_t* b, float* c);
}  // namespace amx

}  // namespace qwick
