/* The old way out of a chroot: make a root further down, stay outside of it, and go up from there.

   climb FILE...: print the first line of each of these files as they are named outside; "no ERROR" where it isn't seen. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int count, char **names)
{
	int here = open("/", O_RDONLY | O_DIRECTORY);
	mkdir("/climb", 0700);
	if (chroot("/climb"))
		printf("chroot %s\n", strerrorname_np(errno));
	rmdir("/climb");
	if (fchdir(here))
		return 1;
	for (int i = 0; i < 64; i++)
		if (chdir(".."))
			return 1;
	chroot(".");
	for (int i = 1; i < count; i++) {
		char line[80] = "";
		FILE *file = fopen(names[i], "r");
		if (file && fgets(line, sizeof line, file))
			printf("%s", line);
		else
			printf("no %s\n", strerrorname_np(errno));
	}
	return 0;
}
