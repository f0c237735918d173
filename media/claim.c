#include "media/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <json.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "media/claim_lock.h"
#include "media/claim_socket.h"
#include "util/log.h"

#define CLAIM_REFUSE_MS 500 /* how long a holder that does not answer is given */
#define CLAIM_WAIT_MS 30000 /* how long a finishing one */
#define CLAIM_SAY_MS 1000
#define CLAIM_RETRY_MS 20
#define CLAIM_BACKLOG 64

struct claim {
	int lock_fd;   /* the caller's */
	int socket_fd; /* listening, or -1: nobody can ask us, the lock alone holds */
	int stop_fd;   /* eventfd: the answering thread ends */
	bool answering;
	pid_t answering_pid; /* the process that has the thread: it does not survive a fork */
	pthread_t thread;
	pthread_mutex_t lock; /* both fields below */
	bool finishing;
	char mountpoint[4096];
};

void claim_greeting(struct claim *claim, char *line, size_t size)
{
	struct json_object *object = json_object_new_object();

	pthread_mutex_lock(&claim->lock);
	json_object_object_add(object, "version", json_object_new_int(1));
	json_object_object_add(object, "pid", json_object_new_int(getpid()));
	json_object_object_add(object, "mountpoint", json_object_new_string(claim->mountpoint));
	json_object_object_add(object, "state",
			       json_object_new_string(claim->finishing ? "finishing" : "serving"));
	pthread_mutex_unlock(&claim->lock);
	snprintf(line, size, "%s",
		 json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN |
							    JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(object);
}

static void claim_answer_one(struct claim *claim)
{
	char line[8192];
	int fd = accept4(claim->socket_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	size_t length;

	if (fd < 0)
		return;
	claim_greeting(claim, line, sizeof(line) - 1);
	length = strlen(line);
	line[length++] = '\n';
	if (send(fd, line, length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_debug("claim: an asker went away: %s", strerror(errno));
	close(fd);
}

static void *claim_answer(void *arg)
{
	struct claim *claim = arg;

	for (;;) {
		struct pollfd waits[] = {{.fd = claim->stop_fd, .events = POLLIN},
					 {.fd = claim->socket_fd, .events = POLLIN}};

		if (poll(waits, 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (waits[0].revents)
			return NULL;
		if (waits[1].revents)
			claim_answer_one(claim);
	}
}

static int claim_start_answering(struct claim *claim)
{
	sigset_t all, old;
	uint64_t drained;
	int error;

	if (claim->socket_fd < 0 || claim->answering)
		return 0;
	if (read(claim->stop_fd, &drained, sizeof(drained)) < 0 && errno != EAGAIN)
		return -errno;
	/* Signals are for the threads that expect them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&claim->thread, NULL, claim_answer, claim);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	claim->answering = error == 0;
	claim->answering_pid = getpid();
	return -error;
}

static void claim_stop_answering(struct claim *claim)
{
	uint64_t one = 1;

	if (!claim->answering)
		return;
	claim->answering = false;
	if (claim->answering_pid != getpid())
		return;
	if (write(claim->stop_fd, &one, sizeof(one)) == (ssize_t)sizeof(one))
		pthread_join(claim->thread, NULL);
}

/* The first name that is free: a squatter on one costs only that one. */
static int claim_bind(const struct stat *st)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	for (unsigned attempt = 0; attempt < CLAIM_ATTEMPTS; attempt++) {
		struct sockaddr_un address;
		socklen_t length = claim_socket_address(st, attempt, &address);

		if (bind(fd, (struct sockaddr *)&address, length) == 0 &&
		    listen(fd, CLAIM_BACKLOG) == 0)
			return fd;
	}
	close(fd);
	return -1;
}

static int claim_create(int fd, const struct stat *st, struct claim **out)
{
	struct claim *claim = calloc(1, sizeof(*claim));
	int error;

	if (!claim)
		return -ENOMEM;
	claim->lock_fd = fd;
	pthread_mutex_init(&claim->lock, NULL);
	claim->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	claim->socket_fd = claim_bind(st);
	if (claim->socket_fd < 0)
		log_warning(
		    "no socket to answer other users of the medium on; the lock still holds");
	error = claim->stop_fd < 0 ? -errno : claim_start_answering(claim);
	if (error < 0) {
		claim_drop(claim);
		return error;
	}
	*out = claim;
	return 0;
}

/* Somebody who waits for it. */
struct claiming {
	int fd;
	const char *path;
	struct why *why;
	struct stat st;
	int64_t began_ms;
	int64_t quiet_since_ms; /* since when the lock is taken and nobody answers for it; 0:
				   somebody did */
	bool said;
};

static int claim_refuse_holder(const struct claiming *claiming, const struct claim_holder *holder)
{
	const char *where = holder->mountpoint;

	if (where[0])
		return why_set(claiming->why, -EBUSY,
			       "%s is mounted on %s by process %d; unmount it first: "
			       "fusermount3 -u %s",
			       claiming->path, where, (int)holder->pid, where);
	return why_set(
	    claiming->why, -EBUSY,
	    "%s is in use by process %d, which has not mounted it (mkfs, fsck, or a mount "
	    "that is just beginning); wait for it",
	    claiming->path, (int)holder->pid);
}

static int claim_refuse_unknown(const struct claiming *claiming, const struct claim_holder *holder,
				pid_t lock_pid)
{
	pid_t pid = holder->pid ? holder->pid : lock_pid;
	char name[64];

	if (!pid)
		return why_set(
		    claiming->why, -EBUSY,
		    "%s is locked by a process that cannot be seen from here; find it with: "
		    "fuser -v %s",
		    claiming->path, claiming->path);
	claim_process_name(pid, name, sizeof(name));
	return why_set(
	    claiming->why, -EBUSY,
	    "%s is locked by process %d%s%s%s, which does not say what for; end it or wait "
	    "for it",
	    claiming->path, (int)pid, name[0] ? " (" : "", name, name[0] ? ")" : "");
}

static int claim_wait_for(struct claiming *claiming, pid_t pid)
{
	int64_t waited = claim_now_ms() - claiming->began_ms;

	claiming->quiet_since_ms = 0;
	if (waited >= CLAIM_WAIT_MS)
		return why_set(
		    claiming->why, -EBUSY,
		    "%s is still in use by process %d, which has been finishing for 30 s",
		    claiming->path, (int)pid);
	if (waited >= CLAIM_SAY_MS && !claiming->said) {
		log_info("%s: waiting for process %d, which is finishing with it", claiming->path,
			 (int)pid);
		claiming->said = true;
	}
	return 0;
}

/* The lock is taken: 0 to try again, or the refusal. */
static int claim_ask_holder(struct claiming *claiming)
{
	int64_t asked_ms = claim_now_ms();
	struct claim_holder holder;
	pid_t pid;

	claim_query(&claiming->st, &holder);
	/* umount(8) returns before the daemon has noticed: what serves no mount any more is about
	 * to finish. */
	if (holder.state == CLAIM_SERVING && holder.mountpoint[0] &&
	    !claim_mount_is_there(holder.pid, holder.mountpoint))
		holder.state = CLAIM_FINISHING;
	if (holder.state == CLAIM_SERVING)
		return claim_refuse_holder(claiming, &holder);
	if (holder.state == CLAIM_FINISHING)
		return claim_wait_for(claiming, holder.pid);
	pid = claim_lock_holder(&claiming->st);
	if (pid && claim_process_is_ending(pid))
		return claim_wait_for(claiming, pid);
	/* Between its lock and its socket, or between its socket's end and its lock's. */
	if (!claiming->quiet_since_ms)
		claiming->quiet_since_ms = asked_ms;
	if (claim_now_ms() - claiming->quiet_since_ms < CLAIM_REFUSE_MS)
		return 0;
	return claim_refuse_unknown(claiming, &holder, pid);
}

/*
 * A device may have a second node with an inode, hence a lock, of its own; its socket is named
 * after the device. Asked only once the lock is ours.
 */
static int claim_ask_other_node(struct claiming *claiming)
{
	struct claim_holder holder;

	if (!S_ISCHR(claiming->st.st_mode) && !S_ISBLK(claiming->st.st_mode))
		return 0;
	claim_query(&claiming->st, &holder);
	return holder.state == CLAIM_NONE ? 0 : claim_refuse_holder(claiming, &holder);
}

static int claim_lock(struct claiming *claiming)
{
	const struct timespec pause = {.tv_nsec = CLAIM_RETRY_MS * 1000000L};

	while (flock(claiming->fd, LOCK_EX | LOCK_NB) < 0) {
		int error;

		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK)
			return why_set(claiming->why, -errno, "%s cannot be locked: %s",
				       claiming->path, strerror(errno));
		error = claim_ask_holder(claiming);
		if (error < 0)
			return error;
		nanosleep(&pause, NULL);
	}
	return 0;
}

int claim_take(int fd, const char *path, struct why *why, struct claim **out)
{
	struct claiming claiming = {.fd = fd, .path = path, .why = why, .began_ms = claim_now_ms()};
	int error;

	if (fstat(fd, &claiming.st) < 0)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	error = claim_lock(&claiming);
	if (error < 0)
		return error;
	error = claim_ask_other_node(&claiming);
	if (error < 0)
		goto err_unlock;
	error = claim_create(fd, &claiming.st, out);
	if (error < 0) {
		why_set(why, error, "%s: %s", path, strerror(-error));
		goto err_unlock;
	}
	return 0;

err_unlock:
	flock(fd, LOCK_UN);
	return error;
}

void claim_drop(struct claim *claim)
{
	if (!claim)
		return;
	claim_stop_answering(claim);
	/* The socket first: whoever gets the lock must find the name free. */
	if (claim->socket_fd >= 0)
		close(claim->socket_fd);
	flock(claim->lock_fd, LOCK_UN);
	if (claim->stop_fd >= 0)
		close(claim->stop_fd);
	pthread_mutex_destroy(&claim->lock);
	free(claim);
}

int claim_socket_fd(struct claim *claim)
{
	claim_stop_answering(claim);
	/* Again, so that SO_PEERCRED names this process, which may be a child of the one that
	 * claimed. */
	if (claim->socket_fd >= 0 && listen(claim->socket_fd, CLAIM_BACKLOG) < 0)
		log_warning("claim: listen: %s", strerror(errno));
	return claim->socket_fd;
}

void claim_set_mountpoint(struct claim *claim, const char *mountpoint)
{
	pthread_mutex_lock(&claim->lock);
	snprintf(claim->mountpoint, sizeof(claim->mountpoint), "%s", mountpoint);
	pthread_mutex_unlock(&claim->lock);
}

void claim_set_finishing(struct claim *claim)
{
	pthread_mutex_lock(&claim->lock);
	claim->finishing = true;
	pthread_mutex_unlock(&claim->lock);
	/* The server that took the socket over may stop long before the lock is dropped. */
	if (claim_start_answering(claim) < 0)
		log_warning("claim: no thread to answer on while finishing");
}

bool claim_mount_is_dead(int error)
{
	return error == -ENOTCONN || error == -ECONNABORTED || error == -ECONNREFUSED;
}

int claim_check_mountpoint(const char *dir, struct why *why)
{
	struct stat st;

	if (stat(dir, &st) == 0 || !claim_mount_is_dead(-errno))
		return 0;
	return why_set(why, -ENOTCONN,
		       "%s is a dead mount point (its daemon is gone); clear it with: "
		       "fusermount3 -u %s",
		       dir, dir);
}
