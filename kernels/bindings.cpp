// The extension module qwick._kernels. Only ops/native.py imports it; _kernels.pyi says the same in Python.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <new>

#include "bindings_arrays.h"
#include "bindings_encode.h"
#include "bindings_leaves.h"
#include "bindings_machine.h"
#include "bindings_strings.h"
#include "bindings_tensor.h"
#include "errors.h"
#include "op_notes.h"
#include "recorder.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace qwick {
namespace {

template <class T, int N>
using Array = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <class T>
using Result = nb::ndarray<nb::numpy, T>;

void raise(const char* name, const char* message) {
    const nb::object type = nb::module_::import_("qwick.errors").attr(name);
    PyErr_SetString(type.ptr(), message);
}

void translate(const std::exception_ptr& caught, void*) {
    try {
        std::rethrow_exception(caught);
    } catch (const KernelError& error) {
        raise("KernelError", error.what());
    } catch (const CapacityError& error) {
        raise("CapacityError", error.what());
    } catch (const std::bad_alloc&) {
        raise("CapacityError", "not enough memory");
    }
}

Family family_named(const std::string& name) {
    for (int i = 0; i < kNumFamilies; ++i) {
        if (name == kFamilyNames[i]) return static_cast<Family>(i);
    }
    throw KernelError("unknown kernel family '" + name + "'");
}

// Shares the memory's ownership: the array stays readable even if the program moves on to larger memory, or dies.
nb::capsule owner_of(const std::shared_ptr<Mapping>& memory) {
    return nb::capsule(new std::shared_ptr<Mapping>(memory),
                       [](void* held) noexcept { delete static_cast<std::shared_ptr<Mapping>*>(held); });
}

template <class T>
nb::object array_of(T* data, std::initializer_list<size_t> shape, const std::shared_ptr<Mapping>& memory) {
    return nb::cast(Result<T>(data, shape, owner_of(memory)));
}

// (logits, top_ids, top_logits, logsumexp, hidden), None for what the program or the batch does not ask for.
nb::tuple results(const Program& program, size_t tokens, size_t wanted, size_t top_k, bool logsumexp) {
    nb::object logits = nb::none(), ids = nb::none(), values = nb::none(), lse = nb::none(), hidden = nb::none();
    HeadResult head = program.head();
    const auto vocab = static_cast<size_t>(program.recording().needs.head_rows);
    if (program.recording().has_head && top_k == 0) {
        float* data = head.logits.get(wanted * vocab);
        logits = array_of(data, {wanted, vocab}, head.logits.owner());
    } else if (program.recording().has_head) {
        float* data = head.top.get(wanted * (2 * top_k + 1));
        ids = array_of(reinterpret_cast<int32_t*>(data), {wanted, top_k}, head.top.owner());
        values = array_of(data + wanted * top_k, {wanted, top_k}, head.top.owner());
        if (logsumexp) lse = array_of(data + 2 * wanted * top_k, {wanted}, head.top.owner());
    }
    if (const float* data = program.hidden()) {
        const auto width = static_cast<size_t>(program.recording().values[program.recording().hidden].width);
        hidden = array_of(const_cast<float*>(data), {tokens, width}, program.memory());
    }
    return nb::make_tuple(logits, ids, values, lse, hidden);
}

nb::tuple run(Program& program, const Array<int32_t, 1>& token_ids, const Array<float, 2>& cos,
              const Array<float, 2>& sin, const Array<int32_t, 2>& runs, const Array<int32_t, 1>& pages,
              const Array<int32_t, 2>& snapshots, const Array<int32_t, 1>& wanted, int64_t top_k, bool logsumexp,
              const nb::object& hidden, const Array<int32_t, 1>& edit_starts, const Array<int32_t, 1>& edit_ids,
              const Array<float, 2>& edit_values) {
    const auto rows = [](const auto& array) { return static_cast<int64_t>(array.shape(0)); };
    const int64_t tokens = rows(token_ids);
    BatchArrays in{token_ids.data(),
                   tokens,
                   cos.data(),
                   sin.data(),
                   static_cast<int64_t>(cos.shape(1)),
                   nullptr,
                   0,
                   runs.data(),
                   rows(runs),
                   pages.data(),
                   rows(pages),
                   snapshots.data(),
                   rows(snapshots),
                   wanted.data(),
                   rows(wanted),
                   top_k,
                   logsumexp,
                   rows(edit_starts) > 0 ? edit_starts.data() : nullptr,
                   edit_ids.data(),
                   edit_values.data(),
                   rows(edit_ids)};
    Array<float, 2> hidden_array;
    if (!hidden.is_none()) {
        hidden_array = nb::cast<Array<float, 2>>(hidden, false);
        in.hidden = hidden_array.data();
        in.hidden_width = static_cast<int64_t>(hidden_array.shape(1));
    }
    const bool fits =
        rows(cos) == tokens && rows(sin) == tokens && sin.shape(1) == cos.shape(1) &&
        (rows(runs) == 0 || runs.shape(1) == kRunFields) && (rows(snapshots) == 0 || snapshots.shape(1) == 2) &&
        (!in.hidden || rows(hidden_array) == tokens) &&
        rows(edit_starts) == (in.edit_starts ? rows(wanted) + 1 : rows(edit_ids)) &&
        rows(edit_values) == rows(edit_ids) && (rows(edit_ids) == 0 || edit_values.shape(1) == kEditFields);
    if (!fits) throw KernelError("malformed batch: the arrays do not have the shapes of the contract");
    {
        const nb::gil_scoped_release no_gil;
        program.run(in);
    }
    return results(program, token_ids.shape(0), wanted.shape(0), static_cast<size_t>(top_k), logsumexp);
}

void commit(Program& program, const Array<int32_t, 2>& commits) {
    if (commits.shape(0) > 0 && commits.shape(1) != kCommitFields) throw KernelError("malformed commits");
    const nb::gil_scoped_release no_gil;
    program.commit(commits.data(), static_cast<int64_t>(commits.shape(0)));
}

void bind_heads(nb::module_& m) {
    nb::class_<AttentionHeads>(m, "AttentionHeads")
        .def(nb::init<int64_t, int64_t, int64_t, int64_t>(), "num_q"_a, "num_kv"_a, "head_dim"_a, "rotary_dim"_a);
    nb::class_<DeltaHeads>(m, "DeltaHeads")
        .def(nb::init<int64_t, int64_t, int64_t, int64_t>(), "num_k"_a, "num_v"_a, "k_dim"_a, "v_dim"_a);
}

// `work` on the open cache, with the pool and without the GIL.
template <class Work>
void in_cache(Runtime& r, Work work) {
    const nb::gil_scoped_release no_gil;
    const std::lock_guard<std::mutex> lock(r.running);
    const PoolRun pool_run(r.pool, r.threads);
    work(r.opened_cache());
}

void bind_runtime(nb::module_& m) {
    nb::class_<Runtime>(m, "Runtime")
        .def(nb::init<const std::string&, int, int, size_t>(), "isa"_a, "threads"_a, "threads_batch"_a,
             "reserve_bytes"_a)
        .def_prop_ro("isa", [](const Runtime& r) { return isa_name(r.dispatch.isa); })
        .def_prop_ro("threads", [](const Runtime& r) { return r.threads; })
        .def_prop_ro("threads_batch", [](const Runtime& r) { return r.threads_batch; })
        .def_prop_ro("weight_bytes", [](const Runtime& r) { return r.weights->used_bytes(); })
        .def_prop_ro("cache_bytes", [](const Runtime& r) { return r.cache ? r.cache->num_bytes() : 0; })
        .def("set_threads", &Runtime::set_threads, "threads"_a, "threads_batch"_a)
        .def(
            "add_matrix",
            [](Runtime& r, const std::string& name, int64_t rows, int64_t cols, const std::string& family) {
                return r.add_matrix(name, rows, cols, family_named(family));
            },
            "name"_a, "rows"_a, "cols"_a, "family"_a)
        .def(
            "add_vector",
            [](Runtime& r, const std::string& name,
               const nb::ndarray<const float, nb::c_contig, nb::device::cpu>& values) {
                std::vector<int64_t> shape;
                for (size_t i = 0; i < values.ndim(); ++i) shape.push_back(static_cast<int64_t>(values.shape(i)));
                return std::make_shared<Tensor>(name, shape, values.data(), r.weights);
            },
            "name"_a, "values"_a.noconvert())
        .def("lock_memory", [](Runtime& r) { r.weights->lock(); })
        .def("open_cache",
             [](Runtime& r, int64_t attention_layers, int64_t delta_layers, const AttentionHeads& attention,
                const DeltaHeads& delta, int64_t conv_kernel, int64_t num_pages, int64_t num_slots, int64_t page_len,
                const std::string& kv_format) {
                 const CacheShape shape{attention_layers,
                                        delta_layers,
                                        attention,
                                        delta,
                                        conv_kernel,
                                        num_pages,
                                        num_slots,
                                        page_len,
                                        kv_format_named(kv_format)};
                 const nb::gil_scoped_release no_gil;
                 const std::lock_guard<std::mutex> lock(r.running);
                 r.open_cache(shape);
             })
        .def(
            "copy_slot",
            [](Runtime& r, int64_t source, int64_t target) {
                in_cache(r, [&](Cache& cache) { cache.copy_slot(source, target, r.pool); });
            },
            "source"_a, "target"_a)
        .def(
            "copy_page",
            [](Runtime& r, int64_t source, int64_t target) {
                in_cache(r, [&](Cache& cache) { cache.copy_page(source, target, r.pool); });
            },
            "source"_a, "target"_a)
        .def(
            "save_state",
            [](Runtime& r, int64_t slot, const std::vector<int64_t>& pages) {
                in_cache(r, [&](Cache& cache) { cache.save_state(slot, pages, r.pool); });
            },
            "slot"_a, "pages"_a)
        .def(
            "load_state",
            [](Runtime& r, const std::vector<int64_t>& pages, int64_t slot) {
                in_cache(r, [&](Cache& cache) { cache.load_state(pages, slot, r.pool); });
            },
            "pages"_a, "slot"_a);
}

void bind_programs(nb::module_& m) {
    nb::class_<Recorder>(m, "Recorder")
        .def(nb::init<int64_t>(), "max_tokens"_a)
        .def("embed", &Recorder::embed)
        .def("hidden", &Recorder::hidden)
        .def("concat", &Recorder::concat)
        .def("rms_norm", &Recorder::rms_norm)
        .def("linear", &Recorder::linear)
        .def("linear_add", &Recorder::linear_add)
        .def("gate_up", &Recorder::gate_up)
        .def("causal_conv", &Recorder::causal_conv)
        .def("gated_delta", &Recorder::gated_delta)
        .def("gated_rms_norm", &Recorder::gated_rms_norm)
        .def("norm_rope", &Recorder::norm_rope)
        .def("attention", &Recorder::attention)
        .def("head", &Recorder::head)
        .def("replay", &Recorder::replay)
        .def(
            "finish",
            [](Recorder& recorder, BufferId hidden, BufferId head, std::shared_ptr<Runtime> runtime) {
                return std::make_shared<Program>(std::move(runtime), recorder.finish(hidden, head));
            },
            "hidden"_a, "head"_a, "runtime"_a);
    nb::class_<Program>(m, "Program")
        .def("run", &run, "token_ids"_a.noconvert(), "rope_cos"_a.noconvert(), "rope_sin"_a.noconvert(),
             "runs"_a.noconvert(), "pages"_a.noconvert(), "snapshots"_a.noconvert(), "wanted_rows"_a.noconvert(),
             "top_k"_a, "logsumexp"_a, "hidden"_a.none(), "edit_starts"_a.noconvert(), "edit_ids"_a.noconvert(),
             "edit_values"_a.noconvert())
        .def("commit", &commit, "commits"_a.noconvert())
        .def_prop_ro("buffer_bytes", &Program::buffer_bytes)
        .def_prop_ro("scratch_bytes", &Program::scratch_bytes)
        .def_prop_ro("replay_seconds", &Program::replay_seconds)
        .def_prop_ro("num_allocations", &Program::num_allocations)
        .def_prop_ro("num_sections", &Program::num_sections)
        .def_prop_ro("num_ops", [](const Program& p) { return p.recording().ops.size(); })
        .def_prop_ro("ops",
                     [](const Program& p) {
                         nb::list ops;
                         for (const OpNote& note : notes_of(p.recording()))
                             ops.append(nb::make_tuple(note.kind, note.weights, note.bytes));
                         return ops;
                     })
        .def("time_ops", &Program::time_ops, "on"_a)
        .def_prop_ro("op_seconds", [](const Program& p) { return p.op_seconds(); });
}

}  // namespace
}  // namespace qwick

NB_MODULE(_kernels, m) {
    nb::register_exception_translator(qwick::translate);
    qwick::bind_tensor(m);
    qwick::bind_heads(m);
    qwick::bind_runtime(m);
    qwick::bind_programs(m);
    qwick::bind_machine(m);
    qwick::bind_strings(m);
    qwick::bind_leaves(m);
    qwick::bind_encode(m);
}
