// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes a machine a node of a network:
 *
 *   write PATH VALUE		a sysctl
 *   up CARD
 *   address CARD ADDRESS/LENGTH
 *   route PREFIX/LENGTH GATEWAY
 *
 * By rtnetlink and not by ip: in a fresh clone, that has to translate all that
 * it executes, the first exec() of a program with libraries takes three times
 * what the kernel takes to do all this.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "network.h"

#define LINE_WORDS 3

struct message {
	struct nlmsghdr head;
	char body[128];
};

/* The kernel's reasons for the last refusal: errno's, or better ones. */
struct answer {
	char words[128];
};

struct prefix {
	unsigned char family;
	unsigned char size;	/* bytes of the address */
	unsigned char length;	/* bits of it that are the prefix */
	unsigned char address[16];
};

static int wrong(struct answer *answer, int error)
{
	snprintf(answer->words, sizeof(answer->words), "%s", strerror(error));
	return -1;
}

/* ADDRESS or ADDRESS/LENGTH */
static bool read_prefix(char *text, struct prefix *prefix)
{
	char *length = strchr(text, '/');

	prefix->family = strchr(text, ':') ? AF_INET6 : AF_INET;
	prefix->size = prefix->family == AF_INET6 ? 16 : 4;
	prefix->length = length ? atoi(length + 1) : 8 * prefix->size;
	if (length)
		*length = '\0';
	return inet_pton(prefix->family, text, prefix->address) == 1;
}

/* Returns the header behind netlink's, all zero. */
static void *begin(struct message *message, int type, int flags, size_t size)
{
	memset(message, 0, sizeof(*message));
	message->head.nlmsg_type = type;
	message->head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	message->head.nlmsg_len = NLMSG_LENGTH(size);
	return NLMSG_DATA(&message->head);
}

static void add(struct message *message, int type, const struct prefix *prefix)
{
	struct rtattr *attribute = (void *)((char *)message +
					    NLMSG_ALIGN(message->head.nlmsg_len));

	attribute->rta_type = type;
	attribute->rta_len = RTA_LENGTH(prefix->size);
	memcpy(RTA_DATA(attribute), prefix->address, prefix->size);
	message->head.nlmsg_len = NLMSG_ALIGN(message->head.nlmsg_len) +
				  RTA_ALIGN(attribute->rta_len);
}

/* Some refusals come with a sentence. */
static void take_sentence(struct answer *answer, struct nlmsghdr *head)
{
	struct rtattr *attribute;
	int left = head->nlmsg_len - NLMSG_LENGTH(sizeof(struct nlmsgerr));

	if (!(head->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	attribute = (void *)((char *)head + NLMSG_LENGTH(sizeof(struct nlmsgerr)));
	for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left))
		if (attribute->rta_type == NLMSGERR_ATTR_MSG)
			snprintf(answer->words, sizeof(answer->words), "%.*s",
				 (int)RTA_PAYLOAD(attribute), (char *)RTA_DATA(attribute));
}

int rtnetlink(void)
{
	static int kernel = -1;
	int on = 1;

	if (kernel >= 0)
		return kernel;
	kernel = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	/* Best effort: answers with a sentence, without the question in them. */
	setsockopt(kernel, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
	setsockopt(kernel, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
	return kernel;
}

static int ask(struct message *message, struct answer *answer)
{
	union {
		struct nlmsghdr head;
		char bytes[1024];
	} got;
	struct nlmsgerr *error = NLMSG_DATA(&got.head);
	int kernel = rtnetlink();

	if (send(kernel, message, message->head.nlmsg_len, 0) < 0 ||
	    recv(kernel, &got, sizeof(got), 0) < 0)
		return wrong(answer, errno);
	if (got.head.nlmsg_type != NLMSG_ERROR)
		return wrong(answer, EPROTO);
	if (!error->error)
		return 0;
	wrong(answer, -error->error);
	take_sentence(answer, &got.head);
	return -1;
}

static int write_value(const char *path, const char *value, struct answer *answer)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t put = fd < 0 ? -1 : write(fd, value, strlen(value));
	int error = errno;

	if (fd >= 0)
		close(fd);
	return put < 0 ? wrong(answer, error) : 0;
}

/* Unlike if_nametoindex(), without a socket of its own. 0 if there is no such card. */
static int index_of(const char *card)
{
	struct ifreq request = { };

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", card);
	return ioctl(rtnetlink(), SIOCGIFINDEX, &request) ? 0 : request.ifr_ifindex;
}

static int set_up(const char *card, struct answer *answer)
{
	struct message message;
	struct ifinfomsg *link = begin(&message, RTM_NEWLINK, 0, sizeof(*link));

	link->ifi_index = index_of(card);
	if (!link->ifi_index)
		return wrong(answer, errno);
	link->ifi_flags = IFF_UP;
	link->ifi_change = IFF_UP;
	return ask(&message, answer);
}

static int add_address(const char *card, char *text, struct answer *answer)
{
	struct message message;
	struct ifaddrmsg *address = begin(&message, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL,
					  sizeof(*address));
	struct prefix own;

	if (!read_prefix(text, &own))
		return wrong(answer, EINVAL);
	address->ifa_index = index_of(card);
	if (!address->ifa_index)
		return wrong(answer, errno);
	address->ifa_family = own.family;
	address->ifa_prefixlen = own.length;
	/* Nobody else has it: waiting for duplicates would cost a second. */
	if (own.family == AF_INET6)
		address->ifa_flags = IFA_F_NODAD;
	add(&message, IFA_LOCAL, &own);
	add(&message, IFA_ADDRESS, &own);
	return ask(&message, answer);
}

static int add_route(char *to, char *via, struct answer *answer)
{
	struct message message;
	struct rtmsg *route = begin(&message, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL,
				    sizeof(*route));
	struct prefix target, gateway;

	if (!read_prefix(to, &target) || !read_prefix(via, &gateway))
		return wrong(answer, EINVAL);
	route->rtm_family = target.family;
	route->rtm_dst_len = target.length;
	route->rtm_table = RT_TABLE_MAIN;
	route->rtm_protocol = RTPROT_BOOT;
	route->rtm_type = RTN_UNICAST;
	if (target.length)
		add(&message, RTA_DST, &target);
	add(&message, RTA_GATEWAY, &gateway);
	return ask(&message, answer);
}

static int obey(char *line, struct answer *answer)
{
	char *words[LINE_WORDS] = { NULL };
	int i;

	/* The last one has the rest of the line, blanks and all. */
	for (i = 0; i < LINE_WORDS - 1; i++)
		words[i] = strsep(&line, " ");
	words[i] = line;
	if (words[2] && !strcmp(words[0], "write"))
		return write_value(words[1], words[2], answer);
	if (words[1] && !strcmp(words[0], "up"))
		return set_up(words[1], answer);
	if (words[2] && !strcmp(words[0], "address"))
		return add_address(words[1], words[2], answer);
	if (words[2] && !strcmp(words[0], "route"))
		return add_route(words[1], words[2], answer);
	return wrong(answer, EINVAL);
}

bool configure(char *lines, char *why, size_t size)
{
	struct answer answer;
	int number;
	char *line;

	for (number = 1; (line = strsep(&lines, "\n")); number++) {
		if (*line && obey(line, &answer)) {
			snprintf(why, size, "%d %s", number, answer.words);
			return false;
		}
	}
	return true;
}
