/* See html_table.h. */
#include "eval/profile/html_table.h"

#include <string.h>

void html_print_escaped(const char *text, FILE *stream) {
    for (; *text != '\0'; text++)
        switch (*text) {
        case '&':
            fputs("&amp;", stream);
            break;
        case '<':
            fputs("&lt;", stream);
            break;
        case '>':
            fputs("&gt;", stream);
            break;
        case '"':
            fputs("&quot;", stream);
            break;
        default:
            fputc(*text, stream);
        }
}

const cJSON *html_item(const cJSON *object, const char *path) {
    const char *dot;
    char name[64];
    for (; (dot = strchr(path, '.')) != NULL; path = dot + 1) {
        snprintf(name, sizeof name, "%.*s", (int)(dot - path), path);
        object = cJSON_GetObjectItemCaseSensitive(object, name);
    }
    return cJSON_GetObjectItemCaseSensitive(object, path);
}

/* A text, or a number times the column's scale with its error; a dash where there is none. */
static void cell(const cJSON *object, const HtmlColumn *column, FILE *stream) {
    const cJSON *item = html_item(object, column->path);
    const cJSON *error = column->error_path != NULL ? html_item(object, column->error_path) : NULL;
    const char *unit = column->unit != NULL ? column->unit : "";
    fputs("<td>", stream);
    if (cJSON_IsString(item))
        html_print_escaped(item->valuestring, stream);
    else if (cJSON_IsNumber(item) && cJSON_IsNumber(error))
        fprintf(stream, "%.*f &plusmn; %.*f%s", column->decimals, item->valuedouble * column->scale, column->decimals,
                error->valuedouble * column->scale, unit);
    else if (cJSON_IsNumber(item))
        fprintf(stream, "%.*f%s", column->decimals, item->valuedouble * column->scale, unit);
    else
        fputs("&ndash;", stream);
    fputs("</td>", stream);
}

void html_begin_table(const HtmlColumn *columns, size_t n_columns, FILE *stream) {
    fputs("<div class=\"wide\"><table>\n<tr>", stream);
    for (size_t i = 0; i < n_columns; i++)
        fprintf(stream, "<th>%s</th>", columns[i].head);
    fputs("</tr>\n", stream);
}

void html_row(const cJSON *object, const HtmlColumn *columns, size_t n_columns, FILE *stream) {
    fputs("<tr>", stream);
    for (size_t i = 0; i < n_columns; i++)
        cell(object, &columns[i], stream);
    fputs("</tr>\n", stream);
}

void html_end_table(FILE *stream) {
    fputs("</table></div>\n", stream);
}

void html_table(const cJSON *objects, const HtmlColumn *columns, size_t n_columns, FILE *stream) {
    const cJSON *object;
    html_begin_table(columns, n_columns, stream);
    cJSON_ArrayForEach(object, objects) html_row(object, columns, n_columns, stream);
    html_end_table(stream);
}
