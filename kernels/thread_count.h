// How many threads to use when nobody says.
#pragma once

#include <string>

namespace qwick {

struct ThreadCount {
    int count;
    std::string reason;  // for `qwick doctor`
};

// One thread per physical core this process may run on (affinity), no more than the cgroups' CPU quota. Two threads on
// one core share its multipliers and its L2: decode does not gain, prompts lose.
ThreadCount default_thread_count();

// Hardware threads this process may run on, no more than the quota: more of them never help.
int most_thread_count();

}  // namespace qwick
