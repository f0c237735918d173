#include "media/fsdax.h"

#include <errno.h>
#include <fcntl.h>
#include <libpmem2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "media/media_types.h"
#include "util/log.h"

static bool fsdax_reads_one(const char *path)
{
	char first = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return false;
	got = read(fd, &first, 1);
	close(fd);
	return got == 1 && first == '1';
}

bool fsdax_host(const struct media *media, char *name)
{
	char path[96], target[4096];
	struct stat st;
	const char *slash;
	ssize_t n;

	if (media->is_device || media->is_block || fstat(media->fd, &st) < 0)
		return false;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/queue/dax", major(st.st_dev), minor(st.st_dev));
	if (!fsdax_reads_one(path))
		return false;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(st.st_dev), minor(st.st_dev));
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = 0;
	slash = strrchr(target, '/');
	snprintf(name, FSDAX_NAME_BYTES, "%.*s", FSDAX_NAME_BYTES - 1, slash ? slash + 1 : target);
	return true;
}

int fsdax_badblocks(struct media *media, int (*visit)(void *arg, devoff_t offset, uint64_t length), void *arg)
{
	struct pmem2_badblock_context *context;
	struct pmem2_badblock block;
	int rc = pmem2_badblock_context_new(&context, media->pmem_source);

	if (rc) {
		log_debug("%s: %s", media->path, pmem2_errormsg());
		return -EIO;
	}
	while (rc == 0 && pmem2_badblock_next(context, &block) == 0)
		if (block.offset < media->size)
			rc = visit(arg, block.offset, min_u64(block.length, media->size - block.offset));
	pmem2_badblock_context_delete(&context);
	return rc;
}
