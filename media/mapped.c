/* The backend that stores to the mapping itself. */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "media/lines.h"
#include "media/media_types.h"

/* Below this a reader soon after gains more from the cache than the store gains from going around
 * it. */
#define MAPPED_STREAM_BYTES (256u << 10)

/* On CACHELINE media whole lines always go around the cache: that saves a flush of each. */
static struct guard_how mapped_how(const struct media *media, uint64_t length)
{
	return (struct guard_how){
	    .nontemporal = media->granularity == MEDIA_CACHELINE || length >= MAPPED_STREAM_BYTES,
	    .flush = media->granularity == MEDIA_CACHELINE ? media->flush : NULL,
	};
}

static size_t mapped_load(struct media *media, devoff_t offset, void *to, size_t length,
			  struct guard_fault *fault)
{
	return guard_load(&media->map, offset, to, length, fault);
}

static size_t mapped_store(struct media *media, devoff_t offset, const void *from, size_t length,
			   struct guard_fault *fault)
{
	struct guard_how how = mapped_how(media, length);

	return guard_store(&media->map, offset, from, length, &how, fault);
}

static size_t mapped_zero(struct media *media, devoff_t offset, size_t length,
			  struct guard_fault *fault)
{
	struct guard_how how = mapped_how(media, length);

	return guard_zero(&media->map, offset, length, &how, fault);
}

static size_t mapped_store_line(struct media *media, devoff_t offset, const void *line,
				struct guard_fault *fault)
{
	struct guard_how how = mapped_how(media, LINE_BYTES);

	return guard_store_line(&media->map, offset, line, &how, fault);
}

static int mapped_sync_pages(struct media *media)
{
	struct dirty_sync *sync = &media->dirty.sync;
	devoff_t start, end;

	if (sync->error)
		return sync->error;
	if (dirty_take(&media->dirty, &start, &end)) {
		end = min_u64(end, media->size);
		if (msync(media->map.base + start, end - start, MS_SYNC) < 0)
			sync->error = -errno;
	}
	/* What went through the descriptor lies under pages that the mapping does not show. */
	if (atomic_exchange(&media->dirty.outside_mapping, false) && fdatasync(media->fd) < 0)
		sync->error = sync->error ? sync->error : -errno;
	return sync->error;
}

static void mapped_fence(const struct media *media)
{
	if (media->fence)
		media->fence();
	else
		line_fence();
}

static int mapped_sync(struct media *media)
{
	int error;

	/* BYTE, CACHELINE: durable now is all this thread stored to the mapping. */
	mapped_fence(media);
	if (media->readonly || media->is_device)
		return 0;
	/* One at a time: whoever finds nothing dirty must not return before the msync that took the
	 * marks. */
	pthread_mutex_lock(&media->dirty.sync.lock);
	error = mapped_sync_pages(media);
	pthread_mutex_unlock(&media->dirty.sync.lock);
	return error;
}

/* PAGE: only ordered before later stores, as other threads see it. */
static void mapped_drain(struct media *media)
{
	bool outside = atomic_load_explicit(&media->dirty.outside_mapping, memory_order_relaxed);

	if (media->granularity != MEDIA_PAGE && outside)
		mapped_sync(media); /* an error stays for media_sync() */
	else
		mapped_fence(media);
}

const struct media_backend media_backend_mapped = {
    .load = mapped_load,
    .store = mapped_store,
    .zero = mapped_zero,
    .store_line = mapped_store_line,
    .drain = mapped_drain,
    .sync = mapped_sync,
    .clear = clear_mapped,
    .discard = discard_mapped,
};

/* A block device's page cache is mapped as a file's is. */
const struct media_backend media_backend_block = {
    .load = mapped_load,
    .store = mapped_store,
    .zero = mapped_zero,
    .store_line = mapped_store_line,
    .drain = mapped_drain,
    .sync = mapped_sync,
    .clear = clear_block,
};
