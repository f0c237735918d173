#include "control/connection.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "control/render_event.h"

int connection_send(int fd, const char *line, size_t length_bytes, int flags)
{
	struct iovec parts[2] = {{(void *)line, length_bytes}, {"\n", 1}};
	size_t left = length_bytes + 1;

	while (left) {
		struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
		ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | flags);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		left -= (size_t)sent;
		for (int i = 0; i < 2; i++) {
			size_t part = min_u64((size_t)sent, parts[i].iov_len);

			parts[i].iov_base = (char *)parts[i].iov_base + part;
			parts[i].iov_len -= part;
			sent -= (ssize_t)part;
		}
	}
	return 0;
}

static int send_object(int fd, struct json_object *object, int flags)
{
	size_t length;
	const char *line = object ? json_line(object, &length) : NULL;
	int error = line ? connection_send(fd, line, length, flags) : -ENOMEM;

	json_object_put(object);
	return error;
}

static void send_failure(int fd, int error, const char *text, int flags)
{
	struct json_object *object = json_object_new_object();

	if (!object)
		return;
	if (!json_add_bool(object, "done", false) && !json_add_text(object, "error", text) &&
	    !json_add_u64(object, "errno", (uint64_t)-error))
		send_object(fd, object, flags);
	else
		json_object_put(object);
}

void connection_refuse(int fd, int error, const char *text)
{
	send_failure(fd, error, text, MSG_DONTWAIT);
}

