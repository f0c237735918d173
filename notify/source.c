#include "notify/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "media/fsdax.h"

int source_list_add(struct source_list *list, devoff_t offset, uint64_t length)
{
	/* A power of two, or none: full. */
	if ((list->count & (list->count - 1)) == 0) {
		const size_t capacity = list->count ? list->count * 2 : 1;
		struct source_badblock *blocks = reallocarray(list->blocks, capacity, sizeof(*blocks));

		if (!blocks)
			return -ENOMEM;
		list->blocks = blocks;
	}
	list->blocks[list->count++] = (struct source_badblock){.offset = offset, .length = length};
	return 0;
}

void source_list_fini(struct source_list *list)
{
	free(list->blocks);
	list->blocks = NULL;
	list->count = 0;
}

const char *source_state_name(enum source_state state)
{
	static const char *const names[] = {[SOURCE_NONE] = NULL, [SOURCE_KNOWN] = "known", [SOURCE_UNKNOWN] = "unknown"};

	return names[state];
}

static int file_take(void *arg, devoff_t offset, uint64_t length)
{
	return source_list_add(arg, offset, length);
}

static int file_badblocks(struct media *media, struct source_list *out)
{
	char host[FSDAX_NAME_BYTES];
	int rc;

	if (!fsdax_host(media, host))
		return 0;
	out->state = SOURCE_UNKNOWN;
	if (strncmp(host, "pmem", 4) != 0) {
		why_set(&out->why, 0, "%s lies on %s: what is bad below that cannot be told", media_path(media), host);
		return 0;
	}
	rc = fsdax_badblocks(media, file_take, out);
	if (rc == 0)
		out->state = SOURCE_KNOWN;
	else if (rc != -ENOMEM)
		rc = why_set(&out->why, 0, "the bad blocks of /dev/%s cannot be read: %s", host, strerror(-rc));
	return rc;
}

int source_badblocks(struct media *media, struct source_list *out)
{
	int rc = 0;

	*out = (struct source_list){.state = SOURCE_NONE};
	if (media_is_device(media))
		rc = source_device_badblocks(media_real_path(media), out);
	else if (!media_is_block(media))
		rc = file_badblocks(media, out);
	if (rc)
		source_list_fini(out);
	return rc;
}

static int file_watch(const char *host)
{
	char path[FSDAX_NAME_BYTES + 32];
	int fd;

	snprintf(path, sizeof(path), "/sys/block/%s/badblocks", host);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int source_watch(struct media *media)
{
	char host[FSDAX_NAME_BYTES];

	if (media_is_device(media))
		return source_device_watch(media_real_path(media));
	return fsdax_host(media, host) ? file_watch(host) : -ENOTSUP;
}
