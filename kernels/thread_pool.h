// The threads of one runtime: a job is split into many small items, claimed one by one from an atomic counter.
//
// A job ends when its items are done, not when every worker has come by: a pre-empted worker that holds no item delays
// nobody. Idle workers spin for some 50 us (the gap between two jobs of a replay is shorter), then sleep. Denormals are
// flushed in workers always and in the caller between begin() and end(). Items must not throw.
//
// One caller at a time (the runtime holds a mutex). After fork() the child starts new workers at its next begin();
// forking while another thread is inside a run is not supported. A pool that is never destroyed is safe at process
// exit: workers touch nothing but the pool's own heap memory.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace qwick {

constexpr int kMaxThreads = 1024;

class ThreadPool {
  public:
    ThreadPool() = default;
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    // Between these, for_each uses `threads` threads, the caller being thread 0. Throws CapacityError when none start.
    void begin(int threads);
    void end();
    int threads() const { return active_; }
    uint64_t num_sections() const { return num_sections_; }  // jobs that were shared among threads so far

    // f(item, thread) for item 0 .. count - 1, in any order, on any thread. No allocation.
    template <class F>
    void for_each(int64_t count, F&& f) {
        using Plain = std::remove_reference_t<F>;
        run({[](void* context, int64_t item, int thread) { (*static_cast<Plain*>(context))(item, thread); },
             const_cast<void*>(static_cast<const void*>(&f)), count});
    }

  private:
    struct Job {
        void (*body)(void* context, int64_t item, int thread);
        void* context;
        int64_t count;
    };
    struct Worker {
        std::thread thread;
        std::mutex mutex;
        std::condition_variable wake;
        std::atomic<bool> asleep{false};
    };

    void run(const Job& job);
    void work(int thread);
    void wake_workers();
    bool has_work(int index) const;
    void serve(Worker& worker, int index);
    void stop_workers();
    void forget_workers_of_parent();

    // The high half is the job's number, the low half the next item. A claim succeeds only while the whole word is as
    // it was read, so the job fields read in between belong to that job: a new job first closes the word, then writes
    // its fields.
    std::atomic<uint64_t> claim_{kClosed};
    std::atomic<void (*)(void*, int64_t, int)> body_{nullptr};
    std::atomic<void*> context_{nullptr};
    std::atomic<int64_t> count_{0};
    std::atomic<int64_t> done_{0};
    std::atomic<int> active_{1};
    std::atomic<bool> stopping_{false};
    uint64_t job_number_ = 0, num_sections_ = 0;
    unsigned saved_float_mode_ = 0;
    pid_t owner_ = 0;
    std::vector<std::unique_ptr<Worker>> workers_;

    static constexpr uint64_t kClosed = 0xffffffff;
};

// begin() and end() as a scope.
class PoolRun {
  public:
    PoolRun(ThreadPool& pool, int threads) : pool_(pool) { pool_.begin(threads); }
    ~PoolRun() { pool_.end(); }
    PoolRun(const PoolRun&) = delete;
    PoolRun& operator=(const PoolRun&) = delete;

  private:
    ThreadPool& pool_;
};

}  // namespace qwick
