/* What an ordinary program does with queues, signals, orphans, routes and memory; the first word says what.

   gcc -static -O1 behave.c -o behave */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KEY = 0x7a627278 };
struct letter { long kind; char text[32]; };

static void tell(const char *what, long result) { printf("%s %s\n", what, result < 0 ? strerrorname_np(errno) : "done"); }

/* post TEXT: make one of each kind of IPC object under a well-known key, put a text into it; wait for the end of input. */
static int post(const char *text)
{
	struct letter letter = {1};
	strncpy(letter.text, text, sizeof letter.text - 1);
	tell("queue", msgsnd(msgget(KEY, IPC_CREAT | 0666), &letter, sizeof letter.text, IPC_NOWAIT));
	int memory = shmget(KEY, 4096, IPC_CREAT | 0666);
	char *place = memory < 0 ? (void *)-1 : shmat(memory, NULL, 0);
	tell("memory", place == (void *)-1 ? -1 : 0);
	if (place != (void *)-1)
		strcpy(place, text);
	tell("semaphore", semctl(semget(KEY, 1, IPC_CREAT | 0666), 0, SETVAL, 7));
	mqd_t posix = mq_open("/box", O_CREAT | O_RDWR | O_NONBLOCK, 0666, NULL);
	char page[8192] = "";
	strcpy(page, text);
	tell("posix-queue", posix == (mqd_t)-1 ? -1 : mq_send(posix, page, 64, 0));
	int shared = shm_open("/box", O_CREAT | O_RDWR, 0666);
	tell("posix-memory", shared < 0 ? -1 : write(shared, text, strlen(text)));
	puts("posted");
	fflush(stdout);
	while (read(0, page, sizeof page) > 0)
		;
	return 0;
}

/* fetch: look under the same keys, make nothing, take nothing away. */
static int fetch(void)
{
	struct letter letter = {0};
	char page[8192] = "";
	int queue = msgget(KEY, 0), memory = shmget(KEY, 0, 0), semaphore = semget(KEY, 0, 0);
	if (queue >= 0 && msgrcv(queue, &letter, sizeof letter.text, 0, IPC_NOWAIT) >= 0) {
		printf("queue %s\n", letter.text);
		msgsnd(queue, &letter, sizeof letter.text, IPC_NOWAIT);
	} else
		tell("queue", -1);
	char *place = memory < 0 ? (void *)-1 : shmat(memory, NULL, SHM_RDONLY);
	if (place != (void *)-1)
		printf("memory %s\n", place);
	else
		tell("memory", -1);
	if (semaphore >= 0)
		printf("semaphore %d\n", semctl(semaphore, 0, GETVAL));
	else
		tell("semaphore", -1);
	mqd_t posix = mq_open("/box", O_RDWR | O_NONBLOCK);
	if (posix != (mqd_t)-1 && mq_receive(posix, page, sizeof page, NULL) >= 0) {
		printf("posix-queue %s\n", page);
		mq_send(posix, page, 64, 0);
	} else
		tell("posix-queue", -1);
	int shared = shm_open("/box", O_RDONLY, 0);
	if (shared >= 0 && pread(shared, page, sizeof page, 0) > 0)
		printf("posix-memory %s\n", page);
	else
		tell("posix-memory", -1);
	return 0;
}

/* clean: remove those of the network of keys in which this runs. */
static int clean(void)
{
	msgctl(msgget(KEY, 0), IPC_RMID, NULL);
	shmctl(shmget(KEY, 0, 0), IPC_RMID, NULL);
	semctl(semget(KEY, 0, 0), 0, IPC_RMID);
	mq_unlink("/box");
	shm_unlink("/box");
	return 0;
}

static int zombies(void)
{
	char path[300], line[512];
	int count = 0;
	DIR *folder = opendir("/proc");
	for (struct dirent *entry; (entry = readdir(folder));) {
		snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
		FILE *file = atoi(entry->d_name) ? fopen(path, "r") : NULL;
		if (!file)
			continue;
		if (fgets(line, sizeof line, file) && !strncmp(strrchr(line, ')'), ") Z", 3))
			count++;
		fclose(file);
	}
	closedir(folder);
	return count;
}

