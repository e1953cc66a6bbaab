/* Exchanges two paths until killed, as fast as the kernel can, so that whoever looks twice sees two things. Arguments:
 * the paths. Prints `swapping` once it works. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 3 || renameat2(AT_FDCWD, argv[1], AT_FDCWD, argv[2], RENAME_EXCHANGE) != 0) {
		perror("renameat2");
		return 1;
	}
	puts("swapping");
	fflush(stdout);
	for (;;)
		renameat2(AT_FDCWD, argv[1], AT_FDCWD, argv[2], RENAME_EXCHANGE);
}
