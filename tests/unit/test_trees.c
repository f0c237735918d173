/* btree/, alloc/ and rmap/ over the real journal: crashes, remounts, and nodes that lie under a
 * good checksum. */
#include "alloc/alloc.h"
#include "rmap/rmap.h"

#include <errno.h>
#include <pthread.h>

#include "tests/support/expect.h"
#include "tests/support/journalfix.h"
#include "tests/support/random.h"
#include "util/log.h"

#define BLOCKS (FIX_IMAGE_BYTES / BLOCK_BYTES)
#define FIRST_BLOCK \
	(FIX_SPACE / BLOCK_BYTES) /* what is below holds the fixed areas and the chunk */

struct fixture {
	struct journalfix fix;
	struct alloc *alloc;
	struct rmap rmap;
	struct random random;
	uint64_t owner[BLOCKS]; /* the model: inode that has the block, at an offset equal to its
				   number; 0: free */
	bool shared[BLOCKS];    /* SHARER has it too */
};
static struct fixture f;
#define SHARER 99u

static void trees_open(void)
{
	ck_assert_msg(!fix_open(&f.fix), "%s", f.fix.why.text);
	expect_equal(alloc_create(f.fix.journal, &f.alloc), 0);
	rmap_init(&f.rmap, f.fix.journal);
}

static void trees_close(void)
{
	alloc_destroy(f.alloc);
	expect_equal(fix_close(&f.fix), 0);
}

static void trees_crash(void)
{
	alloc_destroy(f.alloc);
	fix_crash(&f.fix);
}

static void trees_create(const char *name)
{
	struct tx *tx;

	memset(f.owner, 0, sizeof(f.owner));
	memset(f.shared, 0, sizeof(f.shared));
	f.random = random_start(name);
	fix_create(&f.fix, 2);
	trees_open();
	tx = fix_begin(&f.fix);
	expect_equal(rmap_insert(&f.rmap, tx,
				 &(struct rmap_record){0, FIRST_BLOCK, OWNER(OWNER_FIXED), 0, 0}),
		     0);
	expect_equal(alloc_give(f.alloc, tx, FIRST_BLOCK, BLOCKS - FIRST_BLOCK), 0);
	expect_equal(tx_commit(tx, NULL), 0);
	expect_equal(journal_sync(f.fix.journal), 0);
}

/* --- changes --- */

static bool end_randomly(struct tx *tx)
{
	if (random_below(&f.random, 5) == 0) {
		tx_abort(tx);
		return false;
	}
	expect_equal(tx_commit(tx, NULL), 0);
	return true;
}

static void add_blocks(void)
{
	struct alloc_request request = {.want_blocks = 1 + random_below(&f.random, 12),
					.goal = random_below(&f.random, BLOCKS)};
	struct rmap_record record = {.owner = 1 + random_below(&f.random, 5)};
	struct tx *tx;

	if (alloc_reserve(f.alloc, &request, &record.start, &record.count) < 0)
		return;
	record.offset = record.start;
	tx = fix_begin(&f.fix);
	expect_equal(alloc_take_exact(f.alloc, tx, record.start, record.count), 0);
	expect_equal(rmap_insert(&f.rmap, tx, &record), 0);
	if (!end_randomly(tx)) {
		alloc_unreserve(f.alloc, record.start, record.count);
		return;
	}
	for (uint64_t i = 0; i < record.count; i++)
		f.owner[record.start + i] = record.owner;
}

/* A run that one inode has, no sharer or one throughout. */
static struct rmap_record random_run(void)
{
	struct rmap_record record = {.start = FIRST_BLOCK +
					      random_below(&f.random, BLOCKS - FIRST_BLOCK)};
	uint64_t most = min_u64(1 + random_below(&f.random, 12), BLOCKS - record.start);

	record.owner = f.owner[record.start];
	record.offset = record.start;
	while (record.owner > 0 && record.count < most &&
	       f.owner[record.start + record.count] == record.owner &&
	       f.shared[record.start + record.count] == f.shared[record.start])
		record.count++;
	return record;
}

