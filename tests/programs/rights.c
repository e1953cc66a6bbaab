/* What the caller may do, asked of the kernel by system calls and not of /proc, which somebody may have replaced. With
 * `allowed FILE MODE`: whether the file can be opened (r or w) by the rights of the groups. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct sets[2];
	gid_t groups[64];
	uid_t real, effective, saved;

	if (argc == 4 && strcmp(argv[1], "allowed") == 0) {
		int file = open(argv[2], argv[3][0] == 'w' ? O_WRONLY : O_RDONLY);
		puts(file >= 0 ? "GOT it" : "refused");
		return 0;
	}
	if (syscall(SYS_capget, &head, sets) != 0)
		return 1;
	unsigned long long ambient = 0, bounding = 0;
	for (int cap = 0; cap <= 63; cap++) {
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1)
			ambient |= 1ull << cap;
		if (prctl(PR_CAPBSET_READ, cap) == 1)
			bounding |= 1ull << cap;
	}
#define SET(field) ((unsigned long long)sets[1].field << 32 | sets[0].field)
	printf("effective %llx\npermitted %llx\ninheritable %llx\n", SET(effective), SET(permitted), SET(inheritable));
	printf("ambient %llx\nbounding %llx\n", ambient, bounding);
	printf("no_new_privs %d\nseccomp %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), prctl(PR_GET_SECCOMP));
	getresuid(&real, &effective, &saved);
	printf("uid %u %u %u\ngid %u %u\ngroups", real, effective, saved, getgid(), getegid());
	int count = getgroups(64, groups);
	for (int i = 0; i < count; i++)
		printf(" %u", groups[i]);
	puts("");
	return 0;
}