/* orphans NUMBER: so many processes lose their parent and end; how many of them are left as zombies? */
static int orphans(int number)
{
	int born[2], byte = 0, left;
	if (pipe(born))
		return 1;
	for (int i = 0; i < number; i += 50) {
		pid_t middle = fork();
		if (!middle) {
			pid_t parent = getpid();
			for (int j = 0; j < 50; j++)
				if (!fork()) {
					while (getppid() == parent)
						usleep(1000);
					if (write(born[1], &byte, 1) != 1)
						_exit(1);
					_exit(0);
				}
			_exit(0);
		}
		waitpid(middle, NULL, 0);
	}
	for (int i = 0; i < number; i++)
		if (read(born[0], &byte, 1) != 1)
			return 1;
	/* The last of them are still ending, and their new parent takes its time: the number settles. */
	for (int i = 0; i < 500 && (left = zombies()) && left != number; i++)
		usleep(20000);
	printf("zombies %d\n", left);
	return 0;
}

static void caught(int number) { char text[32]; if (write(1, text, snprintf(text, sizeof text, "caught %d\n", number)) < 0) _exit(1); }

/* listen: handle SIGTERM and SIGUSR1 by telling so, leave all others as they are; say `ready`; until SIGUSR1. */
static int listens(void)
{
	struct sigaction action = {.sa_handler = caught};
	sigset_t old, both;
	sigemptyset(&both);
	sigaddset(&both, SIGTERM);
	sigaddset(&both, SIGUSR1);
	sigprocmask(SIG_BLOCK, &both, &old);
	action.sa_mask = both; /* else the second one may interrupt the first, and one sigsuspend sees both */
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGUSR1, &action, NULL);
	puts("ready");
	fflush(stdout);
	sigdelset(&old, SIGTERM);
	sigdelset(&old, SIGUSR1);
	for (int i = 0; i < 2; i++)
		sigsuspend(&old);
	return 5;
}

/* deaf: nothing is handled; say `ready`, and sleep. */
static int deaf(void)
{
	puts("ready");
	fflush(stdout);
	while (pause())
		;
	return 0;
}

/* provoke: as process 1, be sent every signal there is by a child; say that one is still there. */
static int provoke(void)
{
	int refused = 0;
	if (getpid() != 1)
		return 1;
	pid_t child = fork();
	if (!child) {
		for (int number = 1; number < 65; number++)
			if (number != 32 && number != 33 && kill(1, number))
				refused++;
		_exit(refused);
	}
	while (waitpid(child, &refused, 0) < 0)
		;
	printf("alive %d\n", refused);
	return 3;
}

/* spy UID: read the memory of a process of that user's, and of one's own, three ways. */
static int spy(int user)
{
	static char secret[32] = "";
	for (int i = 0; i < 2; i++) {
		const char *whose = i ? "own" : "other";
		char found[32] = "", path[64], what[32];
		int ready[2], byte;
		if (pipe(ready))
			return 1;
		pid_t child = fork();
		if (!child) {
			strcpy(secret, "the secret");
			if (!i && (setgroups(0, NULL) || setresgid(user, user, user) || setresuid(user, user, user)))
				_exit(1);
			prctl(PR_SET_DUMPABLE, 1);
			if (write(ready[1], "x", 1) < 0)
				_exit(1);
			pause();
		}
		if (read(ready[0], &byte, 1) != 1)
			return 1;
		struct iovec here = {found, sizeof found}, there = {secret, sizeof secret};
		snprintf(what, sizeof what, "%s-readv", whose);
		long done = process_vm_readv(child, &here, 1, &there, 1, 0);
		tell(what, done < 0 || strcmp(found, "the secret") ? -1 : 0);
		snprintf(path, sizeof path, "/proc/%d/mem", child);
		snprintf(what, sizeof what, "%s-mem", whose);
		int memory = open(path, O_RDONLY);
		tell(what, memory < 0 ? -1 : pread(memory, found, sizeof found, (long)secret));
		snprintf(what, sizeof what, "%s-ptrace", whose);
		tell(what, ptrace(PTRACE_SEIZE, child, 0, 0));
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	return 0;
}

int main(int count, char **words)
{
	const char *word = count > 1 ? words[1] : "";
	if (!strcmp(word, "post"))
		return post(words[2]);
	if (!strcmp(word, "fetch"))
		return fetch();
	if (!strcmp(word, "clean"))
		return clean();
	if (!strcmp(word, "orphans"))
		return orphans(atoi(words[2]));
	if (!strcmp(word, "listen"))
		return listens();
	if (!strcmp(word, "deaf"))
		return deaf();
	if (!strcmp(word, "provoke"))
		return provoke();
	if (!strcmp(word, "spy"))
		return spy(atoi(words[2]));
	return 2;
}
