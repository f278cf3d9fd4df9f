// Random weights, the check and the timing of the decode spike.
#pragma once

constexpr int kColumns = 1024, kSupers = kColumns / kSuper, kLayers = 18;
constexpr size_t kStateFloats = size_t(18) << 18;  // 18 MiB
constexpr double kWeightBytes = 531e6 - 2 * 4 * double(kStateFloats);

struct Model {
    size_t groups4 = size_t(kWeightBytes * 0.43 / (kSupers * sizeof(U4Block))) / (2 * kLayers) * (2 * kLayers);
    size_t groups6 = size_t(kWeightBytes * 0.57 / (kSupers * sizeof(U6Block))) / (2 * kLayers) * (2 * kLayers);
    U4Block* u4 = huge_alloc<U4Block>(groups4 * kSupers);
    U6Block* u6 = huge_alloc<U6Block>(groups6 * kSupers);
    float* state = huge_alloc<float>(2 * kStateFloats);  // the second half only stands in for the writes of the stream
    float* out = huge_alloc<float>((groups4 + groups6) * kRows);
    Activations act{kColumns};

    size_t bytes4() const { return groups4 * kSupers * sizeof(U4Block); }
    size_t bytes6() const { return groups6 * kSupers * sizeof(U6Block); }

    Model() {
        fill_random(u4, groups4 * kSupers, 88172645463325252ull);
        fill_random(u6, groups6 * kSupers, 52520885463324881ull);
        for (size_t i = 0; i < groups4 * kSupers; ++i) make_small(u4[i].d), make_small(u4[i].m);
        for (size_t i = 0; i < groups6 * kSupers; ++i) {
            make_small(u6[i].d);
            for (auto& row : u6[i].scale)
                for (auto& value : row) value = std::max<int8_t>(value, -127);
        }
    }

    template <int kAhead>
    void rows4(size_t first, size_t last) {
        for (size_t g = first; g < last; ++g) {
            Vec total = splat(0);
            for (int s = 0; s < kSupers; ++s) total = u4_dot<kAhead>(u4[g * kSupers + s], act, s * kSuper, total);
            store(out + g * kRows, total);
        }
    }

    template <int kAhead>
    void rows6(size_t first, size_t last) {
        for (size_t g = first; g < last; ++g) {
            Vec total = splat(0);
            for (int s = 0; s < kSupers; ++s) total = u6_dot<kAhead>(u6[g * kSupers + s], act, s * kSuper, total);
            store(out + (groups4 + g) * kRows, total);
        }
    }

    void touch_state(size_t first, size_t last) {
        Vec g = splat(0.999f), add = splat(1e-3f);
        for (size_t i = first; i < last; i += kLanes) store(state + i, fma(load(state + i), g, add));
    }
};

static void check(Model& model) {
    for (size_t g = 0; g < 64; ++g) {
        model.rows4<2>(g, g + 1);
        model.rows6<2>(g, g + 1);
        for (int r = 0; r < kRows; ++r) {
            float want4 = scalar_u4(model.u4 + g * kSupers, r, model.act), got4 = model.out[g * kRows + r];
            float want6 = scalar_u6(model.u6 + g * kSupers, r, model.act);
            float got6 = model.out[(model.groups4 + g) * kRows + r];
            require(got4 == want4 && got6 == want6, "block dots equal the scalar definition bit by bit");
        }
    }
    std::puts("u4 and u6 block dots equal the scalar definition bit by bit");
}

// Calls part(first, last) with this thread's share of segment `layer` of `total` units.
template <class Part>
static void share(size_t total, int layer, int thread, int num_threads, size_t grain, Part part) {
    size_t segment = total / kLayers, begin = segment * layer, cut = segment / num_threads / grain * grain;
    part(begin + cut * thread, thread + 1 == num_threads ? begin + segment : begin + cut * (thread + 1));
}

static uint64_t sink;
static void read_bytes(const void* memory, size_t first, size_t last) {
    Ints acc[8] = {};
    const char* p = static_cast<const char*>(memory);
    for (size_t i = first; i + sizeof acc <= last; i += sizeof acc)
        for (int j = 0; j < 8; ++j) acc[j] = add32(acc[j], load_ints(p + i + j * sizeof(Ints)));
    for (int j = 1; j < 8; ++j) acc[0] = add32(acc[0], acc[j]);
    uint64_t word;
    std::memcpy(&word, &acc[0], 8);
    __atomic_fetch_add(&sink, word, __ATOMIC_RELAXED);
}

template <class Work>
static void every_layer(int num_threads, Work work) {
    on_threads(num_threads, [&](int thread) {
        for (int layer = 0; layer < kLayers; ++layer) work(layer, thread);
    });
}

template <int n>
using Ahead = std::integral_constant<int, n>;  // prefetch distance in blocks of 256 columns

int main(int argc, char**) {
    Model model;
    check(model);
    if (argc > 1) return 0;
    double state_bytes = 2 * 4 * double(kStateFloats), total = double(model.bytes4() + model.bytes6()) + state_bytes;
    for (int threads : {1, 2}) {
        auto rows4 = [&](auto ahead, int layer, int t) {
            share(model.groups4, layer, t, threads, 1, [&](size_t a, size_t b) { model.rows4<ahead.value>(a, b); });
        };
        auto rows6 = [&](auto ahead, int layer, int t) {
            share(model.groups6, layer, t, threads, 1, [&](size_t a, size_t b) { model.rows6<ahead.value>(a, b); });
        };
        auto state = [&](int layer, int t) {
            share(kStateFloats, layer, t, threads, 64, [&](size_t a, size_t b) { model.touch_state(a, b); });
        };
        auto stream = [&](const void* memory, size_t bytes, int layer, int t) {
            share(bytes, layer, t, threads, 4096, [&](size_t a, size_t b) { read_bytes(memory, a, b); });
        };
        Rivals rivals;
        rivals.add("read stream of 531 MB", total, [&, threads] {
            every_layer(threads, [&](int layer, int t) {
                stream(model.u6, model.bytes6(), layer, t);
                stream(model.u4, model.bytes4(), layer, t);
                stream(model.state, size_t(state_bytes), layer, t);
            });
        });
        auto products = [&](auto ahead, const char* note) {
            rivals.add(std::string("decode mix, ") + note, total, [&, ahead, threads] {
                every_layer(threads,
                            [&](int layer, int t) { rows6(ahead, layer, t), rows4(ahead, layer, t), state(layer, t); });
            });
            rivals.add(std::string("u6 blocks alone, ") + note, double(model.bytes6()), [&, ahead, threads] {
                every_layer(threads, [&](int layer, int t) { rows6(ahead, layer, t); });
            });
            rivals.add(std::string("u4 blocks alone, ") + note, double(model.bytes4()), [&, ahead, threads] {
                every_layer(threads, [&](int layer, int t) { rows4(ahead, layer, t); });
            });
        };
        products(Ahead<0>(), "no software prefetch");
        products(Ahead<1>(), "prefetch 1 block ahead");
        products(Ahead<2>(), "prefetch 2 blocks ahead");
        products(Ahead<4>(), "prefetch 4 blocks ahead");
        rivals.add("state alone (read + written)", state_bytes, [&, threads] { every_layer(threads, state); });
        rivals.run(15);
        rivals.print(("decode step, threads " + std::to_string(threads)).c_str(), "GB/s", 1e-9);
    }
}
