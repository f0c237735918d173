#include "tests/fuzz/target.h"

#include <stdio.h>
#include <stdlib.h>

#include "util/log.h"

/*
 * SIGBUS stays the guard's. The quarantine and the stacks it keeps are small: a mount allocates much, and what it touches anew costs more than it does.
 * Called by the sanitizer's run-time before main().
 */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "handle_sigbus=0:detect_leaks=1:quarantine_size_mb=8:malloc_context_size=8:max_malloc_fill_size=0";
}

const char *__ubsan_default_options(void);
const char *__ubsan_default_options(void)
{
	return "halt_on_error=1:print_stacktrace=1";
}

void target_begin(void)
{
	setenv("MENDFS_BOOT_ID", "fuzz", 1);
	log_set_level(LOG_LEVEL_SILENT);
}

void target_fail(const char *what, const char *detail)
{
	fprintf(stderr, "BROKEN PROMISE: %s: %s\n", what, detail);
	abort();
}
