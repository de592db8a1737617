/* SPDX-License-Identifier: MIT
 *
 * Python is asked to tell which line calls Chroma.
 *
 * With the first transaction a pending call is left with the interpreter, which makes it between
 * two steps of the program, in its main thread. It wraps the methods of Chroma's collections and
 * client: each one tells its line when it begins, and when it ends. All that is asked of Python is
 * in its stable interface, and looked up, so that any version will do, and one that has less is
 * left alone.
 */
#include <dlfcn.h>
#include <stdatomic.h>
#include <string.h>

#include "preload/base/shim.h"
#include "preload/place/callers.h"

#define FILE_INPUT 257 /* Py_file_input */
#define VARARGS 1      /* METH_VARARGS */

typedef struct object object; /* PyObject */
typedef object *method(object *self, object *args);

struct method { /* PyMethodDef */
	const char *name;
	method *function;
	int flags;
	const char *doc;
};

#define PYTHON(X)                                                             \
	X(int, Py_AddPendingCall, (int (*)(void *), void *))                  \
	X(const char *, Py_GetVersion, (void))                                \
	X(object *, Py_CompileString, (const char *, const char *, int))      \
	X(object *, PyEval_GetBuiltins, (void))                               \
	X(object *, PyEval_EvalCode, (object *, object *, object *))          \
	X(object *, PyDict_New, (void))                                       \
	X(int, PyDict_SetItemString, (object *, const char *, object *))      \
	X(object *, PyCFunction_NewEx, (struct method *, object *, object *)) \
	X(object *, PyLong_FromLong, (long))                                  \
	X(int, PyArg_ParseTuple, (object *, const char *, ...))               \
	X(void, PyErr_Clear, (void))                                          \
	X(void, Py_DecRef, (object *))

static struct {
#define X(ret, name, params) ret(*name) params;
	PYTHON(X)
#undef X
} python;

static _Atomic bool asked;
static bool is_there;

/*
 * The line is that of the program: the first one outside of installed packages, or, where all is
 * installed, the one that called Chroma. An exception of this code's own is never the program's.
 */
static const char text[] =
    "import functools, itertools, os, sys\n"
    "library = (os.path.dirname(os.__file__) + os.sep, os.path.join(sys.prefix, 'bin') + os.sep,\n"
    "           '<frozen ', '<chromashim>')\n"
    "numbers = itertools.count()\n"
    "def is_installed(name):\n"
    "    return (name.startswith(library) or '/site-packages/' in name\n"
    "            or '/dist-packages/' in name)\n"
    "def line():\n"
    "    first = frame = sys._getframe(2)\n"
    "    for _ in range(48):\n"
    "        if frame is None or not is_installed(frame.f_code.co_filename):\n"
    "            break\n"
    "        frame = frame.f_back\n"
    "    if frame is None or is_installed(frame.f_code.co_filename):\n"
    "        frame = first\n"
    "    code = frame.f_code\n"
    "    return f'{code.co_filename}:{frame.f_lineno} {code.co_name}'\n"
    "def wrap(owner, name, operation, of_collection):\n"
    "    method = owner.__dict__.get(name)\n"
    "    if not callable(method):\n"
    "        return 0\n"
    "    @functools.wraps(method)\n"
    "    def call(self, *args, **kwargs):\n"
    "        token = 0\n"
    "        if not next(numbers) % every:\n"
    "            try:\n"
    "                ids = kwargs.get('ids', args[0] if args else None)\n"
    "                count = 0 if operation > 2 or ids is None else (\n"
    "                    1 if isinstance(ids, str) else len(ids))\n"
    "                token = begin(str(self.id) if of_collection else '', operation, count, "
    "line())\n"
    "            except Exception:\n"
    "                pass\n"
    "        try:\n"
    "            return method(self, *args, **kwargs)\n"
    "        finally:\n"
    "            if token:\n"
    "                end(token)\n"
    "    setattr(owner, name, call)\n"
    "    return 1\n"
    "def of(module, name):\n"
    "    return getattr(sys.modules.get(module), name, object)\n"
    "collection = of('chromadb.api.models.Collection', 'Collection')\n"
    "client = of('chromadb.api.client', 'Client')\n"
    "found = sum(wrap(collection, name, number, True) for name, number in (\n"
    "    ('add', 0), ('update', 1), ('upsert', 2), ('delete', 3), ('get', 4), ('query', 4),\n"
    "    ('peek', 4), ('count', 4), ('search', 4), ('modify', 5), ('fork', 5)))\n"
    "for name in ('create_collection', 'get_or_create_collection', 'delete_collection'):\n"
    "    wrap(client, name, 5, False)\n"
    "if not found:\n"
    "    raise LookupError('no collection')\n";

