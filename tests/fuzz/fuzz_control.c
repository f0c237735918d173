/*
 * Target: the control socket. A client's bytes, in pieces of any size, go to a connection of a mounted filesystem; every line that comes back must be a
 * JSON object, the last one with `done`. Input: mode (1), length of the pieces (1), the client's bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "control/connection.h"
#include "tests/fuzz/bases.h"
#include "tests/fuzz/bytes.h"
#include "tests/fuzz/mutator.h"
#include "tests/fuzz/target.h"

#define ANSWER_BYTES_MAX (256u << 10) /* then the client is gone */
#define REQUEST_BYTES_MAX (80u << 10)
#define PIECES_MAX 200u		      /* what a socket of packets holds */
#define CACHE_BYTES (1u << 20)

enum control_mode {
	CONTROL_READONLY = 1,
	CONTROL_GONE = 2,     /* the client does not take a byte */
	CONTROL_STOPPING = 4, /* the daemon is ending */
	CONTROL_EVENTS = 8,   /* something happens once the first line was sent, unmount last */
	CONTROL_SLOW = 16,    /* time goes by between two looks at the clock */
};

#define SLOW_STEP_NS 60000000u

static const struct base *base;
static struct fs *fs;
static bool fs_is_for_reading;
static struct {
	char bytes[ANSWER_BYTES_MAX];
	size_t used;
	bool is_gone, wants_events, is_slow;
	uint64_t late_ns; /* how far the clock is ahead */
} answer;

static void let_happen(void)
{
	char *paths[] = {"/file", "/\xff\xc3"};
	struct event event = {.source = 1, .paths = paths, .count_paths = 2, .action = "eio", .tree = "rmap", .copy = "primary", .reasons = "log_error"};

	answer.wants_events = false;
	for (event.type = EVENT_MEDIA_FAILURE; event.type <= EVENT_UNMOUNT; event.type++)
		event_publish(fs_events(fs), &event);
}

/* --- what stands between the commands and the world --- */

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
	size_t taken = 0;

	for (size_t i = 0; i < message->msg_iovlen; i++) {
		const struct iovec *part = &message->msg_iov[i];

		if (part->iov_len > sizeof(answer.bytes) - answer.used)
			answer.is_gone = true;
		if (answer.is_gone) {
			errno = EPIPE;
			return -1;
		}
		memcpy(answer.bytes + answer.used, part->iov_base, part->iov_len);
		answer.used += part->iov_len;
		taken += part->iov_len;
	}
	if (answer.wants_events)
		let_happen();
	return (ssize_t)taken;
}

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
	int error = __real_clock_gettime(clock, now);
	uint64_t ns;

	if (error || clock != CLOCK_MONOTONIC || !answer.is_slow)
		return error;
	ns = (uint64_t)now->tv_nsec + __atomic_add_fetch(&answer.late_ns, SLOW_STEP_NS, __ATOMIC_RELAXED);
	now->tv_sec += (time_t)(ns / 1000000000u);
	now->tv_nsec = (long)(ns % 1000000000u);
	return 0;
}

/* Poison is the lab's; none of it is written beside the image. */
int __wrap_media_poison_arm(struct media *media, devoff_t offset, uint64_t length, bool latent);
int __wrap_media_poison_arm(struct media *media, devoff_t offset, uint64_t length, bool latent)
{
	return lab_poison(medium_lab(base->medium), offset, length);
}

int __wrap_media_poison_disarm(struct media *media, devoff_t offset, uint64_t length, uint64_t *removed_bytes);
int __wrap_media_poison_disarm(struct media *media, devoff_t offset, uint64_t length, uint64_t *removed_bytes)
{
	lab_heal(medium_lab(base->medium), offset, length);
	*removed_bytes = length;
	return 0;
}

int __wrap_media_poison_tie(struct media *media, const uint8_t *uuid, struct why *why);
int __wrap_media_poison_tie(struct media *media, const uint8_t *uuid, struct why *why)
{
	return 0;
}

/* The medium keeps its size. */
int __wrap_fs_resize(struct fs *of, uint64_t size_bytes, struct why *why);
int __wrap_fs_resize(struct fs *of, uint64_t size_bytes, struct why *why)
{
	return size_bytes % BLOCK_BYTES ? why_set(why, -EINVAL, "a size that is no multiple of 4096") : 0;
}

/* --- one conversation --- */

