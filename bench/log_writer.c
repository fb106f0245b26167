/* A command that writes much and does nothing else.
 *
 * log_writer SIZE COUNT: COUNT writes of SIZE bytes each to the standard output.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    size_t size = strtoul(argv[1], NULL, 10);
    unsigned long count = strtoul(argv[2], NULL, 10);
    char *block = malloc(size);
    if (size == 0 || block == NULL) return 2;
    memset(block, 'x', size);
    block[size - 1] = '\n';
    for (; count > 0; count--) {
        for (size_t done = 0; done < size;) {
            ssize_t written = write(1, block + done, size - done);
            if (written < 0) return 1;
            done += (size_t)written;
        }
    }
    return 0;
}
