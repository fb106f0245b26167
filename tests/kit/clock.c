/*
 * Sets the wall clock of one process off by $CLOCK_OFFSET seconds. To be preloaded. The clocks
 * that never step (monotonic, boottime) and the times of files stay as they are.
 *
 * The kernel is asked by syscall(2), not through the functions that these stand before: to find
 * those takes dlsym(3), which is in another library on each system.
 */
#define _GNU_SOURCE
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

int clock_gettime(clockid_t clock, struct timespec *now) {
    const char *offset = getenv("CLOCK_OFFSET");
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result != 0 || offset == NULL)
        return result;
    for (size_t i = 0; i < sizeof wall_clocks / sizeof *wall_clocks; i++)
        if (clock == wall_clocks[i]) {
            now->tv_sec += atol(offset);
            break;
        }
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
