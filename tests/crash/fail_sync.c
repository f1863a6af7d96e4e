/*
 * Loaded with LD_PRELOAD: fsync and fdatasync fail with EIO while the file named by FAIL_SYNC exists, for
 * the files whose path contains what that file holds. They leave the bytes unsynced, as a broken disk does.
 * With a '~' before it they wait instead, as on a disk that does not answer.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum fault { NONE, FAILS, WAITS };

static enum fault fault(int fd)
{
    const char *trigger = getenv("FAIL_SYNC");
    char wanted[256], link[64], path[4096];
    int file = trigger ? open(trigger, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return NONE;
    ssize_t length = read(file, wanted, sizeof wanted - 1);
    close(file);
    if (length <= 0)
        return NONE;
    wanted[length] = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return NONE;
    path[length] = 0;
    int waits = wanted[0] == '~';
    if (!strstr(path, wanted + waits))
        return NONE;
    return waits ? WAITS : FAILS;
}

static int fails(int fd)
{
    enum fault now;
    while ((now = fault(fd)) == WAITS)
        usleep(1000);
    return now == FAILS;
}

int fsync(int fd)
{
    if (fails(fd)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    if (fails(fd)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}
