/*
 * test_proc.c: what /proc tells of processes: living, dead and oddly named ones.
 */
#include "rig.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/kernel.h"
#include "common/proc.h"

/* A child that lives until it is killed, under that name. */
static pid_t child_called(const char *name)
{
    int ready[2];
    char byte;

    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_NAME, name);
        close(ready[0]);
        close(ready[1]); /* which its parent reads as an end */
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 0);
    close(ready[0]);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void a_process_is_known_by_its_name_whatever_that_is(void **state)
{
    static const char *const names[] = {"plain", "with blank", ") Z 1 (",
                                        "a)b(c", "()",         "new\nline"};

    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        pid_t parent = 0, pid = child_called(names[i]);
        assert_int_equal(fsw_proc_is(pid, names[i], &parent), 1);
        assert_int_equal(parent, getpid());
        assert_int_equal(fsw_proc_is(pid, "plai", &parent), 0);
        assert_int_equal(fsw_proc_is(pid, "plain and more", &parent), 0);
        end(pid);
        assert_int_equal(fsw_proc_is(pid, names[i], &parent), 0);
    }
}

static void a_zombie_does_not_live(void **state)
{
    pid_t parent, pid = child_called("undead");
    siginfo_t info;
    char words[16] = "left as it was";

    assert_int_equal(fsw_proc_is(pid, "undead", &parent), 1);
    kill(pid, SIGKILL);
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(fsw_proc_is(pid, "undead", &parent), 0);
    assert_int_equal(fsw_proc_words(pid, words, sizeof words), 0);
    assert_string_equal(words, "");
    end(pid);
    assert_int_equal(fsw_proc_words(pid, words, sizeof words), 0);
}

/* A shell that waits, called with those words. */
static pid_t child_with_words(int *ret_stdin)
{
    int input[2], gone[2];
    char byte;

    assert_int_equal(pipe(input), 0);
    assert_int_equal(pipe2(gone, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(input[0], STDIN_FILENO);
        execl("/bin/sh", "called this", "-c", "read line", "a word", "", "end", (char *)NULL);
        _exit(1);
    }
    close(gone[1]);
    assert_int_equal(read(gone[0], &byte, 1), 0); /* it is executed */
    close(gone[0]);
    close(input[0]);
    *ret_stdin = input[1];
    return pid;
}

static void words_come_whole_or_as_far_as_there_is_room(void **state)
{
    static const char wanted[] = "called this\0-c\0read line\0a word\0\0end";
    char words[64];
    int input;
    pid_t pid = child_with_words(&input);

    assert_int_equal(fsw_proc_words(pid, words, sizeof words), sizeof wanted);
    assert_memory_equal(words, wanted, sizeof wanted);
    for (size_t room = 1; room <= sizeof wanted; room++) {
        memset(words, 'x', sizeof words);
        assert_int_equal(fsw_proc_words(pid, words, room), room - 1);
        assert_memory_equal(words, wanted, room - 1);
        assert_int_equal(words[room - 1], 0);
        assert_int_equal(words[room], 'x');
    }
    end(pid);
    close(input);
}

struct seen {
    pid_t wanted;
    unsigned count;
};

static int look_at(pid_t pid, void *opaque)
{
    struct seen *seen = opaque;

    assert_true(pid > 0);
    seen->count += pid == seen->wanted;
    return pid == seen->wanted ? 7 : 0;
}

static int count(pid_t pid, void *opaque)
{
    struct seen *seen = opaque;

    seen->count += pid == seen->wanted;
    return 0;
}

static void each_is_shown_once_until_one_is_the_last(void **state)
{
    struct seen seen = {.wanted = child_called("one of many")};

    assert_int_equal(fsw_proc_each(count, &seen), 0);
    assert_int_equal(seen.count, 1);
    assert_int_equal(fsw_proc_each(look_at, &seen), 7);
    assert_int_equal(seen.count, 2);
    end(seen.wanted);
    assert_int_equal(fsw_proc_each(count, &seen), 0);
    assert_int_equal(seen.count, 2);
}

static void a_kernel_is_as_new_as_it_says(void **state)
{
    struct utsname host;
    int major, minor;

    assert_int_equal(uname(&host), 0);
    assert_int_equal(sscanf(host.release, "%d.%d", &major, &minor), 2);
    assert_true(fsw_kernel_is_at_least(major, minor));
    assert_true(fsw_kernel_is_at_least(major - 1, minor + 1));
    assert_false(fsw_kernel_is_at_least(major, minor + 1));
    assert_false(fsw_kernel_is_at_least(major + 1, 0));
}

RIG_MAIN(cmocka_unit_test(a_process_is_known_by_its_name_whatever_that_is),
         cmocka_unit_test(a_zombie_does_not_live),
         cmocka_unit_test(words_come_whole_or_as_far_as_there_is_room),
         cmocka_unit_test(each_is_shown_once_until_one_is_the_last),
         cmocka_unit_test(a_kernel_is_as_new_as_it_says))
