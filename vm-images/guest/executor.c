// SPDX-License-Identifier: GPL-2.0-only
/*
 * The lab's hand in a guest: runs shell commands, many at once, and tells at
 * once what they write and how they end; takes files, and gives them. Nobody asks
 * whether a command has ended, and no program but the shell is started: under
 * emulation each costs milliseconds, in a fresh clone tens of them.
 *
 * What goes over the port, both ways, are frames: a kind, a command's number
 * and a length, 32 bits each, the least significant byte first, and so many
 * bytes. Numbers are given by the host. Its other end is lab/vm/executor.py.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "executor.h"
#include "network.h"

/* From the host. */
enum {
	WAKE = 1,	/* words; answered by WOKE */
	RUN = 2,	/* a command, whose stdin is empty */
	FEED = 3,	/* a command whose stdin comes by INPUT */
	INPUT = 4,	/* some of it; its end, if there are no bytes */
	KILL = 5,	/* the command's whole process group */
	PING = 6,	/* answered by PONG */
	SPARE = 7,	/* have shells wait for the next RUNs; answered by READY */
	PUT = 8,	/* mode in octal, 0 for any, space, path: a file made of INPUT */
	GET = 9,	/* path: its content comes as OUTPUT */
	CONFIGURE = 10,	/* lines of network.c; answered by ENDED or REFUSED */
};

/* To the host. */
enum {
	WOKE = 1,	/* nothing, or the word that could not be made true */
	OUTPUT = 2,	/* bytes of stdout */
	ERROR = 3,	/* bytes of stderr */
	ENDED = 4,	/* exit status in decimal, 128 + signal; the number is free again */
	REFUSED = 5,	/* why it cannot be done; the number is free again */
	PONG = 6,
	LOST = 7,	/* all that was asked for before */
	READY = 8,
};

#define PIECE (64 * 1024)	/* bytes that are read at once */
#define FRAME_MAX (16 * 1024 * 1024)
#define STREAMS 3

/* Where a spare shell has its command from, and how many shells wait. */
#define SPARE_WORDS "/run/lab-spare"
#define SPARES 2
#define SPARE_TRIES 2000	/* times a millisecond */

struct frame {
	uint32_t kind;
	uint32_t number;
	uint32_t length;
};

/* Or a file that comes or goes: a command without a process and with one stream. */
struct command {
	struct command *next;
	uint32_t number;
	pid_t pid;		/* 0 for a file */
	const char *what;	/* becomes of the file: "read" or "written" */
	int wrong;		/* with that; errno */
	bool reaped;
	int status;
	int streams[STREAMS];	/* our ends of 0, 1 and 2; -1 once closed */
	char *input;
	size_t input_at;	/* what is before this has been written */
	size_t input_size;
	bool input_ended;
};

static struct command *commands;

/*
 * Shells that have been started already and read their first words from a pipe.
 * The first exec() in a fresh clone takes longer than all the rest of a command.
 */
static struct spare {
	struct command *command;	/* one of commands, its number 0; or NULL */
	int words;			/* our end of its pipe */
} spares[SPARES];

/* ---- frames -------------------------------------------------------------- */

static void write_all(int port, struct iovec *parts, int count)
{
	while (count) {
		ssize_t put = writev(port, parts, count);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			_exit(1);
		for (; count && (size_t)put >= parts->iov_len; parts++, count--)
			put -= parts->iov_len;
		if (count) {
			parts->iov_base = (char *)parts->iov_base + put;
			parts->iov_len -= put;
		}
	}
}

static void tell(int port, uint32_t kind, uint32_t number, const void *bytes, size_t length)
{
	struct frame head = { htole32(kind), htole32(number), htole32(length) };
	struct iovec parts[] = {
		{ &head, sizeof(head) },
		{ (void *)bytes, length },
	};

	write_all(port, parts, length ? 2 : 1);
}

static void tell_text(int port, uint32_t kind, uint32_t number, const char *text)
{
	tell(port, kind, number, text, strlen(text));
}

/* ---- a command's life ---------------------------------------------------- */

static struct command *find(uint32_t number)
{
	struct command *command = commands;

	while (command && command->number != number)
		command = command->next;
	return command;
}

static void close_stream(struct command *command, int stream)
{
	if (command->streams[stream] >= 0)
		close(command->streams[stream]);
	command->streams[stream] = -1;
}

static void forget(struct command *command)
{
	struct command **link = &commands;
	int i;

	while (*link != command)
		link = &(*link)->next;
	*link = command->next;
	for (i = 0; i < SPARES; i++) {
		if (command == spares[i].command) {
			spares[i].command = NULL;
			close(spares[i].words);
		}
	}
	for (i = 0; i < STREAMS; i++)
		close_stream(command, i);
	free(command->input);
	free(command);
}

