/* The machine; see pickle.h. Instructions are those of Python's pickletools.py, names those of torch/_utils.py. Each
 * instruction makes at most one value, so all memory is bounded by the pickle's length. */
#include "checkpoints/pickle.h"

#include "base/array.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CURE "use a file in which torch.save() has put the tensors of a model alone"

typedef enum GlobalKind { GLOBAL_DICTIONARY, GLOBAL_TENSOR, GLOBAL_PARAMETER, GLOBAL_STORAGE } GlobalKind;

/* The names that may be asked for. */
typedef struct Global {
    const char *module, *name;
    GlobalKind kind;
    TensorType type; /* of a storage */
    const char *type_name;
} Global;

static const Global GLOBALS[] = {
    {"collections", "OrderedDict", GLOBAL_DICTIONARY, TENSOR_TYPE_COUNT, NULL},
    {"torch._utils", "_rebuild_tensor_v2", GLOBAL_TENSOR, TENSOR_TYPE_COUNT, NULL},
    {"torch._utils", "_rebuild_parameter", GLOBAL_PARAMETER, TENSOR_TYPE_COUNT, NULL},
    {"torch", "FloatStorage", GLOBAL_STORAGE, TYPE_F32, "F32"},
    {"torch", "HalfStorage", GLOBAL_STORAGE, TYPE_F16, "F16"},
    {"torch", "BFloat16Storage", GLOBAL_STORAGE, TYPE_BF16, "BF16"},
    {"torch", "DoubleStorage", GLOBAL_STORAGE, TENSOR_TYPE_COUNT, "F64"},
    {"torch", "LongStorage", GLOBAL_STORAGE, TENSOR_TYPE_COUNT, "I64"},
    {"torch", "IntStorage", GLOBAL_STORAGE, TENSOR_TYPE_COUNT, "I32"},
    {"torch", "ShortStorage", GLOBAL_STORAGE, TENSOR_TYPE_COUNT, "I16"},
    {"torch", "CharStorage", GLOBAL_STORAGE, TENSOR_TYPE_COUNT, "I8"},
    {"torch", "ByteStorage", GLOBAL_STORAGE, TENSOR_TYPE_COUNT, "U8"},
    {"torch", "BoolStorage", GLOBAL_STORAGE, TENSOR_TYPE_COUNT, "BOOL"},
};

typedef enum ValueKind {
    VALUE_MARK,
    VALUE_OTHER, /* None, True, False: nothing depends on them */
    VALUE_INTEGER,
    VALUE_TEXT,
    VALUE_TUPLE,
    VALUE_DICTIONARY,
    VALUE_GLOBAL,
    VALUE_STORAGE,
    VALUE_TENSOR
} ValueKind;

typedef struct Value {
    ValueKind kind;
    uint32_t count; /* VALUE_TUPLE: elements */
    union {
        int64_t integer;
        StringView text;
        size_t index; /* VALUE_TUPLE: of the first in `elements`; VALUE_STORAGE, VALUE_TENSOR: in their lists;
                         VALUE_DICTIONARY: its number */
        const Global *global;
    };
} Value;

typedef struct Storage {
    const Global *type;
    StringView name;
    size_t elements;
} Storage;

/* What is put into a dictionary. */
typedef struct Entry {
    size_t dictionary;
    StringView name;
    Value value;
} Entry;

typedef struct Machine {
    const char *path;
    StringView pickle;
    size_t at, opcode_at; /* the next byte; the instruction's */
    Value *stack, *memo, *elements;
    Storage *storages;
    PickledTensor *tensors;
    Entry *entries;
    size_t n_stack, n_memo, n_elements, n_storages, n_tensors, n_entries, n_dictionaries;
    bool stopped;
    Error *error;
} Machine;

static int damaged(const Machine *m, const char *what) {
    return error_set(m->error, ERROR_FORMAT, "%s: pickle: %s at byte %zu; the file is damaged, or %s", m->path, what,
                     m->opcode_at, CURE);
}

/* ---- Arguments of instructions */

