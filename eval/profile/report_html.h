/* A profile as one page that works offline: tables in HTML, with a place for each figure, which eval/plot.py fills. */
#ifndef STOWKV_REPORT_HTML_H
#define STOWKV_REPORT_HTML_H

#include <cjson/cJSON.h>
#include <stdio.h>

/* `summary` is summary.json's object; errors stay in the stream. */
void report_html(const cJSON *summary, FILE *stream);

#endif
