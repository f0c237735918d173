/* From a device address to all owners: at 1, 1,000 and 1,000,000 sharers, and among 10,000,000 records. And how long a mount takes. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/core.h"
#include "bench/measure.h"
#include "bench/populate.h"
#include "fs/data.h"
#include "fs/query.h"
#include "journal/root.h"

#define ROOM_BLOCKS 100u
#define LOOKUPS 2000u

static int count_owner(void *arg, const struct fs_owner *owner)
{
	*(uint64_t *)arg += owner->kind == FS_OWNER_DATA;
	return 0;
}

/* ns of CPU time for one lookup of this block; *owners of it. Negative errno. */
static double lookup_block(struct fs *fs, blkno_t block, uint64_t *owners)
{
	double begin = measure_cpu_ns();
	int error;

	*owners = 0;
	error = fs_owners(fs, block * BLOCK_BYTES, BLOCK_BYTES, count_owner, owners);
	return error ? core_fail(error, "owners") : measure_cpu_ns() - begin;
}

/* --- sharers --------------------------------------------------------------------------------------------------------------- */

/* An inode that maps the block, without a name: owners need none. */
static int put_sharer(struct fs *fs, struct tx *tx, inum_t ino, blkno_t block)
{
	struct inode_record record = {.mode = S_IFREG | 0644, .nlink = 1, .generation = 1, .size_bytes = BLOCK_BYTES, .count_blocks = 1};
	struct btree_key inode_key = {{ino}}, rmap_key = {{block, ino, 0}};
	struct format_inode inode;
	struct format_rmap rmap;
	int error;

	format_inode_pack(&inode, &record);
	format_rmap_pack(&rmap, 1, 0);
	error = btree_insert(&fs->inodes, tx, &inode_key, &inode, sizeof(inode));
	return error ? error : btree_insert(&fs->rmap.tree, tx, &rmap_key, &rmap, sizeof(rmap));
}

static int put_sharers(struct fs *fs, inum_t *next, uint64_t count, blkno_t block)
{
	uint64_t done = 0;
	int error = 0;

	while (done < count && !error) {
		struct tx *tx;

		error = fs_tx_begin(fs, TX_NORMAL, &tx);
		if (error)
			break;
		do {
			error = put_sharer(fs, tx, (*next)++, block);
		} while (!error && ++done < count && tx_room(tx) > ROOM_BLOCKS);
		if (error)
			tx_abort(tx);
		else
			error = tx_commit(tx, NULL);
	}
	return error;
}

static void print_owners(const struct core_options *options, bool first, const char *what, uint64_t owners, double ns)
{
	if (options->json)
		printf("%s\n{\"what\": \"%s\", \"owners\": %llu, \"cpu_ns\": %.0f}", first ? "[" : ",", what, (unsigned long long)owners, ns);
	else
		printf("%-40s %12llu owners %15.0f ns of CPU %10.0f each\n", what, (unsigned long long)owners, ns, owners ? ns / (double)owners : 0);
}

static int measure_sharers(const struct core_options *options, struct fs *fs, uint64_t sharers, inum_t *next, bool first)
{
	static blkno_t offset;
	blkno_t block = populate_base(fs) + offset++;
	double times[CORE_ROUNDS_MAX];
	uint64_t owners = 0;
	int error = put_sharers(fs, next, sharers, block);

	if (error)
		return core_fail(error, "sharers");
	for (unsigned round = 0; round < options->rounds; round++) {
		times[round] = lookup_block(fs, block, &owners);
		if (times[round] < 0)
			return -EIO;
	}
	if (owners != sharers)
		return core_fail(-EUCLEAN, "not all sharers were found");
	print_owners(options, first, "one block", owners, measure_median(times, options->rounds));
	return 0;
}

static int run_sharers(const struct core_options *options)
{
	static const uint64_t counts[] = {1, 1000, 1000000};
	inum_t next = 1000;
	struct fs *fs;
	int error = core_open(options, 8ull << 30, &fs), closed;

	if (error)
		return error;
	for (unsigned i = 0; i < (options->large ? 3 : 2) && !error; i++)
		error = measure_sharers(options, fs, counts[i], &next, !i);
	closed = core_close(fs);
	return error ? error : closed;
}

/* --- many records ------------------------------------------------------------------------------------------------------------ */

static int run_many(const struct core_options *options)
{
	uint64_t files = options->large ? 1000000 : options->smoke ? 1000 : 20000, blocks = files * 10;
	double total = 0;
	uint64_t owners, all = 0;
	char what[64];
	struct fs *fs;
	int error = core_open(options, blocks * 12288 + (4ull << 30), &fs), closed;

	if (error)
		return error;
	error = populate_files(fs, files, 10);
	for (unsigned i = 0; i < LOOKUPS && !error; i++) {
		double ns = lookup_block(fs, populate_base(fs) + i * 11400714819323198485ull % blocks, &owners);

		error = ns < 0 ? -EIO : 0;
		total += ns;
		all += owners;
	}
	if (!error && all != LOOKUPS)
		error = core_fail(-EUCLEAN, "not all owners were found");
	snprintf(what, sizeof(what), "any block among %llu records", (unsigned long long)blocks);
	if (!error)
		print_owners(options, false, what, 1, total / LOOKUPS);
	closed = core_close(fs);
	return error ? error : closed;
}

int core_owners(const struct core_options *options)
{
	int error = run_sharers(options);

	if (!error)
		error = run_many(options);
	printf(options->json ? "]" : "\n");
	return error;
}

/* --- mount ------------------------------------------------------------------------------------------------------------------- */

static int measure_mount(const struct core_options *options, uint64_t files, bool first)
{
	struct fs_options mount = {.claim = true};
	double times[CORE_ROUNDS_MAX];
	struct why why;
	struct fs *fs;
	int error = core_open(options, files * 12288 + (2ull << 30), &fs), closed;

	if (error)
		return error;
	error = populate_files(fs, files, 1);
	for (unsigned round = 0; round < options->rounds && !error; round++) {
		double begin;

		error = fs_unmount(fs);
		begin = measure_cpu_ns();
		if (!error)
			error = fs_mount(core_image(), &mount, &why, &fs);
		if (error)
			return core_fail(error, "mount again");
		times[round] = measure_cpu_ns() - begin;
	}
	closed = core_close(fs);
	if (error || closed)
		return error ? error : closed;
	if (options->json)
		printf("%s\n{\"files\": %llu, \"cpu_ns\": %.0f}", first ? "[" : ",", (unsigned long long)files, measure_median(times, options->rounds));
	else
		printf("mount with %10llu files %15.2f ms of CPU\n", (unsigned long long)files, measure_median(times, options->rounds) / 1e6);
	return 0;
}

int core_mount_time(const struct core_options *options)
{
	int error = measure_mount(options, 1000, true);

	if (!error && options->large)
		error = measure_mount(options, 1000000, false);
	printf(options->json ? "]" : "\n");
	return error;
}
