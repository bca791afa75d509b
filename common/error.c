/*
 * error.c: one line for a person, and the code for the program.
 */
#include "farswap/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

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

void fsw_error_add(struct fsw_error *err, const char *format, ...)
{
    size_t length = err != NULL ? strlen(err->text) : 0;
    va_list args;

    if (err == NULL)
        return;
    if (length > 0)
        length += (size_t)snprintf(err->text + length, sizeof err->text - length, "; ");
    if (length >= sizeof err->text)
        return;
    va_start(args, format);
    vsnprintf(err->text + length, sizeof err->text - length, format, args);
    va_end(args);
}
