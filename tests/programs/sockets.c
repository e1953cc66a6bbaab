/* Socket families that reach the kernel's crypto code (CVE-2026-31431) and the host's virtual machines, by the program's
 * own system calls and by those of 32-bit programs. Prints `HOW FAMILY: ` and `GOT`, `filtered` (EPERM) or the error. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void said(const char *how, const char *family, long got)
{
	const char *why = got >= 0 ? "GOT" : got == -EPERM ? "filtered" : strerrorname_np((int)-got);
	printf("%s %s: %s\n", how, family, why ? why : "?");
	if (got >= 0)
		close((int)got);
}

#ifdef __x86_64__
static long legacy(long number, long a, long b, long c)
{
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
	return (int)result;
}
#endif

int main(void)
{
	const struct { const char *name; int number; } families[] = { { "AF_INET", AF_INET }, { "AF_ALG", 38 }, { "AF_VSOCK", 40 } };

	for (int i = 0; i < 3; i++) {
		long got = socket(families[i].number, i ? SOCK_SEQPACKET : SOCK_STREAM, 0);
		said("socket", families[i].name, got >= 0 ? got : -errno);
#ifdef __x86_64__
		/* In the first 4 GiB, where a 32-bit pointer reaches. */
		int *arguments = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
		if (arguments == MAP_FAILED)
			return 1;
		arguments[0] = families[i].number;
		arguments[1] = i ? SOCK_SEQPACKET : SOCK_STREAM;
		said("socket32", families[i].name, legacy(359, arguments[0], arguments[1], 0));
		said("socketcall32", families[i].name, legacy(102, 1, (long)arguments, 0));
#endif
	}
	puts("done");
	return 0;
}
