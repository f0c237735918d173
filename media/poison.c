#include "media/poison.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "media/media_types.h"
#include "media/poison_file.h"
#include "util/log.h"

int poison_init(struct poison *poison, const char *image)
{
	atomic_init(&poison->count, 0);
	iset_init(&poison->set);
	poison->empty_fd = -1;
	poison->file = NULL;
	if (image && asprintf(&poison->file, "%s.poison", image) < 0) {
		poison->file = NULL;
		return -ENOMEM;
	}
	if (pthread_mutex_init(&poison->change_lock, NULL) != 0 ||
	    pthread_rwlock_init(&poison->lock, NULL) != 0)
		return -ENOMEM;
	return 0;
}

void poison_fini(struct poison *poison)
{
	iset_fini(&poison->set);
	free(poison->file);
	if (poison->empty_fd > 0)
		close(poison->empty_fd);
	pthread_mutex_destroy(&poison->change_lock);
	pthread_rwlock_destroy(&poison->lock);
}

static bool poison_any(const struct poison *poison)
{
	return atomic_load_explicit(&poison->count, memory_order_acquire) != 0;
}

bool poison_find(struct poison *poison, uint64_t start, uint64_t end, uint64_t *first)
{
	const struct iset_range *range;

	if (!poison_any(poison))
		return false;
	pthread_rwlock_rdlock(&poison->lock);
	range = iset_find(&poison->set, start, end);
	if (range)
		*first = max_u64(range->start, start);
	pthread_rwlock_unlock(&poison->lock);
	return range != NULL;
}

enum poison_answer poison_ask(struct poison *poison, uint64_t at, uint64_t end, uint64_t *first)
{
	uint64_t page = round_down_u64(at, BLOCK_BYTES);
	enum poison_answer answer = POISON_NOT_TRAPPED;
	const struct iset_range *range;

	/* Taken even when nothing is armed: whoever lifted this trap a moment ago must have
	 * finished. */
	pthread_rwlock_rdlock(&poison->lock);
	range = iset_find(&poison->set, at, end);
	if (range) {
		*first = max_u64(range->start, at);
		answer = POISON_CONSUMED;
	} else if (iset_overlaps(&poison->set, page, page + BLOCK_BYTES)) {
		answer = POISON_INNOCENT;
	}
	pthread_rwlock_unlock(&poison->lock);
	return answer;
}

static int trap_protection(const struct media *media)
{
	return PROT_READ | (media->readonly ? 0 : PROT_WRITE);
}

static int trap_set(struct media *media, uint64_t start, uint64_t end)
{
	struct poison *poison = &media->poison;

	start = round_down_u64(start, BLOCK_BYTES);
	end = round_up_u64(end, BLOCK_BYTES);
	if (poison->empty_fd < 0)
		poison->empty_fd = memfd_create("mendfs-poison", MFD_CLOEXEC);
	if (poison->empty_fd < 0)
		return -errno;
	if (mmap(media->map.base + start, end - start, trap_protection(media),
		 MAP_SHARED | MAP_FIXED, poison->empty_fd, 0) == MAP_FAILED)
		return -errno;
	/* Stores to the page that was there are dirty in the file, where an msync of the mapping no
	 * longer finds them. */
	atomic_store(&media->dirty.outside_mapping, true);
	return 0;
}

/* The file's own pages again. As libpmem2 mapped them: MAP_SYNC where the filesystem has it. */
static int trap_lift(struct media *media, uint64_t start, uint64_t end)
{
	void *at = media->map.base + start;
	int protection = trap_protection(media);

	if (start >= end)
		return 0;
	if (media->granularity != MEDIA_PAGE &&
	    mmap(at, end - start, protection, MAP_SHARED_VALIDATE | MAP_SYNC | MAP_FIXED, media->fd,
		 (off_t)start) != MAP_FAILED)
		return 0;
	if (mmap(at, end - start, protection, MAP_SHARED | MAP_FIXED, media->fd, (off_t)start) ==
	    MAP_FAILED)
		return -errno;
	return 0;
}

/* Lift what [start, end) trapped, but for an outer page in which something else of `left` is armed.
 */
static int trap_lift_range(struct media *media, const struct iset *left, uint64_t start,
			   uint64_t end)
{
	uint64_t first = round_down_u64(start, BLOCK_BYTES);
	uint64_t last = round_up_u64(end, BLOCK_BYTES);

	if (iset_overlaps(left, first, first + BLOCK_BYTES))
		first += BLOCK_BYTES;
	if (first < last && iset_overlaps(left, last - BLOCK_BYTES, last))
		last -= BLOCK_BYTES;
	return trap_lift(media, first, last);
}