static const char *take(Machine *m, size_t n) {
    if (n > m->pickle.length - m->at)
        return NULL;
    m->at += n;
    return m->pickle.bytes + m->at - n;
}

/* A little-endian number of n bytes, at most 8; without them the machine is at its end, where the next step fails. */
static uint64_t take_number(Machine *m, size_t n) {
    uint64_t value = 0;
    const char *bytes = take(m, n);
    if (bytes == NULL)
        m->at = m->pickle.length;
    else
        memcpy(&value, bytes, n);
    return value;
}

static bool take_line(Machine *m, StringView *out) {
    const char *begin = m->pickle.bytes + m->at;
    const char *end = memchr(begin, '\n', m->pickle.length - m->at);
    if (end == NULL)
        return false;
    *out = (StringView){begin, (size_t)(end - begin)};
    m->at += out->length + 1;
    return true;
}

/* ---- The stack */

static int push(Machine *m, Value value) {
    Value *stack = array_for_one_more(m->stack, m->n_stack, sizeof *stack, "a pickle's stack", m->error);
    if (stack == NULL)
        return m->error->code;
    m->stack = stack;
    stack[m->n_stack++] = value;
    return 0;
}

static int push_integer(Machine *m, int64_t integer) {
    return push(m, (Value){.kind = VALUE_INTEGER, .integer = integer});
}

/* Whether n values are on the stack above the last mark. */
static bool has(const Machine *m, size_t n) {
    if (m->n_stack < n)
        return false;
    for (size_t i = m->n_stack - n; i < m->n_stack; i++)
        if (m->stack[i].kind == VALUE_MARK)
            return false;
    return true;
}

/* Values above the last mark; SIZE_MAX where there is none. */
static size_t above_mark(const Machine *m) {
    size_t n = 0;
    while (n < m->n_stack && m->stack[m->n_stack - 1 - n].kind != VALUE_MARK)
        n++;
    return n < m->n_stack ? n : SIZE_MAX;
}

/* ---- Instructions */

static int do_mark(Machine *m) {
    return push(m, (Value){.kind = VALUE_MARK});
}

static int do_other(Machine *m) {
    return push(m, (Value){.kind = VALUE_OTHER});
}

static int do_protocol(Machine *m) {
    return take_number(m, 1) <= 5 ? 0 : damaged(m, "an unknown protocol");
}

static int do_frame(Machine *m) {
    take_number(m, 8);
    return 0;
}

static int do_stop(Machine *m) {
    m->stopped = true;
    return 0;
}

static int do_int1(Machine *m) {
    return push_integer(m, (int64_t)take_number(m, 1));
}

static int do_int2(Machine *m) {
    return push_integer(m, (int64_t)take_number(m, 2));
}

static int do_int4(Machine *m) {
    return push_integer(m, (int32_t)take_number(m, 4));
}

/* In two's complement, of as many bytes as the first says. */
static int do_long(Machine *m) {
    size_t n = take_number(m, 1);
    if (n > 8)
        return damaged(m, "an integer of more than 64 bits");
    uint64_t value = take_number(m, n);
    if (n > 0 && n < 8 && value >> (8 * n - 1) != 0)
        value |= ~(uint64_t)0 << 8 * n;
    return push_integer(m, (int64_t)value);
}

static int push_text(Machine *m, size_t length) {
    const char *bytes = take(m, length);
    if (bytes == NULL)
        return damaged(m, "a text beyond the end");
    return push(m, (Value){.kind = VALUE_TEXT, .text = {bytes, length}});
}

static int do_text1(Machine *m) {
    return push_text(m, take_number(m, 1));
}

static int do_text4(Machine *m) {
    return push_text(m, take_number(m, 4));
}

/* The last n values as one. */
static int make_tuple(Machine *m, size_t n) {
    if (n > UINT32_MAX || !has(m, n))
        return damaged(m, "a tuple of what is not there");
    Value tuple = {.kind = VALUE_TUPLE, .count = (uint32_t)n, .index = m->n_elements};
    for (size_t i = m->n_stack - n; i < m->n_stack; i++) {
        Value *elements =
            array_for_one_more(m->elements, m->n_elements, sizeof *elements, "a pickle's tuples", m->error);
        if (elements == NULL)
            return m->error->code;
        m->elements = elements;
        elements[m->n_elements++] = m->stack[i];
    }
    m->n_stack -= n;
    return push(m, tuple);
}

