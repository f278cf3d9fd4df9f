// Timing, threads and aligned memory shared by the spike programs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <sys/mman.h>

enum class Clock {
    wall,
    cpu  // processor time over threads: for compute-bound work on a machine that others use too
};

inline double seconds_now(Clock clock, int num_threads) {
    timespec now;
    clock_gettime(clock == Clock::wall ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &now);
    double seconds = double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
    return clock == Clock::wall ? seconds : seconds / num_threads;
}

// Times rival variants round by round, so that a change of machine load hits all of them, and keeps medians.
class Rivals {
  public:
    explicit Rivals(Clock clock = Clock::wall, int num_threads = 1) : clock_(clock), num_threads_(num_threads) {}

    void add(std::string name, double units, std::function<void()> body) {
        entries_.push_back({std::move(name), units, std::move(body), {}});
    }

    void run(int rounds) {
        for (auto& entry : entries_) entry.body();  // warms caches and page tables
        for (int round = 0; round < rounds; ++round)
            for (auto& entry : entries_) {
                double start = seconds_now(clock_, num_threads_);
                entry.body();
                entry.seconds.push_back(seconds_now(clock_, num_threads_) - start);
            }
    }

    // One line per variant: median and best of units per second, scaled.
    void print(const char* heading, const char* unit, double scale) {
        double load[3] = {};
        getloadavg(load, 3);
        std::printf("## %s  (%s time, load average %.2f)\n", heading, clock_ == Clock::wall ? "wall" : "cpu", load[0]);
        for (auto& entry : entries_) {
            std::sort(entry.seconds.begin(), entry.seconds.end());
            double median = entry.seconds[entry.seconds.size() / 2], best = entry.seconds.front();
            std::printf("%-52s median %8.2f  best %8.2f %s  (%.1f us)\n", entry.name.c_str(),
                        entry.units / median * scale, entry.units / best * scale, unit, median * 1e6);
        }
        std::fflush(stdout);
    }

  private:
    struct Entry {
        std::string name;
        double units;
        std::function<void()> body;
        std::vector<double> seconds;
    };
    Clock clock_;
    int num_threads_;
    std::vector<Entry> entries_;
};

// Runs body(thread_index) on `num_threads` fresh threads; the caller is thread 0.
template <class Body>
void on_threads(int num_threads, Body body) {
    std::vector<std::thread> others;
    for (int t = 1; t < num_threads; ++t) others.emplace_back(body, t);
    body(0);
    for (auto& other : others) other.join();
}

// Zeroed memory at 2 MiB alignment with transparent huge pages asked for, as the design's arena has; never freed.
template <class T>
T* huge_alloc(size_t count) {
    size_t bytes = (count * sizeof(T) + (2u << 20) - 1) & ~size_t((2u << 20) - 1);
    void* memory = std::aligned_alloc(2u << 20, bytes);
    if (memory == nullptr) throw std::bad_alloc();
    madvise(memory, bytes, MADV_HUGEPAGE);
    std::fill_n(static_cast<char*>(memory), bytes, 0);
    return static_cast<T*>(memory);
}

inline float* random_floats(size_t count, unsigned seed, float scale) {
    float* out = huge_alloc<float>(count);
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal(0.0f, scale);
    for (size_t i = 0; i < count; ++i) out[i] = normal(engine);
    return out;
}

// Largest absolute difference, relative to the RMS of `want`.
inline double relative_error(const float* got, const float* want, size_t count) {
    double worst = 0, square = 0;
    for (size_t i = 0; i < count; ++i) {
        worst = std::max(worst, std::fabs(double(got[i]) - want[i]));
        square += double(want[i]) * want[i];
    }
    return worst / std::sqrt(square / double(count) + 1e-300);
}

inline void require(bool holds, const std::string& claim) {
    if (holds) return;
    std::fprintf(stderr, "FAILED: %s\n", claim.c_str());
    std::exit(1);
}