static void stay_mounted(bool readonly)
{
	const struct fs_options options = {.tools = true, .readonly = readonly, .cache_bytes = CACHE_BYTES};
	struct why why = {0};

	if (fs && fs_is_for_reading == readonly && !medium_is_changed(base->medium))
		return;
	if (fs)
		fs_abandon(fs);
	fs = NULL;
	medium_restore(base->medium);
	if (fs_mount_media(medium_media(base->medium), &options, &why, &fs))
		target_fail("the base does not mount", why.text);
	fs_is_for_reading = readonly;
	medium_forget_changes(base->medium);
}

/* All that the client ever sends. */
static void say(int fd, struct bytes *bytes, size_t piece)
{
	size_t left = min_u64(bytes->left, REQUEST_BYTES_MAX);

	piece = max_u64(piece, left / PIECES_MAX + 1);
	while (left) {
		size_t length = min_u64(piece, left);

		if (send(fd, bytes->at, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			break;
		bytes->at += length;
		left -= length;
	}
	if (!answer.wants_events)
		shutdown(fd, SHUT_WR);
}

static void check_answer(void)
{
	char *line = answer.bytes, *end = answer.bytes + answer.used, *newline;
	bool done = false, is_done;

	while (line < end && (newline = memchr(line, '\n', (size_t)(end - line)))) {
		struct json_object *object = json_parse_object(line, (size_t)(newline - line));

		if (!object)
			target_fail("an answer is no JSON object", line);
		if (done)
			target_fail("something follows the end of an answer", line);
		done = json_get_bool(object, "done", &is_done) == 1;
		json_object_put(object);
		line = newline + 1;
	}
	if (line < end && !answer.is_gone)
		target_fail("an answer ends within a line", "");
}

/* What was understood of a request says the same when mendctl sends it. */
static void repeat_request(const struct bytes *bytes)
{
	const char *newline = bytes->left ? memchr(bytes->at, '\n', bytes->left) : NULL;
	struct request first, again;
	struct json_object *object;
	const char *line;
	struct why why;
	size_t length;

	if (!newline)
		return;
	if (!request_parse((const char *)bytes->at, (size_t)(newline - (const char *)bytes->at), &first, &why)) {
		object = request_make(first.command, &first.args);
		line = json_line(object, &length);
		if (request_parse(line, length, &again, &why))
			target_fail("a request is refused when it is sent again", line);
		if (strcmp(first.command, again.command) || first.args.ino != again.args.ino || first.args.to_ino != again.args.to_ino ||
		    first.args.kind != again.args.kind || first.args.all != again.args.all ||
		    (first.args.has_range && (first.args.offset != again.args.offset || first.args.length_bytes != again.args.length_bytes)))
			target_fail("a request says something else when it is sent again", line);
		request_fini(&again);
		json_object_put(object);
	}
	request_fini(&first);
}

static int no_stats(void *arg, control_opcode_fn *visit, void *visit_arg)
{
	struct control_opcode opcode = {.name = "READ", .count = 1, .histogram = {1, 0, 2}};

	return visit(visit_arg, &opcode);
}

static void changed(void *arg, inum_t ino)
{
}

static void converse(uint8_t mode, size_t piece, struct bytes *bytes)
{
	static const struct control_hooks hooks = {.stats = no_stats, .changed = changed};
	atomic_bool stopping = mode & CONTROL_STOPPING;
	struct connection_setup setup = {
		.context = {.fs = fs, .place = {"/dev/pmem", "/mnt", "none"}, .hooks = &hooks},
		.stopping = &stopping,
	};
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		abort();
	answer.used = 0;
	answer.late_ns = 0;
	answer.is_gone = mode & CONTROL_GONE;
	/* Without a whole line the connection would wait for the rest of it. */
	answer.wants_events = mode & CONTROL_EVENTS && memchr(bytes->at, '\n', min_u64(bytes->left, CONTROL_REQUEST_MAX));
	say(ends[1], bytes, piece);
	setup.fd = ends[0];
	answer.is_slow = mode & CONTROL_SLOW;
	connection_serve(&setup);
	answer.is_slow = false;
	close(ends[0]);
	close(ends[1]);
	check_answer();
}

/* --- what libFuzzer calls --- */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	target_begin();
	bases_make();
	base = base_get(5); /* with a ledger */
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes bytes = {data, size};
	uint8_t mode = bytes_u8(&bytes);
	size_t piece = bytes_u8(&bytes);

	repeat_request(&bytes);
	stay_mounted(mode & CONTROL_READONLY);
	converse(mode, piece, &bytes);
	fs_notify_wait(fs, 5000);
	return 0;
}
