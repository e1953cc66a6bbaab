/* Keys: `add DESCRIPTION SECRET` puts a key into the keyring of the caller's user and prints its serial number (it expires
 * by itself); `steal SERIAL DESCRIPTION` tries to read it by number and by name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { READ = 11, SEARCH = 10, SET_TIMEOUT = 15, LINK = 8 };

int main(int argc, char **argv)
{
	char secret[256];
	if (argc == 4 && strcmp(argv[1], "add") == 0) {
		long key = syscall(SYS_add_key, "user", argv[2], argv[3], strlen(argv[3]), -4);
		if (key < 0) {
			perror("add_key");
			return 1;
		}
		syscall(SYS_keyctl, SET_TIMEOUT, key, 60);
		printf("%ld\n", key);
		return 0;
	}
	if (argc != 4)
		return 2;
	long serial = atol(argv[2]);
	long keyrings[] = { serial, 0, 0, 0 };
	for (int keyring = -3; keyring >= -5; keyring--)
		keyrings[-keyring - 2] = syscall(SYS_keyctl, SEARCH, keyring, "user", argv[3], 0);
	for (int i = 0; i < 4; i++) {
		if (keyrings[i] <= 0)
			continue;
		long length = syscall(SYS_keyctl, READ, keyrings[i], secret, sizeof secret);
		if (length > 0)
			printf("STOLEN %.*s\n", (int)length, secret);
	}
	puts("done");
	return 0;
}
