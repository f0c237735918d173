#include "media/media.h"

#include <errno.h>
#include <fcntl.h>
#include <libpmem2.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "media/claim.h"
#include "media/device.h"
#include "media/fault.h"
#include "media/fsdax.h"
#include "media/grow.h"
#include "media/media_types.h"

#define SYSFS "/sys"

/* One opening on its way. */
struct opening {
	const char *path;
	const struct media_options *options;
	struct why *why;
	bool created; /* by us: removed again when the opening fails */
	struct stat st;
};

static int open_flags(const struct media_options *options)
{
	/* O_NONBLOCK: a FIFO at this path must not hang us. */
	return (options->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
}

static int open_create(struct opening *opening)
{
	/* The image holds every user's data, whatever the modes inside say. */
	int fd = open(opening->path, open_flags(opening->options) | O_CREAT | O_EXCL, 0600);

	if (fd < 0)
		return -errno;
	opening->created = true;
	return fd;
}

/* Look before opening: opening a tape or a FIFO has effects of its own. */
static int open_existing(struct opening *opening)
{
	enum device_kind kind;
	int error, fd;

	if (stat(opening->path, &opening->st) < 0)
		return -errno;
	error = device_check(SYSFS, opening->path, &opening->st, opening->why, &kind);
	if (error < 0)
		return error;
	fd = open(opening->path, open_flags(opening->options));
	return fd < 0 ? -errno : fd;
}

static int open_descriptor(struct opening *opening)
{
	bool may_create = opening->options->create_bytes > 0 && !opening->options->readonly;
	int fd;

	opening->why->text[0] = 0;
	fd = open_existing(opening);
	if (fd == -ENOENT && may_create) {
		fd = open_create(opening);
		if (fd == -EEXIST)
			fd = open_existing(opening);
	}
	if (fd < 0 && !opening->why->text[0])
		return device_explain_missing(SYSFS, opening->path, fd, opening->why);
	return fd;
}

/* What was opened counts, not what stat() saw a moment before. */
static int open_identify(struct opening *opening, struct media *media)
{
	char host[FSDAX_NAME_BYTES];
	enum device_kind kind;
	int error;

	if (fstat(media->fd, &opening->st) < 0)
		return why_set(opening->why, -errno, "%s: %s", opening->path, strerror(errno));
	error = device_check(SYSFS, opening->path, &opening->st, opening->why, &kind);
	media->is_device = !error && kind == DEVICE_DAX;
	media->is_block = !error && kind == DEVICE_BLOCK;
	media->is_fsdax = !error && fsdax_host(media, host);
	if (media->is_block)
		media->backend = &media_backend_block;
	return error;
}

/* While we waited for a holder to finish, it may have resized or, having failed to make it, removed
 * what we opened. */
static int open_claim(struct opening *opening, struct media *media)
{
	struct stat now;
	int error;

	if (!opening->options->claim)
		return 0;
	error = claim_take(media->fd, opening->path, opening->why, &media->claim);
	if (error < 0)
		return error;
	if (fstat(media->fd, &opening->st) < 0 || stat(opening->path, &now) < 0 ||
	    now.st_dev != opening->st.st_dev || now.st_ino != opening->st.st_ino)
		return why_set(opening->why, -ESTALE, "%s was replaced just now; try again",
			       opening->path);
	return media->is_block ? block_claim(media, opening->why) : 0;
}

static int open_resize(struct opening *opening, struct media *media)
{
	uint64_t wanted = opening->options->create_bytes;
	bool is_empty = opening->st.st_size == 0;

	if (media->is_device || media->is_block || wanted == 0 || media->readonly)
		return 0;
	if (!opening->created && !is_empty && !opening->options->resize)
		return 0;
	if (wanted < BLOCK_BYTES || wanted > INT64_MAX)
		return why_set(opening->why, -EINVAL, "%s: a size of %llu bytes is not possible",
			       opening->path, (unsigned long long)wanted);
	if (ftruncate(media->fd, (off_t)wanted) < 0)
		return why_set(opening->why, -errno, "%s cannot be made %llu bytes long: %s",
			       opening->path, (unsigned long long)wanted, strerror(errno));
	opening->st.st_size = (off_t)wanted;
	return 0;
}

static int open_measure(struct opening *opening, struct media *media)
{
	uint64_t size = (uint64_t)opening->st.st_size;

	int error = 0;

	if (media->is_device)
		error = device_size(SYSFS, &opening->st, opening->why, &size);
	else if (media->is_block)
		error = block_measure(media, opening->why, &size);
	if (error < 0)
		return error;
	media->size = round_down_u64(size, BLOCK_BYTES);
	media->limit = media->size;
	if (media->size == 0)
		return why_set(opening->why, -EINVAL,
			       "%s has %llu bytes, which is less than one block of %u",
			       opening->path, (unsigned long long)size, BLOCK_BYTES);
	/* The top 8 bits of an offset are the device number. */
	if (media->size >> 56)
		return why_set(opening->why, -EFBIG, "%s is larger than 64 PiB", opening->path);
	return 0;
}

static int open_explain_pmem2(struct opening *opening, int error)
{
	/* libpmem2 answers a negative errno, or a code of its own from -100000 down. */
	return why_set(opening->why, error <= PMEM2_E_UNKNOWN ? -ENOTSUP : error,
		       "%s cannot be mapped: %s", opening->path, pmem2_errormsg());
}

static int open_configure(struct media *media, struct pmem2_config *config)
{
	int error = grow_configure(media, config, 0);

	return error ? error : pmem2_config_set_length(config, media->size);
}

static int open_map_source(struct opening *opening, struct media *media)
{
	struct pmem2_config *config = NULL;
	size_t alignment;
	int error = pmem2_source_alignment(media->pmem_source, &alignment);

	if (error == 0)
		error = pmem2_config_new(&config);
	if (error)
		return open_explain_pmem2(opening, error);
	media->alignment = alignment;
	if (media->is_device) {
		media->limit = round_down_u64(media->size, alignment);
		media->size = media->limit;
	} else {
		grow_reserve(media);
	}
	error = open_configure(media, config);
	if (error == 0)
		error = pmem2_map_new(&media->pmem_map, config, media->pmem_source);
	pmem2_config_delete(&config);
	return error ? open_explain_pmem2(opening, error) : 0;
}

static void open_adopt_map(struct media *media)
{
	static const enum media_granularity granularities[] = {
	    [PMEM2_GRANULARITY_BYTE] = MEDIA_BYTE,
	    [PMEM2_GRANULARITY_CACHE_LINE] = MEDIA_CACHELINE,
	    [PMEM2_GRANULARITY_PAGE] = MEDIA_PAGE,
	};
	struct pmem2_map *map = media->pmem_map;

	media->map.base = pmem2_map_get_address(map);
	media->map.length = media->limit;
	media->granularity = granularities[pmem2_map_get_store_granularity(map)];
	if (media->granularity == MEDIA_PAGE)
		return; /* libpmem2's flush and drain would msync there, and abort when that fails
			 */
	media->flush = pmem2_get_flush_fn(map);
	media->fence = pmem2_get_drain_fn(map);
}

static int open_map(struct opening *opening, struct media *media)
{
	int error;

	if (media->is_block)
		return block_map(media, opening->why);
	error = pmem2_source_from_fd(&media->pmem_source, media->fd);
	if (error)
		return open_explain_pmem2(opening, error);
	error = open_map_source(opening, media);
	if (error < 0)
		goto err_source;
	open_adopt_map(media);
	return 0;

err_source:
	pmem2_source_delete(&media->pmem_source);
	return error;
}

static int open_parts(struct opening *opening, struct media *media)
{
	int error = guard_install();

	if (error < 0)
		return why_set(opening->why, error, "no handler for SIGBUS: %s", strerror(-error));
	if (dirty_init(&media->dirty, media->limit) < 0 || known_init(&media->known) < 0 ||
	    poison_init(&media->poison, media->is_device || media->is_block ? NULL : media->real_path) < 0 ||
	    pthread_mutex_init(&media->handler_lock, NULL) != 0)
		return why_set(opening->why, -ENOMEM, "no memory");
	if (media->granularity == MEDIA_PAGE)
		dirty_assume_all(&media->dirty);
	return 0;
}

static int open_names(struct opening *opening, struct media *media)
{
	media->path = strdup(opening->path);
	media->real_path = realpath(opening->path, NULL);
	if (media->path && media->real_path)
		return 0;
	return why_set(opening->why, -errno, "%s: %s", opening->path, strerror(errno));
}

static void media_free(struct media *media)
{
	grow_unmap(media);
	if (media->pmem_map)
		pmem2_map_delete(&media->pmem_map);
	grow_unreserve(media);
	block_unmap(media);
	if (media->pmem_source)
		pmem2_source_delete(&media->pmem_source);
	dirty_fini(&media->dirty);
	known_fini(&media->known);
	poison_fini(&media->poison);
	pthread_mutex_destroy(&media->handler_lock);
	/* Last: nothing of ours touches the medium any more when the next one gets it. */
	media_hand_over(media);
	claim_drop(media->claim);
	if (media->fd >= 0)
		close(media->fd);
	free(media->path);
	free(media->real_path);
	free(media);
}

static int open_stages(struct opening *opening, struct media *media)
{
	int error = open_identify(opening, media);

	if (error == 0)
		error = open_names(opening, media);
	if (error == 0)
		error = open_claim(opening, media);
	if (error == 0)
		error = open_resize(opening, media);
	if (error == 0)
		error = open_measure(opening, media);
	if (error == 0)
		error = open_map(opening, media);
	if (error == 0)
		error = open_parts(opening, media);
	return error;
}

int media_open(const char *path, const struct media_options *options, struct why *why,
	       struct media **out)
{
	struct opening opening = {.path = path, .options = options, .why = why};
	struct media *media = aligned_alloc(64, round_up_u64(sizeof(*media), 64));
	int error;

	if (!media)
		return why_set(why, -ENOMEM, "no memory");
	memset(media, 0, sizeof(*media));
	media->readonly = options->readonly;
	block_init(&media->block);
	media->backend = &media_backend_mapped;
	media->fd = open_descriptor(&opening);
	error = media->fd < 0 ? media->fd : open_stages(&opening, media);
	if (error < 0)
		goto err_free;
	*out = media;
	return 0;

err_free:
	if (opening.created)
		unlink(path);
	media_free(media);
	return error;
}

int media_close(struct media *media)
{
	int error = media_is_stopped(media) ? 0 : media_sync(media);

	media_free(media);
	return error;
}

struct claim *media_claim(struct media *media)
{
	return media->claim;
}

uint64_t media_size(const struct media *media)
{
	return media->size;
}

uint64_t media_alignment(const struct media *media)
{
	return media->alignment;
}

enum media_granularity media_granularity(const struct media *media)
{
	return media->granularity;
}

const char *media_granularity_name(enum media_granularity granularity)
{
	static const char *const names[] = {
	    [MEDIA_BYTE] = "byte", [MEDIA_CACHELINE] = "cacheline", [MEDIA_PAGE] = "page"};

	return names[granularity];
}

bool media_is_device(const struct media *media)
{
	return media->is_device;
}

bool media_is_block(const struct media *media)
{
	return media->is_block;
}

bool media_is_readonly(const struct media *media)
{
	return media->readonly;
}

int media_unsafe_shutdowns(struct media *media, uint64_t *count)
{
	if (!media->is_device || pmem2_source_device_usc(media->pmem_source, count))
		return -ENOTSUP;
	return 0;
}

const char *media_path(const struct media *media)
{
	return media->path;
}

const char *media_real_path(const struct media *media)
{
	return media->real_path;
}

int media_fd(const struct media *media)
{
	return media->fd;
}

void media_counts(const struct media *media, struct media_counts *out)
{
	const struct counts *counts = &media->counts;

	*out = (struct media_counts){
	    .reads = counts_total(counts, COUNT_READS),
	    .read_bytes = counts_total(counts, COUNT_READ_BYTES),
	    .writes = counts_total(counts, COUNT_WRITES),
	    .write_bytes = counts_total(counts, COUNT_WRITE_BYTES),
	    .drains = counts_total(counts, COUNT_DRAINS),
	    .syncs = counts_total(counts, COUNT_SYNCS),
	    .sigbus = counts_total(counts, COUNT_SIGBUS),
	};
}

void media_set_fault_handler(struct media *media, media_fault_fn *handler, void *arg)
{
	pthread_mutex_lock(&media->handler_lock);
	media->handler = handler;
	media->handler_arg = arg;
	pthread_mutex_unlock(&media->handler_lock);
}