static object *begin(object *self, object *args)
{
	const char *collection, *line;
	unsigned operation, records;

	(void)self;
	if (!python.PyArg_ParseTuple(args, "sIIs", &collection, &operation, &records, &line))
		return NULL;
	return python.PyLong_FromLong((long)callers_begin(collection, operation, records, line));
}

static object *end(object *self, object *args)
{
	unsigned token;

	(void)self;
	if (!python.PyArg_ParseTuple(args, "I", &token))
		return NULL;
	callers_end(token);
	return python.PyLong_FromLong(0);
}

static bool put(object *names, const char *name, object *value)
{
	bool done = value && python.PyDict_SetItemString(names, name, value) == 0;

	if (value)
		python.Py_DecRef(value);
	return done;
}

static bool run(object *names)
{
	static struct method methods[] = {{"begin", begin, VARARGS, NULL},
					  {"end", end, VARARGS, NULL}};
	object *code, *result = NULL;
	unsigned share = settings.log_caller_share;

	if (!put(names, "begin", python.PyCFunction_NewEx(&methods[0], NULL, NULL)) ||
	    !put(names, "end", python.PyCFunction_NewEx(&methods[1], NULL, NULL)) ||
	    !put(names, "every", python.PyLong_FromLong(100 / (long)(share ? share : 1))) ||
	    python.PyDict_SetItemString(names, "__builtins__", python.PyEval_GetBuiltins()) != 0)
		return false;
	code = python.Py_CompileString(text, "<chromashim>", FILE_INPUT);
	if (code)
		result = python.PyEval_EvalCode(code, names, names);
	if (code)
		python.Py_DecRef(code);
	if (result)
		python.Py_DecRef(result);
	return result != NULL;
}

/* In the interpreter's main thread, between two steps of the program. */
static int install(void *unused)
{
	object *names = python.PyDict_New();

	(void)unused;
	if (!names || !run(names)) {
		python.PyErr_Clear();
		shim_say("CHROMASHIM_LOG_CALLER=python: there is no Chroma in Python ",
			 python.Py_GetVersion(),
			 " here whose collections are as expected; the log tells no lines", NULL);
	}
	if (names)
		python.Py_DecRef(names);
	return 0;
}

void callers_bind(void)
{
	is_there = true;
#define X(ret, name, params)                                         \
	*(void **)(void *)&python.name = dlsym(RTLD_DEFAULT, #name); \
	is_there = is_there && python.name;
	PYTHON(X)
#undef X
	is_there = is_there && strncmp(python.Py_GetVersion(), "3.", 2) == 0;
}

void callers_ask(void)
{
	int saved = errno;

	if (!settings.log_caller || atomic_exchange(&asked, true))
		return;
	if (!is_there)
		shim_say("CHROMASHIM_LOG_CALLER=python: this program has no Python 3 that could be "
			 "asked; the log tells no lines",
			 NULL);
	else if (python.Py_AddPendingCall(install, NULL) != 0)
		atomic_store(&asked, false);
	errno = saved;
}