static void drop_blocks(void)
{
	struct rmap_record record = random_run(), sharer = record;
	struct tx *tx;

	if (record.count == 0)
		return;
	tx = fix_begin(&f.fix);
	sharer.owner = SHARER;
	if (f.shared[record.start])
		expect_equal(rmap_remove(&f.rmap, tx, &sharer), 0);
	expect_equal(rmap_remove(&f.rmap, tx, &record), 0);
	expect_equal(alloc_give(f.alloc, tx, record.start, record.count), 0);
	if (!end_randomly(tx))
		return;
	memset(&f.owner[record.start], 0, record.count * sizeof(f.owner[0]));
	memset(&f.shared[record.start], 0, record.count);
}

static void share_blocks(void)
{
	struct rmap_record record = random_run();
	struct tx *tx;

	if (record.count == 0 || f.shared[record.start])
		return;
	record.owner = SHARER;
	tx = fix_begin(&f.fix);
	expect_equal(rmap_insert(&f.rmap, tx, &record), 0);
	if (end_randomly(tx))
		memset(&f.shared[record.start], 1, record.count);
}

static void change_something(void)
{
	uint64_t dice = random_below(&f.random, 1000);

	if (dice < 500)
		add_blocks();
	else if (dice < 800)
		drop_blocks();
	else if (dice < 990)
		share_blocks();
	else if (dice < 995)
		expect_equal(journal_sync(f.fix.journal), 0);
	else
		expect_equal(journal_checkpoint(f.fix.journal), 0);
}

/* --- what must be there --- */

static int expect_owned(void *arg, const struct rmap_record *record)
{
	uint8_t *seen = arg;

	if (!owner_is_inode(record->owner))
		return 0;
	for (blkno_t block = record->start; block < record->start + record->count; block++) {
		expect_equal(record->offset + (block - record->start), block);
		expect(record->owner == f.owner[block] ||
		       (record->owner == SHARER && f.shared[block]));
		seen[block]++;
	}
	return 0;
}

static int expect_free(void *arg, blkno_t start, uint64_t count)
{
	uint8_t *seen = arg;

	for (uint64_t i = 0; i < count; i++) {
		expect_equal(f.owner[start + i], 0);
		seen[start + i]++;
	}
	return 0;
}

static void compare_all(void)
{
	static uint8_t seen[BLOCKS];
	uint64_t records, free_blocks = 0;

	memset(seen, 0, sizeof(seen));
	journal_read_begin(f.fix.journal);
	expect_equal(btree_check(&f.rmap.tree, &records), 0);
	expect_equal(btree_check(alloc_tree(f.alloc), &records), 0);
	expect_equal(rmap_query(&f.rmap, 0, BLOCKS, expect_owned, seen), 0);
	expect_equal(alloc_walk(f.alloc, 0, BLOCKS, expect_free, seen), 0);
	for (blkno_t block = FIRST_BLOCK; block < BLOCKS; block++) {
		free_blocks += f.owner[block] == 0;
		/* Free space is the exact complement of the reverse map. */
		expect_equal(seen[block], f.owner[block] == 0 ? 1 : 1 + f.shared[block]);
	}
	expect_equal(alloc_free_blocks(f.alloc), free_blocks);
	journal_read_end(f.fix.journal);
}

START_TEST(trees_are_what_was_committed_after_each_crash)
{
	trees_create("trees crash");
	for (unsigned round = 0; round < 25; round++) {
		for (unsigned step = 0; step < 400; step++)
			change_something();
		if (round % 5 == 4)
			trees_close();
		else
			trees_crash();
		trees_open();
		compare_all();
	}
	trees_close();
	fix_destroy(&f.fix);
}
END_TEST

START_TEST(trees_do_not_leak_metadata_blocks)
{
	uint64_t before;

	trees_create("trees leak");
	before = root_get(f.fix.journal, ROOT_META_FREE);
	for (unsigned step = 0; step < 3000; step++)
		change_something();
	ck_assert_uint_lt(root_get(f.fix.journal, ROOT_META_FREE), before);
	while (alloc_free_blocks(f.alloc) < BLOCKS - FIRST_BLOCK)
		drop_blocks();
	ck_assert_uint_eq(root_get(f.fix.journal, ROOT_META_FREE), before);
	trees_close();
	fix_destroy(&f.fix);
}
END_TEST

