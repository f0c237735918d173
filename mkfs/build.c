#include "mkfs/build.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#include <uuid.h>

#include "fs/fs.h"
#include "journal/journal.h"
#include "notify/poison_log.h"

/* Each start again has met poison that was unknown before; a region that goes on like this is not usable. */
#define BUILD_ATTEMPTS 256

/* --- the plan ------------------------------------------------------------------------------------------------------- */

static uint64_t build_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int build_identify(struct build *build, struct why *why)
{
	struct super *super = &build->super;

	uuid_generate_random(super->meta_uuid);
	uuid_generate_random(super->device_uuid);
	if (build->options->has_uuid)
		memcpy(super->uuid, build->options->uuid, FORMAT_UUID_BYTES);
	else
		uuid_generate_random(super->uuid);
	if (getrandom(super->hash_seed, sizeof(super->hash_seed), 0) != sizeof(super->hash_seed))
		return why_set(why, -EIO, "no random numbers: %s", strerror(errno));
	memcpy(super->label, build->options->label, sizeof(super->label));
	strncpy(super->mkfs_version, MENDFS_VERSION, sizeof(super->mkfs_version) - 1);
	super->mkfs_time_ns = build_now_ns();
	super->version = FORMAT_VERSION;
	super->device_count = 1;
	super->update = 1;
	return 0;
}

static int build_place(struct build *build, uint64_t size_bytes, struct why *why)
{
	const struct layout_request request = {
		.size_bytes = size_bytes,
		.copies = build->options->copies,
		.bad = &build->poisoned.bad,
	};
	struct super *super = &build->super;
	struct why reason;
	int error = layout_plan(&request, &build->layout, &reason);

	if (error)
		return why_set(why, error, "%s: %.900s", build->options->target, reason.text);
	super->size_bytes = build->layout.size_bytes;
	super->chunk_shift = build->layout.chunk_shift;
	super->copies = (uint8_t)build->layout.copies;
	super->slots = build->layout.slots;
	memcpy(super->areas, build->layout.areas, sizeof(super->areas));
	return 0;
}

static int build_size(const struct build *build, struct media *media, uint64_t *out,
		      struct why *why)
{
	uint64_t wanted = build->options->size_bytes;

	if (media && (media_is_device(media) || media_is_block(media)) && wanted > media_size(media))
		return why_set(why, -EINVAL, "%s has only %llu bytes", build->options->target,
			       (unsigned long long)media_size(media));
	*out = wanted ? wanted : media_size(media);
	return 0;
}

int build_plan(struct build *build, struct media *media, struct why *why)
{
	uint64_t size_bytes = 0;
	int error = build_identify(build, why);

	if (!error && media)
		error = poisoned_load(media, &build->poisoned, why);
	if (!error)
		error = build_size(build, media, &size_bytes, why);
	return error ? error : build_place(build, size_bytes, why);
}

void build_fini(struct build *build)
{
	poisoned_fini(&build->poisoned);
}

static uint64_t build_range_quarantined(const struct build *build, const struct iset_range *range,
					blkno_t *counted)
{
	blkno_t first = max_u64(range->start / BLOCK_BYTES, *counted);
	blkno_t end = round_up_u64(min_u64(range->end, build->layout.size_bytes), BLOCK_BYTES) /
		      BLOCK_BYTES;
	uint64_t blocks = end > first ? end - first : 0;

	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++) {
		blkno_t block = super_slot_offset(slot) / BLOCK_BYTES;

		blocks -= block >= first && block < end;
	}
	*counted = max_u64(end, *counted);
	return blocks * BLOCK_BYTES;
}

uint64_t build_quarantined_bytes(const struct build *build)
{
	blkno_t counted = 0;
	uint64_t bytes = 0;

	for (size_t i = 0; i < build->poisoned.bad.count; i++)
		bytes += build_range_quarantined(build, &build->poisoned.bad.ranges[i], &counted);
	return bytes;
}

uint64_t build_data_bytes(const struct build *build)
{
	const struct layout *layout = &build->layout;
	uint64_t fixed = SUPER_SLOTS * BLOCK_BYTES;

	for (unsigned i = 0; i < AREA_COUNT; i++)
		fixed += layout->areas[i].length_bytes *
			 format_area_copies(&build->super, i);
	fixed += (uint64_t)layout->copies << layout->chunk_shift;
	return layout->size_bytes - fixed - build_quarantined_bytes(build);
}

/* --- writing -------------------------------------------------------------------------------------------------------- */