/* Every range of `old` within [start, end), which `left` no longer has. */
static int trap_lift_all(struct media *media, const struct iset *old, const struct iset *left,
			 uint64_t start, uint64_t end)
{
	while (start < end) {
		const struct iset_range *range = iset_find(old, start, end);
		int error;

		if (!range)
			return 0;
		error = trap_lift_range(media, left, max_u64(range->start, start),
					min_u64(range->end, end));
		if (error < 0)
			return error;
		start = range->end;
	}
	return 0;
}

static int trap_device(struct media *media, uint64_t start, uint64_t end)
{
	uint64_t page = round_down_u64(start, BLOCK_BYTES);

	for (; page < end; page += BLOCK_BYTES) {
		int error = guard_hwpoison(&media->map, page, BLOCK_BYTES);

		if (error < 0)
			return error;
	}
	return 0;
}

/* Under the write lock: copies that fault meanwhile wait in poison_ask() and then see both changed.
 */
static void poison_swap(struct poison *poison, struct iset *set)
{
	struct iset old = poison->set;

	poison->set = *set;
	*set = old;
	atomic_store_explicit(&poison->count, poison->set.count, memory_order_release);
}

static int poison_record(struct media *media, const struct iset *set)
{
	const struct poison *poison = &media->poison;

	return poison->file ? poison_file_replace(poison->file, media->fd, set, &poison->tie) : 0;
}

/* Trap [start, end) and let `set` count; on failure nothing is changed. Takes what is in `set`. */
static int poison_arm_now(struct media *media, struct iset *set, uint64_t start, uint64_t end)
{
	struct poison *poison = &media->poison;
	int error;

	pthread_rwlock_wrlock(&poison->lock);
	error = media->is_device ? trap_device(media, start, end) : trap_set(media, start, end);
	if (error == 0)
		poison_swap(poison, set);
	pthread_rwlock_unlock(&poison->lock);
	return error;
}

static int poison_arm_locked(struct media *media, uint64_t start, uint64_t end, uint32_t tag)
{
	struct iset set;
	int error = iset_copy(&set, &media->poison.set);

	if (error < 0)
		return error;
	error = iset_add(&set, start, end, tag);
	if (error == 0)
		error = poison_record(media, &set);
	if (error < 0)
		goto out;
	error = poison_arm_now(media, &set, start, end);
	if (error < 0 && poison_record(media, &media->poison.set) < 0)
		log_error("%s lists more than is armed", media->poison.file);
out:
	iset_fini(&set);
	return error;
}

static bool poison_in_range(const struct media *media, devoff_t offset, uint64_t length)
{
	return offset < media->size && length <= media->size - offset;
}

int media_poison_arm(struct media *media, devoff_t offset, uint64_t length, bool latent)
{
	int error;

	if (length == 0)
		return -EINVAL;
	if (!poison_in_range(media, offset, length))
		return -ERANGE;
	pthread_mutex_lock(&media->poison.change_lock);
	error = poison_arm_locked(media, offset, offset + length,
				  latent ? POISON_LATENT : POISON_NOTIFIED);
	pthread_mutex_unlock(&media->poison.change_lock);
	return error;
}

static int poison_disarm_locked(struct media *media, uint64_t start, uint64_t end,
				uint64_t *removed_bytes)
{
	struct poison *poison = &media->poison;
	uint64_t before = iset_bytes(&poison->set);
	struct iset set;
	int error;

	*removed_bytes = 0;
	if (!iset_overlaps(&poison->set, start, end))
		return 0;
	error = iset_copy(&set, &poison->set);
	if (error == 0)
		error = iset_remove(&set, start, end);
	if (error == 0)
		error = poison_record(media, &set);
	if (error < 0)
		goto out;
	*removed_bytes = before - iset_bytes(&set);
	pthread_rwlock_wrlock(&poison->lock);
	poison_swap(poison, &set);
	if (!media->is_device)
		error = trap_lift_all(media, &set, &poison->set, start, end);
	pthread_rwlock_unlock(&poison->lock);
out:
	iset_fini(&set);
	return error;
}

int media_poison_disarm(struct media *media, devoff_t offset, uint64_t length,
			uint64_t *removed_bytes)
{
	int error;

	if (length == 0)
		return -EINVAL;
	if (!poison_in_range(media, offset, length))
		return -ERANGE;
	pthread_mutex_lock(&media->poison.change_lock);
	error = poison_disarm_locked(media, offset, offset + length, removed_bytes);
	pthread_mutex_unlock(&media->poison.change_lock);
	return error;
}

