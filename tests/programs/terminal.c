/* Types into the terminal that its descriptors lead to: what is typed there is read by the shell that started the
 * container. Tries TIOCSTI with each descriptor, after making the terminal its own if it can, and the virtual console's
 * TIOCLINUX paste. Argument: the text. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void type(int terminal, const char *text)
{
	char paste = 3;
	for (const char *c = text; *c; c++)
		if (ioctl(terminal, TIOCSTI, c) != 0) {
			printf("TIOCSTI: %s\n", strerrorname_np(errno));
			break;
		}
	ioctl(terminal, TIOCLINUX, &paste);
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	for (int fd = 0; fd <= 2; fd++)
		type(fd, argv[1]);
	int own = open("/dev/tty", O_RDWR);
	if (own >= 0)
		type(own, argv[1]);
	/* A session of one's own may take a terminal that no other session has, or with CAP_SYS_ADMIN any. */
	pid_t child = fork();
	if (child == 0) {
		setsid();
		for (int fd = 0; fd <= 2; fd++)
			if (ioctl(fd, TIOCSCTTY, 1) == 0)
				type(fd, argv[1]);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	puts("typed");
	return 0;
}