static int do_tuple0(Machine *m) {
    return make_tuple(m, 0);
}

static int do_tuple1(Machine *m) {
    return make_tuple(m, 1);
}

static int do_tuple2(Machine *m) {
    return make_tuple(m, 2);
}

static int do_tuple3(Machine *m) {
    return make_tuple(m, 3);
}

static int do_tuple(Machine *m) {
    size_t n = above_mark(m);
    if (n == SIZE_MAX || make_tuple(m, n) < 0)
        return n == SIZE_MAX ? damaged(m, "a tuple without a mark") : m->error->code;
    m->stack[m->n_stack - 2] = m->stack[m->n_stack - 1]; /* over the mark */
    m->n_stack--;
    return 0;
}

static int do_dictionary(Machine *m) {
    return push(m, (Value){.kind = VALUE_DICTIONARY, .index = m->n_dictionaries++});
}

/* Puts the n values behind a dictionary, a key and a value each, into it. */
static int set_items(Machine *m, size_t n) {
    size_t first = m->n_stack - n;
    for (size_t i = first; i < m->n_stack; i += 2) {
        if (m->stack[i].kind != VALUE_TEXT)
            return damaged(m, "a dictionary with a key that is no text");
        Entry *entries = array_for_one_more(m->entries, m->n_entries, sizeof *entries, "a pickle's items", m->error);
        if (entries == NULL)
            return m->error->code;
        m->entries = entries;
        size_t below = first - 1 - (m->stack[first - 1].kind == VALUE_MARK);
        entries[m->n_entries++] = (Entry){m->stack[below].index, m->stack[i].text, m->stack[i + 1]};
    }
    m->n_stack = first;
    return 0;
}

static int do_set_item(Machine *m) {
    if (!has(m, 3) || m->stack[m->n_stack - 3].kind != VALUE_DICTIONARY)
        return damaged(m, "an item without a dictionary");
    return set_items(m, 2);
}

static int do_set_items(Machine *m) {
    size_t n = above_mark(m);
    if (n == SIZE_MAX || n % 2 != 0 || n + 2 > m->n_stack || m->stack[m->n_stack - n - 2].kind != VALUE_DICTIONARY)
        return damaged(m, "items without a dictionary");
    if (set_items(m, n) < 0)
        return m->error->code;
    m->n_stack--; /* the mark */
    return 0;
}

static int remember(Machine *m, size_t number) {
    if (!has(m, 1) || number > m->n_memo)
        return damaged(m, "nothing to remember, or under an impossible number");
    if (number == m->n_memo) {
        Value *memo = array_for_one_more(m->memo, m->n_memo, sizeof *memo, "a pickle's memo", m->error);
        if (memo == NULL)
            return m->error->code;
        m->memo = memo;
        m->n_memo++;
    }
    m->memo[number] = m->stack[m->n_stack - 1];
    return 0;
}

static int recall(Machine *m, size_t number) {
    return number < m->n_memo ? push(m, m->memo[number]) : damaged(m, "something that was not remembered");
}

static int do_put1(Machine *m) {
    return remember(m, take_number(m, 1));
}

static int do_put4(Machine *m) {
    return remember(m, take_number(m, 4));
}

static int do_memoize(Machine *m) {
    return remember(m, m->n_memo);
}

static int do_get1(Machine *m) {
    return recall(m, take_number(m, 1));
}

static int do_get4(Machine *m) {
    return recall(m, take_number(m, 4));
}

