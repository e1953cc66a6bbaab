/* Memory and messages that System V names by number and POSIX by name: `make NUMBER` puts a secret into a segment and a
 * queue and prints `made`; `steal NUMBER` looks for them; `free NUMBER` takes them away. */
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>

int main(int argc, char **argv)
{
	char queue[64], secret[256] = "of the host";

	if (argc != 3)
		return 2;
	key_t key = (key_t)atoi(argv[2]);
	snprintf(queue, sizeof queue, "/coracle-test-%s", argv[2]);
	if (strcmp(argv[1], "make") == 0) {
		int segment = shmget(key, 4096, IPC_CREAT | 0666);
		char *memory = segment < 0 ? (char *)-1 : shmat(segment, NULL, 0);
		struct mq_attr attr = { .mq_maxmsg = 1, .mq_msgsize = 256 };
		mqd_t q = mq_open(queue, O_CREAT | O_RDWR, 0666, &attr);
		if (memory == (char *)-1 || q == (mqd_t)-1 || mq_send(q, secret, sizeof secret, 0) != 0) {
			perror("make");
			return 1;
		}
		strcpy(memory, secret);
		puts("made");
		return 0;
	}
	int segment = shmget(key, 4096, 0);
	if (strcmp(argv[1], "free") == 0) {
		shmctl(segment, IPC_RMID, NULL);
		return mq_unlink(queue);
	}
	char *memory = segment < 0 ? (char *)-1 : shmat(segment, NULL, SHM_RDONLY);
	if (memory != (char *)-1)
		printf("STOLEN by number: %s\n", memory);
	if (mq_open(queue, O_RDONLY) != (mqd_t)-1)
		puts("STOLEN by name");
	puts("done");
	return 0;
}