/* --- writers side by side --- */

#define WRITERS 4
struct writer {
	pthread_t thread;
	struct random random;
	uint64_t id;
	unsigned count;
	struct rmap_record held[32];
};

/* The blocks are this writer's from here on: nobody else may have been told the same. */
static void writer_claim(const struct writer *writer, const struct rmap_record *record,
			 uint64_t from, uint64_t to)
{
	for (uint64_t i = 0; i < record->count; i++) {
		uint64_t before = from;

		expect(__atomic_compare_exchange_n(&f.owner[record->start + i], &before, to, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
	}
}

static void writer_add(struct writer *writer)
{
	struct alloc_request request = {.want_blocks = 1 + random_below(&writer->random, 20)};
	struct rmap_record *record = &writer->held[writer->count];
	struct tx *tx;

	if (alloc_reserve(f.alloc, &request, &record->start, &record->count) < 0)
		return;
	record->owner = writer->id;
	record->offset = record->start;
	writer_claim(writer, record, 0, writer->id);
	if (random_below(&writer->random, 4) == 0) {
		writer_claim(writer, record, writer->id, 0);
		alloc_unreserve(f.alloc, record->start, record->count);
		return;
	}
	tx = fix_begin(&f.fix);
	expect_equal(alloc_take_exact(f.alloc, tx, record->start, record->count), 0);
	expect_equal(rmap_insert(&f.rmap, tx, record), 0);
	expect_equal(tx_commit(tx, NULL), 0);
	writer->count++;
}

static void writer_drop(struct writer *writer)
{
	struct rmap_record *record = &writer->held[random_below(&writer->random, writer->count)];
	struct tx *tx;
	bool owned;

	journal_read_begin(f.fix.journal);
	expect_equal(rmap_is_owned(&f.rmap, record->start, record->count, &owned), 0);
	journal_read_end(f.fix.journal);
	expect(owned);
	writer_claim(writer, record, writer->id, 0);
	tx = fix_begin(&f.fix);
	expect_equal(rmap_remove(&f.rmap, tx, record), 0);
	expect_equal(alloc_give(f.alloc, tx, record->start, record->count), 0);
	expect_equal(tx_commit(tx, NULL), 0);
	*record = writer->held[--writer->count];
}

static void *writer_run(void *arg)
{
	struct writer *writer = arg;

	for (unsigned step = 0; step < 1500; step++) {
		if (writer->count == 0 ||
		    (writer->count < ARRAY_SIZE(writer->held) && random_below(&writer->random, 2)))
			writer_add(writer);
		else
			writer_drop(writer);
		if (step % 100 == 0)
			expect_equal(journal_sync(f.fix.journal), 0);
	}
	return NULL;
}

START_TEST(writers_side_by_side_never_get_the_same_block)
{
	static struct writer writers[WRITERS];

	trees_create("trees writers");
	for (unsigned i = 0; i < WRITERS; i++) {
		writers[i].id = i + 1;
		writers[i].count = 0;
		writers[i].random.state = random_next(&f.random);
		expect_equal(pthread_create(&writers[i].thread, NULL, writer_run, &writers[i]), 0);
	}
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(writers[i].thread, NULL);
	compare_all();
	trees_crash();
	trees_open();
	compare_all();
	trees_close();
	fix_destroy(&f.fix);
}
END_TEST

/* --- nodes that lie --- */

struct nodes {
	unsigned count;
	maddr_t address[256];
};

static int nodes_add(void *arg, maddr_t address, unsigned level, int error)
{
	struct nodes *nodes = arg;

	expect(nodes->count < ARRAY_SIZE(nodes->address) && error == 0);
	nodes->address[nodes->count++] = address;
	return 0;
}

static void damage_bytes(uint8_t *block)
{
	unsigned flips = 1 + (unsigned)random_below(&f.random, 3);

	for (unsigned i = 0; i < flips; i++) {
		uint64_t at =
		    64 +
		    random_below(&f.random, random_below(&f.random, 2) ? 200 : BLOCK_BYTES - 64);

		block[at] ^= (uint8_t)(1 + random_below(&f.random, 255));
	}
}

static void write_copies(maddr_t address, const uint8_t *block)
{
	for (unsigned copy = 0; copy < 2; copy++)
		fix_write_file(&f.fix, fix_place(&f.fix, address, copy), block, BLOCK_BYTES);
}

static int look_at_record(void *arg, const struct rmap_record *record)
{
	return 0;
}

static int look_at_run(void *arg, blkno_t start, uint64_t count)
{
	return 0;
}

static int look_at_node(void *arg, maddr_t address, unsigned level, int error)
{
	return 0;
}

/* Was anything found to be wrong? */
static bool use_trees(void)
{
	uint64_t count, run;
	bool shared, refused;

	journal_read_begin(f.fix.journal);
	refused = btree_check(&f.rmap.tree, &count) < 0;
	refused = btree_check(alloc_tree(f.alloc), &count) < 0 || refused;
	(void)rmap_query(&f.rmap, 0, BLOCKS, look_at_record, NULL);
	(void)rmap_shared_run(&f.rmap, FIRST_BLOCK, 500, 1, FIRST_BLOCK, &shared, &run);
	(void)alloc_walk(f.alloc, 0, BLOCKS, look_at_run, NULL);
	(void)btree_walk_nodes(&f.rmap.tree, look_at_node, NULL);
	journal_read_end(f.fix.journal);
	return refused;
}

static void change_trees(void)
{
	struct alloc_request request = {.want_blocks = 1 + random_below(&f.random, 600),
					.align_blocks = 512,
					.use_reserve = true};
	struct rmap_record record = {
	    .start = random_below(&f.random, BLOCKS), .count = 3, .owner = 1};
	struct tx *tx = fix_begin(&f.fix);
	uint64_t count;
	blkno_t start;

	record.offset = record.start;
	switch (random_below(&f.random, 5)) {
	case 0:
		(void)alloc_take(f.alloc, tx, &request, &start, &count);
		break;
	case 1:
		(void)alloc_give(f.alloc, tx, record.start, 3);
		break;
	case 2:
		(void)alloc_take_exact(f.alloc, tx, record.start, 2);
		break;
	case 3:
		(void)rmap_insert(&f.rmap, tx, &record);
		break;
	default:
		(void)rmap_remove(&f.rmap, tx, &record);
		break;
	}
	tx_abort(tx);
}

START_TEST(nodes_that_lie_under_a_good_checksum_do_no_harm)
{
	static struct nodes nodes;
	uint8_t good[BLOCK_BYTES], bad[BLOCK_BYTES];
	unsigned refused = 0;

	trees_create("trees fuzz");
	for (unsigned step = 0; step < 2500; step++)
		change_something();
	nodes.count = 0;
	expect_equal(btree_walk_nodes(&f.rmap.tree, nodes_add, &nodes), 0);
	expect_equal(btree_walk_nodes(alloc_tree(f.alloc), nodes_add, &nodes), 0);
	trees_close();
	log_set_level((enum log_level) - 1);
	for (unsigned round = 0; round < 300; round++) {
		maddr_t address = nodes.address[random_below(&f.random, nodes.count)];

		fix_read_file(&f.fix, fix_place(&f.fix, address, 0), good, sizeof(good));
		memcpy(bad, good, sizeof(bad));
		damage_bytes(bad);
		format_block_seal(bad, le64_get(((struct format_block_header *)good)->sequence));
		write_copies(address, bad);
		trees_open();
		refused += use_trees();
		for (unsigned i = 0; i < 10; i++)
			change_trees();
		trees_close();
		write_copies(address, good);
	}
	log_set_level(LOG_LEVEL_INFO);
	ck_assert_uint_gt(refused, 150);
	trees_open();
	compare_all();
	trees_close();
	fix_destroy(&f.fix);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("trees");
	TCase *tests = tcase_create("trees");

	tcase_set_timeout(tests, 240);
	tcase_add_test(tests, trees_are_what_was_committed_after_each_crash);
	tcase_add_test(tests, trees_do_not_leak_metadata_blocks);
	tcase_add_test(tests, writers_side_by_side_never_get_the_same_block);
	tcase_add_test(tests, nodes_that_lie_under_a_good_checksum_do_no_harm);
	suite_add_tcase(suite, tests);
	return fix_run(suite);
}
