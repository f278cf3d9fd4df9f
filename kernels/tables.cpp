#include "tables.h"

namespace qwick {
namespace {

template <class... Fills>
Kernels filled_by(Fills... fills) {
    Kernels table{};
    (fills(table), ...);
    return table;
}

}  // namespace

#define QWICK_WHOLE_TABLE(isa)                                                                                  \
    const Kernels& isa##_table() {                                                                              \
        using namespace isa;                                                                                    \
        static const Kernels filled = filled_by(fill_attention, fill_causal_conv, fill_codec, fill_elementwise, \
                                                fill_gated_delta, fill_linear, fill_norm, fill_sample);         \
        return filled;                                                                                          \
    }

#define QWICK_TABLE_OF_DOTS(isa)                                   \
    const Kernels& isa##_table() {                                 \
        static const Kernels filled = filled_by(isa::fill_linear); \
        return filled;                                             \
    }

QWICK_WHOLE_TABLE(scalar)
#if defined(__x86_64__)
QWICK_WHOLE_TABLE(avx2)
QWICK_TABLE_OF_DOTS(avx_vnni)
QWICK_WHOLE_TABLE(avx512)
QWICK_TABLE_OF_DOTS(avx512_vnni)
const Kernels& amx_table() {
    static const Kernels filled = filled_by(amx::fill_attention, amx::fill_codec, amx::fill_linear);
    return filled;
}
#endif

}  // namespace qwick
