// The chunked (WY) form of the gated delta rule: C tokens at once as small matrix products. With P_i the product of the
// chunk's first i decays and D_ij = P_i / P_j (j <= i):
//     (I + A) X = beta (V - P (K S)),  A_ij = beta_i D_ij k_i.k_j (j < i);   O = P (Q S) + (D * Q K^T) X;
//     S <- P_C S + K^T (D_C X).
// Source: Yang et al., "Gated Delta Networks", 2024, section 3.3; the reference model computes prompts so with C = 64.
#pragma once

// c[4][2 vectors] (+)= a[4][depth] b[depth][2 vectors]
template <bool kAdd>
static inline void micro_4x2(int depth, const float* a, int lda, const float* b, int ldb, float* c, int ldc, Vec sign) {
    Vec acc[4][2] = {};
    for (int p = 0; p < depth; ++p) {
        Vec b0 = load(b + p * ldb), b1 = load(b + p * ldb + kLanes);
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) {
            Vec x = splat(a[r * lda + p]);
            acc[r][0] = fma(x, b0, acc[r][0]);
            acc[r][1] = fma(x, b1, acc[r][1]);
        }
    }
    for (int r = 0; r < 4; ++r)
        for (int w = 0; w < 2; ++w) {
            float* at = c + r * ldc + w * kLanes;
            store(at, kAdd ? fma(sign, acc[r][w], load(at)) : acc[r][w]);
        }
}

// c[rows][cols] (+)= a b. kLowerA: a[i][p] is zero for p > i; kLowerC: only columns up to the diagonal are wanted.
template <bool kAdd, bool kLowerA = false, bool kLowerC = false>
static void product(int rows, int cols, int depth, const float* a, int lda, const float* b, int ldb, float* c,
                    int ldc) {
    for (int n = 0; n < cols; n += 2 * kLanes)
        for (int m = 0; m < rows; m += 4)
            if (!kLowerC || n < m + 4)
                micro_4x2<kAdd>(kLowerA ? std::min(depth, m + 4) : depth, a + m * lda, lda, b + n, ldb, c + m * ldc + n,
                                ldc, splat(1));
}

// Solves (I + A) X = X in place, A strictly lower [C][C].
template <int C>
static void solve(const float* A, float* X) {
    for (int m = 0; m < C; m += 4) {
        for (int n = 0; n < kDim; n += 2 * kLanes)
            micro_4x2<true>(m, A + m * C, C, X + n, kDim, X + m * kDim + n, kDim, splat(-1));
        for (int i = m + 1; i < m + 4; ++i)
            for (int p = m; p < i; ++p)
                for (int n = 0; n < kDim; n += kLanes)
                    store(X + i * kDim + n, fma(splat(-A[i * C + p]), load(X + p * kDim + n), load(X + i * kDim + n)));
    }
}

template <int C>
static void chunk(const Run& run, int t0, float* S) {
    // The narrowest product is 2 vectors wide: pad the columns of K^T so that C = 16 works at 16 lanes.
    constexpr int ld = std::max(C, 2 * kLanes);
    alignas(64) float kt[kDim * ld] = {}, A[C * ld], QK[C * ld], D[C * C] = {}, X[C * kDim], P[C];
    const int stride = run.stride;
    const float *q = run.q + t0 * stride, *k = run.k + t0 * stride, *v = run.v + t0 * stride;
    const float *decay = run.decay + t0 * kHeads, *beta = run.beta + t0 * kHeads;
    float* out = run.out + t0 * stride;

    for (int i = 0; i < C; ++i) {
        for (int d = 0; d < kDim; ++d) kt[d * ld + i] = k[i * stride + d];
        P[i] = decay[i * kHeads] * (i > 0 ? P[i - 1] : 1.0f);
        for (int j = 0; j < i; ++j) D[i * C + j] = D[(i - 1) * C + j] * decay[i * kHeads];
        D[i * C + i] = 1;
    }
    product<false, false, true>(C, ld, kDim, k, stride, kt, ld, A, ld);
    product<false, false, true>(C, ld, kDim, q, stride, kt, ld, QK, ld);
    alignas(64) float lower[C * C], attend[C * C];
    for (int i = 0; i < C; ++i)
        for (int j = 0; j < C; ++j) {
            float d = D[i * C + j];
            lower[i * C + j] = j < i ? beta[i * kHeads] * d * A[i * ld + j] : 0;
            attend[i * C + j] = j <= i ? d * QK[i * ld + j] : 0;
        }

    product<false>(C, kDim, kDim, k, stride, S, kDim, X, kDim);
    product<false>(C, kDim, kDim, q, stride, S, kDim, out, stride);
    for (int i = 0; i < C; ++i)
        for (int j = 0; j < kDim; ++j) {
            X[i * kDim + j] = beta[i * kHeads] * (v[i * stride + j] - P[i] * X[i * kDim + j]);
            out[i * stride + j] *= P[i];
        }
    solve<C>(lower, X);
    product<true, true>(C, kDim, C, attend, C, X, kDim, out, stride);

    for (int d = 0; d < kDim; ++d) {
        for (int i = 0; i < C; ++i) kt[d * ld + i] *= D[(C - 1) * C + i];
        for (int j = 0; j < kDim; ++j) S[d * kDim + j] *= P[C - 1];
    }
    product<true>(kDim, kDim, C, kt, ld, X, kDim, S, kDim);
}

// run.len must be a multiple of C.
template <int C>
static void chunked_head(const Run& run, float* S) {
    for (int t = 0; t < run.len; t += C) chunk<C>(run, t, S);
}
