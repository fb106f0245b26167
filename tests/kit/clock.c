/*
 * Sets clocks of one process off. To be preloaded. The wall clock by as many seconds as
 * $CLOCK_FILE says at the moment; the time since boot by $UPTIME_OFFSET. The clock that waits are
 * measured by, CLOCK_MONOTONIC, and the times of files stay as they are: the kernel would know
 * nothing of it.
 *
 * The kernel is asked by syscall(2), not through the functions that these stand before: to find
 * those takes dlsym(3), which is in another library on each system.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifdef __FreeBSD__
typedef struct timezone zone_type;
#else
typedef void zone_type;
#endif

static const clockid_t wall_clocks[] = {
    CLOCK_REALTIME,
#ifdef CLOCK_REALTIME_COARSE
    CLOCK_REALTIME_COARSE,
#endif
#ifdef CLOCK_REALTIME_FAST
    CLOCK_REALTIME_FAST,
    CLOCK_REALTIME_PRECISE,
    CLOCK_SECOND,
#endif
};

static const clockid_t boot_clocks[] = {
#ifdef CLOCK_BOOTTIME
    CLOCK_BOOTTIME,
#endif
#ifdef CLOCK_UPTIME
    CLOCK_UPTIME,
#endif
#ifdef CLOCK_UPTIME_FAST
    CLOCK_UPTIME_FAST,
    CLOCK_UPTIME_PRECISE,
#endif
};

#define HAS(clocks, clock) has(clocks, sizeof clocks / sizeof *clocks, clock)

static int has(const clockid_t *clocks, size_t count, clockid_t clock) {
    for (size_t i = 0; i < count; i++)
        if (clocks[i] == clock)
            return 1;
    return 0;
}

static long number(const char *text) { return text == NULL ? 0 : atol(text); }

/* Opened each time: the process may close what it has not opened itself. */
static long wall_offset(void) {
    const char *path = getenv("CLOCK_FILE");
    char text[32] = "";
    int before = errno, file;
    file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) < 0)
            text[0] = '\0';
        close(file);
    }
    errno = before;
    return number(text);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result != 0)
        return result;
    if (HAS(wall_clocks, clock))
        now->tv_sec += wall_offset();
    else if (HAS(boot_clocks, clock))
        now->tv_sec += number(getenv("UPTIME_OFFSET"));
    return result;
}

int gettimeofday(struct timeval *restrict now, zone_type *restrict zone) {
    struct timespec exact;
    (void)zone; /* obsolete everywhere */
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0)
        return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0)
        return (time_t)-1;
    if (out != NULL)
        *out = exact.tv_sec;
    return exact.tv_sec;
}
