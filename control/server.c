#include "control/server.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "control/connection.h"
#include "util/log.h"

#define CONNECTIONS_MAX 320 /* monitors included; only the permitted count */
#define STACK_BYTES (1u << 20)
#define BACKLOG 64
#define NAME_BYTES 64
#define GREETING_BYTES 8192
#define PROTOCOL_BYTES 32
#define DRAIN_SECONDS 1

#define TRANSPORT_BYTES 64
#define ACCEPT_PAUSE_MS 100 /* when there are no descriptors left */

struct peer {
	struct control *control;
	struct connection_setup setup;
	char transport[TRANSPORT_BYTES]; /* as it was when the client came */
	struct peer *next, *prev;
};

struct control {
	struct fs *fs;
	struct claim *claim;
	int claim_socket; /* the claim's; -1: none */
	char *device, *mountpoint;
	const struct control_hooks *hooks;
	void *hooks_arg;
	pthread_t acceptor;
	int wake; /* eventfd */
	atomic_bool stopping;

	pthread_mutex_t lock; /* all below */
	pthread_cond_t changed;
	char transport[TRANSPORT_BYTES];
	int mounted_socket; /* -1: none yet */
	struct peer *peers;
	unsigned count_peers;
};

/* --- one client --- */

static void peer_link(struct control *control, struct peer *peer)
{
	peer->prev = NULL;
	peer->next = control->peers;
	if (peer->next)
		peer->next->prev = peer;
	control->peers = peer;
	control->count_peers++;
}

static void peer_unlink(struct control *control, struct peer *peer)
{
	if (peer->prev)
		peer->prev->next = peer->next;
	else
		control->peers = peer->next;
	if (peer->next)
		peer->next->prev = peer->prev;
	control->count_peers--;
	pthread_cond_broadcast(&control->changed);
}

/* Under the lock, so that control_stop() never shuts down a descriptor that is somebody else's by
 * now. */
static void peer_end(struct peer *peer)
{
	struct control *control = peer->control;

	pthread_mutex_lock(&control->lock);
	close(peer->setup.fd);
	peer_unlink(control, peer);
	pthread_mutex_unlock(&control->lock);
	free(peer);
}

static void *peer_main(void *arg)
{
	struct peer *peer = arg;

	connection_serve(&peer->setup);
	peer_end(peer);
	return NULL;
}

static struct peer *peer_create(struct control *control, int fd)
{
	struct peer *peer = calloc(1, sizeof(*peer));

	if (!peer)
		return NULL;
	peer->control = control;
	peer->setup = (struct connection_setup){
	    .fd = fd,
	    .stopping = &control->stopping,
	    .context = {.fs = control->fs,
			.place = {control->device, control->mountpoint, peer->transport},
			.hooks = control->hooks,
			.hooks_arg = control->hooks_arg},
	};
	pthread_mutex_lock(&control->lock);
	memcpy(peer->transport, control->transport, sizeof(peer->transport));
	if (control->count_peers >= CONNECTIONS_MAX) {
		free(peer);
		peer = NULL;
	} else {
		peer_link(control, peer);
	}
	pthread_mutex_unlock(&control->lock);
	return peer;
}

/* Takes fd in every case. */
static void peer_start(struct control *control, int fd)
{
	struct peer *peer = peer_create(control, fd);
	pthread_attr_t attributes;
	pthread_t thread;
	int error;

	if (!peer) {
		connection_refuse(fd, -EBUSY,
				  "too many clients at once: end a monitor, or try again");
		close(fd);
		return;
	}
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	error = pthread_create(&thread, &attributes, peer_main, peer);
	pthread_attr_destroy(&attributes);
	if (error) {
		connection_refuse(fd, -error, "the daemon cannot start a thread: try again");
		peer_end(peer);
	}
}

/* --- accepting --- */

static bool peer_is_permitted(int fd)
{
	struct ucred credentials;
	socklen_t size = sizeof(credentials);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size))
		return false;
	return credentials.uid == 0 || credentials.uid == geteuid();
}

static void own_greeting(struct control *control, char *line, size_t size)
{
	struct json_object *object = json_object_new_object();

	line[0] = '\0';
	if (object && !json_add_u64(object, "version", JSON_VERSION) &&
	    !json_add_u64(object, "pid", (uint64_t)getpid()) &&
	    !json_add_text(object, "mountpoint", control->mountpoint) &&
	    !json_add_text(object, "state", "serving"))
		snprintf(line, size, "%s", json_line(object, NULL));
	json_object_put(object);
}

/* The claim's line with our protocol's number added. The socket's buffer is empty, so this never
 * waits. */
static int greet(struct control *control, int fd)
{
	char line[GREETING_BYTES];
	char *brace;

	if (control->claim)
		claim_greeting(control->claim, line, sizeof(line) - PROTOCOL_BYTES);
	else
		own_greeting(control, line, sizeof(line) - PROTOCOL_BYTES);
	brace = strrchr(line, '}');
	if (!brace)
		return -EINVAL;
	snprintf(brace, PROTOCOL_BYTES, ",\"protocol\":%d}", CONTROL_PROTOCOL);
	return connection_send(fd, line, strlen(line), MSG_DONTWAIT);
}

static void admit(struct control *control, int fd)
{
	if (greet(control, fd)) {
		close(fd);
	} else if (!peer_is_permitted(fd)) {
		connection_refuse(fd, -EPERM,
				  "not permitted: run mendctl as root or as the user who mounted "
				  "this filesystem");
		close(fd);
	} else {
		peer_start(control, fd);
	}
}

