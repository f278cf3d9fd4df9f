// Inputs, the check and the timing of the panel spike.
#pragma once

static float to_bf16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    std::memcpy(&value, &bits, 4);
    return value;
}

static Problem make_problem(int k, int n) {
    Problem p{k, n, huge_alloc<U4Block>(size_t(n) / kRows * (k / kSuper)), nullptr, {}, {}, nullptr};
    size_t blocks = size_t(n) / kRows * (k / kSuper);
    fill_random(p.w, blocks, 88172645463325252ull);
    for (size_t i = 0; i < blocks; ++i) make_small(p.w[i].d), make_small(p.w[i].m);
    float* x = random_floats(size_t(kTokens) * k, 3, 1.0f);
    for (size_t i = 0; i < size_t(kTokens) * k; ++i) {
        x[i] = to_bf16(x[i]);
        uint32_t bits;
        std::memcpy(&bits, x + i, 4);
        p.bf16.push_back(uint16_t(bits >> 16));
    }
    for (int m = 0; m < kTokens; ++m) p.int8.emplace_back(k, 100 + m);
    p.x = x;
    p.out = huge_alloc<float>(size_t(kTokens) * n);
    return p;
}

struct Rival {
    std::string name;
    std::function<void(int first, int last)> run;  // panels of `width` columns
    int width;
    bool int8 = false;
};

template <int MR, int NV>
static Rival f32_rival(const Problem& p) {
    float* strips = huge_alloc<float>(size_t(p.k) * (kTokens + MR));
    pack_strips<MR>(p.x, p.k, strips);
    return {"f32 panel, tile " + std::to_string(MR) + " x " + std::to_string(NV * kLanes),
            [&p, strips](int a, int b) { run_f32<MR, NV>(p, strips, a, b); }, NV * kLanes};
}

#if SPIKE_LANES == 8
template <int MR>
static Rival int8_rival(const Problem& p) {
    return {"int8 panel, tile " + std::to_string(MR) + " x 16",
            [&p, rows = pack_int8(p)](int a, int b) { run_int8<MR>(p, rows.data(), a, b); }, kPanel, true};
}
#endif

static std::vector<Rival> rivals_for(const Problem& p) {
    std::vector<Rival> out;
#if SPIKE_LANES == 16
    out.push_back(f32_rival<12, 2>(p));
    out.push_back(f32_rival<8, 2>(p));
    out.push_back(f32_rival<28, 1>(p));
#if defined(__AVX512BF16__) || defined(SPIKE_SIMDE)
    out.push_back({"bf16 pairs, vdpbf16ps, tile 8 x 32", [&p](int a, int b) { run_dpbf16<8>(p, a, b); }, 32});
#endif
#if defined(__AMX_BF16__) || defined(SPIKE_SIMDE)
    if (amx_allowed())
        out.push_back({"bf16 pairs, AMX, tile 32 x 32", [&p](int a, int b) { run_amx(p, a, b); }, 32});
    else
        std::puts("AMX: not allowed by this OS");
#endif
#else
    out.push_back(f32_rival<6, 2>(p));
    out.push_back(f32_rival<4, 2>(p));
    out.push_back(int8_rival<1>(p));
    out.push_back(int8_rival<2>(p));
    out.push_back(int8_rival<4>(p));
#endif
    return out;
}

// One f32 chain over k, on the bf16 weights.
static float scalar_f32(const Problem& p, int m, int n) {
    float total = 0;
    const U4Block* row = &p.block(n / kRows, 0);
    for (int k = 0; k < p.k; ++k)
        total = std::fma(p.x[size_t(m) * p.k + k], to_bf16(scalar_weight(row, n % kRows, k)), total);
    return total;
}

static void check(const Problem& p, const Rival& rival) {
    std::fill_n(p.out, size_t(kTokens) * p.n, 0.0f);
    rival.run(0, 64 / rival.width);
    bool equal = true;
    std::vector<float> got, want;
    for (int m : {0, 1, 5, 63, 64, 255, 509, 510, 511})
        for (int n = 0; n < 64 / rival.width * rival.width; n += 7) {
            got.push_back(p.out[size_t(m) * p.n + n]);
            want.push_back(rival.int8 ? scalar_u4(&p.block(n / kRows, 0), n % kRows, p.int8[m]) : scalar_f32(p, m, n));
            equal = equal && got.back() == want.back();
        }
    double error = relative_error(got.data(), want.data(), got.size());
    std::printf("%-52s K=%d: %s, error %.1e\n", rival.name.c_str(), p.k, equal ? "bitwise as the scalar" : "differs",
                error);
    require(error < 1e-4 && (equal || rival.name.find("pairs") != std::string::npos), rival.name);
}

#ifdef SPIKE_SIMDE
#define SPIKE_REGISTER "m"
#else
#define SPIKE_REGISTER "v"
#endif
constexpr int kChains = kLanes == 16 ? 20 : 12;

static void fma_peak(int thread) {
    Vec acc[kChains], x = splat(1.0f), y = splat(1e-9f * float(thread));
    for (int c = 0; c < kChains; ++c) acc[c] = splat(float(c));  // equal chains would be merged
    for (int i = 0; i < 1 << 20; ++i) {
#pragma GCC unroll 20
        for (int c = 0; c < kChains; ++c) acc[c] = fma(acc[c], x, y);
        asm volatile("" : "+" SPIKE_REGISTER(x));  // keeps the loop from being folded
    }
    for (const auto& a : acc) asm volatile("" ::SPIKE_REGISTER(a));
}

int main(int argc, char**) {
    for (auto [k, n] : {std::pair{1024, 3584}, std::pair{3584, 1024}}) {
        Problem p = make_problem(k, n);
        auto all = rivals_for(p);
        for (const auto& rival : all) check(p, rival);
        if (argc > 1) continue;
        for (int threads : {1, 2}) {
            Rivals timed(Clock::cpu, threads);
            timed.add("fma peak", 2.0 * (1 << 20) * kLanes * kChains * threads,
                      [threads] { on_threads(threads, fma_peak); });
            for (const auto& rival : all)
                timed.add(rival.name, 2.0 * kTokens * k * n, [&, threads] {
                    int panels = p.n / rival.width;
                    on_threads(threads, [&](int t) { rival.run(panels * t / threads, panels * (t + 1) / threads); });
                });
            timed.run(11);
            timed.print(
                ("K=" + std::to_string(k) + " N=" + std::to_string(n) + " M=512, threads " + std::to_string(threads))
                    .c_str(),
                "GFLOP/s", 1e-9);
        }
    }
}
