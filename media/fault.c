#include "media/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "media/device.h"
#include "util/log.h"

static void fault_tell(struct media *media, struct media_fault fault)
{
	media_fault_fn *handler;
	void *arg;

	pthread_mutex_lock(&media->handler_lock);
	handler = media->handler;
	arg = media->handler_arg;
	pthread_mutex_unlock(&media->handler_lock);
	if (handler)
		handler(arg, &fault);
}

bool fault_report(struct media *media, enum media_fault_kind kind, devoff_t start, devoff_t end)
{
	struct media_fault fault = {.kind = kind};
	bool is_new = true, is_first = false;
	int error;

	start = round_down_u64(start, SECTOR_BYTES);
	end = min_u64(round_up_u64(end, SECTOR_BYTES), media->size);
	fault.offset = start;
	fault.length = end - start;
	if (kind == MEDIA_FAULT_POISON)
		error = known_consume(&media->known, start, end, &is_new, &is_first);
	else
		error = known_add(&media->known, start, end, &is_new);
	if (error < 0)
		log_error("%s: no memory to remember the bad range %llu+%llu", media->path,
			  (unsigned long long)start, (unsigned long long)(end - start));
	fault.is_known = !is_new;
	if (is_new || is_first)
		fault_tell(media, fault);
	return is_first;
}

void fault_note_store(struct media *media)
{
	struct statvfs host;

	if (!atomic_load_explicit(&media->host_is_full, memory_order_relaxed))
		return;
	if (fstatvfs(media->fd, &host) == 0 && host.f_bavail > 0)
		atomic_store(&media->host_is_full, false);
}

static int fault_host_full(struct media *media, const struct access *access)
{
	devoff_t page = round_down_u64(access_at(access), BLOCK_BYTES);

	if (!atomic_exchange(&media->host_is_full, true))
		fault_tell(media, (struct media_fault){.kind = MEDIA_FAULT_HOST_FULL, .offset = page, .length = BLOCK_BYTES});
	return -ENOSPC;
}

static int fault_poison(struct media *media, devoff_t start, devoff_t end, devoff_t first,
			devoff_t *bad)
{
	/* Two threads may run into one unit at once; one of them is it. */
	if (fault_report(media, MEDIA_FAULT_POISON, start, end))
		counts_add(&media->counts, COUNT_SIGBUS, 1);
	*bad = first;
	return -EIO;
}

