// Strikes at the N-th call by which a command changes its folder; tests/fuzz/faults.py builds this and loads it first.
//
// The environment variable WAVEGEN_FAULT holds five lines: the folder, a file of 8 bytes in which all processes of a
// command count such calls together, what happens (count, kill, kill-leader, a signal's number as signal:15, or errno as
// error:28), N, and 1 if every later call fails, too. Of a write that is killed a part is written, so that files are torn.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, KILL_LEADER, SIGNAL, ERROR };
static char folder[PATH_MAX];
static long *calls, number;
static int action = COUNT, value, lasting;

__attribute__((constructor)) void wavegen_faults_arm(void) {
    const char *text = getenv("WAVEGEN_FAULT");
    char file[PATH_MAX], what[64];
    calls = NULL;
    if (!text || sscanf(text, "%4095[^\n]\n%4095[^\n]\n%63[^\n]\n%ld\n%d", folder, file, what, &number, &lasting) != 5)
        return;
    const char *argument = strchr(what, ':');
    value = argument ? atoi(argument + 1) : 0;
    action = !strcmp(what, "kill") ? KILL : !strcmp(what, "kill-leader") ? KILL_LEADER
           : !strncmp(what, "signal", 6) ? SIGNAL : !strncmp(what, "error", 5) ? ERROR : COUNT;
    int descriptor = open(file, O_RDWR);
    if (descriptor < 0) return;
    void *memory = mmap(NULL, sizeof *calls, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (memory != MAP_FAILED) calls = memory;
}

static int within(const char *path) {
    size_t length = strlen(folder);
    return !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int at_descriptor(int descriptor) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = calls ? readlink(link, path, sizeof path - 1) : -1;
    return length > 0 && (path[length] = 0, within(path));
}

static int at_path(const char *path) { return calls && within(path); }

static int at_either(int descriptor, const char *path) {
    return path[0] == '/' || descriptor == AT_FDCWD ? at_path(path) : at_descriptor(descriptor);
}

static int due(void) {
    long now = __atomic_add_fetch(calls, 1, __ATOMIC_SEQ_CST);
    return action != COUNT && (now == number || (lasting && now > number));
}

static size_t part(size_t size) { return size * (number * 37 % 100) / 100; }

// Returns whether the call fails; of a killed one there is no return.
static int strikes(void) {
    if (action == KILL) kill(getpid(), SIGKILL);
    if (action == KILL_LEADER) kill(getpgrp(), SIGKILL), pause();
    if (action == SIGNAL) kill(getpgrp(), value);
    errno = value;
    return action == ERROR;
}

#define CALL(type, name, parameters, arguments, here, torn)                                                            \
    type name parameters {                                                                                             \
        static type(*real) parameters;                                                                                 \
        if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name);                                                 \
        if (here && due()) {                                                                                           \
            if (action == KILL || action == KILL_LEADER) torn;                                                         \
            if (strikes()) return -1;                                                                                  \
        }                                                                                                              \
        return real arguments;                                                                                         \
    }
#define NOTHING ((void)0)

CALL(ssize_t, write, (int d, const void *b, size_t n), (d, b, n), at_descriptor(d), (void)!real(d, b, part(n)))
CALL(ssize_t, pwrite, (int d, const void *b, size_t n, off_t o), (d, b, n, o), at_descriptor(d), (void)!real(d, b, part(n), o))
CALL(ssize_t, pwrite64, (int d, const void *b, size_t n, off64_t o), (d, b, n, o), at_descriptor(d), (void)!real(d, b, part(n), o))
CALL(ssize_t, writev, (int d, const struct iovec *v, int n), (d, v, n), at_descriptor(d), (void)!real(d, v, n / 2))
CALL(ssize_t, sendfile, (int d, int s, off_t *o, size_t n), (d, s, o, n), at_descriptor(d), (void)!real(d, s, o, part(n)))
CALL(int, ftruncate, (int d, off_t n), (d, n), at_descriptor(d), NOTHING)
CALL(int, fsync, (int d), (d), at_descriptor(d), NOTHING)
CALL(int, fdatasync, (int d), (d), at_descriptor(d), NOTHING)
CALL(int, rename, (const char *a, const char *b), (a, b), at_path(b), NOTHING)
CALL(int, renameat, (int c, const char *a, int d, const char *b), (c, a, d, b), at_either(d, b), NOTHING)
CALL(int, unlink, (const char *a), (a), at_path(a), NOTHING)
CALL(int, unlinkat, (int d, const char *a, int f), (d, a, f), at_either(d, a), NOTHING)
CALL(int, rmdir, (const char *a), (a), at_path(a), NOTHING)
CALL(int, mkdir, (const char *a, mode_t m), (a, m), at_path(a), NOTHING)
