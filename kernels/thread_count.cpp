#include "thread_count.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <thread>
#include <vector>

#include "thread_pool.h"

namespace qwick {
namespace {

std::vector<int> allowed_cpus() {
    constexpr int kMaxCpus = 8192;
    std::vector<int> cpus;
    cpu_set_t* set = CPU_ALLOC(kMaxCpus);
    const size_t bytes = CPU_ALLOC_SIZE(kMaxCpus);
    if (set && sched_getaffinity(0, bytes, set) == 0) {
        for (int cpu = 0; cpu < kMaxCpus; ++cpu) {
            if (CPU_ISSET_S(cpu, bytes, set)) cpus.push_back(cpu);
        }
    }
    CPU_FREE(set);
    return cpus;
}

// CPUs of one core name the same list of siblings.
int num_cores(const std::vector<int>& cpus) {
    std::set<std::string> cores;
    for (int cpu : cpus) {
        std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
        std::string siblings;
        if (!(file >> siblings)) siblings = "cpu " + std::to_string(cpu);
        cores.insert(siblings);
    }
    return static_cast<int>(cores.size());
}

// CPUs granted by cgroup v2 `cpu.max` ("quota period") in this folder, or infinity.
double quota_of(const std::string& folder) {
    std::ifstream file(folder + "/cpu.max");
    double quota, period;
    return file >> quota >> period && quota > 0 && period > 0 ? quota / period : HUGE_VAL;
}

double quota_v1() {
    std::ifstream quota_file("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
        period_file("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    double quota, period;
    return quota_file >> quota && period_file >> period && quota > 0 && period > 0 ? quota / period : HUGE_VAL;
}

double cpu_quota() {
    double quota = std::min(quota_of("/sys/fs/cgroup"), quota_v1());
    std::ifstream file("/proc/self/cgroup");
    for (std::string line; std::getline(file, line);) {
        if (line.rfind("0::/", 0) != 0) continue;
        for (std::string path = line.substr(3); path.size() > 1; path.resize(path.rfind('/'))) {
            quota = std::min(quota, quota_of("/sys/fs/cgroup" + path));
        }
    }
    return quota;
}

}  // namespace

ThreadCount default_thread_count() {
    const std::vector<int> cpus = allowed_cpus();
    if (cpus.empty()) {
        const int count = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMaxThreads);
        return {count, "hardware concurrency (the affinity cannot be read)"};
    }
    const int cores = num_cores(cpus);
    std::string reason =
        std::to_string(cores) + " physical cores among " + std::to_string(cpus.size()) + " allowed CPUs";
    int count = cores;
    const double quota = cpu_quota();
    if (quota < cores) {
        count = static_cast<int>(quota);
        reason += ", cgroup quota of " + std::to_string(quota).substr(0, 4) + " CPUs";
    }
    return {std::clamp(count, 1, kMaxThreads), reason};
}

int most_thread_count() {
    const size_t cpus = allowed_cpus().size();
    const double count = std::min(cpus ? static_cast<double>(cpus) : std::thread::hardware_concurrency(), cpu_quota());
    return std::clamp(static_cast<int>(count), 1, kMaxThreads);
}

}  // namespace qwick
