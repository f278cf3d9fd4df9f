#include "dispatch.h"

#include "errors.h"
#include "tables.h"

namespace qwick {
namespace {

struct Source {
    Isa isa;
    const Kernels& (*table)();
};

// Ordered: a later table wins over an earlier one. avx512_bf16 has none: vdpbf16ps makes as many products as the 16-bit
// integers of VNNI do, at half their rate on Sapphire Rapids and at the same on Zen 4, from operands four times as
// coarse.
constexpr Source kSources[] = {
    {Isa::scalar, scalar_table},
#if defined(__x86_64__)
    {Isa::avx2, avx2_table},     {Isa::avx_vnni, avx_vnni_table},
    {Isa::avx512, avx512_table}, {Isa::avx512_vnni, avx512_vnni_table},
    {Isa::amx, amx_table},
#endif
};

// Visits every leaf as (name, accessor); the static_assert below keeps the list complete.
template <class Visit>
void for_each_leaf(Visit visit) {
#define QWICK_LEAF(field) visit(#field, [](auto& k) -> auto& { return k.field; })
#define QWICK_LEAVES(field, count, names) \
    for (int i = 0; i < (count); ++i)     \
    visit(std::string(#field ".") + (names)[i], [i](auto& k) -> auto& { return k.field[i]; })
    QWICK_LEAF(quantize_i8);
    QWICK_LEAVES(dots, kNumFamilies, kFamilyNames);
    QWICK_LEAF(prompt_form);
    QWICK_LEAF(round_strip);
    QWICK_LEAVES(decode_panel, kNumFamilies, kFamilyNames);
    QWICK_LEAF(panel_product);
    QWICK_LEAF(strip_product);
    QWICK_LEAVES(decode_row, kNumFamilies, kFamilyNames);
    QWICK_LEAF(add);
    QWICK_LEAF(silu_mul);
    QWICK_LEAF(sigmoid_mul);
    QWICK_LEAF(rms_norm);
    QWICK_LEAF(gated_rms_norm);
    QWICK_LEAF(l2_norm);
    QWICK_LEAF(norm_rope);
    QWICK_LEAF(conv_silu);
    QWICK_LEAF(delta_run);
    QWICK_LEAVES(attend_block, kNumKvFormats, kKvFormatNames);
    QWICK_LEAVES(load_query, kNumKvFormats, kKvFormatNames);
    QWICK_LEAVES(attend_prompt, kNumKvFormats, kKvFormatNames);
    QWICK_LEAVES(load_prompt_query, kNumKvFormats, kKvFormatNames);
    QWICK_LEAVES(store_key, kNumKvFormats, kKvFormatNames);
    QWICK_LEAVES(store_value, kNumKvFormats, kKvFormatNames);
    QWICK_LEAF(max_value);
    QWICK_LEAF(sum_exp);
#undef QWICK_LEAF
#undef QWICK_LEAVES
}
constexpr int kNumLeaves = 16 + 3 * kNumFamilies + 6 * kNumKvFormats;
static_assert(sizeof(Kernels) == kNumLeaves * sizeof(void (*)()), "for_each_leaf must visit every leaf");

}  // namespace

Dispatch make_dispatch(Isa isa) {
    Dispatch made{isa, {}, {}};
    for_each_leaf([&](const std::string& name, auto leaf) {
        Isa provider = Isa::scalar;
        for (const Source& source : kSources) {
            if (!stands_on(isa, source.isa)) continue;
            if (auto kernel = leaf(source.table())) {
                leaf(made.kernels) = kernel;
                provider = source.isa;
            }
        }
        if (!leaf(made.kernels)) throw KernelError("no instruction set implements the kernel '" + name + "'");
        made.choice.emplace_back(name, provider);
    });
    return made;
}

}  // namespace qwick
