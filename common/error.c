/*
 * error.c: one line for a person, and the code for the program.
 */
#include "farswap/error.h"

#include <stdarg.h>
#include <stdio.h>

int fsw_error(struct fsw_error *err, int code, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return code;
}
