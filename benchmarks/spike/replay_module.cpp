// Question (a): 200 short native calls from Python, each giving the GIL up and taking it back, against one call that
// replays 200 recorded ops without the GIL. The op stands for a small kernel: about 40 us, as many are in a decode
// step.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <vector>

namespace {

struct Op {
    float* values;
    float scale;
};
std::vector<float> buffer(4096, 1.0f);
std::vector<Op> program;

void run(Op op) {  // by value: `values` cannot alias its own pointer
    for (int pass = 0; pass < 180; ++pass)
        for (int i = 0; i < 4096; ++i) op.values[i] = op.values[i] * op.scale + 1.0f;
}

PyObject* call(PyObject*, PyObject* arg) {
    Op op{buffer.data(), static_cast<float>(PyFloat_AsDouble(arg))};
    if (PyErr_Occurred()) return nullptr;
    Py_BEGIN_ALLOW_THREADS;
    run(op);
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

PyObject* record(PyObject*, PyObject* arg) {
    program.push_back({buffer.data(), static_cast<float>(PyFloat_AsDouble(arg))});
    if (PyErr_Occurred()) return nullptr;
    Py_RETURN_NONE;
}

PyObject* replay(PyObject*, PyObject*) {
    Py_BEGIN_ALLOW_THREADS;
    for (const Op& op : program) run(op);
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

PyObject* reset(PyObject*, PyObject*) {
    buffer.assign(4096, 1.0f);
    Py_RETURN_NONE;
}

PyObject* first_value(PyObject*, PyObject*) {
    return PyFloat_FromDouble(buffer[0]);
}

PyMethodDef methods[] = {{"call", call, METH_O, "one op, at once"},
                         {"record", record, METH_O, "adds an op to the program"},
                         {"replay", replay, METH_NOARGS, "runs the program"},
                         {"reset", reset, METH_NOARGS, "sets the buffer to ones"},
                         {"first_value", first_value, METH_NOARGS, "the buffer's first value"},
                         {nullptr, nullptr, 0, nullptr}};
PyModuleDef module = {PyModuleDef_HEAD_INIT, "replay_module", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_replay_module() {
    return PyModule_Create(&module);
}
