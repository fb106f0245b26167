/* The limit of a queue: spawn a program and see it end, so often, so many at once.
 *
 * spawn_loop PROGRAM COUNT IN_FLIGHT: prints the seconds that it took.
 */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    char *program[] = {argv[1], NULL};
    int count = atoi(argv[2]), room = atoi(argv[3]), begun = 0, ended = 0, status;
    double start = now();
    while (ended < count) {
        if (begun < count && begun - ended < room) {
            pid_t pid;
            if (posix_spawn(&pid, program[0], NULL, NULL, program, environ) != 0) return 1;
            begun++;
        } else {
            if (waitpid(-1, &status, 0) < 0 || status != 0) return 1;
            ended++;
        }
    }
    printf("%.9f\n", now() - start);
    return 0;
}
