#include "mendctl/client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "media/claim.h"

#define GREETING_MS 5000
#define RESET_TRIES 20
#define RESET_PAUSE_MS 100
#define FIRST_BYTES 65536u
#define ANSWER_LINE_MAX (256u << 20) /* a file with very many names has a long line */

struct client {
	int fd;
	char *buffer; /* [start, end) is received and not taken yet */
	size_t start, end, capacity;
	pid_t pid;
	char *mountpoint;
};

/* A squatter on the name must not be believed: only root, our own user and who mounted it are. */
static bool peer_is_trusted(int fd, uid_t owner, pid_t *pid)
{
	struct ucred credentials;
	socklen_t size = sizeof(credentials);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size))
		return false;
	*pid = credentials.pid;
	return credentials.uid == 0 || credentials.uid == geteuid() || credentials.uid == owner;
}

static int connect_to(const char *name, uid_t owner, pid_t *pid)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = strlen(name);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	memcpy(address.sun_path + 1, name, length);
	length += offsetof(struct sockaddr_un, sun_path) + 1;
	if (!connect(fd, (struct sockaddr *)&address, (socklen_t)length) &&
	    peer_is_trusted(fd, owner, pid))
		return fd;
	close(fd);
	return -ENOENT;
}

static int client_create(int fd, pid_t pid, struct client **out)
{
	struct client *client = calloc(1, sizeof(*client));

	if (!client) {
		close(fd);
		return -ENOMEM;
	}
	client->fd = fd;
	client->pid = pid;
	*out = client;
	return 0;
}

void client_close(struct client *client)
{
	if (!client)
		return;
	close(client->fd);
	free(client->buffer);
	free(client->mountpoint);
	free(client);
}

const char *client_mountpoint(const struct client *client)
{
	return client->mountpoint;
}

void client_limit(struct client *client, unsigned seconds)
{
	struct timeval value = {.tv_sec = seconds};

	setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &value, sizeof(value));
}

/* Room for more behind what is there. */
static int make_room(struct client *client)
{
	char *buffer;

	if (client->start) {
		memmove(client->buffer, client->buffer + client->start,
			client->end - client->start);
		client->end -= client->start;
		client->start = 0;
	}
	if (client->end < client->capacity)
		return 0;
	if (client->capacity >= ANSWER_LINE_MAX)
		return -EMSGSIZE;
	buffer = realloc(client->buffer, client->capacity ? 2 * client->capacity : FIRST_BYTES);
	if (!buffer)
		return -ENOMEM;
	client->buffer = buffer;
	client->capacity = client->capacity ? 2 * client->capacity : FIRST_BYTES;
	return 0;
}

static int receive(struct client *client)
{
	int error = make_room(client);
	ssize_t got;

	if (error)
		return error;
	do {
		got = recv(client->fd, client->buffer + client->end, client->capacity - client->end,
			   0);
	} while (got < 0 && errno == EINTR);
	if (got <= 0)
		return got < 0 && errno == EAGAIN ? -ETIMEDOUT : -ECONNRESET;
	client->end += (size_t)got;
	return 0;
}

static int read_object(struct client *client, struct json_object **out)
{
	size_t looked = 0;
	char *newline;

	for (;;) {
		size_t left = client->end - client->start;
		int error;

		newline = left > looked
			      ? memchr(client->buffer + client->start + looked, '\n', left - looked)
			      : NULL;
		if (newline)
			break;
		looked = left;
		error = receive(client);
		if (error)
			return error;
	}
	*out = json_parse_object(client->buffer + client->start,
				 (size_t)(newline - client->buffer) - client->start);
	client->start = (size_t)(newline + 1 - client->buffer);
	return *out ? 0 : -EPROTO;
}

static int check_greeting(struct client *client, struct json_object *greeting, struct why *why)
{
	const char *mountpoint = "", *state = "";
	uint64_t protocol = 0;

	json_get_text(greeting, "mountpoint", &mountpoint);
	json_get_text(greeting, "state", &state);
	json_get_u64(greeting, "protocol", &protocol);
	if (!protocol || strcmp(state, "serving"))
		return why_set(why, -EBUSY, "process %d is %s; try again when it has ended",
			       (int)client->pid, protocol ? "unmounting it" : "working on it");
	if (protocol != CONTROL_PROTOCOL)
		return why_set(
		    why, -EPROTO,
		    "the daemon (pid %d) speaks another protocol: use the mendctl of its version",
		    (int)client->pid);
	client->mountpoint = strdup(mountpoint);
	return client->mountpoint ? 0 : -ENOMEM;
}