/* Carry the bytes of the access up to `end` through the descriptor. 0 or the host's error. */
static int fault_carry(struct media *media, struct access *access, devoff_t end)
{
	static const unsigned char zeros[BLOCK_BYTES];

	while (access_at(access) < end) {
		size_t step = (size_t)min_u64(end - access_at(access), BLOCK_BYTES);
		off_t at = (off_t)access_at(access);
		ssize_t n;

		if (access->kind == ACCESS_LOAD)
			n = pread(media->fd, access->to + access->done, step, at);
		else if (access->kind == ACCESS_ZERO)
			n = pwrite(media->fd, zeros, step, at);
		else
			n = pwrite(media->fd, access->from + access->done, step, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		access->done += (uint64_t)n;
		if (access->kind != ACCESS_LOAD)
			atomic_store(&media->dirty.outside_mapping, true);
	}
	return 0;
}

static int fault_size(const struct media *media, uint64_t *size)
{
	struct stat st;

	if (media->is_block)
		return block_size(media->fd, size);
	if (fstat(media->fd, &st) < 0)
		return -errno;
	*size = (uint64_t)st.st_size;
	return 0;
}

/* The file ends before the access: everything from there on is missing. */
static bool fault_file_is_short(struct media *media, const struct access *access, devoff_t *missing)
{
	uint64_t size;

	if (fault_size(media, &size) < 0 || size >= media->size)
		return false;
	*missing = size;
	return round_up_u64(*missing, BLOCK_BYTES) <= access_at(access);
}

static int fault_missing(struct media *media, struct access *access, devoff_t missing,
			 devoff_t *bad)
{
	fault_report(media, media->is_block && missing == 0 ? MEDIA_FAULT_GONE : MEDIA_FAULT_MISSING, missing, media->size);
	*bad = access_at(access);
	return -EIO;
}

static bool fault_means_full(int error)
{
	return error == -ENOSPC || error == -EDQUOT;
}

static int fault_carry_failed(struct media *media, const struct access *access, int error,
			      devoff_t *bad)
{
	devoff_t page = round_down_u64(access_at(access), BLOCK_BYTES);

	if (access->kind != ACCESS_LOAD && fault_means_full(error))
		return fault_host_full(media, access);
	return fault_poison(media, page, page + BLOCK_BYTES, access_at(access), bad);
}

/*
 * Not poison of ours and the file is as long as it was: a store (on tmpfs a load as well) into a
 * hole of a full host, or an I/O error of the host's disk. The descriptor tells the two apart
 * without another signal.
 */
static int fault_on_file(struct media *media, struct access *access, devoff_t *bad)
{
	devoff_t page = round_down_u64(access_at(access), BLOCK_BYTES);
	devoff_t end = min_u64(page + BLOCK_BYTES, access_end(access));
	int error;

	if (access->kind != ACCESS_LOAD && !media->is_block &&
	    fallocate(media->fd, FALLOC_FL_KEEP_SIZE, (off_t)page, BLOCK_BYTES) < 0 &&
	    fault_means_full(-errno))
		return fault_host_full(media, access);
	error = fault_carry(media, access, end);
	return error < 0 ? fault_carry_failed(media, access, error, bad) : 0;
}

/* In a page with a trap. Bytes before the first armed one are delivered; the whole page when none
 * is in the access. */
static int fault_in_trap(struct media *media, struct access *access, devoff_t *bad)
{
	devoff_t page_end = round_down_u64(access_at(access), BLOCK_BYTES) + BLOCK_BYTES;
	devoff_t end = min_u64(page_end, access_end(access)), first = end;
	enum poison_answer answer = poison_ask(&media->poison, access_at(access), end, &first);
	int error;

	if (answer == POISON_NOT_TRAPPED)
		return fault_on_file(media, access, bad);
	error = fault_carry(media, access, first);
	if (error < 0)
		return fault_carry_failed(media, access, error, bad);
	if (answer == POISON_INNOCENT)
		return 0;
	return fault_poison(media, first, first + 1, first, bad);
}

static int fault_on_device(struct media *media, struct access *access, devoff_t *bad)
{
	devoff_t line = round_down_u64(access_at(access), LINE_BYTES);

	if (!device_is_gone(media->fd, media->alignment))
		return fault_poison(media, line, line + LINE_BYTES, access_at(access), bad);
	fault_report(media, MEDIA_FAULT_GONE, 0, media->size);
	*bad = access_at(access);
	return -EIO;
}

/*
 * A machine check at the cursor: the line there is bad, whatever page si_addr was rounded to. Below a file on persistent memory the kernel takes the whole block for bad, lists it and clears nothing
 * less: so it is one failure of a block, not one of a sector and a moment later one of the rest.
 */
static int fault_consumed(struct media *media, struct access *access, devoff_t *bad)
{
	const uint64_t unit = media->is_fsdax ? BLOCK_BYTES : LINE_BYTES;
	const devoff_t start = round_down_u64(access_at(access), unit);

	return fault_poison(media, start, start + unit, access_at(access), bad);
}

static void fault_spread(const struct media *media, uint64_t at, unsigned lsb, devoff_t *start, devoff_t *end)
{
	uint64_t unit = UINT64_C(1) << (lsb < 12 ? 12 : lsb > 40 ? 40 : lsb);

	*start = round_down_u64(at, unit);
	*end = min_u64(*start + unit, media->size);
}

/* Somebody else's memory_failure() told us while we were copying: nothing was consumed here. */
static int fault_notified(struct media *media, const struct guard_fault *fault)
{
	devoff_t start, end;

	fault_spread(media, fault->address, fault->lsb, &start, &end);
	fault_report(media, MEDIA_FAULT_SUSPECT, start, end);
	return 0;
}

bool media_locate(const struct media *media, uint64_t address, unsigned lsb, devoff_t *offset, uint64_t *length)
{
	uint64_t base = (uintptr_t)media->map.base;
	devoff_t end;

	if (address < base || address - base >= media->size)
		return false;
	fault_spread(media, address - base, lsb, offset, &end);
	*length = end - *offset;
	return true;
}

int fault_injected(struct media *media, devoff_t first, devoff_t *bad)
{
	return fault_poison(media, first, first + 1, first, bad);
}

int fault_resolve(struct media *media, struct access *access, const struct guard_fault *fault,
		  devoff_t *bad)
{
	devoff_t missing;

	if (fault->code == BUS_MCEERR_AO)
		return fault_notified(media, fault);
	if (fault->code == BUS_MCEERR_AR)
		return fault_consumed(media, access, bad);
	if (media->is_device)
		return fault_on_device(media, access, bad);
	if (fault_file_is_short(media, access, &missing))
		return fault_missing(media, access, missing, bad);
	return fault_in_trap(media, access, bad);
}