static int push_global(Machine *m, StringView module, StringView name) {
    for (size_t i = 0; i < sizeof GLOBALS / sizeof *GLOBALS; i++)
        if (sv_is(module, GLOBALS[i].module) && sv_is(name, GLOBALS[i].name))
            return push(m, (Value){.kind = VALUE_GLOBAL, .global = &GLOBALS[i]});
    return error_set(m->error, ERROR_UNSUPPORTED,
                     "%s: pickle: asks for %.*s.%.*s at byte %zu, which no tensor needs, and nothing of it was run; "
                     "%s",
                     m->path, SV_ARGS(module), SV_ARGS(name), m->opcode_at, CURE);
}

static int do_global(Machine *m) {
    StringView module, name;
    if (!take_line(m, &module) || !take_line(m, &name))
        return damaged(m, "a name beyond the end");
    return push_global(m, module, name);
}

static int do_stack_global(Machine *m) {
    if (!has(m, 2) || m->stack[m->n_stack - 2].kind != VALUE_TEXT || m->stack[m->n_stack - 1].kind != VALUE_TEXT)
        return damaged(m, "a name that is no text");
    m->n_stack -= 2;
    return push_global(m, m->stack[m->n_stack].text, m->stack[m->n_stack + 1].text);
}

/* Whether a tuple begins with values of these kinds. */
static bool begins_with(const Machine *m, const Value *tuple, const ValueKind *kinds, size_t n) {
    if (tuple->kind != VALUE_TUPLE || tuple->count < n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (m->elements[tuple->index + i].kind != kinds[i])
            return false;
    return true;
}

/* ("storage", type, name of its file, device, elements) */
static int do_persistent_id(Machine *m) {
    static const ValueKind FORM[] = {VALUE_TEXT, VALUE_GLOBAL, VALUE_TEXT, VALUE_TEXT, VALUE_INTEGER};
    if (!has(m, 1) || !begins_with(m, &m->stack[m->n_stack - 1], FORM, 5))
        return damaged(m, "a reference that is no storage's");
    const Value *parts = m->elements + m->stack[m->n_stack - 1].index;
    if (!sv_is(parts[0].text, "storage") || parts[1].global->kind != GLOBAL_STORAGE || parts[4].integer < 0)
        return damaged(m, "a reference that is no storage's");
    Storage *storages =
        array_for_one_more(m->storages, m->n_storages, sizeof *storages, "a pickle's storages", m->error);
    if (storages == NULL)
        return m->error->code;
    m->storages = storages;
    storages[m->n_storages] = (Storage){parts[1].global, parts[2].text, (size_t)parts[4].integer};
    m->stack[m->n_stack - 1] = (Value){.kind = VALUE_STORAGE, .index = m->n_storages++};
    return 0;
}

/* Lengths or strides: a tuple of numbers that are not negative. */
static bool read_sizes(const Machine *m, const Value *tuple, size_t out[TENSOR_MAX_DIMS]) {
    for (size_t i = 0; i < tuple->count; i++) {
        const Value *size = &m->elements[tuple->index + i];
        if (size->kind != VALUE_INTEGER || size->integer < 0)
            return false;
        out[i] = (size_t)size->integer;
    }
    return true;
}

/* (storage, offset, shape, strides, …) */
static int make_tensor(Machine *m, const Value *arguments, Value *out) {
    static const ValueKind FORM[] = {VALUE_STORAGE, VALUE_INTEGER, VALUE_TUPLE, VALUE_TUPLE};
    if (!begins_with(m, arguments, FORM, 4))
        return damaged(m, "a tensor that is none");
    const Value *parts = m->elements + arguments->index;
    if (parts[1].integer < 0 || parts[2].count > TENSOR_MAX_DIMS || parts[3].count != parts[2].count)
        return damaged(m, "a tensor that is none");
    const Storage *storage = &m->storages[parts[0].index];
    PickledTensor tensor = {.storage = storage->name,
                            .type = storage->type->type,
                            .type_name = storage->type->type_name,
                            .storage_elements = storage->elements,
                            .offset = (size_t)parts[1].integer,
                            .n_dims = parts[2].count};
    if (!read_sizes(m, &parts[2], tensor.shape) || !read_sizes(m, &parts[3], tensor.strides))
        return damaged(m, "a tensor whose shape is none");
    PickledTensor *tensors =
        array_for_one_more(m->tensors, m->n_tensors, sizeof *tensors, "a pickle's tensors", m->error);
    if (tensors == NULL)
        return m->error->code;
    m->tensors = tensors;
    tensors[m->n_tensors] = tensor;
    *out = (Value){.kind = VALUE_TENSOR, .index = m->n_tensors++};
    return 0;
}

/* (tensor, …) */
static int make_parameter(const Machine *m, const Value *arguments, Value *out) {
    static const ValueKind FORM[] = {VALUE_TENSOR};
    if (!begins_with(m, arguments, FORM, 1))
        return damaged(m, "a parameter without a tensor");
    *out = m->elements[arguments->index];
    return 0;
}

/* The calls of functions; each is what GLOBALS says, and no more. */
static int do_reduce(Machine *m) {
    if (!has(m, 2) || m->stack[m->n_stack - 2].kind != VALUE_GLOBAL || m->stack[m->n_stack - 1].kind != VALUE_TUPLE)
        return damaged(m, "a call of what cannot be called");
    Value *function = &m->stack[m->n_stack - 2], *arguments = function + 1;
    int status = 0;
    switch (function->global->kind) {
    case GLOBAL_DICTIONARY:
        if (arguments->count > 0)
            return damaged(m, "a dictionary with arguments");
        *function = (Value){.kind = VALUE_DICTIONARY, .index = m->n_dictionaries++};
        break;
    case GLOBAL_TENSOR:
        status = make_tensor(m, arguments, function);
        break;
    case GLOBAL_PARAMETER:
        status = make_parameter(m, arguments, function);
        break;
    case GLOBAL_STORAGE:
        return damaged(m, "a call of a storage");
    }
    m->n_stack--;
    return status;
}

/* The attributes of a dictionary, which say nothing of tensors. */
static int do_build(Machine *m) {
    if (!has(m, 2) || m->stack[m->n_stack - 2].kind != VALUE_DICTIONARY)
        return damaged(m, "attributes of what is no dictionary");
    m->n_stack--;
    return 0;
}

typedef struct Instruction {
    unsigned char code;
    const char *name;
    int (*step)(Machine *m); /* NULL: refused */
} Instruction;

static const Instruction INSTRUCTIONS[] = {
    {'(', "MARK", do_mark},
    {'.', "STOP", do_stop},
    {'0', "POP", NULL},
    {'1', "POP_MARK", NULL},
    {'2', "DUP", NULL},
    {'F', "FLOAT", NULL},
    {'I', "INT", NULL},
    {'J', "BININT", do_int4},
    {'K', "BININT1", do_int1},
    {'L', "LONG", NULL},
    {'M', "BININT2", do_int2},
    {'N', "NONE", do_other},
    {'P', "PERSID", NULL},
    {'Q', "BINPERSID", do_persistent_id},
    {'R', "REDUCE", do_reduce},
    {'S', "STRING", NULL},
    {'T', "BINSTRING", NULL},
    {'U', "SHORT_BINSTRING", NULL},
    {'V', "UNICODE", NULL},
    {'X', "BINUNICODE", do_text4},
    {'a', "APPEND", NULL},
    {'b', "BUILD", do_build},
    {'c', "GLOBAL", do_global},
    {'d', "DICT", NULL},
    {'}', "EMPTY_DICT", do_dictionary},
    {'e', "APPENDS", NULL},
    {'g', "GET", NULL},
    {'h', "BINGET", do_get1},
    {'i', "INST", NULL},
    {'j', "LONG_BINGET", do_get4},
    {'l', "LIST", NULL},
    {']', "EMPTY_LIST", NULL},
    {'o', "OBJ", NULL},
    {'p', "PUT", NULL},
    {'q', "BINPUT", do_put1},
    {'r', "LONG_BINPUT", do_put4},
    {'s', "SETITEM", do_set_item},
    {'t', "TUPLE", do_tuple},
    {')', "EMPTY_TUPLE", do_tuple0},
    {'u', "SETITEMS", do_set_items},
    {'G', "BINFLOAT", NULL},
    {'B', "BINBYTES", NULL},
    {'C', "SHORT_BINBYTES", NULL},
    {0x80, "PROTO", do_protocol},
    {0x81, "NEWOBJ", NULL},
    {0x82, "EXT1", NULL},
    {0x83, "EXT2", NULL},
    {0x84, "EXT4", NULL},
    {0x85, "TUPLE1", do_tuple1},
    {0x86, "TUPLE2", do_tuple2},
    {0x87, "TUPLE3", do_tuple3},
    {0x88, "NEWTRUE", do_other},
    {0x89, "NEWFALSE", do_other},
    {0x8a, "LONG1", do_long},
    {0x8b, "LONG4", NULL},
    {0x8c, "SHORT_BINUNICODE", do_text1},
    {0x8d, "BINUNICODE8", NULL},
    {0x8e, "BINBYTES8", NULL},
    {0x8f, "EMPTY_SET", NULL},
    {0x90, "ADDITEMS", NULL},
    {0x91, "FROZENSET", NULL},
    {0x92, "NEWOBJ_EX", NULL},
    {0x93, "STACK_GLOBAL", do_stack_global},
    {0x94, "MEMOIZE", do_memoize},
    {0x95, "FRAME", do_frame},
    {0x96, "BYTEARRAY8", NULL},
    {0x97, "NEXT_BUFFER", NULL},
    {0x98, "READONLY_BUFFER", NULL},
};

static int step(Machine *m) {
    m->opcode_at = m->at;
    const char *byte = take(m, 1);
    if (byte == NULL)
        return damaged(m, "no end");
    unsigned char code = (unsigned char)*byte;
    const Instruction *found = NULL;
    for (size_t i = 0; i < sizeof INSTRUCTIONS / sizeof *INSTRUCTIONS && found == NULL; i++)
        if (INSTRUCTIONS[i].code == code)
            found = &INSTRUCTIONS[i];
    if (found != NULL && found->step != NULL)
        return found->step(m);
    return error_set(m->error, found == NULL ? ERROR_FORMAT : ERROR_UNSUPPORTED,
                     "%s: pickle: instruction 0x%02x (%s) at byte %zu, which no tensor needs, and nothing of it was "
                     "run; %s",
                     m->path, code, found == NULL ? "unknown" : found->name, m->opcode_at, CURE);
}

/* ---- The result */

static int collect(Machine *m, PickledTensors *out) {
    if (!has(m, 1) || m->n_stack != 1 || m->stack[0].kind != VALUE_DICTIONARY)
        return damaged(m, "something else than a dictionary");
    out->items = calloc(m->n_entries + 1, sizeof *out->items);
    if (out->items == NULL)
        return error_memory(m->error, "the list of tensors", m->n_entries * sizeof *out->items);
    for (size_t i = 0; i < m->n_entries; i++) {
        const Entry *entry = &m->entries[i];
        if (entry->dictionary != m->stack[0].index)
            continue;
        if (entry->value.kind != VALUE_TENSOR)
            return error_set(m->error, ERROR_UNSUPPORTED, "%s: '%.*s' is no tensor; %s", m->path, SV_ARGS(entry->name),
                             CURE);
        out->items[out->count] = m->tensors[entry->value.index];
        out->items[out->count++].name = entry->name;
    }
    return out->count > 0 ? 0 : damaged(m, "no tensors");
}

int pickle_read(PickledTensors *out, StringView pickle, const char *path, Error *error) {
    Machine m = {.path = path, .pickle = pickle, .error = error};
    *out = (PickledTensors){0};
    int status = 0;
    while (status == 0 && !m.stopped)
        status = step(&m);
    if (status == 0)
        status = collect(&m, out);
    free(m.stack);
    free(m.memo);
    free(m.elements);
    free(m.storages);
    free(m.tensors);
    free(m.entries);
    if (status < 0)
        pickle_free(out);
    return status;
}

void pickle_free(PickledTensors *tensors) {
    free(tensors->items);
    *tensors = (PickledTensors){0};
}