/* Trap everything in `loaded`, on top of what is armed. */
static int poison_adopt(struct media *media, const struct iset *loaded)
{
	struct iset set;
	int error = iset_copy(&set, &media->poison.set);

	for (size_t i = 0; error == 0 && i < loaded->count; i++)
		error = iset_add(&set, loaded->ranges[i].start, loaded->ranges[i].end,
				 loaded->ranges[i].tag);
	pthread_rwlock_wrlock(&media->poison.lock);
	for (size_t i = 0; error == 0 && i < loaded->count; i++)
		error = trap_set(media, loaded->ranges[i].start, loaded->ranges[i].end);
	if (error == 0)
		poison_swap(&media->poison, &set);
	pthread_rwlock_unlock(&media->poison.lock);
	iset_fini(&set);
	return error;
}

/* What a load without a uuid took over turns out to be another filesystem's: lift it; its file
 * stays as it is. */
static int poison_disown(struct media *media, const struct iset *loaded)
{
	struct iset set;
	int error = iset_copy(&set, &media->poison.set);

	if (error < 0)
		return error;
	for (size_t i = 0; error == 0 && i < loaded->count; i++)
		error = iset_remove(&set, loaded->ranges[i].start, loaded->ranges[i].end);
	if (error == 0) {
		pthread_rwlock_wrlock(&media->poison.lock);
		poison_swap(&media->poison, &set);
		error = trap_lift_all(media, &set, &media->poison.set, 0, media->size);
		pthread_rwlock_unlock(&media->poison.lock);
	}
	iset_fini(&set);
	return error;
}

static void poison_tie_to(struct poison *poison, const uint8_t *uuid)
{
	poison->tie.tied = true;
	memcpy(poison->tie.uuid, uuid, sizeof(poison->tie.uuid));
}

static int poison_load_locked(struct media *media, const uint8_t *uuid, struct why *why)
{
	struct poison *poison = &media->poison;
	struct poison_tie tie;
	struct iset loaded;
	int error;

	iset_init(&loaded);
	error = poison_file_read(poison->file, media->size, &loaded, &tie, why);
	if (uuid)
		poison_tie_to(poison, uuid);
	else if (error == 0)
		poison->tie = tie;
	if (error == -ENOENT) {
		error = 0;
	} else if (error == 0 && uuid && tie.tied && memcmp(tie.uuid, uuid, 16) != 0) {
		log_warning("%s belongs to another filesystem and is ignored", poison->file);
		error = poison_disown(media, &loaded);
	} else if (error == 0) {
		error = poison_adopt(media, &loaded);
		if (error < 0)
			why_set(why, error, "%s: %zu ranges cannot be armed: %s", poison->file,
				loaded.count, strerror(-error));
	}
	iset_fini(&loaded);
	return error;
}

int media_poison_load(struct media *media, const uint8_t *uuid, struct why *why)
{
	int error;

	if (!media->poison.file)
		return 0;
	pthread_mutex_lock(&media->poison.change_lock);
	error = poison_load_locked(media, uuid, why);
	pthread_mutex_unlock(&media->poison.change_lock);
	return error;
}

int media_poison_tie(struct media *media, const uint8_t *uuid, struct why *why)
{
	struct poison *poison = &media->poison;
	int error = 0;

	pthread_mutex_lock(&poison->change_lock);
	poison_tie_to(poison, uuid);
	if (poison->set.count)
		error = poison_record(media, &poison->set);
	pthread_mutex_unlock(&poison->change_lock);
	if (error < 0)
		return why_set(why, error, "%s: %s", poison->file, strerror(-error));
	return 0;
}

int media_poison_list(struct media *media, struct media_poison **out, size_t *count)
{
	struct poison *poison = &media->poison;
	struct media_poison *list;
	size_t n;

	pthread_rwlock_rdlock(&poison->lock);
	n = poison->set.count;
	list = calloc(n ? n : 1, sizeof(*list));
	for (size_t i = 0; list && i < n; i++) {
		const struct iset_range *range = &poison->set.ranges[i];

		list[i] = (struct media_poison){.offset = range->start,
						.length = range->end - range->start,
						.latent = range->tag == POISON_LATENT};
	}
	pthread_rwlock_unlock(&poison->lock);
	if (!list)
		return -ENOMEM;
	*out = list;
	*count = n;
	return 0;
}
