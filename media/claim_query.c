/* The asking side of a claim: find the holder's socket and believe it or not. */
#include <errno.h>
#include <inttypes.h>
#include <json.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "media/claim.h"
#include "media/claim_socket.h"

#define QUERY_MS 300
#define GREETING_BYTES 16384u

void claim_socket_name(const struct stat *st, unsigned attempt, char *name, size_t size)
{
	char suffix[16] = "";

	if (attempt > 0)
		snprintf(suffix, sizeof(suffix), "/%u", attempt);
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		snprintf(name, size, "mendfs/%c/%jx%s", S_ISCHR(st->st_mode) ? 'c' : 'b', (uintmax_t)st->st_rdev,
			 suffix);
	else
		snprintf(name, size, "mendfs/i/%jx/%jx%s", (uintmax_t)st->st_dev,
			 (uintmax_t)st->st_ino, suffix);
}

socklen_t claim_socket_address(const struct stat *st, unsigned attempt, struct sockaddr_un *address)
{
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	claim_socket_name(st, attempt, address->sun_path + 1, sizeof(address->sun_path) - 1);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
			   strlen(address->sun_path + 1));
}

int64_t claim_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Connect to a peer that may be believed, or -1. Who listens is known at once, so that a squatter
 * costs no time. */
static int query_connect(const struct stat *st, unsigned attempt, struct ucred *peer)
{
	struct sockaddr_un address;
	socklen_t length = claim_socket_address(st, attempt, &address), size = sizeof(*peer);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&address, length) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &size) < 0)
		goto err_close;
	if (peer->uid != 0 && peer->uid != geteuid())
		goto err_close;
	return fd;

err_close:
	close(fd);
	return -1;
}

/* One line, or what came before the deadline. */
static bool query_read_line(int fd, int64_t deadline, char *line, size_t size)
{
	size_t used = 0;

	while (used + 1 < size) {
		struct pollfd wait = {.fd = fd, .events = POLLIN};
		int64_t left = deadline - claim_now_ms();
		char *newline;
		ssize_t n;

		if (left <= 0 || (poll(&wait, 1, (int)left) <= 0 && errno != EINTR))
			return false;
		n = recv(fd, line + used, size - 1 - used, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
			return false;
		newline = memchr(line + used, '\n', (size_t)n);
		used += (size_t)n;
		line[used] = 0;
		if (newline) {
			*newline = 0;
			return true;
		}
	}
	return false;
}

static const char *query_text(struct json_object *object, const char *key)
{
	struct json_object *value;

	if (!json_object_object_get_ex(object, key, &value) ||
	    !json_object_is_type(value, json_type_string))
		return "";
	return json_object_get_string(value);
}

static bool query_parse(const char *line, struct claim_holder *holder)
{
	struct json_object *object = json_tokener_parse(line), *pid;
	const char *state;

	if (!object || !json_object_is_type(object, json_type_object)) {
		json_object_put(object);
		return false;
	}
	state = query_text(object, "state");
	holder->state = strcmp(state, "finishing") == 0 ? CLAIM_FINISHING : CLAIM_SERVING;
	snprintf(holder->mountpoint, sizeof(holder->mountpoint), "%s",
		 query_text(object, "mountpoint"));
	/* The kernel's word is that of listen(): a daemon may have forked since. */
	if (kill(holder->pid, 0) < 0 && errno == ESRCH &&
	    json_object_object_get_ex(object, "pid", &pid))
		holder->pid = json_object_get_int(pid);
	json_object_put(object);
	return true;
}

/* All who may be believed are asked side by side: one that keeps silent takes no time from the
 * others. */
struct query {
	struct pollfd waits[CLAIM_ATTEMPTS]; /* fd -1: nobody there, or heard already */
	struct ucred peers[CLAIM_ATTEMPTS];
	int64_t deadline;
};

static void query_begin(struct query *query, const struct stat *st, struct claim_holder *out)
{
	for (unsigned i = 0; i < CLAIM_ATTEMPTS; i++) {
		int fd = query_connect(st, i, &query->peers[i]);

		query->waits[i] = (struct pollfd){.fd = fd, .events = POLLIN};
		if (fd < 0 || out->state == CLAIM_SILENT)
			continue;
		*out = (struct claim_holder){
		    .state = CLAIM_SILENT, .pid = query->peers[i].pid, .uid = query->peers[i].uid};
	}
}

static bool query_hear(struct query *query, unsigned i, struct claim_holder *out)
{
	struct claim_holder heard = {.pid = query->peers[i].pid, .uid = query->peers[i].uid};
	char line[GREETING_BYTES];
	bool understood =
	    query_read_line(query->waits[i].fd, query->deadline, line, sizeof(line)) &&
	    query_parse(line, &heard);

	close(query->waits[i].fd);
	query->waits[i].fd = -1;
	if (understood)
		*out = heard;
	return understood;
}

/* Until one has answered, all have failed to, or time is up. */
static void query_wait(struct query *query, struct claim_holder *out)
{
	for (;;) {
		int64_t left = query->deadline - claim_now_ms();
		bool any = false;

		for (unsigned i = 0; i < CLAIM_ATTEMPTS; i++)
			any = any || query->waits[i].fd >= 0;
		if (!any || left <= 0 || poll(query->waits, CLAIM_ATTEMPTS, (int)left) == 0)
			return;
		for (unsigned i = 0; i < CLAIM_ATTEMPTS; i++)
			if (query->waits[i].fd >= 0 && query->waits[i].revents &&
			    query_hear(query, i, out))
				return;
	}
}

void claim_query(const struct stat *st, struct claim_holder *out)
{
	struct query query = {.deadline = claim_now_ms() + QUERY_MS};

	*out = (struct claim_holder){.state = CLAIM_NONE};
	query_begin(&query, st, out);
	query_wait(&query, out);
	for (unsigned i = 0; i < CLAIM_ATTEMPTS; i++)
		if (query.waits[i].fd >= 0)
			close(query.waits[i].fd);
}