static void set_timeout(int fd, int option, unsigned seconds)
{
	struct timeval value = {.tv_sec = seconds};

	setsockopt(fd, SOL_SOCKET, option, &value, sizeof(value));
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* One line of at most CONTROL_REQUEST_MAX bytes, within a fixed time however it trickles in. Its
 * length without the newline. */
static ssize_t receive_line(int fd, char *buffer)
{
	int64_t deadline = now_ms() + CONNECTION_REQUEST_SECONDS * 1000;
	size_t used = 0;

	while (used < CONTROL_REQUEST_MAX) {
		struct pollfd item = {.fd = fd, .events = POLLIN};
		int64_t left = deadline - now_ms();
		char *newline;
		ssize_t got;

		if (left <= 0 || poll(&item, 1, (int)left) == 0)
			return -ETIMEDOUT;
		got = recv(fd, buffer + used, CONTROL_REQUEST_MAX - used, MSG_DONTWAIT);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (got <= 0)
			return got ? -errno : -ECONNRESET;
		newline = memchr(buffer + used, '\n', (size_t)got);
		used += (size_t)got;
		if (newline)
			return newline - buffer;
	}
	return -EMSGSIZE;
}

struct conversation {
	const struct connection_setup *setup;
	bool wants_progress;
	int64_t progress_ms; /* when it was last told */
};

static int emit_line(void *arg, struct json_object *element)
{
	const struct connection_setup *setup = ((const struct conversation *)arg)->setup;

	if (atomic_load(setup->stopping)) {
		json_object_put(element);
		return -ESHUTDOWN;
	}
	return send_object(setup->fd, element, 0);
}

/* {"progress":{"phase":..,"done":..,"total":..}} */
static struct json_object *render_progress(const char *phase, uint64_t done, uint64_t total)
{
	struct json_object *line = json_object_new_object(), *progress = json_object_new_object();

	if (line && progress && !json_add_text(progress, "phase", phase) && !json_add_u64(progress, "done", done) &&
	    !json_add_u64(progress, "total", total)) {
		if (!json_add(line, "progress", progress))
			return line;
		progress = NULL;
	}
	json_object_put(progress);
	json_object_put(line);
	return NULL;
}

/* Nobody is waiting for the answer any more: what makes it may end. */
static bool client_is_gone(const struct connection_setup *setup)
{
	struct pollfd item = {.fd = setup->fd, .events = POLLRDHUP};

	return atomic_load(setup->stopping) || (poll(&item, 1, 0) > 0 && item.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

static bool emit_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	struct conversation *conversation = arg;
	int64_t now = now_ms();

	if (client_is_gone(conversation->setup))
		return false;
	if (now - conversation->progress_ms < CONNECTION_PROGRESS_MS)
		return true;
	conversation->progress_ms = now;
	return !conversation->wants_progress || !send_object(conversation->setup->fd, render_progress(phase, done, total), 0);
}

/* --- monitor --- */

static int send_event(const struct connection_setup *setup, const struct event *event)
{
	struct json_object *object =
	    render_event(event, fs_super(setup->context.fs)->uuid, setup->context.place.mountpoint);

	return send_object(setup->fd, object, 0);
}

static int send_running(const struct connection_setup *setup)
{
	struct event event = {.type = EVENT_RUNNING};
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	event.time_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	return send_event(setup, &event);
}

/* 0 to go on; 1: that was the last one; negative: the client has gone. */
static int send_pending(const struct connection_setup *setup, struct event_subscriber *subscriber)
{
	struct event *event;
	int result = 0;

	while (!result && (event = event_take(subscriber))) {
		result = send_event(setup, event);
		if (!result && event->type == EVENT_UNMOUNT)
			result = 1;
		event_free(event);
	}
	return result;
}

static void stream_events(const struct connection_setup *setup, struct event_subscriber *subscriber)
{
	struct pollfd items[2] = {
	    {.fd = event_subscriber_fd(subscriber), .events = POLLIN},
	    {.fd = setup->fd, .events = POLLRDHUP},
	};
	int result = send_running(setup);

	while (!result) {
		if (poll(items, 2, -1) < 0 && errno != EINTR)
			return;
		if (items[1].revents & (POLLRDHUP | POLLHUP | POLLERR))
			return;
		result = send_pending(setup, subscriber);
	}
}

static void serve_monitor(const struct connection_setup *setup)
{
	struct event_subscriber *subscriber;
	int error =
	    event_subscribe(fs_events(setup->context.fs), CONNECTION_QUEUE_EVENTS, &subscriber);

	if (error) {
		send_failure(
		    setup->fd, error,
		    error == -EMFILE ? "too many monitors: end one of them" : strerror(-error), 0);
		return;
	}
	stream_events(setup, subscriber);
	event_unsubscribe(subscriber);
}

/* --- commands --- */

static void serve_command(const struct connection_setup *setup, const struct command *command,
			  const struct command_args *args)
{
	struct conversation conversation = {.setup = setup, .wants_progress = args->progress};
	struct command_sink sink = {emit_line, emit_progress, &conversation, json_object_new_object()};
	struct why why;
	int error;

	if (!sink.extra || json_add_bool(sink.extra, "done", true)) {
		json_object_put(sink.extra);
		return;
	}
	error = command_run(command, &setup->context, args, &sink, &why);
	if (error < 0)
		send_failure(setup->fd, error, why.text, 0);
	else
		send_object(setup->fd, json_object_get(sink.extra), 0);
	json_object_put(sink.extra);
}

static void serve_request(const struct connection_setup *setup, const struct request *request)
{
	const struct command *command = command_find(request->command);

	if (!command) {
		send_failure(setup->fd, -ENOSYS,
			     "the daemon does not know this command: use a mendctl of its version",
			     0);
	} else if (command->run) {
		set_timeout(setup->fd, SO_SNDTIMEO, CONNECTION_SEND_SECONDS);
		serve_command(setup, command, &request->args);
	} else {
		serve_monitor(setup);
	}
}

void connection_serve(const struct connection_setup *setup)
{
	char *line = malloc(CONTROL_REQUEST_MAX);
	ssize_t length = line ? receive_line(setup->fd, line) : -ENOMEM;
	struct request request;
	struct why why;
	int error;

	if (length == -EMSGSIZE)
		connection_refuse(setup->fd, -EMSGSIZE, "the request is longer than 64 KiB");
	if (length < 0)
		goto out_free;
	error = request_parse(line, (size_t)length, &request, &why);
	if (error)
		connection_refuse(setup->fd, error, why.text);
	else
		serve_request(setup, &request);
	request_fini(&request);
out_free:
	free(line);
}
