/* Runs eval/plot.py, which draws figures from what programs have written.
 *
 *     plot_run((const char *[]){"outputs/run", NULL}, stderr);
 */
#ifndef STOWKV_PLOT_PROGRAM_H
#define STOWKV_PLOT_PROGRAM_H

#include <stdio.h>

/* At most three arguments, NULL behind them. Where it does not work, a note says what is missing and how to draw later.
 */
void plot_run(const char *const *arguments, FILE *notes);

#endif
