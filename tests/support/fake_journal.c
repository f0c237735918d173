#include "tests/support/fake_journal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAKE_BLOCKS 65536u
#define FAKE_HOOKS 64u

struct fake_buf {
	struct buf buf;
	uint8_t *old; /* image at tx_join */
	bool joined;
	unsigned references;
	uint8_t role, tree;
	bool live, born, dying; /* born, dying: in this transaction */
	int get_error;
};

struct tx {
	enum tx_kind kind;
	maddr_t crowded;
	bool active;
	struct fake_buf *joined[4096];
	unsigned count_joined;
	struct {
		tx_hook_fn *fn;
		void *arg;
	} hooks[FAKE_HOOKS];
	unsigned count_hooks;
	struct format_root root;
};

struct journal {
	struct super super;
	struct fake_buf *blocks[FAKE_BLOCKS];
	unsigned used, live;
	unsigned *unused, count_unused;
	struct format_root root;
	struct tx tx;
	unsigned fail_after;
	int fail_error;
	uint64_t sequence, durable;
	bool lazy;
	unsigned last_joined;
	uint64_t gets;
};

static struct fake_buf *fake_of(struct buf *buf)
{
	return container_of(buf, struct fake_buf, buf);
}

static int fake_fault(struct journal *journal)
{
	if (journal->fail_after == 0 || --journal->fail_after > 0)
		return 0;
	return journal->fail_error;
}

struct journal *fake_create(uint64_t size_bytes)
{
	struct journal *journal = calloc(1, sizeof(*journal));

	journal->unused = calloc(FAKE_BLOCKS, sizeof(*journal->unused));
	journal->super.size_bytes = size_bytes;
	journal->super.version = FORMAT_VERSION;
	journal->sequence = 1;
	return journal;
}

void fake_destroy(struct journal *journal)
{
	for (unsigned i = 0; i < journal->used; i++) {
		free(journal->blocks[i]->buf.data);
		free(journal->blocks[i]->old);
		free(journal->blocks[i]);
	}
	free(journal->unused);
	free(journal);
}

void fake_fail_change(struct journal *journal, unsigned n, int error)
{
	journal->fail_after = n;
	journal->fail_error = error;
}

static struct fake_buf *fake_find(struct journal *journal, maddr_t address)
{
	if (address <= MADDR_CHUNK_BASE || address - MADDR_CHUNK_BASE > journal->used)
		return NULL;
	return journal->blocks[address - MADDR_CHUNK_BASE - 1];
}

void fake_fail_get(struct journal *journal, maddr_t address, int error)
{
	fake_find(journal, address)->get_error = error;
}

void fake_forget_verified(struct journal *journal)
{
	for (unsigned i = 0; i < journal->used; i++)
		journal->blocks[i]->buf.verified = 0;
}

unsigned fake_references(const struct journal *journal)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < journal->used; i++)
		sum += journal->blocks[i]->references;
	return sum;
}

unsigned fake_blocks(const struct journal *journal)
{
	return journal->live;
}

struct buf *fake_block(struct journal *journal, unsigned i)
{
	for (unsigned k = 0; k < journal->used; k++) {
		if (journal->blocks[k]->live && i-- == 0)
			return &journal->blocks[k]->buf;
	}
	return NULL;
}

void fake_set_lazy(struct journal *journal, bool lazy)
{
	journal->lazy = lazy;
}

void fake_make_durable(struct journal *journal)
{
	journal->durable = journal->sequence;
}

unsigned fake_last_joined(const struct journal *journal)
{
	return journal->last_joined;
}

/* --- journal --- */

void journal_read_begin(struct journal *journal)
{
}

void journal_read_end(struct journal *journal)
{
}

void journal_set_version(struct journal *journal, uint32_t version)
{
	journal->super.version = version;
}

const struct super *journal_super(const struct journal *journal)
{
	return &journal->super;
}

uint64_t fake_gets(const struct journal *journal)
{
	return journal->gets;
}

/* --- buf --- */

int buf_get_any(struct journal *journal, maddr_t address, struct buf **out)
{
	struct fake_buf *fake = fake_find(journal, address);

	journal->gets++;
	if (!fake || !fake->live)
		return -EUCLEAN;
	if (fake->get_error)
		return fake->get_error;
	fake->references++;
	*out = &fake->buf;
	return 0;
}

int buf_get(struct journal *journal, maddr_t address, enum format_block_role role, unsigned tree,
	    struct buf **out)
{
	struct fake_buf *fake = fake_find(journal, address);

	if (fake && (fake->role != role || fake->tree != tree))
		return -EUCLEAN;
	return buf_get_any(journal, address, out);
}

/* One transaction at a time, always. */
bool buf_is_tentative(const struct buf *buf)
{
	return false;
}

bool buf_is_current(const struct buf *buf)
{
	return true;
}

void buf_rely(struct buf *buf)
{
}

void buf_put(struct buf *buf)
{
	struct fake_buf *fake = fake_of(buf);

	if (fake->references-- == 0)
		abort();
}

static struct fake_buf *fake_new(struct journal *journal)
{
	struct fake_buf *fake;

	if (journal->count_unused > 0)
		return journal->blocks[journal->unused[--journal->count_unused]];
	if (journal->used == FAKE_BLOCKS)
		return NULL;
	fake = calloc(1, sizeof(*fake));
	fake->buf.data = aligned_alloc(LINE_BYTES, BLOCK_BYTES);
	fake->old = aligned_alloc(LINE_BYTES, BLOCK_BYTES);
	fake->buf.address = MADDR_CHUNK_BASE + ++journal->used;
	journal->blocks[journal->used - 1] = fake;
	return fake;
}

