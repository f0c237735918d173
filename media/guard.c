#include "media/guard.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "media/lines.h"

/* Written by the copy, read by the handler of the same thread. */
struct guard {
	sigjmp_buf jump;
	volatile sig_atomic_t active;
	const struct guard_region *volatile region;
	const unsigned char *volatile cursor;
	struct guard_fault fault;
	sigset_t mask; /* before the signal */
};

/* initial-exec: the handler must not meet a lazily allocated TLS block. */
static _Thread_local struct guard guard __attribute__((tls_model("initial-exec")));

static struct sigaction guard_previous;
static int guard_install_error;

#define KERNEL_SIGSET_BYTES 8u /* all there is of a sigset_t in a signal frame */

/* Not ours: as if we had never been there. */
static void guard_pass_on(int signal_number, siginfo_t *info, void *context)
{
	if (guard_previous.sa_flags & SA_SIGINFO) {
		guard_previous.sa_sigaction(signal_number, info, context);
	} else if (guard_previous.sa_handler != SIG_DFL && guard_previous.sa_handler != SIG_IGN) {
		guard_previous.sa_handler(signal_number);
	} else if (guard_previous.sa_handler == SIG_DFL || info->si_code > 0) {
		/* The faulting instruction runs again and meets the default action; what was sent
		 * is sent again. */
		signal(SIGBUS, SIG_DFL);
		if (info->si_code <= 0 || info->si_code == BUS_MCEERR_AO)
			raise(SIGBUS);
	}
}

static bool guard_is_ours(const siginfo_t *info)
{
	const struct guard_region *region = guard.region;
	uintptr_t address = (uintptr_t)info->si_addr;

	if (!guard.active)
		return false;
	if (info->si_code != BUS_MCEERR_AR && info->si_code != BUS_MCEERR_AO &&
	    info->si_code != BUS_ADRERR)
		return false;
	return address >= (uintptr_t)region->base &&
	       address - (uintptr_t)region->base < region->length;
}

static void guard_handle(int signal_number, siginfo_t *info, void *context)
{
	int saved = errno;

	if (!guard_is_ours(info)) {
		guard_pass_on(signal_number, info, context);
		errno = saved;
		return;
	}
	guard.active = 0;
	memcpy(&guard.mask, &((ucontext_t *)context)->uc_sigmask, KERNEL_SIGSET_BYTES);
	guard.fault = (struct guard_fault){
	    .code = info->si_code,
	    .address = (uintptr_t)info->si_addr - (uintptr_t)guard.region->base,
	    .lsb = info->si_code == BUS_ADRERR ? 0 : (unsigned)info->si_addr_lsb,
	};
	siglongjmp(guard.jump, 1);
}

static void guard_install_once(void)
{
	struct sigaction action = {
	    .sa_sigaction = guard_handle,
	    .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK,
	};

	sigemptyset(&action.sa_mask);
	if (sigaction(SIGBUS, &action, &guard_previous) < 0)
		guard_install_error = -errno;
}

int guard_install(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, guard_install_once);
	return guard_install_error;
}

LINE_INLINE void guard_at(const unsigned char *address)
{
	guard.cursor = address;
	line_barrier();
}

struct guard_copy {
	unsigned char *to;
	const unsigned char *from;
	size_t length;
	const struct guard_how *how;
};

typedef void guard_copy_fn(const struct guard_copy *copy);

LINE_NOT_SANITIZED static void guard_copy_lines(unsigned char *to, const unsigned char *from, size_t count)
{
	for (; count; count--, to += LINE_BYTES, from += LINE_BYTES) {
		guard_at(from);
		line_copy(to, from);
		line_barrier();
	}
}

LINE_WIDE static void guard_copy_lines_wide(unsigned char *to, const unsigned char *from, size_t count)
{
	for (; count; count--, to += LINE_BYTES, from += LINE_BYTES) {
		guard_at(from);
		LINE_COPY_WIDE(to, from);
		line_barrier();
	}
}

LINE_NOT_SANITIZED static void guard_copy_out(const struct guard_copy *copy)
{
	unsigned char *to = copy->to;
	const unsigned char *from = copy->from;
	size_t head = (size_t)min_u64(-(uintptr_t)from % LINE_BYTES, copy->length);
	size_t lines = (copy->length - head) / LINE_BYTES;
	size_t whole = head + lines * LINE_BYTES;

	guard_at(from);
	line_copy_part(to, from, head);
	if (line_can_copy_whole())
		guard_copy_lines_wide(to + head, from + head, lines);
	else
		guard_copy_lines(to + head, from + head, lines);
	guard_at(from + whole);
	line_copy_part(to + whole, from + whole, copy->length - whole);
}

/*
 * Part of a line. It is loaded first, so that poison in it shows here and not in a cache fill
 * behind our back; only our bytes are stored, because its other bytes may be another thread's.
 */
LINE_INLINE void guard_store_part(unsigned char *to, const unsigned char *from, size_t length,
				  const struct guard_how *how)
{
	if (length == 0)
		return;
	guard_at(to);
	(void)*(const volatile unsigned char *)to;
	line_copy_part(to, from, length);
	if (how->flush)
		how->flush(to, length);
}

