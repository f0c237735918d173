#include "media/grow.h"

#include <errno.h>
#include <libpmem2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Address space costs nothing; a process has 128 TiB. */
#define GROW_ROOM_MIN (UINT64_C(1) << 40)
#define GROW_ROOM_LEAST (UINT64_C(1) << 34) /* under a limit, or a sanitizer */
#define GROW_ROOM_MAX (UINT64_C(1) << 44)
#define GROW_FACTOR 16u
/* A longer file could not be mapped again. */
#define GROW_BYTES_MAX (UINT64_C(1) << 46)

uint64_t grow_room(const struct media *media)
{
	return max_u64(GROW_ROOM_MIN, min_u64(GROW_ROOM_MAX, media->size * GROW_FACTOR));
}

void grow_reserve(struct media *media)
{
	uint64_t room = grow_room(media);

	for (; room >= max_u64(GROW_ROOM_LEAST, media->size); room /= 4) {
		if (pmem2_vm_reservation_new(&media->room, NULL, round_up_u64(room, HUGE_BYTES)))
			continue;
		media->limit = round_up_u64(room, HUGE_BYTES);
		return;
	}
	media->room = NULL;
}

void grow_unreserve(struct media *media)
{
	if (media->room)
		pmem2_vm_reservation_delete(&media->room);
}

void grow_unmap(struct media *media)
{
	while (media->count_grown > 0)
		pmem2_map_delete(&media->grown[--media->count_grown]);
	free(media->grown);
	media->grown = NULL;
}

int grow_configure(struct media *media, struct pmem2_config *config, devoff_t offset)
{
	unsigned protection = PMEM2_PROT_READ | (media->readonly ? 0 : PMEM2_PROT_WRITE);
	int error = pmem2_config_set_required_store_granularity(config, PMEM2_GRANULARITY_PAGE);

	if (error == 0)
		error = pmem2_config_set_protection(config, protection);
	if (error == 0 && media->room)
		error = pmem2_config_set_vm_reservation(config, media->room, offset);
	return error;
}

static int grow_map_piece(struct media *media, struct pmem2_config *config, uint64_t size, struct pmem2_map **map)
{
	int error = grow_configure(media, config, media->size);

	if (error == 0)
		error = pmem2_config_set_offset(config, media->size);
	if (error == 0)
		error = pmem2_config_set_length(config, size - media->size);
	return error ? error : pmem2_map_new(map, config, media->pmem_source);
}

static int grow_map(struct media *media, uint64_t size, struct why *why)
{
	struct pmem2_map **grown = realloc(media->grown, (media->count_grown + 1) * sizeof(struct pmem2_map *));
	struct pmem2_config *config = NULL;
	int error;

	if (!grown)
		return why_set(why, -ENOMEM, "no memory");
	media->grown = grown;
	error = pmem2_config_new(&config);
	if (error == 0) {
		error = grow_map_piece(media, config, size, &grown[media->count_grown]);
		pmem2_config_delete(&config);
	}
	if (error)
		return why_set(why, error <= PMEM2_E_UNKNOWN ? -ENOTSUP : error, "%s cannot be mapped: %s", media->path,
			       pmem2_errormsg());
	media->count_grown++;
	return 0;
}

/* The file is that long, or becomes so. */
static int grow_file(struct media *media, uint64_t *size, struct why *why)
{
	struct stat st;

	if (fstat(media->fd, &st) < 0)
		return why_set(why, -errno, "%s: %s", media->path, strerror(errno));
	if (*size == 0)
		*size = round_down_u64((uint64_t)st.st_size, BLOCK_BYTES);
	/* Durable before anything states that it is so long. */
	if (*size > (uint64_t)st.st_size && (ftruncate(media->fd, (off_t)*size) < 0 || fsync(media->fd) < 0))
		return why_set(why, -errno, "%s cannot be made %llu bytes long: %s", media->path, (unsigned long long)*size,
			       strerror(errno));
	return 0;
}

static int grow_judge(const struct media *media, uint64_t size, struct why *why)
{
	if (size % BLOCK_BYTES || size > GROW_BYTES_MAX)
		return why_set(why, -EINVAL, "a size of %llu bytes is not possible: give a multiple of %u, at most %llu",
			       (unsigned long long)size, BLOCK_BYTES, (unsigned long long)GROW_BYTES_MAX);
	if (size && size < media->size)
		return why_set(why, -EINVAL, "%s has %llu bytes: it cannot shrink", media->path, (unsigned long long)media->size);
	if (media->readonly || media_is_stopped(media))
		return why_set(why, -EROFS, "%s is open for reading only", media->path);
	return 0;
}

int media_grow(struct media *media, uint64_t size_bytes, struct why *why)
{
	int error = grow_judge(media, size_bytes, why);

	if (error)
		return error;
	if (media->is_device) {
		if (size_bytes > media->size)
			return why_set(why, -ENOTSUP, "%s has %llu bytes: make its namespace larger, then mount again", media->path,
				       (unsigned long long)media->size);
		return 0;
	}
	error = media->is_block ? block_grow_to(media, &size_bytes, why) : grow_file(media, &size_bytes, why);
	if (error || size_bytes <= media->size)
		return error;
	if ((!media->is_block && !media->room) || size_bytes > media->limit)
		return why_set(why, -ENOTSUP, "%s is longer now; unmount it, mount it again, then resize again", media->path);
	error = media->is_block ? block_map_more(media, size_bytes, why) : grow_map(media, size_bytes, why);
	if (!error)
		media->size = size_bytes;
	return error;
}
