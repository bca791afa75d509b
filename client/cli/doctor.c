/*
 * doctor.c: farswap doctor. What on this host would make swap on farswap slow, unsafe or
 * impossible, and what to do about each. It changes nothing. What is looked at stands in
 * doctor_host.c and doctor_device.c.
 */
#include "client/cli/doctor.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/findings.h"

/* ---- findings ---- */

static unsigned failures, warnings;
static int quiet;

static void line(const char *kind, const char *colour, const char *format, va_list args)
{
    int coloured = colour[0] != '\0' && cli_colours();

    printf("%s%-5s%s ", coloured ? colour : "", kind, coloured ? "\033[0m" : "");
    vprintf(format, args);
    putchar('\n');
}

void ok(const char *format, ...)
{
    va_list args;

    if (quiet)
        return;
    va_start(args, format);
    line("ok", "", format, args);
    va_end(args);
}

void warn(const char *format, ...)
{
    va_list args;

    warnings++;
    va_start(args, format);
    line("warn", "\033[33m", format, args);
    va_end(args);
}

void fail(const char *format, ...)
{
    va_list args;

    failures++;
    va_start(args, format);
    line("FAIL", "\033[31m", format, args);
    va_end(args);
}

unsigned findings_warnings(void)
{
    return warnings;
}

unsigned findings_failures(void)
{
    return failures;
}

void findings_begin(int trouble_only)
{
    failures = warnings = 0;
    quiet = trouble_only;
}

int findings_number(const char *path, long *ret_value)
{
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return 0;
    int found = fscanf(file, "%ld", ret_value) == 1;
    fclose(file);
    return found;
}

/* ---- the command ---- */

int doctor_look_at_host(int trouble_only)
{
    findings_begin(trouble_only);
    look_at_host();
    return (int)findings_failures();
}

static int look(const struct fsw_record *record, int orphan, void *opaque)
{
    const char *name = opaque;
    struct fsw_error err = {""};
    struct view view;

    if (orphan || (name != NULL && strcmp(name, record->name) != 0))
        return 0;
    if (view_open(&view, record, orphan, &err) < 0) {
        fail("%s: %s", record->name, err.text);
        return 0;
    }
    look_at_device(&view);
    view_close(&view);
    return 0;
}

static int run(int argc, char **argv)
{
    struct fsw_error err = {""};
    struct fsw_record record;
    int orphan;
    char *name = argc > 1 ? argv[1] : NULL;

    if (argc > 2 || (name != NULL && name[0] == '-'))
        return cli_usage(&cli_doctor, 0);
    if (name != NULL && cli_find(name, &record, &orphan, &err) < 0)
        return cli_fail(&err);
    doctor_look_at_host(0);
    if (fsw_registry_list(look, name, &err) < 0)
        return cli_fail(&err);
    return findings_failures() > 0 ? CLI_FAILED : CLI_OK;
}

const struct cli_command cli_doctor = {
    .name = "doctor",
    .arguments = "[NAME]",
    .summary = "what is wrong with this host, and what to do",
    .help = "Looks at kernel, limits, knobs, namespaces, and each device's server, swap, room and "
            "store. Changes\n"
            "nothing. Exit code 1 if something FAILs; warnings alone are 0.\n",
    .examples = "  farswap doctor\n"
                "  farswap doctor swap0 | grep -v ^ok\n",
    .run = run,
};