LINE_INLINE void guard_store_lines(unsigned char *to, const unsigned char *from, size_t from_step,
				   size_t count, const struct guard_how *how)
{
	unsigned char *first = to;
	const unsigned char *end = to + count * LINE_BYTES;

	if (how->nontemporal) {
		for (; to < end; to += LINE_BYTES, from += from_step) {
			guard_at(to);
			line_copy_nontemporal(to, from);
			line_barrier();
		}
		/* Streamed lines are weakly ordered: nobody may see a lock released, or a later
		 * flag, before them. */
		line_fence();
		return;
	}
	for (; to < end; to += LINE_BYTES, from += from_step) {
		guard_at(to);
		line_copy(to, from);
		line_barrier();
	}
	if (how->flush)
		how->flush(first, count * LINE_BYTES);
}

LINE_NOT_SANITIZED static void guard_copy_in(const struct guard_copy *copy)
{
	unsigned char *to = copy->to;
	size_t head = (size_t)min_u64(-(uintptr_t)to % LINE_BYTES, copy->length);
	size_t lines = (copy->length - head) / LINE_BYTES;
	size_t whole = head + lines * LINE_BYTES;

	guard_store_part(to, copy->from, head, copy->how);
	guard_store_lines(to + head, copy->from + head, LINE_BYTES, lines, copy->how);
	guard_store_part(to + whole, copy->from + whole, copy->length - whole, copy->how);
}

LINE_NOT_SANITIZED static void guard_fill_zero(const struct guard_copy *copy)
{
	static const unsigned char zeros[LINE_BYTES];
	unsigned char *to = copy->to;
	size_t head = (size_t)min_u64(-(uintptr_t)to % LINE_BYTES, copy->length);
	size_t lines = (copy->length - head) / LINE_BYTES;
	size_t whole = head + lines * LINE_BYTES;

	guard_store_part(to, zeros, head, copy->how);
	guard_store_lines(to + head, zeros, 0, lines, copy->how);
	guard_store_part(to + whole, zeros, copy->length - whole, copy->how);
}

LINE_NOT_SANITIZED static void guard_copy_line(const struct guard_copy *copy)
{
	guard_at(copy->to);
	if (line_can_copy_whole())
		line_copy_whole(copy->to, copy->from);
	else
		line_copy_nontemporal(copy->to, copy->from);
	line_barrier();
}

static void guard_madvise(const struct guard_copy *copy)
{
	guard_at(copy->to);
	if (madvise(copy->to, copy->length, MADV_HWPOISON) == 0)
		guard_at(copy->to + copy->length);
}

/* Run `run` under the guard. `watched` is the side that lies in the region. */
static size_t guard_run(const struct guard_region *region, guard_copy_fn *run,
			const struct guard_copy *copy, const unsigned char *watched,
			struct guard_fault *fault)
{
	guard.region = region;
	guard.cursor = watched;
	if (sigsetjmp(guard.jump, 0) == 0) {
		guard.active = 1;
		atomic_signal_fence(memory_order_seq_cst);
		run(copy);
		atomic_signal_fence(memory_order_seq_cst);
		guard.active = 0;
		return copy->length;
	}
	/*
	 * The jump does not restore the mask (saving it would cost a system call for each copy),
	 * and SA_NODEFER keeps only SIGBUS out of it: ThreadSanitizer's own handler around ours
	 * blocks everything.
	 */
	pthread_sigmask(SIG_SETMASK, &guard.mask, NULL);
	*fault = guard.fault;
	return (size_t)(guard.cursor - watched);
}

size_t guard_load(const struct guard_region *region, uint64_t offset, void *to, size_t length,
		  struct guard_fault *fault)
{
	struct guard_copy copy = {.to = to, .from = region->base + offset, .length = length};

	return guard_run(region, guard_copy_out, &copy, copy.from, fault);
}

size_t guard_store(const struct guard_region *region, uint64_t offset, const void *from,
		   size_t length, const struct guard_how *how, struct guard_fault *fault)
{
	struct guard_copy copy = {
	    .to = region->base + offset, .from = from, .length = length, .how = how};

	return guard_run(region, guard_copy_in, &copy, copy.to, fault);
}

size_t guard_zero(const struct guard_region *region, uint64_t offset, size_t length,
		  const struct guard_how *how, struct guard_fault *fault)
{
	struct guard_copy copy = {.to = region->base + offset, .length = length, .how = how};

	return guard_run(region, guard_fill_zero, &copy, copy.to, fault);
}

size_t guard_store_line(const struct guard_region *region, uint64_t offset, const void *line,
			const struct guard_how *how, struct guard_fault *fault)
{
	struct guard_copy copy = {
	    .to = region->base + offset, .from = line, .length = LINE_BYTES, .how = how};

	return guard_run(region, guard_copy_line, &copy, copy.to, fault);
}

int guard_hwpoison(const struct guard_region *region, uint64_t offset, size_t length)
{
	struct guard_copy copy = {.to = region->base + offset, .length = length};
	struct guard_fault fault;

	if (guard_run(region, guard_madvise, &copy, copy.to, &fault) < length)
		return 0; /* the signal proves that it is poisoned */
	return guard.cursor == copy.to + length ? 0 : -errno;
}
