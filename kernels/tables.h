// The tables of leaf kernels, one per instruction set. A table leaves null what it does not do better than the tables
// before it; dispatch.cpp lays them over one another, in its order.
#pragma once

#include "kernels.h"

namespace qwick {

const Kernels& scalar_table();  // complete

// To be called only on a CPU that has the instructions: filling the table is itself compiled with them.
const Kernels& avx2_table();         // AVX2, FMA, F16C
const Kernels& avx_vnni_table();     // AVX-VNNI and the above
const Kernels& avx512_table();       // AVX-512 F, BW, DQ, VL and those of avx2
const Kernels& avx512_vnni_table();  // AVX-512 VNNI and the above
const Kernels& amx_table();          // AMX tiles and bf16 products, AVX-512 BF16 and the above

// Each op's leaves of one instruction set, e.g. norm/norm_avx2.cpp defines avx2::fill_norm.
#define QWICK_DECLARE_FILLS(isa)           \
    namespace isa {                        \
    void fill_attention(Kernels& table);   \
    void fill_causal_conv(Kernels& table); \
    void fill_codec(Kernels& table);       \
    void fill_elementwise(Kernels& table); \
    void fill_gated_delta(Kernels& table); \
    void fill_linear(Kernels& table);      \
    void fill_norm(Kernels& table);        \
    void fill_sample(Kernels& table);      \
    }

QWICK_DECLARE_FILLS(scalar)
QWICK_DECLARE_FILLS(avx2)
QWICK_DECLARE_FILLS(avx512)
namespace avx_vnni {
void fill_linear(Kernels& table);
}
namespace avx512_vnni {
void fill_linear(Kernels& table);
}
namespace amx {
void fill_attention(Kernels& table);
void fill_codec(Kernels& table);
void fill_linear(Kernels& table);
}  // namespace amx

#undef QWICK_DECLARE_FILLS

}  // namespace qwick
