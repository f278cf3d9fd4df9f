#include "bindings_machine.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <memory>

#include "allocations.h"
#include "arena.h"
#include "bindings_arrays.h"
#include "dispatch.h"
#include "measure/read_stream.h"
#include "measure/section.h"
#include "thread_count.h"
#include "thread_pool.h"
#include "tile_trial.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace qwick {
namespace {

// Runs `jobs` jobs of 1 .. `items` items. Returns how often an item ran not exactly once, or on a thread that is not
// the run's, and how many items saw a denormal survive.
std::pair<int64_t, int64_t> stress_pool(const std::vector<int>& threads, int jobs, int64_t items) {
    ThreadPool pool;
    std::atomic<int64_t> wrong{0}, denormals{0};
    const std::unique_ptr<std::atomic<int>[]> runs(new std::atomic<int>[items]());
    for (int count : threads) {
        const PoolRun pool_run(pool, count);
        for (int job = 0; job < jobs; ++job) {
            const int64_t n = 1 + job % items;
            pool.for_each(n, [&](int64_t item, int thread) {
                ++runs[item];
                volatile float small = 1e-38f;
                denormals += small * 0.01f != 0;
                wrong += thread < 0 || thread >= count;
            });
            for (int64_t item = 0; item < items; ++item) wrong += runs[item].exchange(0) != (item < n);
        }
    }
    return {wrong, denormals};
}

#if defined(__x86_64__)
// c [16, 16] f32 + a [16, 32] b [32, 16], of bf16 bits, by one product of tiles.
Out multiply_tiles(const In<uint16_t, 2>& a, const In<uint16_t, 2>& b, const In<float, 2>& c) {
    require(possible_isas().back() == Isa::amx, "this machine has amx");
    require(a.shape(0) == 16 && a.shape(1) == 32 && b.shape(0) == 32 && b.shape(1) == 16, "a and b are tiles");
    require(c.shape(0) == 16 && c.shape(1) == 16, "c is a tile");
    uint16_t pairs[16][16][2];
    for (int k = 0; k < 32; ++k) {
        for (int j = 0; j < 16; ++j) pairs[k / 2][j][k % 2] = b.data()[k * 16 + j];
    }
    Made<float> sum({16, 16});
    std::copy_n(c.data(), c.size(), sum.data);
    amx::multiply_tiles(a.data(), pairs[0][0], sum.data);
    return sum.array;
}
#endif

}  // namespace

void bind_machine(nb::module_& m) {
    m.def("possible_isas", [] {
        std::vector<std::string> names;
        for (Isa isa : possible_isas()) names.emplace_back(isa_name(isa));
        return names;
    });
    m.def("chosen_isa", [](const std::string& isa) { return isa_name(choose_isa(isa)); }, "isa"_a = "");
    m.def(
        "kernel_choice",
        [](const std::string& isa) {
            nb::dict choice;
            for (const auto& [leaf, provider] : make_dispatch(choose_isa(isa)).choice)
                choice[leaf.c_str()] = isa_name(provider);
            return choice;
        },
        "isa"_a = "");
    m.def("default_thread_count", [] {
        const ThreadCount found = default_thread_count();
        return std::pair(found.count, found.reason);
    });
    m.def("most_thread_count", &most_thread_count);
#if defined(__x86_64__)
    m.def("multiply_tiles", &multiply_tiles, "a"_a, "b"_a, "c"_a);
#endif
#if defined(QWICK_EMULATE)
    m.attr("emulated") = true;
#else
    m.attr("emulated") = false;
#endif
    m.def(
        "survives_signal",
        [](int number) { return survives([](void* data) { std::raise(*static_cast<int*>(data)); }, &number); },
        "number"_a);
    m.def("num_allocations", &num_allocations);
    m.def("stress_pool", &stress_pool, "threads"_a, "jobs"_a, "items"_a, nb::call_guard<nb::gil_scoped_release>());
    m.def("section_costs", &section_costs, "threads"_a, "count"_a, nb::call_guard<nb::gil_scoped_release>());
    m.def("available_memory", &available_memory);
    m.def("read_stream", &read_stream, "num_bytes"_a, "threads"_a, "seconds"_a,
          nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace qwick