static int reserve_range(struct media *media, devoff_t offset, uint64_t length)
{
	if (fallocate(media_fd(media), FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length) == 0)
		return 0;
	/* A host filesystem without fallocate: a store finds out. */
	return errno == EOPNOTSUPP ? 0 : -errno;
}

/* Host space under a sparse image, for what must never be refused a store. */
static int build_reserve(const struct build *build, struct media *media, struct why *why)
{
	struct layout_range ranges[LAYOUT_RANGES_MAX];
	unsigned count = layout_ranges(&build->layout, ranges);
	int error = 0;

	if (media_is_device(media) || media_is_block(media))
		return 0;
	if (build->options->prealloc)
		error = reserve_range(media, 0, build->layout.size_bytes);
	for (unsigned i = 0; i < count && !error; i++)
		error = reserve_range(media, ranges[i].offset, ranges[i].length_bytes);
	if (error)
		return why_set(why, error, "%s: the host filesystem cannot reserve the space (%s): free some there or use a smaller -s",
			       build->options->target, strerror(-error));
	return 0;
}

static int build_failed(const struct build *build, int error, const char *what, struct why *why)
{
	return why_set(why, error, "%s: the %s cannot be written: %s", build->options->target, what,
		       strerror(-error));
}

/* Until the new superblocks are there the target is no filesystem, neither the old one nor half of the new. */
static int build_forget_old(struct build *build, struct media *media, struct why *why)
{
	int error = 0;

	for (unsigned slot = 0; slot < SUPER_SLOTS && !error; slot++)
		if (build->layout.slots >> slot & 1)
			error = media_zero(media, super_slot_offset(slot), BLOCK_BYTES, NULL);
	if (!error)
		error = media_sync(media);
	return error ? build_failed(build, error, "superblock", why) : 0;
}

static int build_trees(struct build *build, struct media *media, struct why *why)
{
	struct fs_format_options options = {
		.chunk = {build->layout.chunk[0], build->layout.chunk[1]},
		.uid = geteuid(),
		.gid = getegid(),
		.time_ns = build->super.mkfs_time_ns,
		.bad_source = build->poisoned.source,
	};
	struct media_poison *bad;
	struct why reason;
	int error = poisoned_list(&build->poisoned, &bad, &options.count_bad);

	if (error)
		return why_set(why, error, "out of memory");
	options.bad = bad;
	error = fs_format(media, &build->super, &options, &reason);
	free(bad);
	return error ? why_set(why, error, "%s: %.900s", build->options->target, reason.text) : 0;
}

static int build_store(struct build *build, struct media *media, struct why *why)
{
	int error = journal_format(media, &build->super, build->layout.chunk);

	if (error)
		return build_failed(build, error, "journal", why);
	error = poison_log_format(media, &build->super);
	if (error)
		return build_failed(build, error, "poison log", why);
	return build_trees(build, media, why);
}

static int build_super(struct build *build, struct media *media, struct why *why)
{
	struct format_super packed;
	int error = 0;

	/* Everything that they name is durable: fs_format() ends with a checkpoint. */
	format_super_pack(&packed, &build->super);
	for (unsigned slot = 0; slot < SUPER_SLOTS && !error; slot++)
		if (build->super.slots >> slot & 1)
			error = media_write(media, super_slot_offset(slot), &packed, sizeof(packed),
					    NULL);
	if (!error)
		error = media_sync(media); /* durable: the filesystem exists */
	return error ? build_failed(build, error, "superblock", why) : 0;
}

static int build_attempt(struct build *build, struct media *media, struct why *why)
{
	int error = build_reserve(build, media, why);

	if (!error)
		error = build_forget_old(build, media, why);
	if (!error)
		error = build_store(build, media, why);
	if (!error)
		error = build_super(build, media, why);
	return error;
}

int build_write(struct build *build, struct media *media, struct why *why)
{
	int error = build_attempt(build, media, why);

	for (unsigned attempt = 0; error && attempt < BUILD_ATTEMPTS; attempt++) {
		bool more = false;
		int refreshed = poisoned_refresh(media, &build->poisoned, &more);

		if (refreshed)
			return why_set(why, refreshed, "out of memory");
		if (!more)
			return error; /* not for poison that can be avoided */
		error = build_place(build, build->super.size_bytes, why);
		if (error)
			return error;
		error = build_attempt(build, media, why);
	}
	if (!error && !media_is_device(media))
		error = media_poison_tie(media, build->super.uuid, why);
	return error;
}
