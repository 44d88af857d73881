/* What the lines of `states.py` do for each row, without the interpreter: an instance, its state and its dictionary.

   Optional: where this was not compiled, the hydrator has those lines instead.  Both mean the same, and the tests of
   the hydrator run on both. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <structmember.h>

/* --- Slots ------------------------------------------------------------------------------------------------------ */

/* Where `NativeState` and pydantic's `BaseModel` keep what is set below. */
static struct {
    Py_ssize_t obj, key, session_id, home, runid, load_options, load_path, expired_attributes, strong_obj;
    Py_ssize_t fields_set, extra, private;
} at;

#define SLOT(object, offset) (*(PyObject **)((char *)(object) + (offset)))

static inline void
fill(PyObject *object, Py_ssize_t offset, PyObject *value)
{
    PyObject *old = SLOT(object, offset);
    SLOT(object, offset) = Py_NewRef(value);
    Py_XDECREF(old);
}

static int
find_slot(PyObject *type, const char *name, Py_ssize_t *offset)
{
    PyObject *slot = PyObject_GetAttrString(type, name);
    if (slot == NULL) {
        return -1;
    }
    int found = Py_IS_TYPE(slot, &PyMemberDescr_Type);
    if (found) {
        *offset = ((PyMemberDescrObject *)slot)->d_member->offset;
    }
    else {
        PyErr_Format(PyExc_TypeError, "%R has no slot %s", type, name);
    }
    Py_DECREF(slot);
    return found ? 0 : -1;
}

/* What a weak reference refers to: a new reference, or NULL if it is gone. */
static inline PyObject *
referred(PyObject *reference)
{
    PyObject *object = NULL;
    if (reference != NULL && PyWeakref_Check(reference)) {
#if PY_VERSION_HEX >= 0x030D0000
        if (PyWeakref_GetRef(reference, &object) < 0) {
            PyErr_Clear();
        }
#else
        object = PyWeakref_GetObject(reference);
        object = object == NULL || object == Py_None ? NULL : Py_NewRef(object);
#endif
    }
    return object;
}

/* --- When an instance is gone ----------------------------------------------------------------------------------- */

/* `InstanceState._cleanup`. */
static PyObject *
cleanup(PyObject *state, PyObject *Py_UNUSED(reference))
{
    PyObject *identity_map = referred(SLOT(state, at.home));
    if (identity_map != NULL) {
        PyObject *done = PyObject_CallMethod(identity_map, "_fast_discard", "O", state);
        Py_DECREF(identity_map);
        if (done == NULL) {
            return NULL;
        }
        Py_DECREF(done);
        Py_CLEAR(SLOT(state, at.home));
    }
    fill(state, at.session_id, Py_None);
    fill(state, at.strong_obj, Py_None);
    Py_RETURN_NONE;
}

static PyMethodDef cleanup_method = {"_cleanup", cleanup, METH_O, NULL};

/* --- Maker ------------------------------------------------------------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyTypeObject *cls, *state_class;
    PyObject *identity_class, *load_path, *names, *blank, *expired;
    PyObject *states, *home, *number, *session_id, *options;
    PyObject *key; /* what was looked for and is not there, until it is made */
    Py_ssize_t key_size;
    char needs_whole_key, is_model;
} Maker;

static PyObject *absent, *unsure, *no_arguments, *state_name, *dict_name;

static PyObject *
new_state(Maker *self, PyObject *key, PyObject *instance)
{
    PyObject *state = PyBaseObject_Type.tp_new(self->state_class, no_arguments, NULL);
    if (state == NULL) {
        return NULL;
    }
    PyObject *callback = PyCFunction_New(&cleanup_method, state);
    PyObject *reference = callback == NULL ? NULL : PyWeakref_NewRef(instance, callback);
    Py_XDECREF(callback);
    if (reference == NULL) {
        Py_DECREF(state);
        return NULL;
    }
    SLOT(state, at.obj) = reference;
    fill(state, at.key, key);
    fill(state, at.session_id, self->session_id);
    fill(state, at.home, self->home);
    fill(state, at.runid, self->number);
    fill(state, at.load_path, self->load_path);
    fill(state, at.strong_obj, Py_None);
    if (self->options != Py_None) {
        fill(state, at.load_options, self->options);
    }
    if (self->expired != Py_None && (SLOT(state, at.expired_attributes) = PySet_New(self->expired)) == NULL) {
        Py_DECREF(state);
        return NULL;
    }
    return state;
}

