// SPDX-License-Identifier: GPL-2.0-only
/*
 * The lab's own program in a guest; what it does depends on its name:
 *
 *   init      process 1: lays the file system, starts the agent, reaps; a
 *             child of it is the executor, which also wakes clones: gives them
 *             their own randomness, clock, name and addresses
 *   execute   the executor at a Unix socket, for the lab's own tests
 *   configure makes the machine a node of a network, by lines on its input
 *             (network.c), where there is no executor
 *   run       runs a shell command for the agent in a session of its own, so
 *             that a time limit can end all of it
 *   poweroff  also reboot, halt, shutdown
 *
 * One static C program because under emulation each exec() costs
 * milliseconds: the same steps as a shell script took ten times as long.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/random.h>

#include "executor.h"
#include "network.h"

#define AGENT_PORT "org.qemu.guest_agent.0"
#define EXECUTOR_PORT "lab.executor"
#define WAKE_WORDS 64
#define SHELL_ENDED "\r\nThe shell has ended. Enter starts another one, Control-] leaves.\r\n"
#define SEED_MAX 256
#define CONFIGURATION_MAX (64 * 1024)

/* The kernel log is the only place where somebody will look for this. */
static void say(const char *format, ...)
{
	char line[256];
	va_list args;
	int fd, len;

	len = snprintf(line, sizeof(line), "<3>lab init: ");
	va_start(args, format);
	len += vsnprintf(line + len, sizeof(line) - len, format, args);
	va_end(args);
	fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, line, strnlen(line, sizeof(line))) < 0)
		perror("kmsg");
	close(fd);
}

static void must(int status, const char *what)
{
	if (status >= 0)
		return;
	say("%s: %s", what, strerror(errno));
	_exit(1);	/* the kernel panics, which the host is told of at once */
}

/* Best effort: what a small kernel lacks, a test will miss and name. */
static void try_mount(const char *type, const char *where, unsigned long flags,
		      const char *data)
{
	mkdir(where, 0755);
	if (mount(type, where, type, flags, data) && errno != ENODEV && errno != ENOENT)
		say("mount %s on %s: %s", type, where, strerror(errno));
}

static bool is_block_device(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISBLK(st.st_mode);
}

/* payload over image, a tmpfs above both; then that is the root. */
static void lay_root(void)
{
	const char *lower = "lowerdir=/,upperdir=/run/upper,workdir=/run/work";

	must(mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL), "mount /dev");
	must(mount("tmpfs", "/run", "tmpfs", 0, "size=80%,mode=755"), "mount /run");
	must(mkdir("/run/upper", 0755), "mkdir upper");
	must(mkdir("/run/work", 0755), "mkdir work");
	must(mkdir("/run/root", 0755), "mkdir root");
	if (is_block_device("/dev/vdb")) {
		must(mkdir("/run/payload", 0755), "mkdir payload");
		must(mount("/dev/vdb", "/run/payload", "erofs", MS_RDONLY, NULL),
		     "mount the payload /dev/vdb");
		lower = "lowerdir=/run/payload:/,upperdir=/run/upper,workdir=/run/work";
	}
	must(mount("overlay", "/run/root", "overlay", 0, lower), "mount the overlay");
	must(mount("/dev", "/run/root/dev", NULL, MS_MOVE, NULL), "move /dev");
	must(chdir("/run/root"), "enter the root");
	must(mount(".", "/", NULL, MS_MOVE, NULL), "move the root");
	must(chroot("."), "chroot");
	must(chdir("/"), "chdir /");
}

