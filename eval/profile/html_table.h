/* Objects of JSON as rows of an HTML table.
 *
 *     static const HtmlColumn COLUMNS[] = {{.head = "mode", .path = "mode"},
 *                                          {"perplexity", "ppl", 1, 4, NULL, "ppl_stderr"}};
 *     html_table(modes, COLUMNS, HTML_COLUMNS(COLUMNS), stream);
 */
#ifndef STOWKV_HTML_TABLE_H
#define STOWKV_HTML_TABLE_H

#include <cjson/cJSON.h>
#include <stdio.h>

typedef struct HtmlColumn {
    const char *head, *path;       /* of an object's item, or of one within it: "kld.mean"; a text, or a number */
    double scale;                  /* of a number */
    int decimals;                  /* of that */
    const char *unit, *error_path; /* behind it; NULL: none */
} HtmlColumn;

#define HTML_COLUMNS(columns) (sizeof(columns) / sizeof *(columns))

/* A row for each object; a dash where it has no such item. */
void html_table(const cJSON *objects, const HtmlColumn *columns, size_t n_columns, FILE *stream);

/* The same in parts, for tables with other rows too. */
void html_begin_table(const HtmlColumn *columns, size_t n_columns, FILE *stream);
void html_row(const cJSON *object, const HtmlColumn *columns, size_t n_columns, FILE *stream);
void html_end_table(FILE *stream);

void html_print_escaped(const char *text, FILE *stream);
const cJSON *html_item(const cJSON *object, const char *path); /* NULL: none */

#endif