static int
set_attributes(Maker *self, PyObject *instance, PyObject *state, PyObject *const *values)
{
    PyObject *dict = PyDict_Copy(self->blank);
    if (dict == NULL) {
        return -1;
    }
    int failed = PyDict_SetItem(dict, state_name, state);
    for (Py_ssize_t i = 0, size = PyTuple_GET_SIZE(self->names); i < size && !failed; i++) {
        failed = PyDict_SetItem(dict, PyTuple_GET_ITEM(self->names, i), values[i]);
    }
    failed = failed || PyObject_GenericSetAttr(instance, dict_name, dict) < 0;
    Py_DECREF(dict);
    return failed ? -1 : 0;
}

static PyObject *
new_instance(Maker *self, PyObject *key, PyObject *const *values)
{
    PyObject *instance = PyBaseObject_Type.tp_new(self->cls, no_arguments, NULL);
    if (instance == NULL) {
        return NULL;
    }
    if (self->is_model) {  /* sqlmodel's init_pydantic_private_attrs */
        if ((SLOT(instance, at.fields_set) = PySet_New(NULL)) == NULL) {
            Py_DECREF(instance);
            return NULL;
        }
        fill(instance, at.extra, Py_None);
        fill(instance, at.private, Py_None);
    }
    PyObject *state = new_state(self, key, instance);
    int failed = state == NULL || set_attributes(self, instance, state, values) < 0 ||
                 PyDict_SetItem(self->states, key, state) < 0;
    Py_XDECREF(state);
    if (failed) {
        Py_DECREF(instance);
        return NULL;
    }
    return instance;
}

static PyObject *
identity_key(Maker *self, PyObject *const *values)
{
    PyObject *identity = PyTuple_New(self->key_size);
    if (identity == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < self->key_size; i++) {
        PyTuple_SET_ITEM(identity, i, Py_NewRef(values[i]));
    }
    PyObject *key = PyTuple_Pack(3, self->identity_class, identity, Py_None);
    Py_DECREF(identity);
    return key;
}

static int
is_null(Maker *self, PyObject *const *values)
{
    Py_ssize_t nulls = 0;
    for (Py_ssize_t i = 0; i < self->key_size; i++) {
        nulls += values[i] == Py_None;
    }
    return self->needs_whole_key ? nulls > 0 : nulls == self->key_size;
}

/* (values of the key…) → the instance, if this load has met it; None for a key that is NULL, `unsure` for an instance
   that the session knew before, and `absent` for one that is to be made. */
static PyObject *
find(PyObject *callable, PyObject *const *values, size_t count, PyObject *keywords)
{
    Maker *self = (Maker *)callable;
    if (keywords != NULL || PyVectorcall_NARGS(count) != self->key_size) {
        PyErr_SetString(PyExc_TypeError, "a value is needed for each part of the key");
        return NULL;
    }
    PyObject *key = identity_key(self, values);
    if (key == NULL) {
        return NULL;
    }
    PyObject *found = NULL, *state = PyDict_GetItemWithError(self->states, key);
    if (state != NULL) {
        if (!Py_IS_TYPE(state, self->state_class)) {
            found = Py_NewRef(unsure);
        }
        else if ((found = referred(SLOT(state, at.obj))) != NULL &&
                 (SLOT(state, at.runid) != self->number || SLOT(state, at.load_path) != self->load_path)) {
            Py_SETREF(found, Py_NewRef(unsure));
        }
    }
    if (found == NULL && !PyErr_Occurred()) {
        if (is_null(self, values)) {
            found = Py_NewRef(Py_None);
        }
        else {
            Py_XSETREF(self->key, Py_NewRef(key));
            found = Py_NewRef(absent);
        }
    }
    Py_DECREF(key);
    return found;
}

/* (values of the attributes…) → the instance of the key that was absent. */
static PyObject *
make(Maker *self, PyObject *const *values, Py_ssize_t count)
{
    if (count != PyTuple_GET_SIZE(self->names)) {
        PyErr_SetString(PyExc_TypeError, "a value is needed for each attribute");
        return NULL;
    }
    PyObject *key = self->key;
    if (key == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "nothing was looked for");
        return NULL;
    }
    self->key = NULL;
    PyObject *instance = new_instance(self, key, values);
    Py_DECREF(key);
    return instance;
}

static int
maker_traverse(Maker *self, visitproc visit, void *arg)
{
    Py_VISIT(self->cls);
    Py_VISIT(self->state_class);
    Py_VISIT(self->identity_class);
    Py_VISIT(self->load_path);
    Py_VISIT(self->names);
    Py_VISIT(self->blank);
    Py_VISIT(self->expired);
    Py_VISIT(self->states);
    Py_VISIT(self->home);
    Py_VISIT(self->number);
    Py_VISIT(self->session_id);
    Py_VISIT(self->options);
    Py_VISIT(self->key);
    return 0;
}

