#include "tile_trial.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>

#include "codec/half.h"

namespace qwick {
namespace {

constexpr int kFaults[] = {SIGILL, SIGSEGV, SIGBUS};

struct {
    pthread_t thread;
    sigjmp_buf back;
    struct sigaction before[3];
} under_way;

void on_fault(int number) {
    if (pthread_equal(under_way.thread, pthread_self())) siglongjmp(under_way.back, 1);
    for (int i = 0; i < 3; ++i) {  // another thread's: its instruction runs again, under the handler that was there
        if (kFaults[i] == number) sigaction(number, &under_way.before[i], nullptr);
    }
}

}  // namespace

bool survives(void (*attempt)(void*), void* data) {
    under_way.thread = pthread_self();
    struct sigaction catching{};
    catching.sa_handler = on_fault;
    sigemptyset(&catching.sa_mask);
    for (int i = 0; i < 3; ++i) sigaction(kFaults[i], &catching, &under_way.before[i]);
    volatile bool finished = false;
    if (sigsetjmp(under_way.back, 1) == 0) {
        attempt(data);
        finished = true;
    }
    for (int i = 0; i < 3; ++i) sigaction(kFaults[i], &under_way.before[i], nullptr);
    return finished;
}

#if defined(__x86_64__)
namespace {

struct SmallProduct {
    alignas(64) uint16_t a[16][32], b[16][16][2];
    alignas(64) float c[16][16];
};

// Small integers: exact in bf16, and so are all sums.
int a_at(int i, int k) {
    return (3 * i + 5 * k) % 17 - 8;
}
int b_at(int k, int j) {
    return (7 * k + j) % 15 - 7;
}
int c_at(int i, int j) {
    return 100 * i + j;
}

}  // namespace

bool tiles_work() {
    SmallProduct p;
    for (int i = 0; i < 16; ++i) {
        for (int k = 0; k < 32; ++k) p.a[i][k] = f32_to_bf16(static_cast<float>(a_at(i, k)));
        for (int k = 0; k < 32; ++k) p.b[k / 2][i][k % 2] = f32_to_bf16(static_cast<float>(b_at(k, i)));
        for (int j = 0; j < 16; ++j) p.c[i][j] = static_cast<float>(c_at(i, j));
    }
    const auto multiply = [](void* data) {
        auto& p = *static_cast<SmallProduct*>(data);
        amx::multiply_tiles(p.a[0], p.b[0][0], p.c[0]);
    };
    if (!survives(multiply, &p)) return false;
    for (int i = 0; i < 16; ++i) {
        for (int j = 0; j < 16; ++j) {
            int want = c_at(i, j);
            for (int k = 0; k < 32; ++k) want += a_at(i, k) * b_at(k, j);
            if (p.c[i][j] != static_cast<float>(want)) return false;
        }
    }
    return true;
}
#endif

}  // namespace qwick
