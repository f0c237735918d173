#include "media/access.h"

#include <errno.h>
#include <string.h>

#include "media/fault.h"
#include "media/lines.h"

/* One pass of the copy from where it stands to `end`, which may end in a fault. */
static bool access_step(struct media *media, struct access *access, devoff_t end,
			struct guard_fault *fault)
{
	const struct media_backend *backend = media->backend;
	devoff_t at = access_at(access);
	size_t length = (size_t)(end - at);
	size_t done;

	switch (access->kind) {
	case ACCESS_LOAD:
		done = backend->load(media, at, access->to + access->done, length, fault);
		break;
	case ACCESS_STORE:
		done = backend->store(media, at, access->from + access->done, length, fault);
		break;
	case ACCESS_ZERO:
		done = backend->zero(media, at, length, fault);
		break;
	default:
		done = backend->store_line(media, at, access->from, fault);
		break;
	}
	access->done += done;
	return done == length;
}

/*
 * The known set is asked again after each fault: it has usually just grown, also by what other
 * threads met. Loads fill what lies before the first bad byte, stores refuse beforehand.
 */
static int access_run(struct media *media, struct access *access, devoff_t *bad)
{
	struct guard_fault fault;

	while (access->done < access->length) {
		devoff_t end = access_end(access), bad_end, first;
		int error;

		if (known_find(&media->known, access_at(access), end, bad, &bad_end)) {
			if (access->kind != ACCESS_LOAD || *bad == access_at(access))
				return -EIO;
			end = *bad;
		}
		if (media->is_device &&
		    poison_find(&media->poison, access_at(access), end, &first)) {
			if (access->kind != ACCESS_LOAD || first == access_at(access))
				return fault_injected(media, first, bad);
			end = first;
		}
		if (access_step(media, access, end, &fault))
			continue;
		error = fault_resolve(media, access, &fault, bad);
		if (error < 0)
			return error;
	}
	return 0;
}

static bool access_in_range(const struct media *media, devoff_t offset, uint64_t length)
{
	return offset <= media->size && length <= media->size - offset;
}

int media_read(struct media *media, devoff_t offset, void *buffer, size_t length, devoff_t *bad)
{
	struct access access = {
	    .kind = ACCESS_LOAD, .offset = offset, .to = buffer, .length = length};
	devoff_t ignored;

	if (!access_in_range(media, offset, length))
		return -ERANGE;
	counts_add(&media->counts, COUNT_READS, 1);
	counts_add(&media->counts, COUNT_READ_BYTES, length);
	return access_run(media, &access, bad ? bad : &ignored);
}

static int access_write(struct media *media, struct access *access, devoff_t *bad)
{
	devoff_t ignored;
	int error;

	if (media->readonly)
		return -EROFS;
	if (!access_in_range(media, access->offset, access->length))
		return -ERANGE;
	if (!stop_enter(&media->stop))
		return -EIO;
	counts_add(&media->counts, COUNT_WRITES, 1);
	counts_add(&media->counts, COUNT_WRITE_BYTES, access->length);
	error = access_run(media, access, bad ? bad : &ignored);
	if (media->granularity == MEDIA_PAGE)
		dirty_mark(&media->dirty, access->offset, access->done);
	stop_leave(&media->stop);
	if (error == 0)
		fault_note_store(media);
	return error;
}

int media_write(struct media *media, devoff_t offset, const void *buffer, size_t length,
		devoff_t *bad)
{
	struct access access = {
	    .kind = ACCESS_STORE, .offset = offset, .from = buffer, .length = length};

	return access_write(media, &access, bad);
}

int media_zero(struct media *media, devoff_t offset, uint64_t length, devoff_t *bad)
{
	struct access access = {.kind = ACCESS_ZERO, .offset = offset, .length = length};

	return access_write(media, &access, bad);
}

int media_write_line(struct media *media, devoff_t offset, const void *line, devoff_t *bad)
{
	struct access access = {
	    .kind = ACCESS_LINE, .offset = offset, .from = line, .length = LINE_BYTES};

	if (offset % LINE_BYTES)
		return -EINVAL;
	return access_write(media, &access, bad);
}

void media_drain(struct media *media)
{
	counts_add(&media->counts, COUNT_DRAINS, 1);
	media->backend->drain(media);
}

int media_sync(struct media *media)
{
	if (media_is_stopped(media))
		return -EIO;
	counts_add(&media->counts, COUNT_SYNCS, 1);
	return media->backend->sync(media);
}

void media_hold(struct media *media)
{
	stop_raise(&media->stop, STOP_OTHERS);
}

void media_stop(struct media *media)
{
	stop_raise(&media->stop, STOP_ALL);
}

bool media_is_stopped(const struct media *media)
{
	return stop_is_all(&media->stop);
}
