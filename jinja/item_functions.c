/* Filters and methods of lists and mappings. */
#include "jinja/builtins.h"

Value jinja_length_of(Machine *m, const Row *row, Value self, const Value *p) {
    return jinja_integer((int64_t)jinja_length(m, self));
}

Value jinja_list_of(Machine *m, const Row *row, Value self, const Value *p) {
    Value out = {.kind = JINJA_LIST, .items = jinja_take(m, sizeof(Items))};
    *out.items = *jinja_iterate(m, self);
    out.items->capacity = out.items->count;
    return out;
}

Value jinja_first_item(Machine *m, const Row *row, Value self, const Value *p) {
    if (self.kind == JINJA_ITERATOR && row->variant != 0)
        jinja_fail(m, ERROR_FORMAT, "%s of an iterator", row->name);
    if (self.kind != JINJA_ITERATOR || self.items->count == 0)
        return jinja_at(m, (Value){.kind = JINJA_LIST, .items = jinja_list_of(m, row, self, p).items}, row->variant);
    *self.items = (Items){self.items->at + 1, self.items->count - 1, 0};
    return self.items->at[-1];
}

Value jinja_reversed(Machine *m, const Row *row, Value self, const Value *p) {
    const Value bounds[] = {{0}, {0}, jinja_integer(-1)};
    if (self.kind == JINJA_TEXT)
        return jinja_slice(m, self, bounds);
    Value out = jinja_slice(m, jinja_list_of(m, row, self, p), bounds);
    out.kind = JINJA_ITERATOR;
    return out;
}

Value jinja_mapping_items(Machine *m, const Row *row, Value self, const Value *p) {
    static const Row LOWERED = {.name = "dictsort", .variant = LOWER};
    Value out = jinja_items(m, row->group == GROUP_FILTER && row->variant == PAIRS ? JINJA_ITERATOR : JINJA_LIST);
    if (self.kind != JINJA_MAPPING && self.kind != JINJA_UNDEFINED)
        jinja_fail(m, ERROR_FORMAT, "%s of %s", row->name, jinja_kind_name(self));
    for (size_t i = 0; self.kind == JINJA_MAPPING && i < self.items->count; i += 2) {
        Value pair = {.kind = JINJA_TUPLE, .items = jinja_take(m, sizeof(Items))};
        *pair.items = (Items){&self.items->at[i], 2, 2};
        jinja_append(m, out.items,
                     row->variant == KEYS     ? pair.items->at[0]
                     : row->variant == VALUES ? pair.items->at[1]
                                              : pair);
        if (row->variant == SORTED && self.items->at[i].kind != JINJA_TEXT)
            jinja_fail(m, ERROR_UNSUPPORTED, "%s by keys that are no texts is not supported", row->name);
        for (size_t j = i / 2; row->variant == SORTED && j > 0; j--) {
            Value *later = &out.items->at[j], before = later[-1];
            Text a = jinja_change_case(m, &LOWERED, before.items->at[0], p).text,
                 b = jinja_change_case(m, &LOWERED, later->items->at[0], p).text;
            if (jinja_compare_texts(a, b) <= 0)
                break;
            later[-1] = *later;
            *later = before;
        }
    }
    return out;
}

Value jinja_get_item(Machine *m, const Row *row, Value self, const Value *p) {
    jinja_check_key(m, p[0]);
    const Value *found = jinja_find(m, self.items, p[0]);
    return found != NULL ? *found : p[1].kind == JINJA_UNSET ? (Value){.kind = JINJA_NONE} : p[1];
}

Value jinja_default_value(Machine *m, const Row *row, Value self, const Value *p) {
    bool missing = self.kind == JINJA_UNDEFINED || (jinja_truth(p[1]) && !jinja_truth(self));
    return !missing ? self : p[0].kind == JINJA_UNSET ? jinja_string(sv("")) : p[0];
}

Value jinja_map_items(Machine *m, const Row *row, Value self, const Value *p) {
    Value out = jinja_items(m, JINJA_ITERATOR), attribute = row->variant == MAPS ? p[4] : p[0];
    const Value *called = p + ((row->variant & OF_ATTRIBUTE) != 0);
    bool by_attribute = row->variant == MAPS ? attribute.kind != JINJA_UNSET : (row->variant & OF_ATTRIBUTE) != 0;
    const Items *all = jinja_truth(self) || row->variant == MAPS ? jinja_iterate(m, self) : out.items;
    for (size_t i = 0, n = all->count; i < n; i++) {
        Value item = all->at[i], value = item;
        Arguments given = {{called[1], called[2]}, {{"", 0}, {"", 0}}, 0};
        given.n = (called[1].kind != JINJA_UNSET) + (size_t)(called[2].kind != JINJA_UNSET);
        if (by_attribute)
            value = jinja_attribute(m, item, jinja_view(jinja_text_of(m, attribute)));
        if (row->variant == MAPS && !by_attribute)
            value = jinja_call(m, GROUP_FILTER, jinja_view(jinja_text_of(m, p[0])), item, &given);
        else if (row->variant != MAPS && called[0].kind != JINJA_UNSET)
            value = jinja_call(m, GROUP_TEST, jinja_view(jinja_text_of(m, called[0])), value, &given);
        if (row->variant == MAPS)
            jinja_append(m, out.items, value);
        else if (jinja_truth(value) == ((row->variant & SELECTS) != 0))
            jinja_append(m, out.items, item);
    }
    return out;
}
