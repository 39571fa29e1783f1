/* See allocation.h. */
#include "kvcache/allocation.h"

#include <stdint.h>

/* From a part's way to another one that takes more bytes and does less harm. */
typedef struct Step {
    size_t part, way;
    size_t bytes; /* more */
    double gain;  /* less harm */
} Step;

static Step step_to(const AllocationTable *table, const size_t *ways, size_t part, size_t way) {
    size_t to = part * table->n_ways + way, from = part * table->n_ways + ways[part];
    return (Step){part, way, table->bytes[to] > table->bytes[from] ? table->bytes[to] - table->bytes[from] : 0,
                  table->harms[from] - table->harms[to]};
}

/* Whether `a` gains more for each of its bytes; of equals, the longer step. */
static bool is_steeper(const Step *a, const Step *b) {
    double left = a->gain * (double)b->bytes, right = b->gain * (double)a->bytes;
    return left > right || (left == right && a->gain > b->gain);
}

/* The steepest step of all parts that takes at most `most_bytes` more: without that bound, to the next point of a hull.
 * One that gains nothing where there is none. */
static Step steepest_step(const AllocationTable *table, const size_t *ways, size_t most_bytes) {
    Step best = {0};
    for (size_t part = 0; part < table->n_parts; part++)
        for (size_t way = 0; way < table->n_ways; way++) {
            Step step = step_to(table, ways, part, way);
            if (step.gain > 0 && step.bytes <= most_bytes && (best.gain == 0 || is_steeper(&step, &best)))
                best = step;
        }
    return best;
}

/* The fewest bytes, and of equals the least harm. */
static size_t smallest_way(const AllocationTable *table, size_t part) {
    const size_t *bytes = table->bytes + part * table->n_ways;
    const double *harms = table->harms + part * table->n_ways;
    size_t smallest = 0;
    for (size_t way = 1; way < table->n_ways; way++)
        if (bytes[way] < bytes[smallest] || (bytes[way] == bytes[smallest] && harms[way] < harms[smallest]))
            smallest = way;
    return smallest;
}

size_t allocation_bytes(const AllocationTable *table, const size_t *ways) {
    size_t bytes = 0;
    for (size_t part = 0; part < table->n_parts; part++)
        bytes += table->bytes[part * table->n_ways + ways[part]];
    return bytes;
}

double allocation_harm(const AllocationTable *table, const size_t *ways) {
    double harm = 0;
    for (size_t part = 0; part < table->n_parts; part++)
        harm += table->harms[part * table->n_ways + ways[part]];
    return harm;
}

bool allocate(const AllocationTable *table, size_t budget, size_t *ways) {
    for (size_t part = 0; part < table->n_parts; part++)
        ways[part] = smallest_way(table, part);
    size_t used = allocation_bytes(table, ways);
    if (used > budget)
        return false;
    bool on_hull = true; /* of all steps the steepest fitted so far */
    for (Step step; (step = steepest_step(table, ways, on_hull ? SIZE_MAX : budget - used)).gain > 0;) {
        on_hull = on_hull && step.bytes <= budget - used;
        if (step.bytes <= budget - used) {
            ways[step.part] = step.way;
            used += step.bytes;
        }
    }
    return true;
}