int buf_create(struct tx *tx, enum format_block_role role, unsigned tree, struct buf **out)
{
	struct journal *journal = tx_journal(tx);
	int error = fake_fault(journal);
	struct fake_buf *fake = error < 0 ? NULL : fake_new(journal);

	if (!fake)
		return error < 0 ? error : -ENOSPC;
	memset(fake->buf.data, 0, BLOCK_BYTES);
	fake->buf.verified = 0;
	fake->role = (uint8_t)role;
	fake->tree = (uint8_t)tree;
	fake->live = fake->born = true;
	fake->references = 1;
	journal->live++;
	tx->joined[tx->count_joined++] = fake;
	*out = &fake->buf;
	return 0;
}

int buf_destroy(struct tx *tx, struct buf *buf)
{
	struct fake_buf *fake = fake_of(buf);
	int error = tx_join(tx, buf);

	buf_put(buf);
	if (error < 0)
		return error;
	fake->live = false;
	fake->dying = true;
	tx_journal(tx)->live--;
	return 0;
}

/* --- tx --- */

int tx_begin(struct journal *journal, enum tx_kind kind, struct tx **out)
{
	struct tx *tx = &journal->tx;

	if (tx->active)
		abort();
	tx->kind = kind;
	tx->crowded = 0;
	tx->active = true;
	tx->count_joined = tx->count_hooks = 0;
	tx->root = journal->root;
	*out = tx;
	return 0;
}

struct journal *tx_journal(struct tx *tx)
{
	return container_of(tx, struct journal, tx);
}

enum tx_kind tx_kind(const struct tx *tx)
{
	return tx->kind;
}

bool tx_is_beside(const struct tx *tx)
{
	return false;
}

void tx_set_crowded(struct tx *tx, maddr_t block)
{
	tx->crowded = block;
}

maddr_t tx_crowded(const struct tx *tx)
{
	return tx->crowded;
}

unsigned tx_room(const struct tx *tx)
{
	return ARRAY_SIZE(tx->joined) - tx->count_joined;
}

int tx_join(struct tx *tx, struct buf *buf)
{
	struct fake_buf *fake = fake_of(buf);
	int error;

	if (fake->joined || fake->born)
		return 0;
	error = fake_fault(tx_journal(tx));
	if (error < 0)
		return error;
	fake->joined = true;
	memcpy(fake->old, buf->data, BLOCK_BYTES);
	tx->joined[tx->count_joined++] = fake;
	return 0;
}

static void fake_release(struct journal *journal, struct fake_buf *fake)
{
	journal->unused[journal->count_unused++] =
	    (unsigned)(fake->buf.address - MADDR_CHUNK_BASE - 1);
}

static void fake_end(struct tx *tx, bool committed)
{
	struct journal *journal = tx_journal(tx);

	for (unsigned i = 0; i < tx->count_joined; i++) {
		struct fake_buf *fake = tx->joined[i];

		if (!committed && fake->joined)
			memcpy(fake->buf.data, fake->old, BLOCK_BYTES);
		if (!committed && fake->dying) {
			fake->live = true;
			journal->live++;
		}
		if (!committed && fake->born && fake->live) {
			fake->live = false;
			journal->live--;
		}
		if (!fake->live)
			fake_release(journal, fake);
		fake->joined = fake->born = fake->dying = false;
	}
	if (!committed)
		journal->root = tx->root;
	journal->last_joined = tx->count_joined;
	tx->active = false;
	for (unsigned i = 0; i < tx->count_hooks; i++)
		tx->hooks[i].fn(tx->hooks[i].arg, committed, journal->sequence);
}

int tx_commit(struct tx *tx, uint64_t *sequence)
{
	struct journal *journal = tx_journal(tx);

	journal->sequence++;
	if (!journal->lazy)
		journal->durable = journal->sequence;
	if (sequence)
		*sequence = journal->sequence;
	fake_end(tx, true);
	return 0;
}

void tx_abort(struct tx *tx)
{
	fake_end(tx, false);
}

bool tx_is_durable(struct journal *journal, uint64_t sequence)
{
	return sequence <= journal->durable;
}

int tx_add_hook(struct tx *tx, tx_hook_fn *fn, void *arg)
{
	if (tx->count_hooks == FAKE_HOOKS)
		return -ENOMEM;
	tx->hooks[tx->count_hooks].fn = fn;
	tx->hooks[tx->count_hooks++].arg = arg;
	return 0;
}

/* --- root --- */

uint64_t root_get(struct journal *journal, enum root_counter counter)
{
	return le64_get(journal->root.counters[counter]);
}

int root_set(struct tx *tx, enum root_counter counter, uint64_t value)
{
	int error = fake_fault(tx_journal(tx));

	if (error == 0)
		tx_journal(tx)->root.counters[counter] = le64_make(value);
	return error;
}

int root_add(struct tx *tx, enum root_counter counter, int64_t delta)
{
	uint64_t value = root_get(tx_journal(tx), counter);

	if (delta < 0 && value < (uint64_t)-delta)
		return -EUCLEAN;
	return root_set(tx, counter, value + (uint64_t)delta);
}

void root_tree_get(struct journal *journal, unsigned tree, maddr_t *address, unsigned *level)
{
	*address = le64_get(journal->root.trees[tree].address);
	*level = journal->root.trees[tree].level;
}

int root_tree_set(struct tx *tx, unsigned tree, maddr_t address, unsigned level)
{
	struct format_tree_root *root = &tx_journal(tx)->root.trees[tree];
	int error = fake_fault(tx_journal(tx));

	if (error < 0)
		return error;
	root->address = le64_make(address);
	root->level = (uint8_t)level;
	return 0;
}
