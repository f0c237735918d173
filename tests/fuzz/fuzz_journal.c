/*
 * Target: recovery. An input builds a log of records, heads, blocks at home and poison-log entries that lie about each other; then the journal and the
 * poison log are opened, read, written, closed and opened again. What a commit acknowledged must be there after the next open, unless something is
 * poisoned or was lost.
 */
#include <errno.h>
#include <stdlib.h>

#include "journal/buf.h"
#include "journal/root.h"
#include "journal/tx.h"
#include "notify/poison_log.h"
#include "tests/fuzz/journal_medium.h"
#include "tests/fuzz/mutator.h"
#include "tests/fuzz/target.h"

#define ADDRESSES 48u
#define USES 16u

/* [0]: a single copy of everything, [1]: two. */
static struct journal_medium media[2];

/* --- copies that were refused --- */

#define REPORTS_MAX 64u

static maddr_t reported[REPORTS_MAX];
static unsigned count_reported;

static void note_copy(void *arg, maddr_t address, unsigned copy, devoff_t offset, const char *reason)
{
	if (count_reported < REPORTS_MAX)
		reported[count_reported++] = address;
}

/*
 * What the daemon does as soon as it hears of one. A copy that was refused because it is ahead of the log is not, once the log has grown: it must be
 * rewritten before anything is promised.
 */
static void repair_reported(struct journal *journal)
{
	unsigned repaired, count = count_reported; /* a repair may report again */

	for (unsigned i = 0; i < count; i++)
		journal_repair(journal, reported[i], &repaired);
	count_reported = 0;
}

/* --- using it --- */

static void read_all(struct journal *journal, const struct journal_medium *m)
{
	for (unsigned i = 0; i < ADDRESSES; i++) {
		struct buf *buf = NULL;

		journal_read_begin(journal);
		if (!buf_get_any(journal, journal_medium_address(m, i), &buf))
			buf_put(buf);
		if (!buf_get(journal, journal_medium_address(m, i), FORMAT_ROLE_NODE, FORMAT_TREE_INODES, &buf))
			buf_put(buf);
		journal_read_end(journal);
	}
}

struct promise { /* what the last acknowledged commit wrote */
	maddr_t address;
	uint8_t value;
	bool given;
};

static int change(struct tx *tx, maddr_t address, uint8_t value)
{
	struct buf *buf = NULL;
	int error = buf_get(tx_journal(tx), address, FORMAT_ROLE_NODE, FORMAT_TREE_INODES, &buf);

	if (!error)
		error = tx_join(tx, buf);
	if (!error)
		memset(buf->data + 128, value, 64);
	if (buf)
		buf_put(buf);
	return error;
}

static void commit_change(struct journal *journal, maddr_t address, uint8_t value, struct promise *promise)
{
	struct tx *tx;

	if (tx_begin(journal, TX_NORMAL, &tx))
		return;
	if (change(tx, address, value)) {
		tx_abort(tx);
		return;
	}
	if (!tx_commit(tx, NULL))
		*promise = (struct promise){address, value, true};
}

static void commit_create(struct journal *journal)
{
	struct buf *buf = NULL;
	struct tx *tx;

	if (tx_begin(journal, TX_RESERVE, &tx))
		return;
	if (buf_create(tx, FORMAT_ROLE_NODE, FORMAT_TREE_DIRENTS, &buf)) {
		tx_abort(tx);
		return;
	}
	buf_put(buf);
	tx_commit(tx, NULL);
}

static void commit_destroy(struct journal *journal, maddr_t address, struct promise *promise)
{
	struct buf *buf = NULL;
	struct tx *tx;

	if (tx_begin(journal, TX_NORMAL, &tx))
		return;
	if (buf_get(journal, address, FORMAT_ROLE_NODE, FORMAT_TREE_INODES, &buf)) {
		tx_abort(tx);
		return;
	}
	if (buf_destroy(tx, buf)) {
		tx_abort(tx);
		return;
	}
	if (promise->address == address)
		promise->given = false;
	tx_commit(tx, NULL);
}

static void obey(struct journal *journal, const struct journal_medium *m, const struct order *order, struct promise *promise)
{
	struct bytes bytes = order_bytes(order);
	unsigned opcode = bytes_u8(&bytes) % 8, index = bytes_u16(&bytes), repaired;
	maddr_t address = journal_medium_address(m, index % ADDRESSES);

	repair_reported(journal);
	switch (opcode) {
	case 0:
	case 1:
	case 2:
		commit_change(journal, m->blocks[index % JOURNAL_BLOCKS], bytes_u8(&bytes), promise);
		break;
	case 3:
		commit_create(journal);
		break;
	case 4:
		commit_destroy(journal, m->blocks[index % JOURNAL_BLOCKS], promise);
		break;
	case 5:
		journal_repair(journal, address, &repaired);
		break;
	case 6:
		journal_checkpoint(journal);
		break;
	default:
		buf_drop_clean(journal);
		break;
	}
}