static int take_greeting(struct client *client, struct why *why)
{
	struct pollfd item = {.fd = client->fd, .events = POLLIN};
	struct json_object *greeting;
	int error;

	if (poll(&item, 1, GREETING_MS) <= 0)
		return why_set(why, -ETIMEDOUT,
			       "process %d holds it but does not answer; look at what it is doing",
			       (int)client->pid);
	error = read_object(client, &greeting);
	if (error)
		return why_set(why, error == -ECONNRESET ? error : -EBUSY,
			       "process %d holds it and does not talk (%s); try again", (int)client->pid, strerror(-error));
	error = check_greeting(client, greeting, why);
	json_object_put(greeting);
	return error;
}

static int open_connected(int fd, pid_t pid, struct why *why, struct client **out)
{
	struct client *client;
	int error = client_create(fd, pid, &client);

	if (error)
		return why_set(why, error, "out of memory");
	error = take_greeting(client, why);
	if (error) {
		client_close(client);
		return error;
	}
	*out = client;
	return 0;
}

/* Where a daemon listens: by its mount, or by the inode of its image. */
struct place {
	const struct stat *st; /* NULL: by the mount */
	dev_t dev;
	uid_t owner;
};

static int open_once(const struct place *place, struct why *why, struct client **out)
{
	char name[96];
	pid_t pid = 0;

	for (unsigned attempt = 0; attempt < CLAIM_ATTEMPTS; attempt++) {
		int fd;

		if (place->st)
			claim_socket_name(place->st, attempt, name, sizeof(name));
		else
			control_socket_name(place->dev, attempt, name, sizeof(name));
		fd = connect_to(name, place->owner, &pid);
		if (fd >= 0)
			return open_connected(fd, pid, why, out);
	}
	return why_set(why, -ENOENT, "no daemon answers");
}

/* One that hangs up before it has said anything is about to begin or to end. */
static int open_place(const struct place *place, struct why *why, struct client **out)
{
	const struct timespec pause = {.tv_nsec = RESET_PAUSE_MS * 1000000L};
	int error = open_once(place, why, out);

	for (unsigned i = 0; error == -ECONNRESET && i < RESET_TRIES; i++) {
		nanosleep(&pause, NULL);
		error = open_once(place, why, out);
	}
	return error == -ECONNRESET ? -EBUSY : error;
}

int client_open_mount(dev_t dev, uid_t owner, struct why *why, struct client **out)
{
	return open_place(&(struct place){.dev = dev, .owner = owner}, why, out);
}

int client_open_inode(const struct stat *st, uid_t owner, struct why *why, struct client **out)
{
	return open_place(&(struct place){.st = st, .owner = owner}, why, out);
}

static int send_line(int fd, const char *line, size_t length)
{
	while (length) {
		ssize_t sent = send(fd, line, length, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return -errno;
		line += sent;
		length -= (size_t)sent;
	}
	return 0;
}

int client_request(struct client *client, const char *command, const struct command_args *args,
		   struct why *why)
{
	struct json_object *request = request_make(command, args);
	size_t length = 0;
	const char *line = request ? json_line(request, &length) : NULL;

	if (!line) {
		json_object_put(request);
		return why_set(why, -ENOMEM, "out of memory");
	}
	/* An error here is not told: the daemon's refusal is waiting to be read. */
	if (!send_line(client->fd, line, length))
		send_line(client->fd, "\n", 1);
	json_object_put(request);
	return 0;
}

static int take_failure(struct json_object *object, struct why *why)
{
	const char *text = "the daemon gives no reason; see its log";
	uint64_t number = EIO;

	json_get_text(object, "error", &text);
	json_get_u64(object, "errno", &number);
	return why_set(why, number && number < 4096 ? -(int)number : -EIO, "%s", text);
}

int client_next(struct client *client, struct json_object **out, struct why *why)
{
	struct json_object *object;
	int error = read_object(client, &object);
	bool done;
	int found;

	if (error)
		return why_set(why, error, "the daemon (pid %d) %s; see its log", (int)client->pid,
			       error == -ETIMEDOUT ? "does not answer" : "ended the connection");
	found = json_get_bool(object, "done", &done);
	if (!found) {
		*out = object;
		return 1;
	}
	if (found > 0 && done) {
		json_object_object_del(object, "done");
		*out = object;
		return 0;
	}
	error = take_failure(object, why);
	json_object_put(object);
	return error;
}
