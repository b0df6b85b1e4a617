/* Mount every tree of control groups, and say whose groups are seen there.

   trees [user] OPTIONS ...      user: in a user namespace of one's own. OPTIONS: as for mount -t cgroup -o, or `v2`

   A line each: OPTIONS and the error, or `own` (a group of ours is on top), or `root` (the machine's is). Where it is the
   machine's, nothing is tried any further: what follows would be done for good. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, text, strlen(text)) < 0) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return close(fd);
}

int main(int count, char **words)
{
	int at = 1;
	mkdir("/mnt", 0700);
	if (count > 1 && !strcmp(words[1], "user")) {
		char map[32];
		snprintf(map, sizeof map, "0 %d 1", getuid());
		if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP) || put("/proc/self/uid_map", map)) {
			printf("unshare %s\n", strerrorname_np(errno));
			return 0;
		}
		at = 2;
	}
	for (; at < count; at++) {
		int second = !strcmp(words[at], "v2");
		printf("%s ", words[at]);
		if (mount("x", "/mnt", second ? "cgroup2" : "cgroup", 0, second ? NULL : words[at])) {
			printf("%s\n", strerrorname_np(errno));
			continue;
		}
		/* A tree's root group has no cgroup.events in version 2, and in version 1 alone has release_agent. */
		int root = second ? access("/mnt/cgroup.events", F_OK) : !access("/mnt/release_agent", F_OK);
		if (root)
			puts("root");
		else if (!second && (!put("/mnt/release_agent", "/x") || !mount("x", "/mnt", "cgroup", MS_REMOUNT, "release_agent=/x")))
			puts("changed");
		else if (!mkdir("/mnt/below", 0755) && !put("/mnt/below/cgroup.procs", "0") && !put("/mnt/cgroup.procs", "0") &&
			 !rmdir("/mnt/below"))
			puts("own, a group made");
		else
			puts("own");
		umount("/mnt");
	}
	return 0;
}
