// Element by element. A tail runs through the same vector code, so a value never depends on its place in the piece.
// Included after simd_<isa>.h.
#include "tables.h"

namespace qwick::ISA_NAMESPACE {
namespace {

template <Vec (*Op)(Vec, Vec)>
void map(const float* a, const float* b, int64_t n, float* out) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(out + i, Op(load(a + i), load(b + i)));
    if (i < n) store_n(out + i, Op(load_n(a + i, n - i, zero()), load_n(b + i, n - i, zero())), n - i);
}

inline Vec silu_times(Vec gate, Vec up) {
    return mul(silu(gate), up);
}
inline Vec sigmoid_times(Vec gate, Vec x) {
    return times_sigmoid(x, gate);
}

}  // namespace

void fill_elementwise(Kernels& table) {
    table.add = map<add>;
    table.silu_mul = map<silu_times>;
    table.sigmoid_mul = map<sigmoid_times>;
}

}  // namespace qwick::ISA_NAMESPACE
