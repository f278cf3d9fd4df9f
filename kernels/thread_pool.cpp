#include "thread_pool.h"

#include <signal.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/prctl.h>
#endif

#include <system_error>

#include "errors.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace qwick {
namespace {

constexpr int kSpins = 1500;  // about 50 us

#if defined(__x86_64__)
void pause() {
    _mm_pause();
}
unsigned float_mode() {
    return _mm_getcsr();
}
void set_float_mode(unsigned mode) {
    _mm_setcsr(mode);
}
unsigned flushing(unsigned mode) {
    return mode | 0x8040;
}  // FTZ and DAZ
#else
void pause() {
    std::this_thread::yield();
}
unsigned float_mode() {
    return 0;
}
void set_float_mode(unsigned) {}
unsigned flushing(unsigned mode) {
    return mode;
}
#endif

// Signals are the interpreter's: a worker inherits a mask that blocks them all.
class SignalsBlocked {
  public:
    SignalsBlocked() {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

  private:
    sigset_t before_;
};

// Linux rounds a thread's short waits up by 50 us, and the caller has to wait for the GIL after every run.
void sharpen_timers() {
#if defined(__linux__)
    static thread_local bool done = false;
    if (!done) prctl(PR_SET_TIMERSLACK, 1000UL);  // ns
    done = true;
#endif
}

}  // namespace

ThreadPool::~ThreadPool() {
    if (owner_ == getpid()) {
        stop_workers();
    } else {
        forget_workers_of_parent();
    }
}

void ThreadPool::begin(int threads) {
    if (threads < 1 || threads > kMaxThreads) throw KernelError("the number of threads must be 1 to 1024");
    if (owner_ != getpid()) forget_workers_of_parent();
    owner_ = getpid();
    sharpen_timers();
    const SignalsBlocked guard;
    while (static_cast<int>(workers_.size()) < threads - 1) {
        auto worker = std::make_unique<Worker>();
        const int index = static_cast<int>(workers_.size()) + 1;
        try {
            worker->thread = std::thread(&ThreadPool::serve, this, std::ref(*worker), index);
        } catch (const std::system_error&) {
            throw CapacityError("the system refuses to start " + std::to_string(threads) + " threads");
        }
        workers_.push_back(std::move(worker));
    }
    active_ = threads;
    saved_float_mode_ = float_mode();
    set_float_mode(flushing(saved_float_mode_));
}

void ThreadPool::end() {
    set_float_mode(saved_float_mode_);
    active_ = 1;
}

void ThreadPool::run(const Job& job) {
    if (active_ == 1 || job.count <= 1) {
        for (int64_t item = 0; item < job.count; ++item) job.body(job.context, item, 0);
        return;
    }
    if (job.count >= static_cast<int64_t>(kClosed)) throw KernelError("a job has too many items");
    ++num_sections_;
    job_number_ = (job_number_ + 1) & kClosed;
    claim_ = job_number_ << 32 | kClosed;
    body_ = job.body;
    context_ = job.context;
    count_ = job.count;
    done_ = 0;
    claim_ = job_number_ << 32;
    wake_workers();
    work(0);
    for (int spins = 0; done_.load(std::memory_order_acquire) < job.count; ++spins) {
        spins < kSpins ? pause() : std::this_thread::yield();  // the last items are in other hands: a few microseconds
    }
}

void ThreadPool::work(int thread) {
    uint64_t claim = claim_;
    for (;;) {
        const int64_t item = static_cast<int64_t>(claim & kClosed);
        const auto body = body_.load();
        void* context = context_;
        if (item >= count_ || thread >= active_) return;
        if (!claim_.compare_exchange_weak(claim, claim + 1)) continue;
        body(context, item, thread);
        done_.fetch_add(1, std::memory_order_acq_rel);
        claim = claim_;
    }
}

bool ThreadPool::has_work(int index) const {
    return index < active_ && static_cast<int64_t>(claim_ & kClosed) < count_;
}

void ThreadPool::wake_workers() {
    for (int index = 1; index < active_; ++index) {
        Worker& worker = *workers_[index - 1];
        if (!worker.asleep) continue;
        {
            const std::lock_guard<std::mutex> lock(worker.mutex);
            worker.asleep = false;
        }
        worker.wake.notify_one();
    }
}

void ThreadPool::serve(Worker& worker, int index) {
    set_float_mode(flushing(float_mode()));
    while (!stopping_) {
        for (int spins = 0; spins < kSpins && !stopping_; ++spins) {
            if (has_work(index)) {
                work(index);
                spins = 0;
            }
            pause();
        }
        std::unique_lock<std::mutex> lock(worker.mutex);
        worker.asleep = true;  // from here on the caller wakes us; what it published before is seen by the next line
        if (has_work(index) || stopping_) worker.asleep = false;
        worker.wake.wait(lock, [&] { return !worker.asleep; });
    }
}

void ThreadPool::stop_workers() {
    stopping_ = true;
    for (auto& worker : workers_) {
        {
            const std::lock_guard<std::mutex> lock(worker->mutex);
            worker->asleep = false;
        }
        worker->wake.notify_one();
        worker->thread.join();
    }
}

// The child of a fork has the objects but not the threads; joining or destroying them would hang or abort.
void ThreadPool::forget_workers_of_parent() {
    for (auto& worker : workers_) static_cast<void>(worker.release());
    workers_.clear();
}

}  // namespace qwick
