/* Assertions for inner loops: those of Check write a mark to a file each time. */
#ifndef TESTS_SUPPORT_EXPECT_H
#define TESTS_SUPPORT_EXPECT_H

#include <check.h>

#define expect(condition)                                                                          \
	do {                                                                                       \
		if (!(condition))                                                                  \
			ck_abort_msg("%s", #condition);                                            \
	} while (0)

#define expect_equal(a, b)                                                                         \
	do {                                                                                       \
		long long expect_a = (long long)(a), expect_b = (long long)(b);                    \
		if (expect_a != expect_b)                                                          \
			ck_abort_msg("%s == %s: %lld, %lld", #a, #b, expect_a, expect_b);          \
	} while (0)

#endif