static void mount_rest(void)
{
	const unsigned long quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	try_mount("proc", "/proc", quiet, NULL);
	try_mount("sysfs", "/sys", quiet, NULL);
	try_mount("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755");
	try_mount("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC,
		  "gid=5,mode=620,ptmxmode=666");
	try_mount("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, NULL);
	try_mount("mqueue", "/dev/mqueue", quiet, NULL);
	try_mount("debugfs", "/sys/kernel/debug", quiet, NULL);
	try_mount("tracefs", "/sys/kernel/tracing", quiet, NULL);
	try_mount("securityfs", "/sys/kernel/security", quiet, NULL);
	try_mount("configfs", "/sys/kernel/config", quiet, NULL);
	try_mount("bpf", "/sys/fs/bpf", quiet, "mode=700");
	try_mount("cgroup2", "/sys/fs/cgroup", quiet, NULL);
	mkdir("/run/lock", 01777);
	mkdir("/run/sshd", 0755);
	if (symlink("/proc/self/fd", "/dev/fd") ||
	    symlink("/proc/self/fd/0", "/dev/stdin") ||
	    symlink("/proc/self/fd/1", "/dev/stdout") ||
	    symlink("/proc/self/fd/2", "/dev/stderr"))
		say("/dev/fd: %s", strerror(errno));
}

static void set_up(const char *name)
{
	struct ifreq req = { .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strncpy(req.ifr_name, name, IFNAMSIZ - 1);
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &req))
		say("%s up: %s", name, strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* The value of lab.<key>= on the kernel's command line. */
static bool command_line(const char *key, char *value, size_t size)
{
	char line[4096], *word, *state;
	size_t len = strlen(key);
	ssize_t got;
	int fd;

	fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	got = read(fd, line, sizeof(line) - 1);
	close(fd);
	if (got < 0)
		return false;
	line[got] = '\0';
	for (word = strtok_r(line, " \n", &state); word;
	     word = strtok_r(NULL, " \n", &state)) {
		if (strncmp(word, key, len) || word[len] != '=')
			continue;
		snprintf(value, size, "%s", word + len + 1);
		return true;
	}
	return false;
}

/* udev would do this: /dev/virtio-ports/<name> for each named serial port. */
static bool find_port(const char *name, char *path, size_t size)
{
	char file[512], said[64];
	struct dirent *entry;
	bool found = false;
	ssize_t got;
	DIR *dir;
	int fd;

	dir = opendir("/sys/class/virtio-ports");
	if (!dir)
		return false;
	while (!found && (entry = readdir(dir))) {
		snprintf(file, sizeof(file), "/sys/class/virtio-ports/%s/name",
			 entry->d_name);
		fd = open(file, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		got = read(fd, said, sizeof(said) - 1);
		close(fd);
		if (got <= 0)
			continue;
		said[got] = '\0';
		said[strcspn(said, "\n")] = '\0';
		found = !strcmp(said, name);
		if (found)
			snprintf(path, size, "/dev/%s", entry->d_name);
	}
	closedir(dir);
	return found;
}

static pid_t start_agent(void)
{
	char port[300];
	pid_t pid;

	if (!find_port(AGENT_PORT, port, sizeof(port))) {
		say("no virtio port %s", AGENT_PORT);
		return -1;
	}
	pid = fork();
	if (pid)
		return pid;
	setsid();
	execl("/usr/sbin/qemu-ga", "qemu-ga", "-m", "virtio-serial", "-p", port,
	      "-t", "/run", "-f", "/run/qemu-ga.pid", NULL);
	say("qemu-ga: %s", strerror(errno));
	_exit(127);
}

/*
 * A terminal for a person.  The shell starts with the first key, so that a
 * machine that nobody looks at pays nothing for it.
 */
static pid_t start_terminal(const char *greeting)
{
	char key;
	pid_t pid = fork();
	int fd;

	if (pid)
		return pid;
	setsid();
	fd = open("/dev/hvc0", O_RDWR);
	if (fd < 0)
		_exit(0);
	if (write(fd, greeting, strlen(greeting)) < 0 || read(fd, &key, 1) != 1)
		_exit(0);
	ioctl(fd, TIOCSCTTY, 0);
	dup2(fd, 0);
	dup2(fd, 1);
	dup2(fd, 2);
	if (fd > 2)
		close(fd);
	setenv("TERM", "xterm-256color", 0);
	if (chdir("/root"))
		perror("/root");
	execl("/bin/bash", "-bash", NULL);
	_exit(127);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* Mix the seed in and make every CPU's generator start over from the pool. */
static int reseed(const char *hex)
{
	struct {
		struct rand_pool_info head;
		unsigned char bytes[SEED_MAX];
	} pool = { };
	/* Opened once: see rtnetlink(). */
	static int fd = -1;
	size_t i, len = strlen(hex) / 2;

	if (len > SEED_MAX)
		len = SEED_MAX;
	for (i = 0; i < len; i++) {
		int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);

		if (high < 0 || low < 0)
			return -1;
		pool.bytes[i] = high << 4 | low;
	}
	pool.head.entropy_count = len * 8;
	pool.head.buf_size = len;
	if (fd < 0)
		fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	return ioctl(fd, RNDADDENTROPY, &pool) || ioctl(fd, RNDRESEEDCRNG) ? -1 : 0;
}

static int set_clock(const char *nanoseconds)
{
	long long ns = atoll(nanoseconds);
	struct timespec now = {
		.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000
	};

	return clock_settime(CLOCK_REALTIME, &now) ? -1 : 0;
}

static int set_mac(const char *name, const char *mac)
{
	struct ifreq req = { .ifr_hwaddr.sa_family = ARPHRD_ETHER };
	unsigned char *byte = (unsigned char *)req.ifr_hwaddr.sa_data;

	strncpy(req.ifr_name, name, IFNAMSIZ - 1);
	if (sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", byte, byte + 1, byte + 2,
		   byte + 3, byte + 4, byte + 5) != 6)
		return -1;
	return ioctl(rtnetlink(), SIOCSIFHWADDR, &req) ? -1 : 0;
}

/*
 * SEED NANOSECONDS HOSTNAME [INTERFACE=MAC]...
 *
 * Returns NULL, or the word that could not be made true, with errno set.
 */
static const char *wake(char *line)
{
	char *words[WAKE_WORDS], *state, *equals;
	int i, status = 0, count = 0;

	for (words[0] = strtok_r(line, " \n", &state);
	     words[count] && count < WAKE_WORDS - 1;
	     words[count] = strtok_r(NULL, " \n", &state))
		count++;
	if (count < 3) {
		errno = EINVAL;
		return "wake";
	}
	if (reseed(words[0]))
		return "seed";
	if (set_clock(words[1]))
		return "clock";
	if (sethostname(words[2], strlen(words[2])))
		return "hostname";
	for (i = 3; i < count && !status; i++) {
		equals = strchr(words[i], '=');
		if (!equals)
			continue;
		*equals = '\0';
		status = set_mac(words[i], equals + 1);
	}
	return status ? words[i - 1] : NULL;
}

/*
 * It has a port of its own and ends with its connection: only the lab that has
 * started a machine speaks to it, others speak to the agent.
 */
static pid_t start_executor(bool again)
{
	char port[300];
	pid_t pid;
	int fd;

	if (!find_port(EXECUTOR_PORT, port, sizeof(port)))
		return -1;
	pid = fork();
	if (pid)
		return pid;
	setsid();
	fd = open(port, O_RDWR | O_CLOEXEC);
	_exit(fd < 0 ? 0 : executor(fd, again, wake));
}

/* execute SOCKET */
static int execute(int argc, char **argv)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int fd, server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (argc != 2) {
		fprintf(stderr, "usage: execute SOCKET\n");
		return 2;
	}
	strncpy(name.sun_path, argv[1], sizeof(name.sun_path) - 1);
	if (server < 0 || bind(server, (struct sockaddr *)&name, sizeof(name)) ||
	    listen(server, 1)) {
		perror(argv[1]);
		return 1;
	}
	fd = accept4(server, NULL, NULL, SOCK_CLOEXEC);
	return fd < 0 ? 1 : executor(fd, false, wake);
}

/* configure: complains as the executor does, on its standard error. */
static int make_node(void)
{
	static char lines[CONFIGURATION_MAX];
	size_t size = fread(lines, 1, sizeof(lines) - 1, stdin);
	char why[256];

	lines[size] = '\0';
	if (configure(lines, why, sizeof(why)))
		return 0;
	fprintf(stderr, "%s\n", why);
	return 1;
}

static void set_environment(void)
{
	clearenv();
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/root", 1);
	setenv("USER", "root", 1);
	setenv("LOGNAME", "root", 1);
	setenv("SHELL", "/bin/bash", 1);
	setenv("LANG", "C.UTF-8", 1);
}

static int init(void)
{
	pid_t agent, worker, terminal, gone;
	char name[65];
	int fd, status;

	if (getpid() != 1) {
		fprintf(stderr, "init: to be run by the kernel\n");
		return 1;
	}
	umask(0);
	lay_root();
	mount_rest();
	umask(022);
	fd = open("/dev/null", O_RDWR);
	dup2(fd, 0);
	dup2(fd, 1);
	dup2(fd, 2);
	set_environment();
	if (command_line("lab.name", name, sizeof(name)))
		sethostname(name, strlen(name));
	set_up("lo");
	agent = start_agent();
	worker = start_executor(false);
	terminal = start_terminal("");
	for (;;) {
		gone = wait(&status);
		if (gone < 0 && errno == ECHILD)
			pause();
		if (gone > 0 && gone == agent) {
			usleep(100 * 1000);
			agent = start_agent();
		}
		/* 0 is a host that has hung up. */
		if (gone > 0 && gone == worker && status) {
			if (!WIFSIGNALED(status))
				usleep(100 * 1000);
			worker = start_executor(true);
		}
		if (gone > 0 && gone == terminal) {
			usleep(100 * 1000);
			terminal = start_terminal(SHELL_ENDED);
		}
	}
}

/* run COMMAND: its pid, which the agent knows, is its process group too. */
static int run(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: run COMMAND\n");
		return 2;
	}
	setsid();
	execl("/bin/sh", "sh", "-c", argv[1], NULL);
	perror("/bin/sh");
	return 127;
}

/* The root is in memory, so there is nothing to save. */
static int power(int command)
{
	sync();
	reboot(command);
	perror("reboot");
	return 1;
}

int main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/');

	name = name ? name + 1 : argv[0];
	if (!strcmp(name, "init"))
		return init();
	if (!strcmp(name, "execute"))
		return execute(argc, argv);
	if (!strcmp(name, "configure"))
		return make_node();
	if (!strcmp(name, "run"))
		return run(argc, argv);
	if (!strcmp(name, "reboot"))
		return power(RB_AUTOBOOT);
	if (!strcmp(name, "poweroff") || !strcmp(name, "halt") || !strcmp(name, "shutdown"))
		return power(RB_POWER_OFF);
	fprintf(stderr, "%s: not a name of the lab's guest program\n", name);
	return 2;
}