/* Its ends of the pipes in @theirs, ours in the command. */
static int open_streams(struct command *command, int *theirs, bool fed)
{
	int i, ends[2];

	for (i = 0; i < STREAMS; i++) {
		if (!i && !fed) {
			theirs[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
			if (theirs[0] < 0)
				return -1;
			continue;
		}
		if (pipe2(ends, O_CLOEXEC))
			return -1;
		theirs[i] = ends[i ? 1 : 0];
		command->streams[i] = ends[i ? 0 : 1];
		fcntl(command->streams[i], F_SETFL, O_NONBLOCK);
	}
	return 0;
}

/* It shares our memory until it has become the shell: less to copy than fork(). */
static pid_t start_shell(char *text, const int *theirs)
{
	static char name[] = "sh", option[] = "-c";
	char *const arguments[] = { name, option, text, NULL };
	volatile int failed = 0;
	sigset_t none;
	pid_t pid;
	int i;

	sigemptyset(&none);
	pid = vfork();
	if (!pid) {
		setsid();
		for (i = 0; i < STREAMS; i++)
			dup2(theirs[i], i);
		signal(SIGPIPE, SIG_DFL);
		sigprocmask(SIG_SETMASK, &none, NULL);
		execv("/bin/sh", arguments);
		failed = errno;
		_exit(127);
	}
	if (pid > 0 && failed) {
		waitpid(pid, NULL, 0);
		errno = failed;
		return -1;
	}
	return pid;
}

static struct command *add(uint32_t number)
{
	struct command *command = calloc(1, sizeof(*command));
	int i;

	if (!command)
		return NULL;
	command->number = number;
	for (i = 0; i < STREAMS; i++)
		command->streams[i] = -1;
	command->next = commands;
	commands = command;
	return command;
}

/* Returns NULL, with errno set, if it cannot be started. */
static struct command *begin(uint32_t number, char *text, bool fed)
{
	int i, error, theirs[STREAMS] = { -1, -1, -1 };
	struct command *command = add(number);

	if (!command)
		return NULL;
	command->pid = open_streams(command, theirs, fed) ? -1 : start_shell(text, theirs);
	error = errno;
	for (i = 0; i < STREAMS; i++)
		if (theirs[i] >= 0)
			close(theirs[i]);
	if (command->pid >= 0)
		return command;
	forget(command);
	errno = error;
	return NULL;
}

/* Whether a spare shell has taken the command. */
static bool start_spare(struct spare *spare, uint32_t number, const char *text)
{
	size_t length = strlen(text);

	/* What is longer may block us. */
	if (!spare->command || length > PIPE_BUF ||
	    write(spare->words, text, length) != (ssize_t)length)
		return false;
	close(spare->words);
	spare->command->number = number;
	spare->command = NULL;
	return true;
}

static void start(int port, uint32_t number, char *text, bool fed)
{
	int i;

	for (i = 0; !fed && i < SPARES; i++)
		if (start_spare(&spares[i], number, text))
			return;
	if (!begin(number, text, fed))
		tell_text(port, REFUSED, number, strerror(errno));
}

/* Best effort: without it, some later command has a shell of its own. */
static void have_spare(struct spare *spare)
{
	static char text[] = ". " SPARE_WORDS;
	struct command *command;
	int i, words = -1;

	if (spare->command || mkfifo(SPARE_WORDS, 0600))
		return;
	command = begin(0, text, false);
	/* There is nobody to open it for until the shell does so, too. */
	for (i = 0; command && words < 0 && i < SPARE_TRIES; i++) {
		words = open(SPARE_WORDS, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
		poll(NULL, 0, 1);
	}
	unlink(SPARE_WORDS);
	if (words >= 0) {
		spare->command = command;
		spare->words = words;
	} else if (command) {
		kill(-command->pid, SIGKILL);
	}
}

static void have_spares(int port, uint32_t number)
{
	int i;

	for (i = 0; i < SPARES; i++)
		have_spare(&spares[i]);
	tell(port, READY, number, NULL, 0);
}

static void tell_wrong(int port, uint32_t number, const char *what, int error)
{
	char text[128];

	snprintf(text, sizeof(text), "%s: %s", what, strerror(error));
	tell_text(port, REFUSED, number, text);
}

/* Not to wait for the other end of a pipe: everybody else would wait, too. */
static void open_file(int port, uint32_t number, int stream, const char *path, int flags,
		      mode_t mode)
{
	int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666);
	struct command *command = fd < 0 ? NULL : add(number);
	int error = errno;

	if (command && mode && fchmod(fd, mode)) {
		error = errno;
		forget(command);
		command = NULL;
	}
	if (command) {
		command->reaped = true;
		command->what = stream ? "read" : "written";
		command->streams[stream] = fd;
		return;
	}
	if (fd >= 0)
		close(fd);
	tell_wrong(port, number, "opened", error);
}

static void put(int port, uint32_t number, char *words)
{
	char *path;
	mode_t mode = strtoul(words, &path, 8);

	open_file(port, number, 0, path + 1, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

static void kill_command(struct command *command)
{
	int i;

	if (command->pid)
		kill(-command->pid, SIGKILL);
	for (i = 0; !command->pid && i < STREAMS; i++)
		close_stream(command, i);
}

/* All input that is there has been written. */
static void input_done(struct command *command)
{
	command->input_at = 0;
	command->input_size = 0;
	if (command->input_ended)
		close_stream(command, 0);
}

static void feed(struct command *command, const char *bytes, size_t length)
{
	char *more;

	if (command->streams[0] < 0)
		return;
	if (!length) {
		command->input_ended = true;
	} else {
		more = realloc(command->input, command->input_size + length);
		if (!more) {
			/* An end where none is would pass for the whole. */
			command->wrong = ENOMEM;
			kill_command(command);
			return;
		}
		memcpy(more + command->input_size, bytes, length);
		command->input = more;
		command->input_size += length;
	}
	if (!command->input_size)
		input_done(command);
}

static void write_input(struct command *command)
{
	ssize_t put = write(command->streams[0], command->input + command->input_at,
			    command->input_size - command->input_at);

	if (put < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (put < 0) {
		/* A command does not want the rest. */
		command->wrong = errno;
		command->input_size = 0;
		close_stream(command, 0);
		return;
	}
	command->input_at += put;
	if (command->input_at == command->input_size)
		input_done(command);
}

static void read_output(int port, struct command *command, int stream)
{
	static char piece[PIECE];
	ssize_t got = read(command->streams[stream], piece, sizeof(piece));

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got < 0)
		command->wrong = errno;
	if (got > 0)
		tell(port, stream == 1 ? OUTPUT : ERROR, command->number, piece, got);
	else
		close_stream(command, stream);
}

static void reap(int signals)
{
	struct signalfd_siginfo told[16];
	struct command *command;
	int status;
	pid_t pid;

	if (read(signals, told, sizeof(told)) < 0)
		return;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (command = commands; command; command = command->next) {
			if (command->pid != pid || command->reaped)
				continue;
			command->reaped = true;
			command->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) :
								WEXITSTATUS(status);
		}
	}
}

/* Whoever holds its output may still write: it has ended when they have, too. */
static void tell_ends(int port)
{
	struct command *command, *next;
	char status[16];

	for (command = commands; command; command = next) {
		next = command->next;
		if (!command->reaped || command->streams[1] >= 0 || command->streams[2] >= 0)
			continue;
		if (!command->pid && command->streams[0] >= 0)
			continue;
		snprintf(status, sizeof(status), "%d", command->status);
		if (!command->pid && command->wrong)
			tell_wrong(port, command->number, command->what, command->wrong);
		else
			tell_text(port, ENDED, command->number, status);
		forget(command);
	}
}

static void make_node(int port, uint32_t number, char *lines)
{
	char why[256];

	if (configure(lines, why, sizeof(why)))
		tell_text(port, ENDED, number, "0");
	else
		tell_text(port, REFUSED, number, why);
}

/* ---- the host's words ----------------------------------------------------- */

/* @bytes has room for a byte more. */
static void serve(int port, const struct frame *head, char *bytes,
		  const char *(*wake)(char *words))
{
	struct command *command = find(head->number);
	const char *wrong;

	switch (head->kind) {
	case WAKE:
		bytes[head->length] = '\0';
		wrong = wake(bytes);
		tell_text(port, WOKE, head->number, wrong ? wrong : "");
		break;
	case RUN:
	case FEED:
		bytes[head->length] = '\0';
		start(port, head->number, bytes, head->kind == FEED);
		break;
	case PUT:
		bytes[head->length] = '\0';
		put(port, head->number, bytes);
		break;
	case GET:
		bytes[head->length] = '\0';
		open_file(port, head->number, 1, bytes, O_RDONLY, 0);
		break;
	case CONFIGURE:
		bytes[head->length] = '\0';
		make_node(port, head->number, bytes);
		break;
	case INPUT:
		if (command)
			feed(command, bytes, head->length);
		break;
	case KILL:
		if (command)
			kill_command(command);
		break;
	case SPARE:
		have_spares(port, head->number);
		break;
	case PING:
		tell(port, PONG, head->number, NULL, 0);
		break;
	}
}

struct inbox {
	char *bytes;
	size_t have;
	size_t size;
};

/* Room for @wanted bytes and one more. */
static bool make_room(struct inbox *inbox, size_t wanted)
{
	char *more;

	if (inbox->size > wanted)
		return true;
	more = realloc(inbox->bytes, wanted + 1);
	if (!more)
		return false;
	inbox->bytes = more;
	inbox->size = wanted + 1;
	return true;
}

/* The first frame, if it is there as a whole; how many bytes it has. */
static size_t take(int port, struct inbox *inbox, const char *(*wake)(char *words))
{
	struct frame head;
	char *bytes, after;

	if (inbox->have < sizeof(head))
		return 0;
	memcpy(&head, inbox->bytes, sizeof(head));
	head.kind = le32toh(head.kind);
	head.number = le32toh(head.number);
	head.length = le32toh(head.length);
	if (head.length > FRAME_MAX || !make_room(inbox, sizeof(head) + head.length))
		_exit(1);
	if (inbox->have < sizeof(head) + head.length)
		return 0;
	bytes = inbox->bytes + sizeof(head);
	/* It may be the next frame's. */
	after = bytes[head.length];
	serve(port, &head, bytes, wake);
	bytes[head.length] = after;
	return sizeof(head) + head.length;
}

/* Returns false when the host has hung up. */
static bool listen_to(int port, struct inbox *inbox, const char *(*wake)(char *words))
{
	size_t used;
	ssize_t got;

	if (!make_room(inbox, inbox->have + PIECE))
		_exit(1);
	got = read(port, inbox->bytes + inbox->have, PIECE);
	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	if (got <= 0)
		return false;
	inbox->have += got;
	while ((used = take(port, inbox, wake)) != 0) {
		inbox->have -= used;
		memmove(inbox->bytes, inbox->bytes + used, inbox->have);
	}
	return true;
}

/* ---- all at once ----------------------------------------------------------- */

struct watch {
	struct pollfd *polls;
	size_t count;
	size_t size;
};

static void watch(struct watch *watch, int fd, short events)
{
	struct pollfd *more = watch->polls;

	if (watch->count == watch->size) {
		more = realloc(watch->polls, (watch->size + 16) * sizeof(*more));
		if (!more)
			_exit(1);
		watch->polls = more;
		watch->size += 16;
	}
	watch->polls[watch->count++] = (struct pollfd){ .fd = fd, .events = events };
}

/* In the order in which serve_streams() looks at them. */
static void watch_all(struct watch *all, int port, int signals)
{
	struct command *command;

	all->count = 0;
	watch(all, port, POLLIN);
	watch(all, signals, POLLIN);
	for (command = commands; command; command = command->next) {
		watch(all, command->input_size ? command->streams[0] : -1, POLLOUT);
		watch(all, command->streams[1], POLLIN);
		watch(all, command->streams[2], POLLIN);
	}
}

static void serve_streams(const struct watch *all, int port)
{
	const struct pollfd *poll = all->polls + 2;
	struct command *command;

	for (command = commands; command; command = command->next, poll += STREAMS) {
		if (poll[0].fd >= 0 && poll[0].revents)
			write_input(command);
		if (poll[1].fd >= 0 && poll[1].revents)
			read_output(port, command, 1);
		if (poll[2].fd >= 0 && poll[2].revents)
			read_output(port, command, 2);
	}
}

static int block_signals(void)
{
	sigset_t children;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	sigprocmask(SIG_BLOCK, &children, NULL);
	return signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
}

int executor(int port, bool again, const char *(*wake)(char *words))
{
	struct inbox inbox = { };
	struct watch all = { };
	int signals = block_signals();

	if (signals < 0 || !make_room(&inbox, PIECE))
		return 1;
	if (again)
		tell(port, LOST, 0, NULL, 0);
	for (;;) {
		tell_ends(port);
		watch_all(&all, port, signals);
		if (poll(all.polls, all.count, -1) < 0)
			continue;
		serve_streams(&all, port);
		if (all.polls[1].revents)
			reap(signals);
		/* The last, for it makes commands that nobody has polled yet. */
		if (all.polls[0].revents && !listen_to(port, &inbox, wake))
			return 0;
	}
}
