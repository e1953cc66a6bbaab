/* System calls that reach the whole machine, each tried so that it does no harm if it is allowed: with arguments that
 * are wrong in a way that the kernel sees only after it has judged the caller, or that change nothing. Prints
 * `NAME: ` and `GOT` or the error's name. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void call(const char *name, long number, long a, long b, long c, long d, long e)
{
	fflush(stdout);
	errno = 0;
	/* In a child: some of these change the caller. */
	pid_t child = fork();
	if (child == 0) {
		long got = syscall(number, a, b, c, d, e, 0);
		printf("%s: %s\n", name, got >= 0 ? "GOT" : strerrorname_np(errno));
		fflush(stdout);
		_exit(0);
	}
	waitpid(child, NULL, 0);
}

int main(void)
{
	char attr[128] = { 0 }, perf[128] = { 0 }, params[128] = { 0 };
	unsigned size = sizeof perf;

	/* PERF_TYPE_SOFTWARE, a counter over all processes of the first CPU. */
	memcpy(perf, (unsigned[]){ 1, size }, 8);
	call("perf_event_open", SYS_perf_event_open, (long)perf, -1, 0, -1, 0);
	/* BPF_PROG_GET_NEXT_ID from 0. */
	call("bpf", SYS_bpf, 11, (long)attr, sizeof attr, 0, 0);
	call("userfaultfd", SYS_userfaultfd, 0, 0, 0, 0, 0);
	call("io_uring_setup", SYS_io_uring_setup, 1, (long)params, 0, 0, 0);
	call("kexec_load", SYS_kexec_load, 0, 0, 0, 0x10000000, 0);
	call("kexec_file_load", SYS_kexec_file_load, -1, -1, 0, 0, 0x10000000);
	call("init_module", SYS_init_module, 0, 0, 0, 0, 0);
	call("finit_module", SYS_finit_module, -1, 0, 0, 0, 0);
	call("delete_module", SYS_delete_module, (long)"no such module", O_NONBLOCK, 0, 0, 0);
	call("settimeofday", SYS_settimeofday, 0, 0, 0, 0, 0);
	call("swapon", SYS_swapon, (long)"/nonexistent", 0, 0, 0, 0);
	call("swapoff", SYS_swapoff, (long)"/nonexistent", 0, 0, 0, 0);
	/* READ_ALL of the kernel's log, no bytes of it. */
	call("syslog", SYS_syslog, 3, (long)attr, 1, 0, 0);
	call("acct", SYS_acct, (long)"/nonexistent", 0, 0, 0, 0);
	call("quotactl", SYS_quotactl, 0x80000300, (long)"/dev/null", 0, 0, 0);
	call("nfsservctl", 180, 0, 0, 0, 0, 0);
	call("open_by_handle_at", SYS_open_by_handle_at, AT_FDCWD, (long)attr, 0, 0, 0);
	call("unshare user", SYS_unshare, CLONE_NEWUSER, 0, 0, 0, 0);
	call("unshare mount", SYS_unshare, CLONE_NEWNS, 0, 0, 0, 0);
	call("setns", SYS_setns, open("/proc/self/ns/user", O_RDONLY), 0, 0, 0, 0);
	call("mount", SYS_mount, (long)"none", (long)"/", (long)"no such type", 0, 0);
	call("fsopen", SYS_fsopen, (long)"tmpfs", 0, 0, 0, 0);
	call("open_tree", SYS_open_tree, AT_FDCWD, (long)"/", 1, 0, 0);
	call("pivot_root", SYS_pivot_root, (long)"/", (long)"/", 0, 0, 0);
	call("fanotify_init", SYS_fanotify_init, 0, 0, 0, 0, 0);
	call("keyctl", SYS_keyctl, 0, -3, 0, 0, 0);
	call("add_key", SYS_add_key, (long)"no such type", (long)"x", (long)"x", 1, -3);
	call("request_key", SYS_request_key, (long)"no such type", (long)"x", 0, 0, 0);
	call("move_pages", SYS_move_pages, 1, 0, 0, 0, 0);
	call("lookup_dcookie", 212, 1, (long)attr, sizeof attr, 0, 0);
#ifdef __x86_64__
	call("iopl", SYS_iopl, 3, 0, 0, 0, 0);
	call("ioperm", SYS_ioperm, 0x80, 1, 1, 0, 0);
	/* The x32 number of write(2): a table of its own, which a filter by number alone would not see. */
	call("x32", 0x40000000 + SYS_getpid, 0, 0, 0, 0, 0);
#endif
	puts("done");
	return 0;
}