static void pause_accepting(struct control *control)
{
	struct pollfd item = {.fd = control->wake, .events = POLLIN};

	poll(&item, 1, ACCEPT_PAUSE_MS);
}

static void accept_one(struct control *control, int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0)
		admit(control, fd);
	else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
		pause_accepting(control);
}

static int mounted_socket(struct control *control)
{
	int fd;

	pthread_mutex_lock(&control->lock);
	fd = control->mounted_socket;
	pthread_mutex_unlock(&control->lock);
	return fd;
}

static void *acceptor_main(void *arg)
{
	struct control *control = arg;
	uint64_t count;

	while (!atomic_load(&control->stopping)) {
		struct pollfd items[3] = {
		    {.fd = control->wake, .events = POLLIN},
		    {.fd = control->claim_socket, .events = POLLIN},
		    {.fd = mounted_socket(control), .events = POLLIN},
		};

		if (poll(items, 3, -1) < 0)
			continue;
		if (items[0].revents && read(control->wake, &count, sizeof(count)) < 0)
			continue;
		for (int i = 1; i < 3; i++)
			if (items[i].revents & POLLIN)
				accept_one(control, items[i].fd);
	}
	return NULL;
}

static void wake(struct control *control)
{
	uint64_t one = 1;

	if (write(control->wake, &one, sizeof(one)) < 0)
		log_error("control: waking the server: %s", strerror(errno));
}

/* --- start, stop --- */

static void control_free(struct control *control)
{
	if (control->wake >= 0)
		close(control->wake);
	if (control->mounted_socket >= 0)
		close(control->mounted_socket);
	pthread_cond_destroy(&control->changed);
	pthread_mutex_destroy(&control->lock);
	free(control->device);
	free(control->mountpoint);
	free(control);
}

static struct control *control_create(struct fs *fs, struct claim *claim,
				      const struct control_options *options)
{
	struct control *control = calloc(1, sizeof(*control));
	pthread_condattr_t attributes;

	if (!control)
		return NULL;
	control->fs = fs;
	control->claim = claim;
	control->claim_socket = claim ? claim_socket_fd(claim) : -1;
	control->hooks = options->hooks;
	control->hooks_arg = options->hooks_arg;
	control->mounted_socket = -1;
	pthread_mutex_init(&control->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&control->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	control->device = strdup(options->device ? options->device : "");
	control->mountpoint = strdup(options->mountpoint ? options->mountpoint : "");
	control->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	control_set_transport(control, options->transport);
	if (control->device && control->mountpoint && control->wake >= 0)
		return control;
	control_free(control);
	return NULL;
}

/* Our threads take no signals but those of their own faults: SIGTERM must reach the thread that
 * unmounts. */
static int start_acceptor(struct control *control)
{
	sigset_t blocked, before;
	int error;

	sigfillset(&blocked);
	sigdelset(&blocked, SIGBUS);
	sigdelset(&blocked, SIGSEGV);
	sigdelset(&blocked, SIGFPE);
	sigdelset(&blocked, SIGILL);
	pthread_sigmask(SIG_BLOCK, &blocked, &before);
	error = pthread_create(&control->acceptor, NULL, acceptor_main, control);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -error;
}

int control_start(struct fs *fs, struct claim *claim, const struct control_options *options,
		  struct control **out)
{
	struct control *control = control_create(fs, claim, options);
	int error;

	if (!control)
		return -ENOMEM;
	error = start_acceptor(control);
	if (error) {
		control_free(control);
		return error;
	}
	*out = control;
	return 0;
}

static int listen_as(const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = strlen(name);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	memcpy(address.sun_path + 1, name, length);
	if (!bind(fd, (struct sockaddr *)&address,
		  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)) &&
	    !listen(fd, BACKLOG))
		return fd;
	length = (size_t)errno;
	close(fd);
	return -(int)length;
}

int control_mounted(struct control *control, dev_t dev)
{
	char name[NAME_BYTES];
	int fd = -EADDRINUSE;

	for (unsigned attempt = 0; fd == -EADDRINUSE && attempt < CLAIM_ATTEMPTS; attempt++) {
		control_socket_name(dev, attempt, name, sizeof(name));
		fd = listen_as(name);
	}
	if (fd < 0)
		return fd;
	pthread_mutex_lock(&control->lock);
	control->mounted_socket = fd;
	pthread_mutex_unlock(&control->lock);
	wake(control);
	return 0;
}

void control_set_transport(struct control *control, const char *transport)
{
	pthread_mutex_lock(&control->lock);
	snprintf(control->transport, sizeof(control->transport), "%s", transport ? transport : "");
	pthread_mutex_unlock(&control->lock);
}

/* Until nobody is left, or the time is up. Under the lock. */
static void wait_for_peers(struct control *control, unsigned seconds)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += seconds;
	while (control->count_peers)
		if (pthread_cond_timedwait(&control->changed, &control->lock, &until))
			return;
}

void control_stop(struct control *control)
{
	struct event unmount = {.type = EVENT_UNMOUNT};

	if (!control)
		return;
	atomic_store(&control->stopping, true);
	wake(control);
	pthread_join(control->acceptor, NULL);
	event_publish(fs_events(control->fs), &unmount);
	pthread_mutex_lock(&control->lock);
	wait_for_peers(control, DRAIN_SECONDS);
	for (struct peer *peer = control->peers; peer; peer = peer->next)
		shutdown(peer->setup.fd, SHUT_RDWR);
	while (control->count_peers)
		pthread_cond_wait(&control->changed, &control->lock);
	pthread_mutex_unlock(&control->lock);
	control_free(control);
}
