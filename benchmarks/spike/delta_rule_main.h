// Inputs, checks and timing of the delta rule spike.
#pragma once

// Activations of one layer: q | k | v per token as the convolution leaves them, all heads side by side.
struct Layer {
    static constexpr int kStride = 3 * kHeads * kDim;
    int len;
    float *qkv, *out, *decay, *beta;

    explicit Layer(int num_tokens) : len(num_tokens) {
        qkv = random_floats(size_t(len) * kStride, 1, 1.0f);
        out = huge_alloc<float>(size_t(len) * kStride);
        decay = huge_alloc<float>(size_t(len) * kHeads);
        beta = huge_alloc<float>(size_t(len) * kHeads);
        for (int i = 0; i < len * 2 * kHeads; ++i) {  // unit q and k
            float* row = qkv + size_t(i) / (2 * kHeads) * kStride + i % (2 * kHeads) * kDim;
            float scale = 1 / std::sqrt(dot(row, row));
            for (int d = 0; d < kDim; ++d) row[d] *= scale;
        }
        std::mt19937 engine(2);
        std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
        for (int i = 0; i < len * kHeads; ++i) {  // half-lives of 1 to 5,000 tokens across the heads
            float half_life = std::pow(5000.0f, float(i % kHeads) / (kHeads - 1));
            decay[i] = std::pow(0.5f, 2 * uniform(engine) / half_life);
            beta[i] = uniform(engine);
        }
    }

    Run head(int h, int first, int num) const {
        size_t at = size_t(first) * kStride + h * kDim, scalar = size_t(first) * kHeads + h;
        return {
            num,           kStride, qkv + at, qkv + at + kHeads * kDim, qkv + at + 2 * kHeads * kDim, decay + scalar,
            beta + scalar, out + at};
    }
};

static void check(const Layer& layer, const Variant& variant) {
    double worst_out = 0, worst_state = 0;
    bool cut_exact = true;
    unsigned hash = 2166136261u;  // of outputs: equal between vector widths where the arithmetic is
    for (int h = 0; h < kHeads; h += 5) {
        const int len = layer.len, cut = 64;
        std::vector<double> exact(kDim * kDim, 0.0);
        std::vector<float> S(kDim * kDim, 0.0f), cut_S(kDim * kDim, 0.0f), want, got, got_cut;
        auto outputs = [&](std::vector<float>& into) {
            into.clear();
            for (int t = 0; t < len; ++t) {
                const float* row = layer.out + size_t(t) * Layer::kStride + h * kDim;
                into.insert(into.end(), row, row + kDim);
            }
        };
        reference(layer.head(h, 0, len), exact);
        outputs(want);
        variant.head(layer.head(h, 0, len), S.data());
        outputs(got);
        variant.head(layer.head(h, 0, cut), cut_S.data());
        variant.head(layer.head(h, cut, len - cut), cut_S.data());
        outputs(got_cut);
        cut_exact = cut_exact && got == got_cut && S == cut_S;
        for (float value : got) {
            unsigned bits;
            std::memcpy(&bits, &value, 4);
            hash = (hash ^ bits) * 16777619u;
        }
        std::vector<float> state, wanted_state;
        for (int k = 0; k < kDim; ++k)
            for (int v = 0; v < kDim; ++v) {
                state.push_back(S[state_index(variant, k, v)]);
                wanted_state.push_back(float(exact[k * kDim + v]));
            }
        worst_out = std::max(worst_out, relative_error(got.data(), want.data(), want.size()));
        worst_state = std::max(worst_state, relative_error(state.data(), wanted_state.data(), state.size()));
    }
    std::printf("%-52s error out %.1e state %.1e  cut at 64 %s, hash %08x\n", variant.name, worst_out, worst_state,
                cut_exact ? "bitwise equal" : "DIFFERS", hash);
    require(worst_out < 5e-4 && worst_state < 5e-4 && cut_exact, variant.name);
}

// Heads are dealt to threads; work is one whole layer (prompt) or 18 layers of one token (decode, state from memory).
static void over_heads(const Variant& variant, const Layer& layer, float* states, int layers, int num_threads) {
    on_threads(num_threads, [&](int thread) {
        for (int unit = thread; unit < layers * kHeads; unit += num_threads)
            variant.head(layer.head(unit % kHeads, 0, layer.len), states + size_t(unit) * kDim * kDim);
    });
}

int main(int argc, char**) {
    Layer prompt(512), token(1);
    for (const auto& variant : kVariants) check(prompt, variant);
    if (argc > 1) return 0;  // correctness only
    const int layers = 18;
    float* states = huge_alloc<float>(size_t(layers) * kHeads * kDim * kDim);
    for (int num_threads : {1, 2}) {
        // The one-pass form does 4 vector operations an element, 7 f32 operations: mul 1 + fma 3 x 2.
        Rivals prompts(Clock::cpu, num_threads);
        for (const auto& variant : kVariants)
            prompts.add(variant.name, 512.0 * kHeads * kDim * kDim * 7,
                        [&, num_threads] { over_heads(variant, prompt, states, 1, num_threads); });
        prompts.run(9);
        prompts.print(("prompt, 512 tokens x 16 heads, threads " + std::to_string(num_threads)).c_str(), "GFLOP/s",
                      1e-9);
        Rivals decode;
        for (const auto& variant : kVariants)
            if (std::string(variant.name).find("chunked") == std::string::npos)
                decode.add(variant.name, 2.0 * layers * kHeads * kDim * kDim * 4,
                           [&, num_threads] { over_heads(variant, token, states, layers, num_threads); });
        decode.run(25);
        decode.print(
            ("decode, 1 token x 18 layers, 18 MiB read and written, threads " + std::to_string(num_threads)).c_str(),
            "GB/s", 1e-9);
    }
}
