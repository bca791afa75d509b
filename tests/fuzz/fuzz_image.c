/*
 * fuzz_image.c: libFuzzer against a damaged image. An input says which bits of which part fall
 * over; then the image is attached, checked, and every page read (tests/unit/damage.h says what
 * must hold). tests/unit/test_image_damage.c does the same by a seed.
 */
#include <stdio.h>
#include <stdlib.h>

#include "damage.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static char folder[] = "/tmp/farswap-fuzz-XXXXXX";

static void clean_up(void)
{
    char command[64];

    snprintf(command, sizeof command, "rm -rf %s", folder);
    if (system(command) != 0)
        perror(folder);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    if (mkdtemp(folder) == NULL)
        abort();
    setenv("FARSWAP_RUNDIR", folder, 1);
    setenv("FARSWAP_STATEDIR", folder, 1);
    atexit(clean_up);
    damage_open();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    damage_try(bytes, length);
    return 0;
}
