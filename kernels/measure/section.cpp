#include "measure/section.h"

#include <algorithm>
#include <chrono>

#include "thread_pool.h"

namespace qwick {
namespace {

constexpr int kWork = 2000;  // dependent additions and products: some microseconds

void item() {
    volatile float start = 1;
    float x = start;
    for (int i = 0; i < kWork; ++i) x = x * 0.5f + 1;
    start = x;
}

std::vector<double> times(ThreadPool& pool, int threads, int count) {
    const PoolRun run(pool, threads);
    std::vector<double> seconds;
    for (int i = 0; i < count; ++i) {
        const auto begin = std::chrono::steady_clock::now();
        pool.for_each(threads, [](int64_t, int) { item(); });
        seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return seconds;
}

}  // namespace

std::vector<double> section_costs(int threads, int count) {
    ThreadPool pool;
    std::vector<double> alone = times(pool, 1, 1001);
    std::nth_element(alone.begin(), alone.begin() + 500, alone.end());
    std::vector<double> costs = times(pool, threads, count);
    for (double& seconds : costs) seconds -= alone[500];
    return costs;
}

}  // namespace qwick