static int
maker_clear(Maker *self)
{
    Py_CLEAR(self->cls);
    Py_CLEAR(self->state_class);
    Py_CLEAR(self->identity_class);
    Py_CLEAR(self->load_path);
    Py_CLEAR(self->names);
    Py_CLEAR(self->blank);
    Py_CLEAR(self->expired);
    Py_CLEAR(self->states);
    Py_CLEAR(self->home);
    Py_CLEAR(self->number);
    Py_CLEAR(self->session_id);
    Py_CLEAR(self->options);
    Py_CLEAR(self->key);
    return 0;
}

static void
maker_dealloc(Maker *self)
{
    PyObject_GC_UnTrack(self);
    maker_clear(self);
    PyObject_GC_Del(self);
}

static PyMethodDef maker_methods[] = {
    {"make", (PyCFunction)(void (*)(void))make, METH_FASTCALL, "The instance of the key that was absent."},
    {NULL},
};

static PyTypeObject MakerType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "catalysis.engine.alchemy._instances.Maker",
    .tp_doc = "Finds and makes the instances of one class at one place of a load's rows.",
    .tp_basicsize = sizeof(Maker),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Maker, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_methods = maker_methods,
    .tp_traverse = (traverseproc)maker_traverse,
    .tp_clear = (inquiry)maker_clear,
    .tp_dealloc = (destructor)maker_dealloc,
};

/* --- The module ------------------------------------------------------------------------------------------------- */

/* maker((cls, state class, identity class, load path, names, blank, expired, size of the key, needs whole key,
   is a pydantic model), states, home, number, session id, options) */
static PyObject *
maker(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *cls, *state_class, *identity_class, *load_path, *names, *blank, *expired;
    PyObject *states, *home, *number, *session_id, *options;
    Py_ssize_t key_size;
    int needs_whole_key, is_model;
    if (!PyArg_ParseTuple(
            arguments, "(O!O!OOO!O!Onpp)O!OOOO:maker", &PyType_Type, &cls, &PyType_Type, &state_class,
            &identity_class, &load_path, &PyTuple_Type, &names, &PyDict_Type, &blank, &expired, &key_size,
            &needs_whole_key, &is_model, &PyDict_Type, &states, &home, &number, &session_id, &options)) {
        return NULL;
    }
    Maker *self = PyObject_GC_New(Maker, &MakerType);
    if (self == NULL) {
        return NULL;
    }
    self->vectorcall = find;
    self->cls = (PyTypeObject *)Py_NewRef(cls);
    self->state_class = (PyTypeObject *)Py_NewRef(state_class);
    self->identity_class = Py_NewRef(identity_class);
    self->load_path = Py_NewRef(load_path);
    self->names = Py_NewRef(names);
    self->blank = Py_NewRef(blank);
    self->expired = Py_NewRef(expired);
    self->states = Py_NewRef(states);
    self->home = Py_NewRef(home);
    self->number = Py_NewRef(number);
    self->session_id = Py_NewRef(session_id);
    self->options = Py_NewRef(options);
    self->key_size = key_size;
    self->needs_whole_key = needs_whole_key != 0;
    self->is_model = is_model != 0;
    self->key = NULL;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

/* prepare(NativeState, BaseModel): learn where their slots are; a TypeError if one is none. */
static PyObject *
prepare(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *state, *model;
    if (!PyArg_ParseTuple(arguments, "OO:prepare", &state, &model)) {
        return NULL;
    }
    const struct { PyObject *type; const char *name; Py_ssize_t *offset; } slots[] = {
        {state, "obj", &at.obj},
        {state, "key", &at.key},
        {state, "session_id", &at.session_id},
        {state, "_instance_dict", &at.home},
        {state, "runid", &at.runid},
        {state, "load_options", &at.load_options},
        {state, "load_path", &at.load_path},
        {state, "expired_attributes", &at.expired_attributes},
        {state, "_strong_obj", &at.strong_obj},
        {model, "__pydantic_fields_set__", &at.fields_set},
        {model, "__pydantic_extra__", &at.extra},
        {model, "__pydantic_private__", &at.private},
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(slots); i++) {
        if (find_slot(slots[i].type, slots[i].name, slots[i].offset) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"maker", maker, METH_VARARGS, NULL},
    {"prepare", prepare, METH_VARARGS, NULL},
    {NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_instances", .m_size = -1, .m_methods = methods,
};

static PyObject *
sentinel(PyObject *module, const char *name)
{
    PyObject *made = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type);
    return made == NULL || PyModule_AddObjectRef(module, name, made) < 0 ? NULL : made;
}

PyMODINIT_FUNC
PyInit__instances(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL || PyType_Ready(&MakerType) < 0 || (no_arguments = PyTuple_New(0)) == NULL ||
        (state_name = PyUnicode_InternFromString("_sa_instance_state")) == NULL ||
        (dict_name = PyUnicode_InternFromString("__dict__")) == NULL ||
        (absent = sentinel(module, "absent")) == NULL || (unsure = sentinel(module, "unsure")) == NULL) {
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