static struct promise use(struct journal *journal, const struct journal_medium *m, const struct program *program)
{
	struct promise promise = {0};
	unsigned uses = 0;

	read_all(journal, m);
	for (size_t i = 0; i < program->count && uses < USES; i++)
		if (program->orders[i].kind % JOURNAL_ORDERS == JOURNAL_USE) {
			obey(journal, m, &program->orders[i], &promise);
			uses++;
		}
	return promise;
}

/* --- opening it --- */

static struct journal *open_journal(struct journal_medium *m, bool readonly, struct why *why)
{
	struct journal_options options = {.readonly = readonly, .cache_bytes = 1u << 20};
	struct journal *journal = NULL;

	why->text[0] = '\0';
	if (journal_open(medium_media(m->medium), &m->super, &options, why, &journal)) {
		if (!why->text[0])
			target_fail("a journal was refused without a word", "");
		return NULL;
	}
	count_reported = 0;
	journal_set_bad_copy_handler(journal, note_copy, NULL);
	return journal;
}

static void keep_promise(struct journal *journal, const struct promise *promise)
{
	struct buf *buf = NULL;
	int error;

	journal_read_begin(journal);
	error = buf_get(journal, promise->address, FORMAT_ROLE_NODE, FORMAT_TREE_INODES, &buf);
	journal_read_end(journal);
	if (error || buf->data[128] != promise->value)
		target_fail("a committed change is gone", error ? "not readable" : "old content");
	buf_put(buf);
}

static bool is_poisoned(const struct program *program)
{
	for (size_t i = 0; i < program->count; i++)
		if (program->orders[i].kind % JOURNAL_ORDERS == JOURNAL_POISON)
			return true;
	return false;
}

static void open_and_use(struct journal_medium *m, const struct program *program)
{
	struct why why;
	struct journal *journal = open_journal(m, program->head[0] & JOURNAL_READONLY, &why);
	struct promise promise;

	if (!journal)
		return;
	promise = use(journal, m, program);
	journal_shutdown(journal); /* as if killed: nothing is written home */
	journal_close(journal);
	if (!(program->head[0] & JOURNAL_TWICE))
		return;
	lab_reset(medium_lab(m->medium));
	journal = open_journal(m, false, &why);
	if (!journal && promise.given && !is_poisoned(program))
		target_fail("a journal that took a commit cannot be opened any more", why.text);
	if (!journal)
		return;
	if (promise.given && !is_poisoned(program))
		keep_promise(journal, &promise);
	read_all(journal, m);
	journal_close(journal);
}

/* --- the poison log --- */

static int count_entry(void *arg, const struct poison_entry *entry)
{
	++*(unsigned *)arg;
	return 0;
}

static void use_poison_log(struct journal_medium *m, const struct program *program)
{
	struct poison_entry entry = {.offset = 4096, .length_bytes = 512, .state = BADBLOCK_BAD, .source = FAILURE_SIGBUS};
	struct poison_log *log;
	unsigned entries = 0, after = 0;

	if (poison_log_open(medium_media(m->medium), &m->super, &log))
		return;
	poison_log_walk(log, count_entry, &entries);
	for (unsigned i = 0; i < 3; i++)
		poison_log_append(log, &entry);
	poison_log_trim(log, poison_log_next_sequence(log) - 1);
	poison_log_wants_trim(log);
	poison_log_walk(log, count_entry, &after);
	if (after > 1)
		target_fail("entries are there after a trim", "");
	poison_log_close(log);
}

/* --- what libFuzzer calls --- */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	target_begin();
	journal_medium_make(&media[0], 1);
	journal_medium_make(&media[1], 2);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct program program;
	struct journal_medium m;

	program_parse(data, size, &program);
	m = media[program.head[0] & JOURNAL_SINGLE ? 0 : 1];
	medium_media(m.medium)->granularity = program.head[0] & JOURNAL_PAGED ? MEDIA_PAGE : MEDIA_CACHELINE;
	journal_medium_spoil(&m, &program);
	if (program.head[0] & JOURNAL_POISON_LOG)
		use_poison_log(&m, &program);
	open_and_use(&m, &program);
	medium_restore(m.medium);
	return 0;
}
