// What VNNI does better: decode rows of the block families, prompt rows in integers. Included after a vector and
// int_dot_vnni_simd.h.
#include "linear/block_dots_simd.h"
#include "linear/panels_simd.h"
#include "tables.h"

namespace qwick::ISA_NAMESPACE {

void fill_linear(Kernels& table) {
    fill_block_dots<static_cast<int>(Family::i8)>(table);
    table.strip_product = strip_product;
}

}  // namespace qwick::ISA_NAMESPACE
