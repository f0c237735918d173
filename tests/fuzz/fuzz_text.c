/*
 * Target: text from strangers: IMAGE.poison, which anybody may have written who can write beside the image, and what answers mendctl on a socket.
 * Input: mode (1), the text.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "media/poison_file.h"
#include "tests/fuzz/bytes.h"
#include "tests/fuzz/mutator.h"
#include "tests/fuzz/target.h"
/* Its parser begins behind the connect(). */
#include "mendctl/client.c"

#define IMAGE_BYTES (16ull << 20)
#define LINES_MAX 1000u

enum text_mode {
	TEXT_CLIENT = 1,  /* else IMAGE.poison */
	TEXT_REPLACE = 2, /* and write it again */
};

static char path[64] = "/dev/shm/mendfs-fuzz-XXXXXX";

/* --- IMAGE.poison --- */

static void put_file(const struct bytes *bytes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, bytes->at, bytes->left) != (ssize_t)bytes->left)
		abort();
	close(fd);
}

static bool sets_are_equal(const struct iset *a, const struct iset *b)
{
	for (size_t i = 0; i < a->count && a->count == b->count; i++)
		if (a->ranges[i].start != b->ranges[i].start || a->ranges[i].end != b->ranges[i].end || a->ranges[i].tag != b->ranges[i].tag)
			return false;
	return a->count == b->count;
}

static void write_and_read(const struct iset *set, const struct poison_tie *tie)
{
	struct poison_tie again_tie;
	struct why why = {0};
	struct iset again;

	iset_init(&again);
	if (poison_file_replace(path, -1, set, tie))
		target_fail("what was read cannot be written", "");
	if (set->count && poison_file_read(path, IMAGE_BYTES, &again, &again_tie, &why))
		target_fail("what was written cannot be read", why.text);
	if (!sets_are_equal(set, &again))
		target_fail("what was written reads differently", "");
	iset_fini(&again);
}

static void read_poison(const struct bytes *bytes, uint8_t mode)
{
	struct poison_tie tie;
	struct why why = {0};
	struct iset set;
	int error;

	iset_init(&set);
	put_file(bytes);
	error = poison_file_read(path, IMAGE_BYTES, &set, &tie, &why);
	if (error && !why.text[0])
		target_fail("IMAGE.poison was refused without a word", "");
	for (size_t i = 0; i < set.count; i++)
		if (set.ranges[i].end > IMAGE_BYTES)
			target_fail("a range outside the image was believed", "");
	if (!error && mode & TEXT_REPLACE)
		write_and_read(&set, &tie);
	iset_fini(&set);
}

/* --- the daemon's answers --- */

static void read_answers(int fd)
{
	struct json_object *object;
	struct client *client;
	struct why why = {0};
	int more = 1;

	if (open_connected(fd, 1, &why, &client)) {
		if (!why.text[0])
			target_fail("a daemon was refused without a word", "");
		return;
	}
	client_limit(client, 1);
	client_mountpoint(client);
	for (unsigned i = 0; i < LINES_MAX && more > 0; i++) {
		more = client_next(client, &object, &why);
		if (more >= 0)
			json_object_put(object);
	}
	client_close(client);
}

static void talk(const struct bytes *bytes)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		abort();
	if (bytes->left && send(ends[1], bytes->at, bytes->left, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		abort();
	shutdown(ends[1], SHUT_WR);
	read_answers(ends[0]); /* closes it */
	close(ends[1]);
}

/* --- what libFuzzer calls --- */

static void remove_file(void)
{
	unlink(path);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	int fd = mkstemp(path);

	target_begin();
	if (fd < 0)
		abort();
	close(fd);
	atexit(remove_file);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes bytes = {data, size};
	uint8_t mode = bytes_u8(&bytes);

	if (mode & TEXT_CLIENT)
		talk(&bytes);
	else
		read_poison(&bytes, mode);
	return 0;
}
