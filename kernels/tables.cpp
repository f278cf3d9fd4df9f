#include "tables.h"

namespace qwick {

#define QWICK_FILLED_TABLE(isa)            \
    const Kernels& isa##_table() {         \
        static const Kernels filled = [] { \
            Kernels table{};               \
            isa::fill_attention(table);    \
            isa::fill_causal_conv(table);  \
            isa::fill_codec(table);        \
            isa::fill_elementwise(table);  \
            isa::fill_gated_delta(table);  \
            isa::fill_linear(table);       \
            isa::fill_norm(table);         \
            isa::fill_sample(table);       \
            return table;                  \
        }();                               \
        return filled;                     \
    }

QWICK_FILLED_TABLE(scalar)
#if defined(__x86_64__)
QWICK_FILLED_TABLE(avx2)
QWICK_FILLED_TABLE(avx512)
#endif

}  // namespace qwick
